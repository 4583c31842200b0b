"""The servers of the tests end with the tests, however those end, and CI does not go on without them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from servers.processes import need
from servers.s3 import PACKAGES, PROGRAMS

SERVE = """
import time
from servers.pgstac import serve_pgstac
from servers.s3 import serve_s3

with serve_s3(), serve_pgstac():
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder():
    """Folder for what killed servers leave behind; short, for their sockets, and open to the user of the database."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield name


def test_servers_end_when_the_tests_are_killed(s3, folder):  # the fixture `s3` skips where there are none
    where = {"cwd": Path(__file__).parents[1], "env": os.environ | {"TMPDIR": folder}}
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, **where) as tests:
        try:
            assert tests.stdout is not None
            assert tests.stdout.readline() == b"ready\n"
            servers = psutil.Process(tests.pid).children(recursive=True)
            names = {server.name() for server in servers}
        finally:
            tests.kill()
    assert {"radosgw", "ceph-osd", "ceph-mon", "postgres"} <= names
    _, alive = psutil.wait_procs(servers, timeout=300)
    assert not alive


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_server_is_skipped_here_and_fails_in_ci(monkeypatch, required, outcome):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CALFIN_REQUIRE_SERVERS", required)
    with pytest.raises(outcome, match=r"radosgw.*apt-get install"):
        need(PROGRAMS, PACKAGES)
