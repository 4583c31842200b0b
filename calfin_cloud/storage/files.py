"""Files of a store on disk or in a bucket: written whole or not at all, made once, sealed, read as of one moment."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem

from calfin_cloud.object_stores import EXTRAS, open_files, store_text
from calfin_cloud.schema import SceneError

READERS = 16  # threads: reading many small objects waits for the network
WRITE_S, SLOWEST_BYTES_S = 120.0, 32_000.0
"""How long an object may take to be written: longer than a client tries again, and more the larger it is. Clients wait
for ever for a server that does not take a body: aiohttp's limits begin once it is sent."""
LOOKS = 50  # at files that change while they are read, before giving up
SEAL = "sha256"
SCHEMES = ("file", *EXTRAS)
MARKS = ("ETag", "etag", "generation", "ino", "mtime", "LastModified", "last_modified", "size")
"""What tells, in the listings of file systems, that a file is no longer the one it was."""

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")


class DamagedFileError(SceneError, ValueError):
    """A file of a store that is not as it was written; the message names it and says what to do."""

    def __init__(self, path: str, found: str, remedy: str) -> None:
        SceneError.__init__(self, "unreadable", f"{path} is damaged ({found}): {remedy}")
        self.about = (path, found, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.about


def store_address(store: str | os.PathLike[str]) -> str:
    """Address of a store with the home folder spelt out; raise `ValueError` where no store can be.

    >>> store_address("file:///data/fronts/"), store_address("s3://fronts")
    ('/data/fronts', 's3://fronts')
    """
    store = store_text(store)
    scheme, has_scheme, rest = store.partition("://")
    path = rest if has_scheme else store
    if "::" in store or (has_scheme and scheme not in SCHEMES) or not path.strip("/ "):
        raise ValueError(
            f"a store must be a folder or an address that begins with {', '.join(f'{s}://' for s in SCHEMES)}, "
            f"got {store!r}"
        )
    if not has_scheme or scheme == "file":
        return os.path.expanduser(path).rstrip("/") or "/"
    return store.rstrip("/")


def open_place(store: str | os.PathLike[str]) -> tuple[fsspec.AbstractFileSystem, str]:
    """Open the file system of a store and its path there."""
    fs, root = open_files(store_address(store))
    return fs, root.rstrip("/")


def write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write all of a file or nothing: a temporary name and a rename on disks, one PUT on object stores."""
    if "s3" in _protocols(fs):  # the server refuses a body that was damaged on its way
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        _put(fs, path, data, chunksize=max(len(data), 1), ContentMD5=digest)
    elif on_disk(fs):
        _write_on_disk(path, data)
    else:
        _put(fs, path, data)


def _put(fs: fsspec.AbstractFileSystem, path: str, data: bytes, **more: Any) -> None:  # noqa: ANN401 - of the client
    """Write an object; raise `TimeoutError` where the server does not take it."""
    if isinstance(fs, AsyncFileSystem):
        more["timeout"] = WRITE_S + len(data) / SLOWEST_BYTES_S
    fs.pipe_file(path, data, **more)


def create_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a small file that is not there yet, and return whether it was so: of several writers one succeeds."""
    if on_disk(fs):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            file = open(path, "xb")  # noqa: SIM115 - closed below, since a full disk may say so only then
        except FileExistsError:
            return False
        with _undone(path, path), file:
            file.write(data)
        return True
    for attempt in range(2):  # whoever a server saw writing at the same moment may be gone by the second
        try:
            _put(fs, path, data, mode="create")
        except OSError as error:  # servers say in several ways that it is there already, not all become FileExistsError
            try:
                return bytes(fs.cat_file(path)) == data  # a PUT repeated after a lost answer finds its own object
            except FileNotFoundError:  # it has gone again since
                if isinstance(error, FileExistsError):
                    return False
                if attempt:
                    raise error from None
        else:
            return True
    return False


def move_file(fs: fsspec.AbstractFileSystem, path: str, to: str) -> None:
    """Give a file another name, in place of what had it; its time is that of the move.

    Raises `FileNotFoundError` where it is gone. In a bucket it has both names for a moment.
    """
    if on_disk(fs):
        os.makedirs(os.path.dirname(to), exist_ok=True)
        os.utime(path)
        os.replace(path, to)
    else:
        fs.cp_file(path, to)
        delete_files(fs, [path])


def delete_files(fs: fsspec.AbstractFileSystem, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already are no error."""

    def delete(path: str) -> None:
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    read_each(delete, list(paths))


def list_files(fs: fsspec.AbstractFileSystem, folder: str, ending: str) -> list[str]:
    """Paths of the files of a folder with an ending, sorted; none where there is no folder."""
    return sorted(_list_marks(fs, folder, "", ending))


def read_snapshot(
    fs: fsspec.AbstractFileSystem, folder: str, ending: str, read: Callable[[str], T], *, start: str = ""
) -> list[T]:
    """Read the files of a folder as they were together at one moment, sorted by name.

    Listed before and after reading, until no file has changed in between: so it makes no difference how long a listing
    or a reading takes. Only what has changed is read again.

    Parameters
    ----------
    start
        How the names begin: other files are not read.
    """
    kept: dict[str, tuple[Any, list[T]]] = {}
    for _ in range(LOOKS):
        marks = _list_marks(fs, folder, start, ending)
        if marks.keys() == kept.keys() and all(mark == kept[path][0] for path, mark in marks.items()):
            return [value for path in sorted(kept) for value in kept[path][1]]
        new = [path for path, mark in marks.items() if path not in kept or kept[path][0] != mark]
        values = dict(zip(new, read_each(lambda path: _read_if_there(read, path), new), strict=True))
        kept = {path: (mark, values[path] if path in values else kept[path][1]) for path, mark in marks.items()}
    raise ValueError(f"{folder} changes faster than it can be read: try again while less is written to it")


def _read_if_there(read: Callable[[str], T], path: str) -> list[T]:
    """Return what was read; nothing where the file has gone since it was listed."""
    with suppress(FileNotFoundError):
        return [looking_twice(read)(path)]
    return []


def looking_twice(read: Callable[P, T]) -> Callable[P, T]:
    """Let what reads files read once more where one seems to be damaged.

    A file that is read in two parts may have been replaced in between, and bits may flip on the way.
    """

    @wraps(read)
    def look(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except DamagedFileError:
            time.sleep(0.02)
            return read(*args, **kwargs)

    return look


def read_steady(fs: fsspec.AbstractFileSystem, path: str, is_right: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """Read a file until `is_right`, or until two readings are the same: then it lies there as it was read.

    For what is written back: a bit may flip on the way, and would stay for good.
    """
    before = b""
    for _ in range(LOOKS):
        data = bytes(fs.cat_file(path))
        if data == before or is_right(data):
            return data
        before = data
    raise DamagedFileError(path, "each reading gives other bytes", "look after the network, and try again")


def _list_marks(fs: fsspec.AbstractFileSystem, folder: str, start: str, ending: str) -> dict[str, tuple[str, ...]]:
    """Say of each file of a folder, by path, what changes with it."""
    try:
        found = fs.find(folder, prefix=start, detail=True) if start and not on_disk(fs) else _details(fs, folder)
    except (FileNotFoundError, NotADirectoryError):  # below a file there is no folder
        return {}
    names = {path: path.rpartition("/")[2] for path in found}
    return {
        path: tuple(str(found[path].get(mark)) for mark in MARKS)
        for path, name in names.items()
        if name.startswith(start) and name.endswith(ending)
    }


def _details(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, Any]:
    return {str(about["name"]): about for about in fs.ls(folder, detail=True)}


def modified_times(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, datetime]:
    """When each file of a folder was written, by the clock of the storage; by path."""
    try:
        found = _details(fs, folder)
    except FileNotFoundError:
        return {}
    times = {path: about.get("LastModified") or about.get("last_modified") for path, about in found.items()}
    return {path: time if isinstance(time, datetime) else fs.modified(path) for path, time in times.items()}


def storage_time(fs: fsspec.AbstractFileSystem, root: str) -> datetime:
    """Time by the clock of the storage of a store: that of a file just written there."""
    path = f"{root}/lease-now-{secrets.token_hex(8)}"  # whoever holds the store next deletes it if we cannot
    write_whole(fs, path, b"now")
    try:
        now: datetime = fs.modified(path)
    finally:
        delete_files(fs, [path])
    return now


def read_each(read: Callable[[T], U], sources: Sequence[T]) -> list[U]:
    """Read, or otherwise handle, many files at a time, each in a copy of this context; results in order.

    After an error those that have not begun are left out: each would wait as long for a storage that is silent.
    """
    if min(len(sources), READERS) < 2:
        return [read(source) for source in sources]
    failed = threading.Event()

    def read_unless_failed(source: T) -> U:
        if failed.is_set():  # by one that was begun before, whose error is met first
            raise CancelledError
        try:
            return read(source)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(min(READERS, len(sources))) as pool:
        futures = [pool.submit(copy_context().run, read_unless_failed, source) for source in sources]
        return [future.result() for future in futures]


def digest(data: bytes) -> str:
    """16 hexadecimal digits of the SHA-256 of bytes: enough to tell files and items apart."""
    return hashlib.sha256(data).hexdigest()[:16]


def seal(content: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """JSON text of `content` with its own checksum, the same for the same content."""
    sealed = {**content, SEAL: _checksum(content)}
    return (json.dumps(sealed, indent=indent, sort_keys=True, ensure_ascii=False) + "\n").encode()


def unseal(data: bytes, path: str, remedy: str) -> dict[str, Any]:
    """Read what `seal` has written; raise where it is not as it was written."""
    try:
        content: dict[str, Any] = dict(json.loads(data))
        right = content.pop(SEAL, None) == _checksum(content)
    except (ValueError, TypeError) as error:
        raise DamagedFileError(path, f"no JSON: {error}", remedy) from None
    if not right:
        raise DamagedFileError(path, "its checksum is wrong", remedy)
    return content


@looking_twice
def read_sealed(fs: fsspec.AbstractFileSystem, folder: str, remedy: str) -> dict[str, dict[str, Any]]:
    """Read all that `seal` has written into a folder, by name without ending, sorted; none where there is no folder."""
    paths = list_files(fs, folder, ".json")
    found = zip(paths, read_each(fs.cat_file, paths), strict=True)
    return {path.rpartition("/")[2].removesuffix(".json"): unseal(data, path, remedy) for path, data in found}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def on_disk(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether it is a file system of this machine, not an object store."""
    return "file" in _protocols(fs)


def _protocols(fs: fsspec.AbstractFileSystem) -> Sequence[str]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _write_on_disk(path: str, data: bytes) -> None:
    folder, _, name = path.rpartition("/")
    os.makedirs(folder, exist_ok=True)
    # The dot keeps a leftover of a killed run out of every reader's listing; the next run replaces it.
    temporary = f"{folder}/.{name}.part"
    with _undone(temporary, path):
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the right name
        os.replace(temporary, path)


@contextmanager
def _undone(written: str, path: str) -> Iterator[None]:
    """Leave nothing half behind on a full disk, and name the file in its error, which the system does not."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            os.unlink(written)
        error.filename = error.filename or path
        raise
