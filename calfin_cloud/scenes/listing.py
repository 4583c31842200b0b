"""Features in any order in, with repeats; each id once, sorted by time and id, out: through a temporary file."""

from __future__ import annotations

import logging
import marshal
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from itertools import islice
from typing import Any

from calfin_cloud.scenes.reading import uncollected

log = logging.getLogger(__name__)


class Counted(Iterator[Any]):
    """Values that are handed out one by one, and of which it is known how many are left (`operator.length_hint`)."""

    def __init__(self, values: Iterator[Any], length: int) -> None:
        self._values, self._length = values, length

    def __next__(self) -> Any:  # noqa: ANN401 - whatever is handed out
        value = next(self._values)
        self._length -= 1
        return value

    def __length_hint__(self) -> int:
        return max(0, self._length)


TABLE = """
CREATE TABLE listing (
    id TEXT PRIMARY KEY, age REAL, moment REAL, collection TEXT, content BLOB
)"""

KEEP_BEST = """
INSERT INTO listing VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET age = excluded.age, moment = excluded.moment, collection = excluded.collection, content = excluded.content
WHERE (excluded.age, excluded.moment, excluded.collection) < (age, moment, collection)"""
"""Which of the items with one id stays must not depend on the order of the pages: a resumed run cuts alike."""

ROWS_AT_ONCE = 100  # that are taken in while the collector waits: a page of a catalogue

READ = "SELECT content FROM listing INDEXED BY by_time ORDER BY moment, id"


def sort_unique(features: Iterable[dict[str, Any]], *, name: str) -> Counted:
    """Read all features, then hand them out sorted by `properties.datetime` (ISO 8601) and id, each id once.

    Of those with one id the one `updated` last stays, else the earliest, else the first collection by name. `name` is
    the catalogue's, for messages.
    """
    with ExitStack() as stack:
        # A database without a name is a file that SQLite unlinks when it opens it: even a kill leaves nothing behind.
        listing = stack.enter_context(closing(sqlite3.connect("", check_same_thread=False)))
        try:
            n_listed = _fill(listing, features)
        except sqlite3.OperationalError as error:
            raise OSError(
                f"cannot keep the listing of {name} in a temporary file: {error}; make room in "
                f"{tempfile.gettempdir()}, about 5 KB a scene, or name another folder in TMPDIR"
            ) from error
        (n_unique,) = listing.execute("SELECT count(*) FROM listing").fetchone()
        if n_unique < n_listed:
            log.info("%s: %d items repeat the id of another and are left out", name, n_listed - n_unique)
        stack.pop_all()
    found = Counted(_drain(listing), n_unique)
    weakref.finalize(found, listing.close)  # also where nobody takes the first one
    return found


def _fill(listing: sqlite3.Connection, features: Iterable[dict[str, Any]]) -> int:
    listing.execute("PRAGMA journal_mode = OFF")  # what fails is thrown away whole
    listing.execute(TABLE)
    n_listed, waiting = 0, iter(features)
    while rows := _next_rows(waiting):
        n_listed += len(rows)
        listing.executemany(KEEP_BEST, rows)
    listing.execute("CREATE INDEX by_time ON listing (moment, id)")
    listing.commit()
    return n_listed


def _next_rows(features: Iterator[dict[str, Any]]) -> list[tuple[str, float, float, str, bytes]]:
    with uncollected():
        return [_row(feature) for feature in islice(features, ROWS_AT_ONCE)]


def _row(feature: dict[str, Any]) -> tuple[str, float, float, str, bytes]:
    moment = datetime.fromisoformat(feature["properties"]["datetime"]).timestamp()
    content = marshal.dumps(feature)  # 2 to 5 KB without the assets that nothing reads, in a fifth of JSON's time
    return feature["id"], _age(feature), moment, feature.get("collection") or "", content


def _age(feature: dict[str, Any]) -> float:
    """Lower for what was updated later; 0 where the item does not say."""
    try:
        return -datetime.fromisoformat(feature["properties"]["updated"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _drain(listing: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    with closing(listing):
        for (content,) in listing.execute(READ):
            yield marshal.loads(content)
