"""A Kubernetes cluster without nodes: the emulated API server and the real Dask operator, as processes of their own."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from servers.processes import Processes, free_ports, listens

DASK = "apis/kubernetes.dask.org/v1"
PATHS = {
    "DaskCluster": f"{DASK}/namespaces/ice/daskclusters",
    "DaskWorkerGroup": f"{DASK}/namespaces/ice/daskworkergroups",
    "DaskJob": f"{DASK}/namespaces/ice/daskjobs",
    "DaskAutoscaler": f"{DASK}/namespaces/ice/daskautoscalers",
    "Job": "apis/batch/v1/namespaces/ice/jobs",
    "Deployment": "apis/apps/v1/namespaces/ice/deployments",
    "Pod": "api/v1/namespaces/ice/pods",
    "Service": "api/v1/namespaces/ice/services",
}
DASK_KINDS = {"daskclusters", "daskworkergroups", "daskjobs", "daskautoscalers"}


@dataclass(frozen=True)
class Kubernetes:
    """Its API, by kind, in the namespace `ice`."""

    address: str
    folder: Path

    def get(self, kind: str) -> dict[str, dict[str, Any]]:
        """Objects of a kind by name."""
        return {item["metadata"]["name"]: item for item in self._ask("GET", PATHS[kind]).json()["items"]}

    def create(self, resource: Mapping[str, Any]) -> None:
        """Create an object."""
        self._ask("POST", PATHS[resource["kind"]], resource)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Change an object."""
        self._ask("PATCH", f"{PATHS[kind]}/{name}", change)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        self._ask("DELETE", f"{PATHS[kind]}/{name}")

    def _ask(self, method: str, path: str, data: Mapping[str, Any] | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        url = f"{self.address}/{path}"
        return httpx.request(method, url, json=data, headers=headers, timeout=300).raise_for_status()

    def end_driver(self, name: str, exit_code: int) -> None:
        """Do a kubelet's part when the driver of a run has ended."""
        ended = {"name": "driver", "state": {"terminated": {"exitCode": exit_code}}}
        phase = "Failed" if exit_code else "Succeeded"
        self.patch("Pod", f"{name}-runner", {"status": {"phase": phase, "containerStatuses": [ended]}})

    def collect_garbage(self) -> None:
        """Delete what only deleted objects own, and what that owned, as the controller of a real cluster does."""
        while orphans := self._orphans():
            for kind, name in orphans:
                self.delete(kind, name)

    def _orphans(self) -> list[tuple[str, str]]:
        found = [(kind, name, o["metadata"]) for kind in PATHS for name, o in self.get(kind).items()]
        alive = {metadata["uid"] for _, _, metadata in found}
        return [
            (kind, name)
            for kind, name, metadata in found
            if "deletionTimestamp" not in metadata
            and (owners := metadata.get("ownerReferences"))
            and not {owner["uid"] for owner in owners} & alive
        ]

    def kubeconfig(self, user: str) -> str:
        """Path of a kubeconfig that shows the token of a user."""
        path = self.folder / f"{user}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": self.address}}],
                    "users": [{"name": user, "user": {"token": user}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": user, "namespace": "ice"}}],
                    "current-context": "here",
                }
            )
        )
        return str(path)


@contextmanager
def run_kubernetes(folder: Path, rules: Sequence[Mapping[str, Any]], *, operator: bool = True) -> Iterator[Kubernetes]:
    """Run the API server, with the starter's rules, and the operator until the block ends."""
    (port,) = free_ports(1)
    kubernetes = Kubernetes(f"http://127.0.0.1:{port}", folder)
    (folder / "rules.json").write_text(json.dumps(rules))
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "KUBECONFIG": kubernetes.kubeconfig("operator"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with Processes(folder, environment=environment) as processes:
        processes.start(sys.executable, "-m", "deploy.api", str(port), str(folder / "rules.json"))
        processes.wait_for(lambda: listens(port))
        if operator:
            processes.start("kopf", "run", "-m", "dask_kubernetes.operator.controller", "--standalone", "-A")
            # What it finds while it starts it may take up only a minute later.
            processes.wait_for(lambda: set((folder / "python.log").read_text().split()) >= DASK_KINDS)
        yield kubernetes


def wait_until(claim: Callable[[], object], *, timeout_s: float = 120) -> None:
    """Wait for a claim to become true."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "the operator did not get there"
        time.sleep(0.5)  # the emulated API is slow to answer, and the operator waits beside us
