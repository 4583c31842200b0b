"""How often failed scenes were tried again, and when: kept beside the tables, which know no time of processing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from calfin_cloud.storage.files import looking_twice, open_place, seal, unseal
from calfin_cloud.storage.leases import commit_whole

WAITS = (timedelta(0), timedelta(days=5), timedelta(days=25))
"""Least time before the first, second and third new try of a failed scene; none follows: what fails then is broken."""

REMEDY = "delete it: failed scenes are tried from the beginning"
NAME = "tries.json"


def due_keys(store: str, failed: Iterable[str], now: datetime) -> list[str]:
    """Keys of failed scenes whose next try is due.

    Parameters
    ----------
    failed
        Keys of all scenes of the store that have failed.
    now
        With a zone.
    """
    tried = _read(store)
    return [key for key in failed if _is_due(*tried.get(key, (0, now.isoformat())), now=now)]


def note_tries(
    store: str, keys: Iterable[str], failed: Iterable[str], now: datetime, check: Callable[[], None]
) -> None:
    """Count one more try of scenes and forget those that have not failed; `check` raises where we must not write."""
    tried, again = _read(store), set(keys)
    kept = {key: tried.get(key, (0, "")) for key in failed}
    kept = {key: (n + 1, now.isoformat()) if key in again else (n, last) for key, (n, last) in kept.items()}
    _replace(store, tried, {key: of for key, of in kept.items() if of[0]}, check)


def take_tries(store: str, others: Iterable[str], check: Callable[[], None]) -> None:
    """Count the tries of other stores too, where this one counts none of a scene; `check` as in `note_tries`."""
    tried = _read(store)
    theirs = {key: of for other in others for key, of in _read(other).items()}
    _replace(store, tried, theirs | tried, check)


def _is_due(n_tries: int, last: str, *, now: datetime) -> bool:
    return n_tries < len(WAITS) and (n_tries == 0 or now - datetime.fromisoformat(last) >= WAITS[n_tries])


def _replace(
    store: str, old: dict[str, tuple[int, str]], new: dict[str, tuple[int, str]], check: Callable[[], None]
) -> None:
    if new == old:
        return
    fs, root = open_place(store)
    check()
    commit_whole(fs, root, f"{root}/{NAME}", seal({"tries": {key: list(of) for key, of in sorted(new.items())}}))


@looking_twice
def _read(store: str) -> dict[str, tuple[int, str]]:
    """Read the number of tries and the time of the last one, by key."""
    fs, root = open_place(store)
    path = f"{root}/{NAME}"
    try:
        data = bytes(fs.cat_file(path))
    except FileNotFoundError:
        return {}
    return {key: (int(n), str(last)) for key, (n, last) in unseal(data, path, REMEDY)["tries"].items()}
