"""The real Dask operator on the chart's resources: the scheduler and workers it makes, and that they work over TLS."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client
from servers.processes import free_ports, listens

from calfin_cloud import write_sample
from calfin_cloud.storage import read_fronts
from deploy.chart import ROOT, check, render
from deploy.cluster import wait_until

DASK = ("DaskJob", "DaskWorkerGroup", "DaskAutoscaler")


def create_run(kubernetes, names, *settings) -> str:
    """Create the run of a release that starts at once."""
    run = [r for r in render(names, "runs.once.when=now", "runs.once.verb=map", *settings) if r["kind"] in DASK]
    for resource in run:
        kubernetes.create(resource)
    return next(r["metadata"]["name"] for r in run if r["kind"] == "DaskJob")


def pods_of(kubernetes, run):
    """Pod specs of the deployments of a run, and the driver's, by what they are for."""
    found = {"driver": [kubernetes.get("Pod")[f"{run}-runner"]["spec"]]}
    for name, deployment in kubernetes.get("Deployment").items():
        role = "gpu" if f"{run}-gpu" in name else "worker" if "-worker-" in name else "scheduler"
        found.setdefault(role, []).append(deployment["spec"]["template"]["spec"])
    return found


def test_the_operator_makes_a_run_with_gpu_workers_and_takes_it_away(kubernetes):
    run = create_run(kubernetes, ["aws", "gpu"], "workers.cpu.replicas=3", "tls.secretName=dask-tls")
    wait_until(lambda: len(kubernetes.get("Deployment")) == 1 + 3 + 2 and f"{run}-runner" in kubernetes.get("Pod"))
    for deployment in kubernetes.get("Deployment").values():
        check(deployment)
    check(kubernetes.get("Service")[f"{run}-scheduler"])
    pods = pods_of(kubernetes, run)
    assert {role: len(found) for role, found in pods.items()} == {"driver": 1, "scheduler": 1, "worker": 3, "gpu": 2}
    for role, found in pods.items():
        for pod in found:
            (container,) = pod["containers"]
            env = {variable["name"]: variable.get("value") for variable in container["env"]}
            assert env["DASK_SCHEDULER_ADDRESS"] == f"tls://{run}-scheduler:8786"  # the operator would say tcp
            assert env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
            assert ("DASK_WORKER_NAME" in env) == (role in ("worker", "gpu"))
            assert container["image"].endswith("-gpu:0.2.0") == (role == "gpu")
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (role == "gpu")
            capacity = "spot" if role == "worker" else "on-demand" if role in ("scheduler", "driver") else None
            assert pod.get("nodeSelector", {}).get("karpenter.sh/capacity-type") == capacity
    kubernetes.end_driver(run, exit_code=0)
    wait_until(lambda: not kubernetes.get("DaskCluster"))
    kubernetes.collect_garbage()
    left = {kind: list(kubernetes.get(kind)) for kind in ("Deployment", "Service", "DaskWorkerGroup")}
    assert left == {"Deployment": [], "Service": [], "DaskWorkerGroup": []}
    kubernetes.delete("DaskJob", run)
    kubernetes.collect_garbage()
    assert kubernetes.get("Pod") == {}


def test_the_pods_of_a_run_find_each_other_by_the_labels_of_its_network_policy_and_disruption_budget(kubernetes):
    run = create_run(kubernetes, ["kind"])
    wait_until(lambda: len(kubernetes.get("Deployment")) == 2 and f"{run}-runner" in kubernetes.get("Pod"))
    templates = [d["spec"]["template"] for d in kubernetes.get("Deployment").values()]
    pods = [pod["metadata"]["labels"] for pod in (*templates, kubernetes.get("Pod")[f"{run}-runner"])]
    chosen = {
        resource["metadata"]["name"]: [
            labels["dask.org/component"] for labels in pods if _labels(resource).items() <= labels.items()
        ]
        for resource in render(["kind"])
        if resource["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
    }
    assert {name: sorted(found) for name, found in chosen.items()} == {
        "calfin": ["job-runner", "scheduler", "worker"],
        "calfin-scheduler": ["scheduler"],
        "calfin-starter": [],
    }
    service = kubernetes.get("Service")[f"{run}-scheduler"]["spec"]["selector"]
    assert [labels["dask.org/component"] for labels in pods if service.items() <= labels.items()] == ["scheduler"]
    kubernetes.delete("DaskJob", run)
    kubernetes.collect_garbage()


def _labels(resource):
    spec = resource["spec"]
    return (spec.get("podSelector") or spec["selector"])["matchLabels"]


@dataclass(frozen=True)
class Kubelet:
    """Runs containers as processes here, with the cluster's names and paths in arguments and environment replaced."""

    folder: Path
    run: str
    port: int

    def start(self, container, name):
        variables = {v["name"]: self._here(v["value"]) for v in container.get("env", [])} | {"DASK_WORKER_NAME": name}
        arguments = [
            re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], self._here(word)) for word in container["args"]
        ]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                arguments, cwd=self.folder, env=os.environ | variables | {"PATH": path}, stdout=log, stderr=log
            )

    def _here(self, text):
        text = text.replace(f"{self.run}-scheduler", "127.0.0.1").replace("s3://bucket", str(self.folder))
        text = re.sub(r":878[78]$", ":0", text)
        text = re.sub(r"\b8786\b", str(self.port), text)
        return re.sub(r"^/tmp$", str(self.folder), text).replace("/etc/", f"{self.folder}/")


@pytest.mark.slow
def test_what_the_operator_made_maps_scenes_over_tls(kubernetes, tmp_path):
    """Scheduler, worker, waiting and driver as they stand in the cluster, run here as processes."""
    write_sample(tmp_path / "calfin", scenes=3)
    subprocess.run([ROOT / "deploy/certificates.sh", tmp_path / "dask-tls"], check=True)
    store = "s3://bucket/store"
    settings = [f"map.catalog={tmp_path}/calfin/catalog.json", f"map.store={store}", "map.period=1984/2024"]
    run = create_run(kubernetes, ["kind"], *settings, "tls.secretName=dask-tls")
    wait_until(lambda: len(kubernetes.get("Deployment")) == 2 and f"{run}-runner" in kubernetes.get("Pod"))
    pods = {role: found[0] for role, found in pods_of(kubernetes, run).items()}
    (port,) = free_ports(1)
    kubelet = Kubelet(tmp_path, run, port)
    started = [kubelet.start(pods["driver"]["initContainers"][0], "waiting")]
    time.sleep(1)
    assert started[0].poll() is None  # it waits for the scheduler
    try:
        started += [kubelet.start(pods[role]["containers"][0], role) for role in ("scheduler", "worker")]
        assert started[0].wait(60) == 0
        driver = kubelet.start(pods["driver"]["containers"][0], "driver")
        assert driver.wait(200) == 0, (tmp_path / "driver.log").read_text()
        assert listens(port)
        with pytest.raises(OSError, match=r"[Tt]imed out|encryption|closed"):
            Client(f"tcp://127.0.0.1:{port}", timeout="2s", set_as_default=False)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
    fronts = read_fronts(str(tmp_path / "store"))
    assert fronts["key"].nunique() == 3
    assert set(fronts["state"]) <= {"front", "no_front"}
    assert "tls://" in (tmp_path / "worker.log").read_text()
    kubernetes.delete("DaskJob", run)
    kubernetes.collect_garbage()
