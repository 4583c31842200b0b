"""The suite itself: a test whose process dies, or that nothing ends, ends the run and is named."""

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
HANGS = """
import subprocess
def test_one_that_lives(): pass
def test_one_that_no_exception_ends():
    with subprocess.Popen(["sleep", "100"]) as child:  # whose end is waited for, whatever is raised
        child.wait()
"""
LIVES = "def test_another(): pass"


def run_of(folder, first, *options):
    """Run of a test file and of six others that pass, with the settings of this suite."""
    for name, text in (("first", first), *((f"lives_{n}", LIVES) for n in range(6))):
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(folder)]
    options = ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", *options, str(folder)]
    run = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    assert run.returncode != 0
    assert "crashed" in run.stdout
    return run


def test_a_test_whose_process_dies_ends_the_run_and_is_named(tmp_path):
    assert "test_one_whose_process_dies" in run_of(tmp_path, DIES).stdout


def test_a_test_that_nothing_ends_is_ended_with_its_stacks_and_is_named(tmp_path):
    run = run_of(tmp_path, HANGS, "-o", "timeout=1", "-o", "faulthandler_timeout=3")
    assert "test_one_that_no_exception_ends" in run.stdout
    assert "in test_one_that_no_exception_ends" in run.stderr, "the stack says where"


def test_files_that_are_begun_first_are_there():
    assert [name for name in LONG if not (PROJECT / "tests" / name).is_file()] == []
