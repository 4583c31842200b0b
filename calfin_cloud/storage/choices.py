"""What `calfin reconcile` chose among the candidates of all dates: beside the fronts, a file a domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calfin_cloud.schema import check_name
from calfin_cloud.storage.files import open_place, read_sealed, seal, write_whole

REMEDY = "delete it and run `calfin reconcile` on the store once more"


def write_choices(store: str, domain: str, choices: Mapping[str, Any]) -> None:
    """Keep the choices of a domain (JSON values, see `results.choosing`) in place of earlier ones."""
    fs, root = open_place(store)
    write_whole(fs, f"{root}/choices/{check_name(domain)}.json", seal(choices))


def read_choices(store: str) -> dict[str, dict[str, Any]]:
    """Read the choices of a store by domain; empty where `calfin reconcile` has not run."""
    fs, root = open_place(store)
    return read_sealed(fs, f"{root}/choices", REMEDY)
