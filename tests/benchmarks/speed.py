"""Seconds a scene by each engine, against what the original takes for it: `python tests/benchmarks/speed.py`.

A scene with one front takes CALFIN 18 patches of 224 px (nine tiles, in two passes) through its network at full width;
its weights are random here, which changes no time. All take turns in every round, and the medians are compared.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calfin_cloud import network as networks
from calfin_cloud.inference import InferenceSettings, predict_scene, prepare_scene
from calfin_cloud.sample import paint_scene

PASSES = 18
TILES = 20  # of ours for an optical scene with one front: two passes of eight, and twice two views by the judge


def painted_channels(side: int) -> NDArray[np.uint8]:
    """Network input (y, x, 4) of the first painted scene in which the default network looks at one front twice."""
    for seed in range(100):
        painted = paint_scene(np.random.default_rng(seed), (side, side))
        channels = prepare_scene(np.stack([painted.signal, np.zeros_like(painted.signal)]), 30.0, "optical")
        if tiles_of(channels) == TILES:
            return channels
    raise SystemExit(f"no painted scene takes {TILES} tiles: choose another --side")


def scene_by(channels: NDArray[np.uint8], settings: InferenceSettings) -> Callable[[], object]:
    """Both passes of the default network over one scene, candidates and blending included."""
    return lambda: predict_scene(channels, network=networks.DEFAULT_NETWORK, settings=settings)


def original_by(batch: int) -> Callable[[], object]:
    """18 patches through CALFIN-NN at full width, so many at once."""
    network = networks.build_network("calfin")
    networks.prepare_compilation(network)
    patches = np.random.default_rng(0).uniform(-1, 1, (PASSES, 224, 224, 3)).astype("float32")
    return lambda: [network.predict_on_batch(patches[i : i + batch]) for i in range(0, PASSES, batch)]


def tiles_of(channels: NDArray[np.uint8]) -> int:
    """Tiles that a scene takes through the network."""
    counts, real = [], networks.predict_tiles
    networks.predict_tiles = lambda network, tiles, **how: counts.append(len(tiles)) or real(network, tiles, **how)
    try:
        scene_by(channels, InferenceSettings())()
    finally:
        networks.predict_tiles = real
    return sum(counts)


def main() -> None:
    """Measure, and print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="of the scene in px (default 512)")
    parser.add_argument("--rounds", type=int, default=9)
    call = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, {call.rounds} rounds")
    channels = painted_channels(call.side)
    methods = {
        "CALFIN-NN, 18 passes one by one": original_by(1),
        "CALFIN-NN, 18 passes nine at once": original_by(9),
        "a scene by keras": scene_by(channels, InferenceSettings()),
        "a scene by openvino": scene_by(channels, InferenceSettings(engine="openvino")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_ in range(call.rounds + 1):
        for name, run in methods.items():
            began = time.perf_counter()
            run()
            if round_:  # the first loads and compiles
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    original = min(value for name, value in medians.items() if name.startswith("CALFIN"))
    rows = [
        {"": name, "median s": value, "least s": min(seconds[name]), "of the original's quickest": value / original}
        for name, value in medians.items()
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
