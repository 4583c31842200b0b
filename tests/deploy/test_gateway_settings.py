"""The settings of the Dask Gateway server, read as the server reads them, in its own classes for Kubernetes."""

from types import SimpleNamespace

import pytest
from dask_gateway_server.backends.kubernetes.backend import KubeClusterConfig
from traitlets.config.loader import PyFileConfigLoader

from deploy.chart import ROOT


@pytest.fixture(scope="module")
def settings():
    return PyFileConfigLoader(str(ROOT / "deploy/gateway/dask_gateway_config.py")).load_config()


def cluster(settings, **chosen):
    options = settings.Backend.cluster_options
    overrides = options.get_configuration(options.parse_options(chosen), SimpleNamespace(name="somebody"))
    return KubeClusterConfig(config=settings, **overrides)


def test_a_user_who_chooses_nothing_gets_limited_cpu_workers_that_end_when_idle(settings):
    made = cluster(settings)
    assert made.worker_cmd == ["dask", "worker", "--resources", "CPU=1"]
    assert made.scheduler_cmd == ["dask", "scheduler"]
    assert made.idle_timeout == 1800
    assert made.cluster_max_workers == 64
    for pod in (made.worker_extra_pod_config, made.scheduler_extra_pod_config):
        assert pod["securityContext"]["runAsNonRoot"]


def test_a_user_who_chooses_gpus_gets_their_image_and_nodes(settings):
    made = cluster(settings, gpu=True)
    assert made.worker_cmd[-1] == "GPU=1"
    assert made.image.split(":")[0].endswith("-gpu")
    assert made.worker_extra_container_config["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert made.worker_extra_pod_config["tolerations"][0]["key"] == "nvidia.com/gpu"


@pytest.mark.parametrize("chosen", [{"worker_memory": 64}, {"moons": 2}, {"aws_request_payer": "you"}])
def test_what_is_not_offered_is_refused(settings, chosen):
    with pytest.raises(ValueError, match=next(iter(chosen))):
        cluster(settings, **chosen)


def test_a_hub_gives_workers_the_image_of_its_notebooks_and_their_variables(settings):
    made = cluster(settings, image="hub:1", worker_cores=2, environment={"A": "1"}, aws_request_payer="requester")
    assert (made.image, made.worker_cores) == ("hub:1", 2)
    assert made.environment == {"A": "1", "AWS_REQUEST_PAYER": "requester"}


def test_workers_and_schedulers_have_the_service_account_and_cpu_workers_the_nodes_of_the_environment(monkeypatch):
    monkeypatch.setenv("CALFIN_SERVICE_ACCOUNT", "calfin")
    monkeypatch.setenv("CALFIN_NODE_SELECTOR", '{"pool": "spot"}')
    made = cluster(PyFileConfigLoader(str(ROOT / "deploy/gateway/dask_gateway_config.py")).load_config())
    assert made.worker_extra_pod_config["serviceAccountName"] == "calfin"
    assert made.scheduler_extra_pod_config["serviceAccountName"] == "calfin"
    assert made.worker_extra_pod_config["nodeSelector"] == {"pool": "spot"}
    assert "nodeSelector" not in made.scheduler_extra_pod_config
