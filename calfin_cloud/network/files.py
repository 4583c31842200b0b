"""Files of weights: by name or path, checked by hash, and what they note; the network itself is not loaded for that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import h5py

from calfin_cloud.whole_files import read_json, write_whole_file


class Shipped(NamedTuple):
    """Weights that come with the package.

    In optical scenes a front must be seen by the `verifier` too, other weights by name (see `inference`).
    """

    file: str
    sha256: str
    verifier: str | None = None


SHIPPED = {
    "calfin-efficient": Shipped(
        "calfin-efficient.weights.h5",
        "a14aaa41c80e0133316820f50af8e3634abcd2181c4198c43afeb4d0c9018abc",
        verifier="calfin-small-2",
    ),
    "calfin-small-2": Shipped(
        "calfin-small-2.weights.h5", "426ceb2929b675abd1ad623247c8258635177ddd0149c3c5c2f2d25c54d0bc13"
    ),
    "calfin-small": Shipped(
        "calfin-small.weights.h5", "25382d133d0c29998a5d85fcd05668795ecc1cb604261ed2344c8cf3bfed28b4"
    ),
}
"""Weights by name, the newest first; older ones stay, so that a store made with one can be continued."""

ENCODERS = {
    "efficientnet-lite0": Shipped(
        "efficientnet-lite0.weights.h5", "d62a48a7546799f1de8de40eae73573baf6a1ff1996a781346910e92bd3000ef"
    ),
}
"""Encoders by name, from which a training may start; none maps a scene."""

DEFAULT_NETWORK = "calfin-efficient"
"""Weights used where none are named."""

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"

PUBLISHED_UNET = "unet-published"
"""Architecture of the files that Mohajerani et al. (2019) published: one channel in, one mask out, of any size."""

PUBLISHED_GLACIERS = frozenset({"Jakobshavn", "Kangerlussuaq", "Sverdrup"})
"""Glaciers that the published weights were trained on."""


def weights_path(name_or_path: str | Path, *, sha256: str | None = None) -> Path:
    """Path of weights given by name or path, whose hash is checked if `sha256` says one or the package knows it.

    Raises
    ------
    ValueError
        The name is not known, or the file has another hash.
    """
    path, shipped_sha256 = _resolve(str(name_or_path))
    for expected in filter(None, (sha256, shipped_sha256)):
        if sha256_of(path) != expected.lower():
            raise ValueError(
                f"{path} must have sha256 {expected}, got {sha256_of(path)}: do not use this file, fetch it again"
            )
    return path


def fingerprint(name_or_path: str | Path) -> tuple[int, int]:
    """Time and size of the file of weights given by name or path, which tell cheaply that it was replaced."""
    return _stamp(_resolve(str(name_or_path))[0])


def verifier_of(name_or_path: str | Path) -> str | None:
    """Name of the weights that must see the fronts of these in optical scenes too; None where none must.

    Raises
    ------
    ValueError
        A file names a verifier that does not come with the package.
    """
    if shipped := SHIPPED.get(str(name_or_path)):
        return shipped.verifier
    path, _ = _resolve(str(name_or_path))
    verifier = noted(path).verifier if path.suffix == ".h5" else None
    if verifier and verifier not in SHIPPED:
        raise ValueError(f"{path} must name a verifier of {sorted(SHIPPED)}, got {verifier!r}: train with one of these")
    return verifier


def network_id(name_or_path: str | Path) -> str:
    """Return `name@sha256[:12]` of the weights in use, and `+` that of their verifier: the `model` of the results."""
    path, _ = _resolve(str(name_or_path))
    verifier = verifier_of(name_or_path)
    return f"{_stem(path)}@{sha256_of(path)[:12]}" + (f"+{network_id(verifier)}" if verifier else "")


def training_glaciers(name_or_path: str | Path) -> frozenset[str] | None:
    """Glaciers that weights were trained on, None where nobody has noted them.

    Training notes them beside the weights, for both parts of a training that started from other weights.
    """
    path, _ = _resolve(str(name_or_path))
    note = path.with_name(f"{_stem(path)}.json")
    if note.is_file():
        about = read_json(note)
        return frozenset(about.get("training", {})) | frozenset(about.get("started_from", {}).get("training", {}))
    is_published = path.suffix == ".h5" and noted(path).architecture == PUBLISHED_UNET
    return PUBLISHED_GLACIERS if is_published else None


def _resolve(name_or_path: str) -> tuple[Path, str | None]:
    """Path of the weights, and their expected hash where the package knows it."""
    if shipped := SHIPPED.get(name_or_path) or ENCODERS.get(name_or_path):
        return WEIGHTS_FOLDER / shipped.file, shipped.sha256
    path = Path(name_or_path)
    if path.suffix in {".keras", ".h5"} and not path.is_file():
        raise ValueError(f"there are no weights {name_or_path}: correct the path, or name one of {sorted(SHIPPED)}")
    if path.suffix not in {".keras", ".h5"}:
        raise ValueError(
            f"weights must be one of {sorted(SHIPPED)} or a .keras or .h5 file, got {name_or_path!r}: correct the name "
            "or path"
        )
    return path, None


def openvino_file(path: Path, size: int, *, eight_bit: bool = False) -> Path:
    """Path of the file for OpenVINO of weights and a side of input in px; its `.bin` lies beside it."""
    return path.with_name(f"{_stem(path)}-{form_of(size, eight_bit=eight_bit)}.xml")


def openvino_note(path: Path) -> Path:
    """Path of the note on the files for OpenVINO of weights."""
    return path.with_name(f"{_stem(path)}.openvino.json")


def has_openvino(name_or_path: str | Path, size: int, *, eight_bit: bool = False) -> bool:
    """Whether weights come with a file for OpenVINO and a side of input in px, made of these very weights."""
    return bool(noted_files(_resolve(str(name_or_path))[0]).get(form_of(size, eight_bit=eight_bit)))


def checked_openvino_file(name_or_path: str | Path, size: int, *, eight_bit: bool = False) -> Path:
    """Path of the file for OpenVINO of weights, whose hash and that of its `.bin` are checked.

    Raises
    ------
    ValueError
        The file has another hash than is noted.
    """
    path = weights_path(name_or_path)
    file = openvino_file(path, size, eight_bit=eight_bit)
    for suffix, expected in noted_files(path).get(form_of(size, eight_bit=eight_bit), {}).items():
        part = file.with_suffix(f".{suffix}")
        if not part.is_file() or sha256_of(part) != expected:
            raise ValueError(
                f"{part} must have sha256 {expected}, as {openvino_note(path).name} says: do not use this file, fetch "
                "or make it again, or use the engine keras"
            )
    return file


def noted_files(path: Path) -> dict[str, dict[str, str]]:
    """Hashes of the files for OpenVINO of weights, by form and suffix; none of other weights."""
    note = openvino_note(path)
    if not note.is_file():
        return {}
    about = read_json(note)
    files: dict[str, dict[str, str]] = about.get("files", {})
    return files if about.get("weights") == sha256_of(path) else {}


def hashes_of(file: Path) -> dict[str, str]:
    """Hashes of a file for OpenVINO and its `.bin`, by suffix."""
    return {part.suffix[1:]: sha256_of(part) for part in (file, file.with_suffix(".bin"))}


def form_of(size: int, *, eight_bit: bool) -> str:
    """Name of a file for OpenVINO among those of its weights."""
    return f"{size}-int8" if eight_bit else str(size)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read again only when the file has changed."""
    return _sha256(path, _stamp(path))


