"""A lease on a store: one run writes at a time, the others hear who it is.

The lease is a small file `lease-<n>.json` that is made with a conditional write, so that of several runs one succeeds.
Its holder renews it while it lives. One that has died (its process is gone, or it has not renewed for `EXPIRES_S` by
the clock of the storage, never by ours) is followed by a lease with the next number, and the highest number counts: the
old holder, if it was but asleep, sees that before it writes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import psutil

from calfin_cloud.storage.files import create_whole, delete_files, digest, on_disk, open_place, write_whole

log = logging.getLogger(__name__)

EXPIRES_S = 90.0  # a killed run on another machine blocks the store no longer
RENEWS_S = 15.0
NAME = re.compile(r"lease-(\d+)\.json")


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
    lease = _Lease(store, verb)
    stop = threading.Event()
    beat = threading.Thread(target=_renew_until, args=(lease, stop), name="lease", daemon=True)
    beat.start()
    try:
        yield lease.check
    finally:
        stop.set()
        beat.join(RENEWS_S)
        lease.release()


def lease_holder(store: str) -> dict[str, Any] | None:
    """Who writes to the store now: `verb`, `host`, `process`, `since`; None where nobody does."""
    fs, root = open_place(store)
    there = _leases(fs, root)
    return there[max(there)] if there else None


class _Lease:
    """The lease that this process holds."""

    def __init__(self, store: str, verb: str) -> None:
        self.store = store
        self.fs, self.root = open_place(store)
        self.lock = threading.Lock()
        self.lost = False
        self.renewed_s = _clock()
        self.number, self.content = _take(self.fs, self.root, store, verb)

    @property
    def path(self) -> str:
        return f"{self.root}/lease-{self.number}.json"

    def check(self) -> None:
        """Raise if the lease is lost; ask the storage only where it may have expired meanwhile."""
        with self.lock:
            if self.lost or _clock() - self.renewed_s > EXPIRES_S / 2:
                self._renew()

    def renew(self) -> None:
        with self.lock:
            self._renew()

    def release(self) -> None:
        with self.lock, suppress(OSError):
            if not self.lost:
                self.lost = True  # a thread that outlives its run writes no more either
                delete_files(self.fs, [self.path])

    def _renew(self) -> None:
        began_s = _clock()
        if self.lost or self.number != max(_leases(self.fs, self.root), default=None):
            self._lose()
        try:
            _touch(self.fs, self.path, self.content)
        except FileNotFoundError:
            self._lose()
        # Stopped between looking and touching, it may have brought back a lease that had ended.
        if _clock() - began_s > EXPIRES_S / 2:
            self._lose()
        self.renewed_s = began_s

    def _lose(self) -> None:
        self.lost = True
        raise LeaseLostError(
            f"{self.store}: this run was silent for more than {EXPIRES_S:.0f} s and another one has taken the store "
            "over; nothing more is written here: run the same again after it has ended"
        )


def _renew_until(lease: _Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEWS_S):
        try:
            lease.renew()
        except LeaseLostError:
            return  # the next check says so where it can be acted upon
        except Exception as error:
            log.warning("%s: the lease could not be renewed: %s", lease.store, type(error).__name__)


def _take(fs: fsspec.AbstractFileSystem, root: str, store: str, verb: str) -> tuple[int, bytes]:
    """Make the lease of the next number, if no living run has one; return number and content."""
    now = _storage_time(fs, root)
    before = _leases(fs, root)
    for number, holder in before.items():
        if not _has_ended(holder, fs, f"{root}/lease-{number}.json", now):
            raise StoreInUseError(_in_use(store, holder))
    number = max(before, default=0) + 1
    path, content = f"{root}/lease-{number}.json", _who(verb, now)
    if not create_whole(fs, path, content):
        raise StoreInUseError(_in_use(store, _leases(fs, root).get(number, {})))
    after = {n: holder for n, holder in _leases(fs, root).items() if n != number}
    # Another run may have begun between our two looks under a number that was free again.
    if new := [holder for n, holder in after.items() if holder.get("token") != before.get(n, {}).get("token", "")]:
        delete_files(fs, [path])
        raise StoreInUseError(_in_use(store, new[0]))
    delete_files(fs, [f"{root}/lease-{n}.json" for n in after])
    _delete_old_probes(fs, root, now)
    if create_whole(fs, path, content + b"\n"):
        log.warning("%s: its storage has no conditional writes: nothing keeps two runs at once apart", store)
    return number, content


def _leases(fs: fsspec.AbstractFileSystem, root: str) -> dict[int, dict[str, Any]]:
    """Contents of the leases of a store by number; one that is just being written has none yet."""
    found: dict[int, dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        for path in fs.ls(root, detail=False):
            if match := NAME.fullmatch(path.rpartition("/")[2]):
                with suppress(FileNotFoundError):
                    found[int(match[1])] = _parse(bytes(fs.cat_file(path)))
    return found


def _parse(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _who(verb: str, now: datetime) -> bytes:
    about = {
        "verb": verb,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": now.isoformat(timespec="seconds"),
        "machine": _machine(),
        "started": _started(os.getpid()),
        "token": secrets.token_hex(8),
    }
    return (json.dumps(about, indent=1) + "\n").encode()


def _in_use(store: str, holder: dict[str, Any]) -> str:
    return (
        f"{store} is being written by `calfin {holder.get('verb', '?')}` on {holder.get('host', '?')} "
        f"(process {holder.get('process', '?')}) since {holder.get('since', '?')}: wait for its end; "
        f"a run that was killed on another machine frees the store after {EXPIRES_S:.0f} s"
    )


def _has_ended(holder: dict[str, Any], fs: fsspec.AbstractFileSystem, path: str, now: datetime) -> bool:
    """Whether the process of a lease is gone, if it is one of this machine, or has long not renewed it."""
    if holder.get("machine") == _machine() and _started(int(holder["process"])) != holder["started"]:
        return True
    try:
        return bool((now - fs.modified(path)).total_seconds() > EXPIRES_S)
    except FileNotFoundError:
        return True


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


def _storage_time(fs: fsspec.AbstractFileSystem, root: str) -> datetime:
    """Time by the clock of the storage: that of a file just written there."""
    path = f"{root}/lease-now-{secrets.token_hex(8)}"
    write_whole(fs, path, b"now")
    try:
        now: datetime = fs.modified(path)
    finally:
        delete_files(fs, [path])
    return now


def _delete_old_probes(fs: fsspec.AbstractFileSystem, root: str, now: datetime) -> None:
    """Delete what runs that were killed while they asked for the time have left behind."""
    for path in fs.ls(root, detail=False):
        with suppress(FileNotFoundError):
            if "/lease-now-" in path and (now - fs.modified(path)).total_seconds() > EXPIRES_S:
                delete_files(fs, [path])


def _touch(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> None:
    if on_disk(fs):
        os.utime(path)  # fails if it is gone, where a write would bring it back
    else:
        fs.pipe_file(path, content)


def _clock() -> float:
    """Seconds that go on while the process, or the machine, is asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
