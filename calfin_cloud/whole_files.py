"""Files for people, written whole or not at all, whatever writes them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a disk that has no room left."""
UNWRITABLE_NUMBERS = FULL_NUMBERS | {errno.EFBIG, errno.EROFS}
"""Errors of a disk that takes no file more, or none as large, such as a picture, which is larger than the tables."""

LONGEST_MARK = 40
FULL_BYTES = (
    2**20
)  # less room is taken for a full disk, of which GDAL and HDF5 tell in ways of their own, or not at all


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Lend a path to write to; once the block has ended well, what is there takes the place of `path`.

    So a run that is interrupted, or finds the disk full, leaves the file that was there before. Files beside it, as
    those of a Shapefile, come along. A link stays one. What is no file, as `/dev/stdout`, is written to as it is.

    Raises
    ------
    OSError
        The file cannot be written, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with whole_file(path) as unfinished:
    ...     _ = unfinished.write_text("all of it")
    >>> path.read_text()
    'all of it'
    """
    with _unfinished_file(path) as unfinished:
        yield unfinished
        if unfinished != Path(path):
            _check_room(unfinished.parent)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Lend a folder to make, beside `path`; once the block has ended well, it takes the place of `path`.

    So nobody takes a part for the whole. A run that is killed leaves what was there before, in the worst moment as
    `PATH.before`, which the next run puts back, and `PATH.unfinished`, which it begins anew.

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "cube")
    >>> with whole_folder(path) as unfinished:
    ...     unfinished.mkdir()
    >>> path.is_dir()
    True
    """
    path = Path(path).resolve()
    unfinished, before = (path.with_name(f"{path.name}.{mark}") for mark in ("unfinished", "before"))

    def tidy() -> None:
        if before.exists() and not path.exists():  # stopped between the two renames
            before.rename(path)
        for left in (unfinished, before):
            shutil.rmtree(left, ignore_errors=True)

    tidy()
    try:
        yield unfinished
        if path.exists():
            path.rename(before)
        unfinished.rename(path)
    finally:
        tidy()


def write_whole_file(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, as `whole_file` does.

    Raises
    ------
    OSError
        The file cannot be written, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> write_whole_file(path, "Isbræ")
    >>> path.read_bytes().decode()
    'Isbræ'
    """
    with _unfinished_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, about: Mapping[str, Any]) -> None:
    """Write an object as a whole file of JSON.

    Raises
    ------
    OSError
        The file cannot be written, or the disk is full.

    Examples
    --------
    >>> write_json("glacier.json", {"finished": True})
    """
    write_whole_file(path, json.dumps(about, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read the object that a file of JSON holds.

    Raises
    ------
    ValueError
        The file holds no JSON, or no object.

    Examples
    --------
    >>> read_json("glacier.json")
    {'finished': True}
    """
    try:
        about = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): restore it, or make it again") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} must hold an object of JSON, got a {type(about).__name__}: restore it")
    return about


@contextmanager
def _unfinished_file(path: str | Path) -> Iterator[Path]:
    """Do what `whole_file` does but for the check of room: for writers that raise on a full disk, as Python does."""
    given, path = Path(path), Path(path).resolve()
    if given.exists() and not given.is_file():
        yield given
        return
    with (
        _named(given),
        TemporaryDirectory(prefix=_mark(path), dir=path.parent) as folder,
        _told_full(path.parent),
    ):
        yield Path(folder, path.name)
        if path.exists():
            shutil.copymode(path, Path(folder, path.name))
        for written in Path(folder).iterdir():
            os.replace(written, path.parent / written.name)


def _check_room(folder: Path) -> None:
    """Refuse a file that may have lost its end: GDAL closes files without a word of what no longer fitted.

    That is less than what is tried here, so where a disk or a quota was full there is no room for this either.
    """
    with TemporaryFile(dir=folder) as tried:
        tried.write(bytes(FULL_BYTES))


def _mark(path: Path) -> str:
    """Begin of the name of the folder beside a file in which it is written; long names leave room for the rest."""
    return f".{path.name[:LONGEST_MARK]}."


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in an error about the unfinished one, or about none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or _mark(path) in str(error.filename)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _told_full(folder: Path) -> Iterator[None]:
    """Raise the error of the system for a full disk where a library has another one."""
    try:
        yield
    except Exception as error:
        is_told = isinstance(error, OSError) and error.errno is not None
        if is_told or shutil.disk_usage(folder).free > FULL_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
