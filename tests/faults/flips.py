"""What GDAL finds of one flipped bit in a file at rest, by compression: a table of what an open format can promise.

`PYTHONPATH=tests python -m faults.flips` prints it as Markdown. On its way over https a flipped bit breaks the
connection; in a file that a server keeps damaged, only the compression of its blocks can tell.
"""

import argparse
import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from rasterio.io import MemoryFile
from servers.proxy import flipped
from servers.rasters import write_tif

COMPRESSIONS = ("deflate", "zstd", "lzw", "lerc", "none")
SIDE = 512  # in blocks of 64


def noisy_scene(seed: int) -> np.ndarray:
    """Numbers (y, x) uint16 that compress about as well as those of a satellite."""
    draw = np.random.default_rng(seed)
    return (8000 + np.cumsum(draw.normal(0, 30, (SIDE, SIDE)), axis=1)).astype("uint16")


def findings(compression: str, n: int, seed: int, folder: Path) -> Counter[str]:
    """Flip a bit somewhere in the blocks of a file, again and again: `found`, or `missed` with other pixels."""
    values = noisy_scene(seed)
    path = write_tif(folder / f"{compression}.tif", values, compress=compression)
    with rasterio.open(path) as file:
        first = min(int(file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)) for x in range(8) for y in range(8))
    data, draw, seen = path.read_bytes(), random.Random(seed), Counter()
    for _ in range(n):
        with MemoryFile(data[:first] + flipped(data[first:], draw)) as memory:
            seen[_look(memory, values)] += 1
    return seen


def _look(memory: MemoryFile, values: np.ndarray) -> str:
    try:
        with memory.open() as file:
            return "harmless" if np.array_equal(file.read(1), values) else "missed"
    except rasterio.RasterioIOError:
        return "found"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="faults.flips", description=__doc__)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| blocks | bits flipped | found | harmless | missed |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        for compression in COMPRESSIONS:
            seen = findings(compression, options.flips, options.seed, Path(folder))
            print(f"| {compression} | {options.flips} | {seen['found']} | {seen['harmless']} | {seen['missed']} |")


if __name__ == "__main__":
    main()
