"""Pictures a second on a GPU, task by task, from host arrays: `python tests/benchmarks/gpu.py`.

Each row is one number of pictures a task in one precision: threads of one process, as many as a worker has, send
pictures of 256 px through the default network and fetch the masks. A picture is eight patches of 224 px. The busy
fraction is what the driver says of the GPU meanwhile; the CPU is what the process takes beside it.
Runs on any backend of Keras (`KERAS_BACKEND=jax`); without a GPU it measures the CPU, and says so.
"""

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pandas as pd

from calfin_cloud.network import (
    DEFAULT_NETWORK,
    PICTURE_SIZE,
    InferenceSettings,
    Predictor,
    count_gpus,
    load_predictor,
    predict_with,
)
from calfin_cloud.network.backend import keras

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


def pictures_a_second(loaded: Predictor, n: int, threads: int, seconds: float) -> dict[str, float]:
    """Rate of pictures, CPU time of each, and mean busy share of the GPU (NaN without one)."""
    pictures = np.random.default_rng(0).integers(0, 256, (n, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    predict_with(loaded, pictures)  # compiles
    began, on_cpu = time.perf_counter(), time.process_time()

    def send() -> int:
        sent = 0
        while time.perf_counter() - began < seconds:
            sent += len(predict_with(loaded, pictures))
        return sent

    with watched_gpu() as shares, ThreadPoolExecutor(threads) as pool:
        sent = sum(pool.map(lambda _: send(), range(threads)))
        took, on_cpu = time.perf_counter() - began, time.process_time() - on_cpu
    busy = float(np.mean(shares)) if shares else float("nan")
    return {
        "pictures/s": sent / took,
        "patches/s": 8 * sent / took,
        "CPU-ms a picture": 1e3 * on_cpu / sent,
        "busy": busy,
    }


def main() -> None:
    """Measure, and print a row a precision and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default=DEFAULT_NETWORK)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 16, 32, 128])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    call = parser.parse_args()
    gpu = first_gpu()
    name = nvml.nvmlDeviceGetName(gpu) if gpu else "CPU"
    print(f"{name}, keras {keras.__version__} on {keras.backend.backend()}, {call.threads} threads")
    rows = []
    for engine in ("keras", "keras-bfloat16"):
        loaded = load_predictor(call.network, InferenceSettings(engine=engine))
        for n in call.pictures:
            rates = pictures_a_second(loaded, n, call.threads, call.seconds)
            rows.append({"engine": engine, "pictures": n, **rates})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
