"""Tiles a second on a GPU, from host arrays and back, by size of batch: `tests/benchmarks/gpu.py --out gpu.jsonl`.

Runs unattended on a bare machine that has JAX (or PyTorch, or TensorFlow) and the wheels of `gpu_wheels.sh`. Threads of
one process, as many as a worker has, send pictures of 256 px through the default network and fetch the masks; a picture
is eight tiles of 224 px. `busy` is what the driver says of the visible GPU meanwhile. `differs` is the largest
difference of a mask, in steps of 0.004, from float32 on the CPU, which another process computes meanwhile. The row
`step` is the whole network step: each picture by the network and by its verifier, `--scene` pictures a scene. Each row
is written when it is known; at the deadline the rest is left out. Without a GPU it measures the CPU, and says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault(
    "KERAS_BACKEND", next((name for name in ("tensorflow", "jax", "torch") if find_spec(name)), "tensorflow")
)

import numpy as np

from calfin_cloud.network import (
    DEFAULT_NETWORK,
    PICTURE_SIZE,
    TILES,
    count_gpus,
    graphs,
    load_predictor,
    predict_with,
    verifier_of,
)
from calfin_cloud.network.backend import keras

nvml = import_module("pynvml") if find_spec("pynvml") else None

TILES_A_PICTURE = 8
SAMPLE_S = 0.05  # between two looks at the GPU
COMPARED = 4  # pictures; the CPU takes seconds for each


def visible_gpu():
    """Return the driver's handle of the GPU that this process computes on, None where that is a CPU."""
    if nvml is None or not count_gpus():
        return None
    nvml.nvmlInit()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    return nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else nvml.nvmlDeviceGetHandleByUUID(first)


@contextmanager
def watched(gpu):
    """Lend a list that fills with the share of time in which a GPU had work."""
    shares, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            shares.append(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)

    watcher = threading.Thread(target=watch, daemon=True) if gpu else None
    if watcher:
        watcher.start()
    try:
        yield shares
    finally:
        done.set()
        if watcher:
            watcher.join()


def pictures(n: int):
    """Pictures as the network is given them, the same in every process."""
    return np.random.default_rng(0).integers(0, 256, (n, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)


def rates(predict, n: int, call, gpu) -> dict:
    """Pictures a second that threads get through `predict`, `n` at a time; CPU time of each; busy share of the GPU."""
    shown = pictures(n)
    began = time.perf_counter()
    predict(shown)
    compiled_s = time.perf_counter() - began
    began, on_cpu = time.perf_counter(), time.process_time()

    def send(_) -> int:
        sent = 0
        while sent == 0 or time.perf_counter() - began < call.seconds:
            sent += len(predict(shown))
        return sent

    with watched(gpu) as shares, ThreadPoolExecutor(call.threads) as pool:
        sent = sum(pool.map(send, range(call.threads)))
        took, on_cpu = time.perf_counter() - began, time.process_time() - on_cpu
    return {
        "pictures_s": round(sent / took, 2),
        "tiles_s": round(TILES_A_PICTURE * sent / took, 1),
        "cpu_ms_a_picture": round(1e3 * on_cpu / sent, 2),
        "busy": round(float(np.mean(shares)), 3) if shares else None,
        "first_s": round(compiled_s, 1),
    }


def reference(path: Path, call) -> subprocess.Popen:
    """Start a process that predicts a few pictures in float32 on the CPU."""
    on_cpu = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, __file__, "--network", call.network, "--reference", str(path)]
    return subprocess.Popen(words, env=os.environ | on_cpu)


def differences(predict, process: subprocess.Popen, path: Path, left_s: float) -> dict:
    """Compare masks of a few pictures with those of the CPU."""
    try:
        if process.wait(max(left_s, 1)):
            return {"differs": "the process on the CPU failed"}
    except subprocess.TimeoutExpired:
        return {"differs": "the CPU was too slow"}
    apart = np.abs(np.load(path).astype(int) - predict(pictures(COMPARED)).astype(int))
    return {"differs": int(apart.max()), "differing_share": float((apart > 0).mean())}


def rows(call, gpu, began: float, process, path):
    """Measure row after row, the telling ones first, as long as there is time: compiling takes most of it."""
    device = nvml.nvmlDeviceGetName(gpu) if gpu else "CPU"
    about = {"device": device, "keras": keras.__version__, "backend": keras.backend.backend(), "threads": call.threads}
    left = lambda: call.deadline - (time.perf_counter() - began)  # noqa: E731
    first, *others = call.tiles

    def row(network: str, engine: str, tiles: int, also: str | None = None) -> dict:
        settings, n = replace(TILES, engine=engine), max(1, tiles // TILES_A_PICTURE)
        graphs.MOST_PICTURES = n if gpu else 1  # at once on the device
        loaded = [load_predictor(name, settings) for name in (network, also) if name]
        predict = lambda shown: [predict_with(each, shown) for each in loaded][-1]  # noqa: E731
        return {**about, "engine": engine, "tiles_at_once": tiles, **rates(predict, n, call, gpu)}

    for engine in call.engines:
        if left() < 3 * call.seconds:
            return
        yield row(call.network, engine, first)
        loaded = load_predictor(call.network, replace(TILES, engine=engine))
        predict = lambda shown, loaded=loaded: predict_with(loaded, shown)  # noqa: E731
        yield {**about, "engine": engine, **differences(predict, process, path, left())}
        if (verifier := verifier_of(call.network)) and left() > 3 * call.seconds:
            both = row(call.network, engine, first, verifier)
            yield both | {"step": "network and verifier", "scenes_s": both["pictures_s"] / call.scene}
    for tiles in others:
        if left() > 3 * call.seconds:
            yield row(call.network, call.engines[0], tiles)


def main() -> int:
    """Measure, and write a row of JSON a precision and size of batch."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=DEFAULT_NETWORK)
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 512, 128, 64, 32], help="at once on the device")
    parser.add_argument("--engines", nargs="+", default=["keras-bfloat16", "keras"])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a row")
    parser.add_argument("--deadline", type=float, default=420.0, help="seconds after which no row begins")
    parser.add_argument("--scene", type=float, default=2.0, help="pictures a scene: itself and its windows")
    parser.add_argument("--out", type=Path, help="file to write the rows to as well")
    parser.add_argument("--require-gpu", action="store_true", help="exit with 3 where no GPU is seen")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    call = parser.parse_args()
    if call.reference:
        loaded = load_predictor(call.network, replace(TILES, engine="keras"))
        np.save(call.reference, predict_with(loaded, pictures(COMPARED)))
        return 0
    gpu = visible_gpu()
    if call.require_gpu and not gpu:
        print("no GPU is seen by the network's library and by NVML", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "masks.npy")
        process = reference(path, call)
        try:
            for row in rows(call, gpu, began, process, path):
                line = json.dumps(row)
                print(line, flush=True)
                if call.out:
                    with call.out.open("a") as file:
                        file.write(line + "\n")
        finally:
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
