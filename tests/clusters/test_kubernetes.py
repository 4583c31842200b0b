"""`kubernetes()` against the real operator on an emulated API, whose pods are processes of this machine.

No image is pulled and nothing is scheduled on nodes: that part of Kubernetes is not tested here.
"""

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from deploy.chart import check
from deploy.cluster import run_kubernetes, wait_until
from servers.kubelet import run_node

from calfin_cloud.clusters import connect, kubernetes
from calfin_cloud.starts.pods import ALIKE, Identity, cluster_resource, worker_group

pytest.importorskip("dask_kubernetes")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Kubernetes version"),  # kr8s 0.20 knows them up to 1.35
]
IMAGE = "example.org/calfin:0"
LIMITS = {"memory": "4294967296", "cpu": "1"}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with run_kubernetes(tmp_path_factory.mktemp("kubernetes"), []) as api, run_node(api):
        yield api


# The operator would ask the scheduler whether it is idle, by an address that only a real cluster resolves.
NEVER_IDLE = {"image": IMAGE, "namespace": "ice", "idle_timeout": 0}


@pytest.fixture
def here(api, monkeypatch):
    """The same, as the current context."""
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig("operator"))
    with dask.config.set({"kubernetes.resource-timeout": 200}):  # this machine may be busy
        yield api


def container_of(group):
    (container,) = group["spec"]["worker"]["spec"]["containers"]
    return container


def says(client):
    return sorted(str(w["resources"]) for w in client.scheduler_info(n_workers=-1)["workers"].values())


def test_a_cluster_of_cpu_and_gpu_workers_is_made_scaled_and_deleted(here):
    with connect("kubernetes", n_workers=1, name="glacier", gpu_workers=1, **NEVER_IDLE) as client:
        groups = here.get("DaskWorkerGroup")
        assert set(groups) == {"glacier-default", "glacier-gpu"}
        assert container_of(groups["glacier-gpu"])["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert "nvidia.com/gpu" not in container_of(groups["glacier-default"])["resources"]["limits"]
        wait_until(lambda: says(client) == ["{'CPU': 1.0}", "{'GPU': 1.0}"])
        client.cluster.scale(2)
        wait_until(lambda: says(client) == ["{'CPU': 1.0}", "{'CPU': 1.0}", "{'GPU': 1.0}"])
    wait_until(lambda: not here.get("DaskCluster"))
    here.collect_garbage()
    assert not here.get("Deployment")


def test_two_numbers_of_workers_make_an_autoscaler_and_a_failing_run_deletes_all(here):
    class BrokenError(Exception):
        pass

    def fail():
        with connect("kubernetes", n_workers=(1, 5), name="floe", **NEVER_IDLE):
            spec = here.get("DaskAutoscaler")["floe"]["spec"]
            assert (spec["minimum"], spec["maximum"]) == (1, 5)
            raise BrokenError

    with pytest.raises(BrokenError):
        fail()
    wait_until(lambda: not here.get("DaskCluster"))
    here.collect_garbage()


def test_a_cluster_without_an_image_of_ours_is_refused():
    with pytest.raises(ValueError, match="needs an image with calfin-cloud"):
        kubernetes()


def test_the_resource_calls_programs_that_dask_has_and_ends_when_nobody_is_left():
    who = Identity("calfin", ["keys"], {"A": 1})  # as --cluster-option env='{"A": 1}' is read
    workers = worker_group(3, "CPU=1", image=IMAGE, limits=LIMITS, identity=who)
    resource = cluster_resource(
        "berg", workers, image=IMAGE, identity=who, node_selector={"pool": "steady"}, idle_timeout=600
    )
    check(resource)
    spec = resource["spec"]
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert scheduler["args"][:2] == ["dask", "scheduler"]
    assert worker["args"][:2] == ["dask", "worker"]
    assert scheduler["image"] == worker["image"] == IMAGE
    assert scheduler["env"] == worker["env"] == [{"name": "A", "value": "1"}]
    assert (spec["idleTimeout"], spec["worker"]["replicas"]) == (600, 3)


def test_a_gpu_worker_tolerates_the_taint_of_gpu_nodes_and_no_other_does():
    cpu = worker_group(2, "CPU=1", image=IMAGE, limits=LIMITS, identity=Identity())
    gpu = worker_group(2, "GPU=1", image=IMAGE, limits=LIMITS | {"nvidia.com/gpu": "1"}, identity=Identity())
    assert "tolerations" not in cpu["spec"]
    assert [t["key"] for t in gpu["spec"]["tolerations"]] == ["nvidia.com/gpu"]


def test_pods_are_as_whom_the_call_says_and_safe_as_those_of_the_chart():
    who = Identity("calfin", ["keys"], {"A": "1"})
    workers = worker_group(1, "CPU=1", image=IMAGE, limits=LIMITS, identity=who, node_selector={"pool": "cheap"})
    spec = cluster_resource("berg", workers, image=IMAGE, identity=who, node_selector={"pool": "steady"})["spec"]
    pods = {"steady": spec["scheduler"]["spec"], "cheap": spec["worker"]["spec"]}
    for pool, pod in pods.items():
        assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("calfin", {"pool": pool})
        assert (pod["securityContext"], pod["automountServiceAccountToken"]) == (ALIKE["podSecurity"], False)
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert container["securityContext"] == ALIKE["containerSecurity"]


@pytest.fixture(scope="module")
def strict_api(tmp_path_factory):
    """An API whose user `starter` may do nothing, without the operator."""
    with run_kubernetes(tmp_path_factory.mktemp("strict"), [], operator=False) as api:
        yield api


def refusal(kubeconfig, **options):
    """Class and message of the error, in a process of its own: kr8s keeps the first kubeconfig that it has read."""
    code = f"""
from calfin_cloud.clusters import kubernetes
try:
    kubernetes(image={IMAGE!r}, namespace="ice", **{options!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"}
    environment["KUBECONFIG"] = str(kubeconfig)
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_where_no_kubernetes_is_found_or_none_answers_the_call_ends_with_a_sentence(tmp_path, strict_api):
    told = refusal(tmp_path / "none.yaml")
    assert told.startswith("ValueError --cluster kubernetes finds no cluster of Kubernetes"), told
    silent = Path(strict_api.kubeconfig("operator")).read_text().replace(strict_api.address, "http://127.0.0.1:9")
    (tmp_path / "silent.yaml").write_text(silent)
    told = refusal(tmp_path / "silent.yaml")
    assert told.startswith("ConnectionError Kubernetes does not answer"), told


def test_what_kubernetes_refuses_is_told_with_what_must_be_there(strict_api):
    told = refusal(strict_api.kubeconfig("starter"))
    assert told.startswith("ValueError Kubernetes made no DaskCluster (the starter may not list daskclusters): "), told
    assert "lower case alphanumeric" in refusal(strict_api.kubeconfig("operator"), name="Big_Floe")


@pytest.mark.parametrize("n", [-1, 1.5, "two"])
def test_a_number_of_gpu_workers_that_makes_no_sense_is_refused(n):
    with pytest.raises(ValueError, match=r"gpu_workers must be a number from 0, got"):
        kubernetes(image=IMAGE, gpu_workers=n)


def test_environment_variables_that_have_no_names_are_refused():
    with pytest.raises(ValueError, match="env must be values by name, got 'A=1'"):
        kubernetes(image=IMAGE, env="A=1")


def test_node_selectors_of_an_unknown_group_are_refused():
    with pytest.raises(ValueError, match=r"by group of .*got \{'gpus'"):
        kubernetes(image=IMAGE, node_selectors={"gpus": {"pool": "a100"}})
