"""Weights of several trainings of one network go in; their mean comes out, which errs less than each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network import network_id, training_glaciers, weights_path
from calfin_cloud.network.files import whole_hdf5
from calfin_cloud.whole_files import read_json, write_json

Arrays = dict[str, NDArray[Any]]


def average_weights(names_or_paths: Sequence[str | Path], out: Path | str) -> Path:
    """Write the mean of weights that were trained on from one another, and beside it a note of what they learnt from.

    Trainings that share their beginning lie in one valley of the loss, and the mean lies deeper in it (Wortsman et al.
    2022, arXiv:2203.05482). Weights of trainings that began apart have no such mean.

    Parameters
    ----------
    names_or_paths
        Two or more weights by name, or files as `calfin train` writes them, of the same network and width.
    out
        Path of the mean, ending in `.weights.h5`; its note is `<name>.json`.

    Raises
    ------
    ValueError
        There are fewer than two files, or they are of different networks.
    """
    out = Path(out)
    if not out.name.endswith(".weights.h5") or len(names_or_paths) < 2:
        given = ", ".join(map(str, names_or_paths))
        raise ValueError(f"expected two or more weights and out ending in .weights.h5, got {given} and {out.name}")
    sources = [weights_path(name) for name in names_or_paths]
    notes = {network_id(name): _note(path) for name, path in zip(names_or_paths, sources, strict=True)}
    (first, about), *others = (_read(path) for path in sources)
    for path, (arrays, other_about) in zip(sources[1:], others, strict=True):
        if other_about != about or {k: v.shape for k, v in arrays.items()} != {k: v.shape for k, v in first.items()}:
            raise ValueError(f"{path} must hold the network of {sources[0]}, {about}, got {other_about}: leave it out")
    with whole_hdf5(out) as file:
        file.attrs.update(about)
        for name, values in first.items():
            mean = np.mean([values, *(arrays[name] for arrays, _ in others)], axis=0, dtype=np.float64)
            file.create_dataset(name, data=mean.astype(values.dtype))
    training = {glacier: n for note in notes.values() for glacier, n in note.get("training", {}).items()}
    before = {glacier for path in sources for glacier in training_glaciers(path) or ()} - training.keys()
    name = out.name.removesuffix(".weights.h5")
    note = {"name": name, "mean_of": notes, "training": training, "started_from": {"training": sorted(before)}}
    write_json(out.with_name(f"{name}.json"), note)
    return out


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Arrays of a file by name, and its attributes."""
    arrays: Arrays = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        return arrays, dict(file.attrs)


def _note(path: Path) -> dict[str, Any]:
    """Read what was noted beside weights; without that nobody could tell what they have seen."""
    note = path.with_name(f"{path.name.split('.')[0]}.json")
    if not note.is_file():
        raise ValueError(f"{note.name} must lie beside {path.name} and say what it was trained on: restore it")
    return read_json(note)
