"""Files of a store on any fsspec file system: written whole or not at all, made once, sealed, read in parallel."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import fsspec

from calfin_cloud.schema import SceneError

READERS = 16  # threads: reading many small objects waits for the network
LOOKS = 10  # at a store that changes while it is read, before giving up
SEAL = "sha256"

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class DamagedFileError(SceneError, ValueError):
    """A file of a store that is not as it was written; the message names it and says what to do."""

    def __init__(self, path: str, found: str, remedy: str) -> None:
        SceneError.__init__(self, "unreadable", f"{path} is damaged ({found}): {remedy}")
        self.about = (path, found, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.about


def open_place(store: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Open the file system of a store and its path there; listings are never old, since others write there too."""
    fs, root = fsspec.url_to_fs(store, use_listings_cache=False)
    return fs, root.rstrip("/")


def write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write all of a file or nothing: a temporary name and a rename on disks, one PUT on object stores."""
    if "s3" in _protocols(fs):  # the server refuses a body that was damaged on its way
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        fs.pipe_file(path, data, chunksize=max(len(data), 1), ContentMD5=digest)
    elif on_disk(fs):
        _write_on_disk(path, data)
    else:
        fs.pipe_file(path, data)


def create_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a small file that is not there yet, and return whether it was so: of several writers one succeeds."""
    if on_disk(fs):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True
    try:
        fs.pipe_file(path, data, mode="create")
    except OSError:  # servers say in several ways that it is there already, and not all become FileExistsError
        if not fs.exists(path):
            raise
        return bytes(fs.cat_file(path)) == data  # a PUT repeated after a lost answer finds its own object
    return True


def delete_files(fs: fsspec.AbstractFileSystem, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already are no error."""
    for path in paths:
        with suppress(FileNotFoundError):
            fs.rm_file(path)


def list_files(fs: fsspec.AbstractFileSystem, folder: str, ending: str) -> list[str]:
    """Paths of the files of a folder with an ending, sorted; none where there is no folder.

    Listed until twice alike: a listing of thousands is not of one moment, so it may lack both a compacted file, which
    came behind it, and the files that this one replaced, which went before it.
    """
    before: list[str] | None = None
    for _ in range(LOOKS):
        found = sorted(path for path in _names(fs, folder) if path.endswith(ending))
        if found == before:
            break
        before = found
    return found


def read_each(read: Callable[[T], U], sources: Sequence[T]) -> list[U]:
    """Read many files at a time; results in order."""
    if len(sources) < 2:
        return [read(source) for source in sources]
    with ThreadPoolExecutor(min(READERS, len(sources))) as pool:
        return list(pool.map(read, sources))


def look_again(read: Callable[P, T]) -> Callable[P, T]:
    """Repeat a reading in whose midst another run replaced a file: then the listing it began with is old."""

    @wraps(read)
    def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        for look in range(LOOKS):
            try:
                return read(*args, **kwargs)
            except FileNotFoundError as error:
                lost = error
                time.sleep(0.02 * look)
        raise ValueError(
            f"a file of the store is missing: {lost}; delete the file of the same batch in fronts/ "
            "and run `calfin map` again, which maps its scenes once more"
        )

    return patient


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
        content: dict[str, Any] = json.loads(data)
        right = content.pop(SEAL, None) == _checksum(content)
    except (ValueError, AttributeError) as error:
        raise DamagedFileError(path, f"no JSON: {error}", remedy) from None
    if not right:
        raise DamagedFileError(path, "its checksum is wrong", remedy)
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _names(fs: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    try:
        return list(fs.ls(folder, detail=False))
    except FileNotFoundError:
        return []


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
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the right name
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)  # of a full disk: nothing half stays behind
        raise
