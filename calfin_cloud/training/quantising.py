"""Labelled samples go in, the eight-bit file of a trained network comes out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from calfin_cloud.datasets import VALIDATION_GLACIERS, Sample
from calfin_cloud.inference import Prepared, first_pictures, prepare_image
from calfin_cloud.network import InferenceSettings, save_eight_bit

PER_GLACIER = 60


def quantise(
    name_or_path: str | Path, samples: Iterable[Sample], *, per_glacier: int = PER_GLACIER, seed: int = 0
) -> Path:
    """Write the eight-bit file of a network from pictures of training glaciers; see `network.save_eight_bit`.

    Parameters
    ----------
    name_or_path
        Weights that come with a file for OpenVINO and the whole picture.
    samples
        Labelled scenes, of which only images are used; validation glaciers are passed by.
    per_glacier
        At most so many images of a glacier, drawn at random, so that none decides alone.
    seed
        Of that draw.

    Returns
    -------
    Path
        The `.xml`, with its `.bin` beside it.

    Raises
    ------
    ValueError
        No sample is of a training glacier, or the weights have no file for OpenVINO.
    ImportError
        NNCF is not installed.

    Examples
    --------
    >>> quantise("calfin-efficient", read_samples("data"))  # doctest: +SKIP
    PosixPath('calfin-efficient-256-int8.xml')
    """
    by_glacier: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.glacier not in VALIDATION_GLACIERS:
            by_glacier[sample.glacier].append(sample)
    if not by_glacier:
        raise ValueError(
            f"activations are measured on training glaciers, got none beside {sorted(VALIDATION_GLACIERS)}"
        )
    draw = np.random.default_rng(seed)
    chosen = [
        of_glacier[place]
        for _, of_glacier in sorted(by_glacier.items())
        for place in draw.permutation(len(of_glacier))[:per_glacier]
    ]
    channels = [prepare_image(sample.image, sample.sensor) for sample in chosen]
    return save_eight_bit(name_or_path, first_pictures(Prepared(channels), settings=InferenceSettings()).pictures)
