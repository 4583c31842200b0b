"""The suite itself: a test whose process dies ends the run, and is named."""

import subprocess
import sys
from pathlib import Path

from conftest import LONG

PROJECT = Path(__file__).parents[1]
DIES = """
import os, signal
def test_one_that_lives(): pass
def test_one_whose_process_dies(): os.kill(os.getpid(), signal.SIGKILL)
"""
LIVES = "def test_another(): pass"


def test_a_test_whose_process_dies_ends_the_run_and_is_named(tmp_path):
    for name, text in (("dies", DIES), *((f"lives_{n}", LIVES) for n in range(6))):
        (tmp_path / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    options = ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", str(tmp_path)]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode != 0
    assert "test_one_whose_process_dies" in run.stdout
    assert "crashed" in run.stdout


def test_files_that_are_begun_first_are_there():
    assert [name for name in LONG if not (PROJECT / "tests" / name).is_file()] == []
