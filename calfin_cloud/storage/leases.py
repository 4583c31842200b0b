"""A lease on a store: one run writes at a time, the others hear who it is, and one that was followed commits no more.

`lease-holder.json` names the run that holds the store by a token that is never used twice. It is made with a
conditional write, so that of several runs one succeeds. All other files of a run have its token in their names:
`lease-<token>` is its sign of life, and each commit is staged as `lease-<token>-<random>` before it gets its name.

A run whose process is gone, or that has given no sign for `EXPIRES_S` by the clock of the storage (never by ours), is
followed. The follower first deletes all files with other tokens, and only then looks at the store. So a commit that
the old run staged before is gone, one that it stages later is not renamed since the holder is another, and it makes no
difference how long anyone slept between any two steps.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fsspec
import psutil

from calfin_cloud.object_stores import telling_lacks
from calfin_cloud.storage.files import (
    create_whole,
    delete_files,
    digest,
    move_file,
    open_place,
    read_steady,
    write_whole,
)

log = logging.getLogger(__name__)

EXPIRES_S = 90.0  # a killed run on another machine blocks the store no longer
RENEWS_S = 15.0
ATTEMPTS = 5
HOLDER = "lease-holder.json"

_held: ContextVar[Mapping[str, _Lease]] = ContextVar("_held", default=MappingProxyType({}))
"""Leases by the path of the store. A thread that works for a run has a copy of its context, so that it keeps the lease
of that run beyond its end, and commits no more: not even where the process holds the store again."""


_alive: set[str] = set()
"""Tokens of the runs of this process that have not ended: one whose storage fell silent could not give its lease back,
and the next one need not wait until it expires."""


class StoreInUseError(OSError):
    """Another run holds the store."""

    exit_code = 3  # of the command line: the same call may succeed later


class LeaseLostError(OSError):
    """Another run has taken over the store that this one held."""

    exit_code = 3


@contextmanager
def hold_lease(store: str, verb: str) -> Iterator[Callable[[], None]]:
    """Hold a store while writing to it; lends what to call before each write: it raises once the lease is lost.

    Raises `StoreInUseError` where another run holds it.
    """
    lease = _Lease(store, verb, open_place(store))
    try:
        with telling_lacks(store):
            lease.take()
    except BaseException:
        lease.leave()
        raise
    stop = threading.Event()
    beat = threading.Thread(target=_give_signs, args=(lease, stop), name="lease", daemon=True)
    beat.start()
    before = _held.set({**_held.get(), lease.root: lease})
    try:
        yield lease.check
    finally:
        _held.reset(before)
        stop.set()
        beat.join(RENEWS_S)
        lease.leave()


def lease_holder(store: str) -> dict[str, Any] | None:
    """Who writes to the store now: `verb`, `host`, `process`, `since`; None where nobody does.

    `free_from` is when the store is free if that run was killed: at once where its process is one of this machine.
    """
    fs, root = open_place(store)
    if (holder := _holder(fs, root)) is None:
        return None
    try:
        last = _last_sign(fs, root, holder)
    except FileNotFoundError:
        return None
    gone = _is_gone(holder)
    return holder | {"free_from": "now" if gone else _instant(last + timedelta(seconds=EXPIRES_S))}


def told_holder(holder: Mapping[str, Any]) -> str:
    """Say who writes to a store, and when it is free if that run was killed.

    >>> told_holder({"verb": "map", "host": "a", "process": 7, "free_from": "now"})
    '`calfin map` on a (process 7) was killed while it wrote: the store is free'
    """
    who = _named(holder)
    if holder.get("free_from") == "now":
        return f"{who} was killed while it wrote: the store is free"
    return f"{who} writes to it now; if it was killed, the store is free from {holder.get('free_from', '?')} on"


def commit_whole(fs: fsspec.AbstractFileSystem, root: str, path: str, data: bytes) -> None:
    """Write all of a file or nothing; for a run that held the store at `root`, only while it holds it still."""
    if lease := _held.get().get(root):
        lease.commit(path, data)
    else:
        write_whole(fs, path, data)


class _Lease:
    """The lease that this process holds, or would like to."""

    def __init__(self, store: str, verb: str, place: tuple[fsspec.AbstractFileSystem, str]) -> None:
        self.store = store
        self.fs, self.root = place
        self.token = secrets.token_hex(8)
        self.ended = False
        self.about = _about(verb, self.token)
        self.holder = f"{self.root}/{HOLDER}"
        self.sign = f"{self.root}/lease-{self.token}"

    def take(self) -> None:
        """Become the holder, if no living run is. Call `leave` after an error too: a file may have been written."""
        _alive.add(self.token)
        try:
            self.give_sign()  # before the look: whoever becomes the holder after it deletes the sign
            if (before := _holder(self.fs, self.root)) is None:
                if not create_whole(self.fs, self.holder, self.about):
                    raise self._in_use(_holder(self.fs, self.root) or {})
            elif self._has_ended(before):
                move_file(self.fs, self.sign, self.holder)
                self.give_sign()
            else:
                raise self._in_use(before, _last_sign(self.fs, self.root, before) + timedelta(seconds=EXPIRES_S))
            self._delete_others()
            if not self._is_mine():
                raise self._in_use(_holder(self.fs, self.root) or {})
        except FileNotFoundError:  # of a run that came or went in between
            raise self._in_use(_holder(self.fs, self.root) or {}) from None

    def give_sign(self) -> None:
        write_whole(self.fs, self.sign, self.about)

    def check(self) -> None:
        """Raise if the lease is lost."""
        if self.ended or not self._is_mine():
            self.ended = True
            raise LeaseLostError(
                f"{self.store}: this run has ended, or was silent for more than {EXPIRES_S:.0f} s and another one has "
                "taken the store over; nothing more is written here: run the same again after the other has ended"
            )

    def commit(self, path: str, data: bytes) -> None:
        """Write all of a file or nothing, and only if nobody has followed this run."""
        for _ in range(ATTEMPTS):
            staged = f"{self.sign}-{secrets.token_hex(4)}"
            try:
                write_whole(self.fs, staged, data)
                self.check()
                move_file(self.fs, staged, path)
                return
            except FileNotFoundError:  # deleted by one that followed, or that tried to and came too late
                self.check()
            except Exception:
                with suppress(Exception):
                    delete_files(self.fs, [staged])
                raise
        raise StoreInUseError(f"{self.store}: others delete what this run writes to {path}: wait for their end")

    def leave(self) -> None:
        """Give the lease back, if the storage lets us within a while; what ended the run stays its error."""

        def release() -> None:
            with suppress(Exception):  # not all clients raise OSError
                self.release()

        leaving = threading.Thread(target=release, name="lease", daemon=True)
        leaving.start()
        leaving.join(RENEWS_S)

    def release(self) -> None:
        has_ended, self.ended = self.ended, True  # first, so that a thread that outlives its run writes no more
        try:
            if not has_ended and self._is_mine():
                delete_files(self.fs, [self.holder])
            delete_files(self.fs, [self.sign])
        finally:
            _alive.discard(self.token)  # last: who followed before would lose its own lease by that deletion

    def _is_mine(self) -> bool:
        def names_us(data: bytes) -> bool:
            return self.token.encode() in data  # which no flipped bit does

        try:
            return names_us(read_steady(self.fs, self.holder, names_us))
        except FileNotFoundError:
            return False

    def _files(self) -> list[str]:
        """Paths of the files of all leases but the one that names the holder, half written ones included."""
        found = [str(path) for path in self.fs.ls(self.root, detail=False)]
        names = {path: path.rpartition("/")[2].lstrip(".") for path in found}
        return [path for path, name in names.items() if name.startswith("lease-") and name != HOLDER]

    def _delete_others(self) -> None:
        delete_files(self.fs, [path for path in self._files() if self.token not in path])

    def _has_ended(self, holder: dict[str, Any]) -> bool:
        """Whether the process of a lease is gone, if it is one of this machine, or has long given no sign."""
        if _is_gone(holder):
            return True
        now: datetime = self.fs.modified(self.sign)
        return (now - _last_sign(self.fs, self.root, holder)).total_seconds() > EXPIRES_S

    def _in_use(self, holder: dict[str, Any], until: datetime | None = None) -> StoreInUseError:
        killed = f"; if it was killed, the store is free from {_instant(until)} on" if until else ""
        return StoreInUseError(
            f"{self.store} is being written by {_named(holder)} since {holder.get('since', '?')}: "
            f"wait for its end{killed}"
        )


def _give_signs(lease: _Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEWS_S):
        try:
            lease.check()
            lease.give_sign()
        except LeaseLostError:
            return  # the next check says so where it can be acted upon
        except Exception as error:
            log.warning("%s: no sign of life could be given: %s", lease.store, type(error).__name__)


def _holder(fs: fsspec.AbstractFileSystem, root: str) -> dict[str, Any] | None:
    """Who holds the store; one whose file is damaged, or has odd values, has no name."""
    try:
        content = json.loads(read_steady(fs, f"{root}/{HOLDER}"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    is_ours = isinstance(content, dict) and type(content.get("process", 0)) is int
    return content if is_ours and str(content.get("token", "none")).isalnum() else {}


def _named(holder: Mapping[str, Any]) -> str:
    return f"`calfin {holder.get('verb', '?')}` on {holder.get('host', '?')} (process {holder.get('process', '?')})"


def _is_gone(holder: Mapping[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is gone, or one of this process whose run has ended."""
    if holder.get("machine") != _machine() or not {"process", "started"} <= holder.keys():
        return False
    process = int(holder["process"])
    if _started(process) != holder["started"]:
        return True
    return process == os.getpid() and holder.get("token") not in _alive


