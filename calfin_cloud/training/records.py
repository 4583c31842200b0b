"""Settings and samples that weights come from, kept beside them, so that no other training replaces them unasked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from calfin_cloud.datasets import Sample
from calfin_cloud.network import network_id
from calfin_cloud.training.settings import TrainingSettings
from calfin_cloud.whole_files import read_json


def beside(out: Path, ending: str) -> Path:
    """Path of another file of a training, such as `.json`, beside its weights."""
    return out.with_name(out.name.removesuffix(".weights.h5") + ending)


def checked_path(out: Path | str) -> Path:
    """Refuse a path of weights that does not end in `.weights.h5`, or whose files beside it would be those of others.

    A name ends at its first dot, for all that lies beside weights.
    """
    out = Path(out)
    if not out.name.endswith(".weights.h5"):
        raise ValueError(f"out must end in .weights.h5, got {out.name}")
    if "." in out.name.removesuffix(".weights.h5"):
        raise ValueError(f"out must have no dot before .weights.h5, got {out.name}: give another name")
    return out


def noted_settings(settings: TrainingSettings) -> dict[str, Any]:
    """Tell settings as JSON values, the weights to start from by their hash."""
    start = network_id(settings.start) if settings.start else None
    noted: dict[str, Any] = json.loads(json.dumps(asdict(settings) | {"start": start}))
    return noted


def samples_digest(samples: Iterable[Sample]) -> str:
    """Make a digest of the names and labels of samples, in their order."""
    made = hashlib.sha256()
    for sample in samples:
        made.update(json.dumps([sample.name, sample.front.shape]).encode())
        made.update(np.packbits(sample.front).tobytes() + sample.ice.tobytes())
    return made.hexdigest()


def is_trained(out: Path, settings: TrainingSettings, samples: str) -> bool:
    """Whether these weights are the end of this training; `samples` is their digest.

    Raises
    ------
    ValueError
        They are the end of another training, or nothing says of which.
    """
    note = beside(out, ".json")
    if beside(out, ".checkpoint.npz").is_file() or not out.is_file():
        return False
    about = read_json(note) if note.is_file() else {}
    if "settings" not in about:
        raise ValueError(f"{out} is there, and no {note.name} says how it was trained: give another name, or remove it")
    if not about.get("finished", True):
        return False
    check_same(out, about["settings"], about.get("samples", samples), settings, samples)
    return True


def check_same(
    path: Path, settings: Mapping[str, Any], samples: str, wanted: TrainingSettings, wanted_samples: str
) -> None:
    """Raise `ValueError` where settings and samples that a file belongs to are not the wanted ones."""
    others = [
        f"{name} {settings.get(name)}, now {value}"
        for name, value in noted_settings(wanted).items()
        if settings.get(name) != value
    ]
    if others:
        raise ValueError(f"{path} belongs to other settings ({'; '.join(others)}): give another name, or remove it")
    if samples != wanted_samples:
        raise ValueError(f"{path} belongs to other samples or labels: give those, give another name, or remove it")
