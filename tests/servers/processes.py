"""Servers that are programs: are they here, their free ports, and their processes, which end when the tests do."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import Self

import pytest


def need(programs: Sequence[str], packages: str) -> None:
    """Skip where programs of a server are missing; fail where `CALFIN_REQUIRE_SERVERS` says that they must be here."""
    missing = [program for program in ("setpriv", *programs) if not shutil.which(program)]
    if not missing:
        return
    why = f"{', '.join(missing)} not installed: apt-get install --no-install-recommends {packages}"
    if os.environ.get("CALFIN_REQUIRE_SERVERS"):
        pytest.fail(why)
    pytest.skip(why)


def free_ports(n: int) -> list[int]:
    """Loopback ports on which nobody listens, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Processes:
    """Processes of one server: they log into a folder, and get their signal when the tests end, even by a kill."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str | None = None,
        end: Signals = Signals.SIGKILL,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.end = folder, end
        self.environment = os.environ | (environment or {})
        as_user = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user and os.geteuid() == 0 else []
        self.prefix = ["setpriv", *as_user, f"--pdeathsig={end.name.removeprefix('SIG')}"]
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> None:
        """Start a program that stays. Call it from the main thread: the signal comes when the starting thread ends."""
        with self._log(command).open("ab") as log:
            process = subprocess.Popen([*self.prefix, *command], stdout=log, stderr=log, env=self.environment)
        self.started.append(process)

    def run(self, *command: str, timeout_s: float = 600) -> None:
        """Run a program to its end, which must be a good one."""
        with self._log(command).open("ab") as log:
            done = subprocess.run(
                [*self.prefix, *command], check=False, stdout=log, stderr=log, env=self.environment, timeout=timeout_s
            )
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{self.logs()}"

    def wait_for(self, has_come: Callable[[], bool], timeout_s: float = 600) -> None:
        """Wait until a server answers."""
        deadline = time.monotonic() + timeout_s
        while not has_come():
            gone = [process.args for process in self.started if process.poll() is not None]
            assert not gone, f"{gone} ended\n{self.logs()}"
            assert time.monotonic() < deadline, f"no answer within {timeout_s} s\n{self.logs()}"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End the programs that stay, the last one first; none may have ended before."""
        gone = [process.args for process in self.started if process.poll() is not None]
        for process in reversed(self.started):
            process.send_signal(self.end)
            process.wait(300)
        assert not gone, f"{gone} ended too early\n{self.logs()}"

    def logs(self) -> str:
        """Last words of each program."""
        texts = {log.name: log.read_text(errors="replace")[-2000:] for log in sorted(self.folder.glob("*.log"))}
        return "\n".join(f"--- {name}\n{text}" for name, text in texts.items())

    def _log(self, command: Sequence[str]) -> Path:
        return self.folder / f"{Path(command[0]).name}.log"


def listens(port: int) -> bool:
    """Say whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