def _last_sign(fs: fsspec.AbstractFileSystem, root: str, holder: Mapping[str, Any]) -> datetime:
    """When a holder last said that it lives, by the clock of the storage; it raises where the holder has left since."""
    times: list[datetime] = []
    for path in (f"{root}/{HOLDER}", f"{root}/lease-{holder.get('token')}"):
        with suppress(FileNotFoundError):
            times.append(fs.modified(path))
    if not times:  # no sign is not an old one: who took over a store that is free would push the next holder out
        raise FileNotFoundError(f"{root}/{HOLDER}")
    return max(times)


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _about(verb: str, token: str) -> bytes:
    """Tell who we are."""
    about = {
        "verb": verb,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "started": _started(os.getpid()),
        "token": token,
    }
    return (json.dumps(about, indent=1) + "\n").encode()


def _machine() -> str:
    """Digest of what gives process ids their meaning: the boot of the kernel and the namespace of a container."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        text = f"{socket.gethostname()} {psutil.boot_time():.0f}"
    return digest(text.encode())


def _started(process: int) -> str:
    """When a process of this machine started, since ids are used again; empty for one that is gone or a zombie."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if after_name[0] in "ZX" else after_name[19]  # ticks since boot: no clock moves them
    except FileNotFoundError:
        pass
    except OSError:  # it ended while we looked
        return ""
    try:
        return "" if Path("/proc/self/stat").exists() else f"{psutil.Process(process).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""
