"""A real Dask Gateway on loopback: server, proxy, and clusters as processes of this user."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SETTINGS = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{private}"
c.Proxy.address = "127.0.0.1:{public}"
c.LocalBackend.clusters_directory = {folder!r}
c.LocalBackend.inherited_environment = {environment!r}
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = [*{before!r}, {python!r}, "-m", "distributed.cli.dask_worker"]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.adaptive_period = 1.0

from dask_gateway_server.options import Bool, Integer, Options


def config_of(chosen):
    config = {{"worker_threads": chosen.worker_threads, "worker_memory": f"{{chosen.worker_memory}} G"}}
    return config | ({{"scheduler_cmd": ["false"]}} if chosen.broken else {{}})


c.Backend.cluster_options = Options(
    Integer("worker_threads", 1, min=1, max=4),
    Integer("worker_memory", 2, min=1, max=4),  # GiB, as in deploy/gateway
    Bool("broken", False),  # a cluster whose scheduler does not start
    handler=config_of,
)
"""


def need(tool: str) -> None:
    """Skip where a server cannot be had, except in CI, which must have it."""
    if shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        return
    why = f"{tool} is not installed"
    if os.environ.get("CALFIN_REQUIRE_SERVERS"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def serve_gateway(folder: Path, *, before_worker: Sequence[str] = ()) -> Iterator[str]:
    """Run a Dask Gateway until the block ends, and give its address; its log is `folder`/gateway.log.

    `before_worker` are words before the command of each worker.
    """
    need("dask-gateway-server")
    public, private = _free_port(), _free_port()
    settings = folder / "dask_gateway_config.py"
    settings.write_text(
        SETTINGS.format(
            private=private,
            public=public,
            folder=str(folder / "clusters"),
            # All of it: another OPENBLAS_CORETYPE alone moves a front by the last bit of its coordinates.
            environment=list(os.environ),
            python=sys.executable,
            before=list(before_worker),
        )
    )
    (folder / "clusters").mkdir()
    command = [sys.executable, "-m", "dask_gateway_server", "-f", str(settings)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "gateway.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | {"PATH": path})
    address = f"http://127.0.0.1:{public}"
    try:
        _wait_until_it_answers(address, server, folder / "gateway.log")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)  # it stops its proxy and its clusters
        server.wait(30)


def _wait_until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while True:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=30):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
