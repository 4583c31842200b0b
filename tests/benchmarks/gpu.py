"""Patches a second on a GPU, batch by batch, from host arrays: `python tests/benchmarks/gpu.py`.

Each row is one batch size in one precision: threads of one process, as many as a worker has, send batches of 224 px
patches through the default network and fetch the masks. The busy fraction is what the driver says of the GPU meanwhile.
Runs on any backend of Keras (`KERAS_BACKEND=jax`); without a GPU it measures the CPU, and says so.
"""

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

import keras
import numpy as np
import pandas as pd

from calfin_cloud.network import DEFAULT_NETWORK, TILE_SIZE, count_gpus, load_network, predict_tiles

nvml = import_module("pynvml") if find_spec("pynvml") else None

SAMPLE_S = 0.05  # between two looks at the GPU


def first_gpu():
    """Return the driver's handle of the first GPU, None where the network runs on a CPU."""
    if nvml is None or not count_gpus():
        return None
    nvml.nvmlInit()
    return nvml.nvmlDeviceGetHandleByIndex(0)


@contextmanager
def watched_gpu():
    """Lend a list that fills with the share of time in which the first GPU had work."""
    shares, gpu, done = [], first_gpu(), threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            shares.append(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)

    watcher = threading.Thread(target=watch) if gpu else None
    if watcher:
        watcher.start()
    try:
        yield shares
    finally:
        done.set()
        if watcher:
            watcher.join()


def patches_a_second(network: keras.Model, batch: int, threads: int, seconds: float) -> tuple[float, float]:
    """Rate of patches, and mean busy share of the GPU (NaN without one)."""
    tiles = np.random.default_rng(0).uniform(-1, 1, (batch, TILE_SIZE, TILE_SIZE, 3)).astype("float32")
    predict_tiles(network, tiles)  # compiles
    began = time.perf_counter()

    def send() -> int:
        n = 0
        while time.perf_counter() - began < seconds:
            n += len(predict_tiles(network, tiles))
        return n

    with watched_gpu() as shares, ThreadPoolExecutor(threads) as pool:
        n = sum(pool.map(lambda _: send(), range(threads)))
        took = time.perf_counter() - began
    return n / took, float(np.mean(shares)) if shares else float("nan")


def main() -> None:
    """Measure, and print a row a precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default=DEFAULT_NETWORK)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    call = parser.parse_args()
    gpu = first_gpu()
    name = nvml.nvmlDeviceGetName(gpu) if gpu else "CPU"
    print(f"{name}, keras {keras.__version__} on {keras.backend.backend()}, {call.threads} threads")
    rows = []
    for engine in ("keras", "keras-bfloat16"):
        network = load_network(call.network, engine=engine)
        for batch in call.batch:
            rate, busy = patches_a_second(network, batch, call.threads, call.seconds)
            rows.append({"engine": engine, "batch": batch, "patches/s": rate, "busy": busy})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
