"""A node of the emulated Kubernetes: the pods that the operator asks for run as processes of this machine."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from deploy.cluster import Kubernetes

from servers.processes import free_ports

READY = {"phase": "Running", "conditions": [{"type": t, "status": "True"} for t in ("Ready", "ContainersReady")]}


class Kubelet(threading.Thread):
    """Starts and ends a process for every Deployment, and gives the scheduler's Service an address on loopback."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        super().__init__(name="kubelet")
        self.kubernetes = kubernetes
        self.comm, self.dashboard = free_ports(2)
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Follow the Deployments until the node is stopped."""
        while not self.stopped.wait(0.2):
            with suppress(httpx.TransportError):  # the API of a busy machine; the next round asks again
                wanted = self.kubernetes.get("Deployment")
                for name in wanted.keys() - self.pods.keys():
                    self._start(name, wanted[name]["spec"]["template"])
                for name in self.pods.keys() - wanted.keys():
                    end(self.pods.pop(name))

    def stop(self) -> None:
        """End all pods."""
        self.stopped.set()
        self.join(30)
        for process in self.pods.values():
            end(process)

    def _start(self, name: str, template: Mapping[str, Any]) -> None:
        (container,) = template["spec"]["containers"]
        environment = {e["name"]: e["value"] for e in container.get("env") or []}
        environment["DASK_SCHEDULER_ADDRESS"] = f"tcp://127.0.0.1:{self.comm}"
        words = [re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], word) for word in container["args"]]
        dask, what, *words = words
        assert dask == "dask"
        if is_scheduler := what == "scheduler":
            words += ["--port", str(self.comm), "--dashboard-address", f"127.0.0.1:{self.dashboard}"]
        self._announce(name, template, is_scheduler=is_scheduler)
        self.pods[name] = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{what}", *words],  # without the verbs of dask-kubernetes
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _announce(self, name: str, template: Mapping[str, Any], *, is_scheduler: bool) -> None:
        if name not in self.kubernetes.get("Pod"):
            metadata = {"name": name, "labels": template["metadata"]["labels"]}
            self.kubernetes.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        self.kubernetes.patch("Pod", name, {"status": READY})
        if is_scheduler:
            ports = [{"name": "tcp-comm", "port": self.comm}, {"name": "http-dashboard", "port": self.dashboard}]
            balancer = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
            change = {"spec": {"type": "LoadBalancer", "ports": ports}, "status": balancer}
            self.kubernetes.patch("Service", name, change)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and the ones it has started, as a pod ends."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@contextmanager
def run_node(kubernetes: Kubernetes) -> Iterator[Kubelet]:
    """Run the pods of a cluster until the block ends."""
    kubelet = Kubelet(kubernetes)
    kubelet.start()
    try:
        yield kubelet
    finally:
        kubelet.stop()
