"""Methods that are compared: each takes a labelled sample and gives the probabilities that fronts are traced from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import sobel

from calfin_cloud import network as networks  # Keras waits until it is needed
from calfin_cloud.datasets import Sample
from calfin_cloud.fronts import DEFAULT, TraceSettings
from calfin_cloud.inference import predict_scene, prepare_image
from calfin_cloud.network import PUBLISHED_UNET, InferenceSettings, network_id, training_glaciers, weights_path
from calfin_cloud.network.files import noted
from calfin_cloud.preprocess import to_eight_bit

Method = Callable[[Sample], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Front and ice probability (y, x) float32 of a sample, NaN in the front = missing; ice of 0.5 throughout = unknown."""

UNKNOWN_ICE = 0.5
EDGE_FILTER = "sobel"
STRONG_EDGES = 95  # percentile of the gradient that counts as a sure edge
WEIGHTS = ".weights.h5"


def make_methods(
    names: Sequence[str], *, trace: TraceSettings = DEFAULT, settings: InferenceSettings | None = None
) -> dict[str, Method]:
    """Make methods by name: `sobel`, a shipped network, or a weights file; `label=name` gives one another label.

    Files published by Mohajerani et al. (2019) get the preprocessing of their paper, other weights CALFIN's, and are
    shown pictures as `settings` say. A folder is that of `training.fit_folds`: each sample is mapped by the network
    that has not seen its glacier.

    Raises
    ------
    ValueError
        Two methods share a label, or one is not known.
    """
    methods: dict[str, Method] = {}
    for given in names:
        label, name = split_label(given)
        if label in methods:
            raise ValueError(f"two methods are called {label!r}: give one another label, as in other={name}")
        methods[label] = edge_filter if name == EDGE_FILTER else _weights_method(name, trace, settings)
    return methods


def describe_methods(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Say of each method, named as in `make_methods`, its `weights` (name and hash) and what it was `trained_on`.

    The latter is a sorted list of glaciers, None where nobody has noted them.
    """
    about: dict[str, dict[str, Any]] = {}
    for label, name in map(split_label, names):
        if name == EDGE_FILTER:
            about[label] = {"weights": None, "trained_on": []}
            continue
        if Path(name).is_dir():
            about[label] = {"weights": sorted(map(network_id, _folds(name).values())), "trained_on": []}
            continue
        glaciers = training_glaciers(name)
        about[label] = {"weights": network_id(name), "trained_on": None if glaciers is None else sorted(glaciers)}
    return about


def split_label(given: str) -> tuple[str, str]:
    """Label and name of a method from `label=name`; without a label, the name or the file's up to its first dot."""
    label, equals, name = given.rpartition("=")
    return (label, name) if equals else (Path(given).name.split(".")[0], given)


def network_method(
    network: str, *, trace: TraceSettings = DEFAULT, settings: InferenceSettings | None = None
) -> Method:
    """Map as a scene is mapped, without a fjord mask: three channels, two passes of a network given by name or path."""

    def predict(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        masks, _ = predict_scene(
            prepare_image(sample.image, sample.sensor), network=network, settings=settings, trace=trace
        )
        return masks[0], masks[1]

    return predict


def folds_method(
    folder: str | Path, *, trace: TraceSettings = DEFAULT, settings: InferenceSettings | None = None
) -> Method:
    """Map a sample by the network of a folder of `training.fit_folds` that has not seen its glacier.

    Raises
    ------
    ValueError
        When the method is made, the folder holds no network of folds; when it is called, none without that glacier.
    """
    methods = {
        glacier: network_method(str(path), trace=trace, settings=settings) for glacier, path in _folds(folder).items()
    }

    def predict(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if sample.glacier not in methods:
            raise ValueError(
                f"{folder} must hold a network without {sample.glacier}, got those without {sorted(methods)}: train it "
                "with `calfin train --leave-out each`, or leave the glacier out"
            )
        return methods[sample.glacier](sample)

    return predict


def unet_method(path: str | Path, *, sha256: str | None = None) -> Method:
    """U-Net with weights that Mohajerani et al. (2019) published and their preprocessing, on the whole scene."""
    network = networks.load_network(path, sha256=sha256)

    def predict(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return _without_ice(networks.predict_front(network, eight_bit(sample.image)), sample)

    return predict


def edge_filter(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sobel gradient after the preprocessing of Mohajerani et al. (2019), their comparison; 1 = steepest 5 %."""
    gradient = sobel(networks.preprocess_grey(eight_bit(sample.image)))
    steep = float(np.percentile(gradient, STRONG_EDGES)) or float(gradient.max()) or 1.0
    return _without_ice(np.clip(gradient / steep, 0, 1), sample)


def eight_bit(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Image (y, x) as 8-bit grey, missing pixels 0: as it is where it fits, else stretched."""
    whole = np.nan_to_num(image)
    fits = whole.min() >= 0 and whole.max() <= 255 and np.array_equal(whole, np.rint(whole))
    return whole.astype(np.uint8) if fits else to_eight_bit(image)


def _weights_method(name: str, trace: TraceSettings, settings: InferenceSettings | None) -> Method:
    if Path(name).is_dir():
        return folds_method(name, trace=trace, settings=settings)
    path = weights_path(name)
    is_h5 = path.suffix == ".h5"  # which says what it holds; other files must be loaded for that
    one_channel = noted(path).architecture == PUBLISHED_UNET if is_h5 else _channels_of(name) == 1
    return unet_method(name) if one_channel else network_method(name, trace=trace, settings=settings)


def _folds(folder: str | Path) -> dict[str, Path]:
    """Finished weights of a folder of folds, by the glacier that they have not seen."""
    named = {path.name.removesuffix(WEIGHTS): path for path in sorted(Path(folder).glob(f"*{WEIGHTS}"))}
    paths = {name: path for name, path in named.items() if not (path.parent / f"{name}.checkpoint.npz").is_file()}
    if leaky := [glacier for glacier, path in paths.items() if glacier in (training_glaciers(path) or {glacier})]:
        raise ValueError(
            f"the weights in {folder} must not have seen the glacier they are named after, got {leaky}, which have or "
            "do not say so: give the folder of `calfin train --leave-out each`"
        )
    if not paths:
        raise ValueError(f"{folder} must hold <glacier>{WEIGHTS} of `calfin train --leave-out each`, got none")
    return paths


def _channels_of(name: str) -> int:
    return int(networks.load_network(name).input_shape[-1])


def _without_ice(front: NDArray[np.floating], sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    valid = prepare_image(sample.image, sample.sensor)[..., 3] > 0
    return np.where(valid, front, np.nan).astype(np.float32), np.full(front.shape, UNKNOWN_ICE, np.float32)
