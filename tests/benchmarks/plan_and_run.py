"""What `calfin plan` predicts against what `calfin map` then takes: `python tests/benchmarks/plan_and_run.py`."""

import argparse
import json
import os
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


def calfin(*words: str) -> tuple[str, float]:
    """Run a verb in a process of its own; return what it prints, and its seconds."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "calfin_cloud.cli", *words], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return done.stdout.decode(), time.monotonic() - began


def plan_and_run(folder: Path, server: FileServer, cluster: str, sample: int) -> dict[str, float | str]:
    """Plan a run, and run it, in two processes one after the other."""
    call = [
        "--catalog",
        f"{server.url}/catalog.json",
        "--domains",
        str(folder / "domains.geojson"),
        "--period",
        "1984/2030",
    ]
    store = folder / f"store-{cluster}"
    call += ["--cluster", cluster, "--store", str(store)]
    text, plan_s = calfin("plan", *call, "--sample", str(sample), "--json")
    told = json.loads(text)
    server.n_bytes.clear()
    server.requests.clear()
    _, run_s = calfin("map", *call)
    written = sum(path.stat().st_size for path in store.rglob("*") if path.is_file() and path.parent != store)
    low, high = told["range_s"]
    return {
        "cluster": cluster,
        "scenes": told["to_do"],
        "plan itself, s": round(plan_s),
        "predicted, s": round(told["total_s"]),
        "from": round(low),
        "to": round(high),
        "run, s": round(run_s),
        "predicted / run": round(told["total_s"] / run_s, 2),
        "bytes read, predicted / run": round(told["bytes_read"] / of_scenes(server.n_bytes), 2),
        "requests, predicted / run": round(told["requests"] / of_scenes(server.requests), 2),
        "bytes written, predicted / run": round(told["bytes_written"] / written, 2),
        "load": os.getloadavg()[0],
    }


def of_scenes(counts: Counter[str]) -> int:
    """Count what was asked of scenes, without the catalogue."""
    return sum(n for path, n in counts.items() if path.endswith(".tif"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--sample", type=int, default=6)
    parser.add_argument("--clusters", nargs="+", default=["none", "local"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serve_folder(Path(name)) as server:
        write_sample(name, scenes=options.scenes)
        rows = [plan_and_run(Path(name), server, cluster, options.sample) for cluster in options.clusters]
    print(pd.DataFrame(rows).T.to_string(header=False))


if __name__ == "__main__":
    main()
