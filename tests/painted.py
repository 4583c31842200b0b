"""Scenes that several tests of a process ask for are painted once: it takes longer than to map them."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from calfin_cloud.sample import write_sample

_kept = tempfile.TemporaryDirectory(prefix="calfin-painted-", ignore_cleanup_errors=True)


def copy_sample(folder: Path, scenes: int, seed: int = 0) -> Path:
    """Fill `folder` with what `write_sample` writes; return the catalogue."""
    shutil.copytree(_painted(scenes, seed), folder, dirs_exist_ok=True)
    return folder / "catalog.json"


@cache
def _painted(scenes: int, seed: int) -> Path:
    folder = Path(_kept.name) / f"{scenes}-{seed}"
    write_sample(folder, scenes=scenes, seed=seed)
    return folder
