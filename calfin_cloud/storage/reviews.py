"""Verdicts of people on fronts: kept beside the fronts, which they never overwrite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calfin_cloud.storage.files import digest, list_files, open_place, seal, unseal, write_whole

REMEDY = "apply the file of verdicts that it was made of once more"


def write_review(store: str, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Keep a file of verdicts (JSON values) under a name made of its content, so that keeping it twice is once."""
    fs, root = open_place(store)
    text = json.dumps(list(verdicts), sort_keys=True)
    path = f"{root}/reviews/{digest(text.encode())}.json"
    write_whole(fs, path, seal({"verdicts": list(verdicts)}))
    return path


def read_reviews(store: str) -> list[dict[str, Any]]:
    """Read all verdicts of a store, the oldest first by the time they name."""
    fs, root = open_place(store)
    found = [
        verdict
        for path in list_files(fs, f"{root}/reviews", ".json")
        for verdict in unseal(fs.cat_file(path), path, REMEDY)["verdicts"]
    ]
    return sorted(found, key=lambda verdict: str(verdict["time"]))
