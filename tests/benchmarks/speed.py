"""Seconds of network a scene by each engine, against the original's: `python tests/benchmarks/speed.py`.

A scene with one front takes CALFIN 18 patches of 224 px (nine tiles, in two passes) through its network at full width;
its weights are random here, which changes no time. Ours takes two pictures of 256 px, the scene and the window around
its front, through the default network, and where the scene is optical through its verifier. All take turns in every
round, and the medians are compared.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from calfin_cloud.network import (
    DEFAULT_NETWORK,
    FAST,
    ONCE,
    PICTURE_SIZE,
    TILE_SIZE,
    TILES,
    InferenceSettings,
    build_network,
    prepare_compilation,
)
from calfin_cloud.opinions import predict_pictures

PASSES = 18
NOISE = np.random.default_rng(0)


def scene_by(settings: InferenceSettings, *, is_optical: bool = True) -> Callable[[], object]:
    """Both passes of the default network over one scene with one front, and its second opinion."""
    scene, window = NOISE.integers(0, 256, (2, 1, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    optical = np.array([is_optical])
    passes = [(scene, optical | settings.turned, optical), (window, optical & settings.verify_windows, optical)]
    return lambda: [predict_pictures(*shown, network=DEFAULT_NETWORK, settings=settings) for shown in passes]


def original_by(batch: int) -> Callable[[], object]:
    """18 patches through CALFIN-NN at full width, so many at once."""
    network = build_network("calfin")
    prepare_compilation(network)
    patches = NOISE.uniform(-1, 1, (PASSES, TILE_SIZE, TILE_SIZE, 3)).astype("float32")
    return lambda: [network.predict_on_batch(patches[i : i + batch]) for i in range(0, PASSES, batch)]


def main() -> None:
    """Measure, and print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    call = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, {call.rounds} rounds")
    methods = {
        "CALFIN-NN, 18 passes one by one": original_by(1),
        "CALFIN-NN, 18 passes nine at once": original_by(9),
        "optical scene by keras": scene_by(InferenceSettings(engine="keras")),
        "optical scene by openvino": scene_by(InferenceSettings(engine="openvino")),
        "the same, tiles": scene_by(replace(TILES, engine="openvino")),
        "the same, fast": scene_by(replace(FAST, engine="openvino")),
        "radar scene by openvino": scene_by(InferenceSettings(engine="openvino"), is_optical=False),
        "radar scene, tiles": scene_by(replace(TILES, engine="openvino"), is_optical=False),
        "radar scene, once": scene_by(replace(ONCE, engine="openvino"), is_optical=False),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for _ in range(call.rounds):
        for name, run in methods.items():
            run()  # loads and compiles, again in each round: a process keeps few networks
            began = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    medians = {name: [statistics.median(each) for each in zip(*rows, strict=True)] for name, rows in seconds.items()}
    original = min(cpu for name, (_, cpu) in medians.items() if name.startswith("CALFIN"))
    rows = [
        {
            "": name,
            "median s": wall,
            "least s": min(seconds[name])[0],
            "CPU-s": cpu,
            "of the original's": cpu / original,
        }
        for name, (wall, cpu) in medians.items()
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
