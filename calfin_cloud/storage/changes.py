"""All of a store is changed: first what the change needs is tried, then the store is marked until the end."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import fsspec

from calfin_cloud.domains import Domain, domains_json, read_domains
from calfin_cloud.storage.batches import REPLACED, SIDES, Stored
from calfin_cloud.storage.files import delete_files, on_disk, open_place, read_each, write_whole
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.stores import check_finished, read_store, read_store_domains, rewrite_store, unfinished_change

DOMAINS_BEFORE = f"{REPLACED}/domains.geojson"
FOLDERS = ("fronts", *SIDES, REPLACED, "domains", "masks", "pictures")
RESERVE = 64 * 2**20  # bytes that stay free: what is written again is seldom larger than that it replaces


def check_room(store: str, batches: Iterable[Stored] = ()) -> None:
    """Try to write and delete in each folder of a store, and ask its disk for room to write `batches` once more.

    Raises
    ------
    OSError
        Where the storage refuses a file, or the disk has too little room.
    """
    fs, root = open_place(store)
    read_each(lambda folder: _try_folder(fs, f"{root}/{folder}"), FOLDERS)
    if on_disk(fs):
        wanted = RESERVE + sum(_size(fs, root, stored) for stored in batches)
        free = shutil.disk_usage(root).free
        if free < wanted:
            raise OSError(
                f"{store} has {free >> 20} MB of free space, and the change needs {wanted >> 20} MB, since what it "
                "replaces stays for a day: make room; nothing was changed"
            )


def begin_change(store: str, verb: str, **changes: object) -> None:
    """Say that `verb` is about to change all of a store to be as if made with `changes` (JSON values).

    Until `end_change` the store is unfinished, and all verbs but this one refuse it. What it was made with, and its
    domains, are kept for the way back, those of the first of several stopped changes.
    """
    check_finished(store, verb=verb)
    found = read_store(store)
    fs, root = open_place(store)
    mark = unfinished_change(found)
    if mark is None or "before" not in mark:
        before = {name: value for name, value in found.items() if name != "unfinished"}
        domains = read_store_domains(store)
        commit_whole(fs, root, f"{root}/{DOMAINS_BEFORE}", domains_json(domains).encode() if domains else b"")
    else:
        before = mark["before"]
    mark = {"verb": verb, "by": _me(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "before": before}
    rewrite_store(store, found | json.loads(json.dumps(changes)) | {"unfinished": mark})


def end_change(store: str) -> None:
    """Say that the change has come to its end."""
    rewrite_store(store, {k: v for k, v in read_store(store).items() if k != "unfinished"})


def before_change(store: str) -> tuple[dict[str, Any], list[Domain]]:
    """Return what a store was made with before the change that was stopped on it, and its domains then.

    Raises
    ------
    ValueError
        No change was stopped on it, or by a version that did not keep this.
    """
    mark = unfinished_change(read_store(store)) or {}
    if "before" not in mark:
        raise ValueError(f"{store} has no change that was stopped: there is nothing to go back to")
    fs, root = open_place(store)
    path = f"{root}/{DOMAINS_BEFORE}"
    with fs.open(path, "rb") as file:
        return mark["before"], read_domains(file) if fs.info(path)["size"] else []


def _try_folder(fs: fsspec.AbstractFileSystem, folder: str) -> None:
    path = f"{folder}/.try.part"  # always the same: what a killed run leaves, the next one takes away
    try:
        write_whole(fs, path, b"try")
        delete_files(fs, [path])
    except (PermissionError, FileExistsError, NotADirectoryError) as error:  # not a silent storage, nor a full disk
        raise OSError(
            f"{folder} takes no file ({type(error).__name__}: {error}): give this user the right to write and delete "
            "there; nothing was changed"
        ) from error


def _size(fs: fsspec.AbstractFileSystem, root: str, stored: Stored) -> int:
    names = [f"fronts/{stored.name}", *(f"{folder}/{name}" for folder, name in stored.files.items())]
    return sum(int(fs.size(path) or 0) for name in names if fs.exists(path := f"{root}/{name}"))


def _me() -> str:
    """User, host and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}, process {os.getpid()}"