@lru_cache(maxsize=64)
def _sha256(path: Path, _: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Time and size of a file."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


class Note(NamedTuple):
    """What a file of weights says of its network."""

    architecture: str
    width: float
    rock: bool
    verifier: str | None


def noted(path: Path) -> Note:
    """Read what a file notes of its network; one without a note holds a published U-Net, or the original.

    Raises
    ------
    ValueError
        The file is no HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            numbered = numbered_layers(file.get("model_weights", file))
            architecture = file.attrs.get("architecture", PUBLISHED_UNET if numbered else "calfin")
            width, verifier = float(file.attrs.get("width", 1.0)), file.attrs.get("verifier")
            return Note(str(architecture), width, "rock" in file, str(verifier) if verifier else None)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file ({error}): fetch the weights again") from error


@contextmanager
def whole_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Lend an HDF5 file in memory; once the block has ended well, it takes the place of `path`.

    Where the disk is full, HDF5 may end the process if it writes there itself.
    """
    made = BytesIO()
    with h5py.File(made, "w") as file:
        yield file
    write_whole_file(path, made.getvalue())


def numbered_layers(root: h5py.Group) -> list[str]:
    """Names conv2d_1, conv2d_2, ... of the layers of a file that Keras named, in their order."""
    numbered = {name: name.removeprefix("conv2d_") for name in root if name.startswith("conv2d_")}
    return sorted((name for name in numbered if numbered[name].isdigit()), key=lambda name: int(numbered[name]))
