"""Verdicts of people on fronts: kept beside the fronts, which they never overwrite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from calfin_cloud.storage.files import digest, open_place, read_sealed, seal, write_whole

REMEDY = "apply the file of verdicts that it was made of once more"


def write_review(store: str, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Keep a file of verdicts (JSON values) under a name made of its content, so that keeping it twice is once."""
    fs, root = open_place(store)
    text = json.dumps(list(verdicts), sort_keys=True)
    path = f"{root}/reviews/{digest(text.encode())}.json"
    write_whole(fs, path, seal({"verdicts": list(verdicts)}))
    return path


def read_reviews(store: str) -> list[dict[str, Any]]:
    """Read all verdicts of a store, the oldest first by the instant they name, whatever its offset from UTC."""
    fs, root = open_place(store)
    found = [v for content in read_sealed(fs, f"{root}/reviews", REMEDY).values() for v in content["verdicts"]]
    return sorted(found, key=lambda verdict: (instant(verdict["time"]), json.dumps(verdict, sort_keys=True)))


def instant(time: object) -> datetime:
    """Return the instant that a time in ISO form names, in UTC; a bare time is UTC. Raises `ValueError` for others.

    >>> instant("2026-01-31T14:00:00+02:00").isoformat()
    '2026-01-31T12:00:00+00:00'
    """
    try:
        found = datetime.fromisoformat(str(time))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"a time must be within the years 1 to 9999, got {time!r}") from None
