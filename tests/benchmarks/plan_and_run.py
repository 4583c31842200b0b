"""What `calfin plan` predicts against what `calfin map` then takes: `python tests/benchmarks/plan_and_run.py`."""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers.files import FileServer, serve_folder

from calfin_cloud.sample import write_sample


def calfin(*words: str) -> tuple[str, float, float]:
    """Run a verb in a process of its own; return what it prints, its seconds, and those of the processor."""
    began, processor_s = time.monotonic(), _of_children()
    done = subprocess.run([sys.executable, "-m", "calfin_cloud.cli", *words], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return done.stdout.decode(), time.monotonic() - began, _of_children() - processor_s


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plan_and_run(folder: Path, server: FileServer, cluster: str, sample: int, n: int) -> dict[str, float | str]:
    """Plan a run, and run it, in two processes one after the other; another round `n` is another store and seed."""
    call = ["--catalog", f"{server.url}/catalog.json", "--domains", str(folder / "domains.geojson")]
    store = folder / f"store-{cluster}-{n}"
    call += ["--period", "1984/2030", "--cluster", cluster, "--store", str(store)]
    text, plan_s, _ = calfin("plan", *call, "--sample", str(sample), "--seed", str(n), "--json")
    told = json.loads(text)
    server.n_bytes.clear()
    server.requests.clear()
    _, run_s, processor_s = calfin("map", *call)
    written = sum(path.stat().st_size for path in store.rglob("*") if path.is_file() and path.parent != store)
    low, high = told["range_s"]
    n_scenes, n_bytes, n_requests = told["to_do"], of_scenes(server.n_bytes), of_scenes(server.requests)
    return {
        "cluster": cluster,
        "scenes": n_scenes,
        "plan took": plan_s,
        "predicted": told["total_s"],
        "from": low,
        "to": high,
        "run took": run_s,
        "predicted / run": told["total_s"] / run_s,
        "bytes read": told["bytes_read"] / n_bytes,
        "requests": told["requests"] / n_requests,
        "bytes written": told["bytes_written"] / written,
        "s a scene": run_s / n_scenes,
        "core s a scene": processor_s / n_scenes,
        "MB read": n_bytes / n_scenes / 1e6,
        "requests a scene": n_requests / n_scenes,
        "MB written": written / n_scenes / 1e6,
        "load": os.getloadavg()[0],
    }


def of_scenes(counts: Counter[str]) -> int:
    """Count what was asked of scenes, without the catalogue."""
    return sum(n for path, n in counts.items() if path.endswith(".tif"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--sample", type=int, default=12)
    parser.add_argument("--clusters", nargs="+", default=["none", "local"])
    parser.add_argument(
        "--rounds", type=int, default=3, help="plans and runs in turn, since machines have other work too"
    )
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, serve_folder(Path(name)) as server:
        write_sample(name, scenes=options.scenes)
        for n, cluster in itertools.product(range(options.rounds), options.clusters):
            rows.append(plan_and_run(Path(name), server, cluster, options.sample, n))
            print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    print("\nseconds, and ratios of what was predicted to what a run took\n", table.round(2).to_string(index=False))
    sums = table.groupby("cluster")[["predicted", "run took"]].sum()
    print("\nall rounds\n", (sums["predicted"] / sums["run took"]).round(2).to_string())


if __name__ == "__main__":
    main()
