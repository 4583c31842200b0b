"""Where workers come from: what each place asks for and refuses, and versions that must be the same everywhere."""

import os
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from calfin_cloud import clusters, sensors
from calfin_cloud.cli.parser import make_parser
from calfin_cloud.clusters import await_workers, check_versions, connect, cuda, ended, local
from calfin_cloud.network import InferenceSettings
from calfin_cloud.network.threads import threads_here
from calfin_cloud.pipeline import MapSettings
from calfin_cloud.pipeline.workers import check_network, share_sensors
from calfin_cloud.sensors import Sensor, own_sensors, register_sensor
from calfin_cloud.starts.here import _seeing_one_gpu
from clusters.farm import farm

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def client():
    with connect("local", n_workers=1) as client:
        yield client


def test_versions_that_are_the_same_everywhere_are_accepted(client):
    check_versions(client)


def pretend(folder: Path, name: str, version: str) -> None:
    """Put a package into a folder, as far as its version goes."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_worker_with_another_version_is_refused_with_a_table_of_who_has_what(tmp_path):
    pretend(tmp_path, "keras", "9.9")
    with farm(0) as cluster:
        cluster.workers.append(cluster.start_worker("--name", "odd", PYTHONPATH=str(tmp_path)))
        with pytest.raises(ValueError, match="same versions") as told, connect(cluster.address):
            pass
    _, head, *rows, remedy = str(told.value).splitlines()
    assert head.split() == ["python", *clusters.SAME_EVERYWHERE]
    ours, odd = rows
    assert ours.split()[:2] == ["client,", "scheduler"]
    assert odd.startswith("tcp://127.0.0.1:")
    assert (ours.split()[-1], odd.split()[-1]) == (version("keras"), "9.9")
    assert "one environment or image" in remedy


def test_keras_may_be_on_some_workers_alone_in_one_version(client, tmp_path, monkeypatch):
    pretend(tmp_path, "onlyhere", "1.0")
    monkeypatch.setattr(clusters, "SAME_EVERYWHERE", ("dask", "onlyhere", "nowhere"))
    monkeypatch.setattr(clusters, "MAY_LACK", ("onlyhere", "nowhere"))
    check_versions(client)
    monkeypatch.syspath_prepend(tmp_path)
    check_versions(client)


def test_a_package_that_only_the_client_has_is_refused_too(client, tmp_path, monkeypatch):
    pretend(tmp_path, "onlyhere", "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(clusters, "SAME_EVERYWHERE", ("dask", "onlyhere"))
    with pytest.raises(ValueError, match=r"(?s)client, .* 1\.0.*tcp://.* none"):
        check_versions(client)


def test_a_cluster_without_workers_is_waited_for_and_named():
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
        pytest.raises(TimeoutError, match="no worker with a GPU came within 1 s"),
    ):
        await_workers(client, {"GPU"}, timeout_s=1)


def test_the_number_of_local_workers_follows_the_work():
    with connect("local", n_workers=(1, 2)) as client:
        assert len(client.scheduler_info()["workers"]) == 1
        work = client.map(slowly, range(100))
        client.wait_for_workers(2, timeout=600)
        client.cancel(work)


def slowly(_):
    time.sleep(1)


@pytest.mark.skipif(find_spec("dask_cuda") is not None, reason="dask-cuda is installed here")
def test_gpus_without_the_extra_are_refused_with_its_name():
    with pytest.raises(ValueError, match=r'pip install "calfin-cloud\[gpu\]"'):
        cuda()


def test_gpus_do_not_come_and_go_so_two_numbers_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"one worker a GPU, so their number is fixed, got \(1, 2\): give one number"):
        cuda((1, 2))


class FakeCudaCluster:
    """As dask-cuda's does, shows each worker its own GPU first and all others after it."""

    def new_worker_spec(self):
        return {1: {"options": {"env": {"CUDA_VISIBLE_DEVICES": "1,2,0"}}}}


def test_a_worker_on_a_gpu_sees_its_own_alone():
    cluster = _seeing_one_gpu(FakeCudaCluster)()
    assert isinstance(cluster, FakeCudaCluster)
    assert cluster.new_worker_spec()[1]["options"]["env"] == {"CUDA_VISIBLE_DEVICES": "1"}


def test_workers_are_as_many_as_the_affinity_of_this_process_allows():
    code = "from calfin_cloud.starts import here; print(here.CPU_COUNT)"
    bound = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code]
    assert subprocess.run(bound, check=True, capture_output=True, text=True).stdout.strip() == "1"


def test_a_worker_that_says_gpu_and_has_none_ends_the_run_before_it_begins():
    with farm(0) as cluster:
        cluster.workers.append(cluster.start_worker("--resources", "GPU=1", CUDA_VISIBLE_DEVICES="-1"))
        with connect(cluster.address) as client, pytest.raises(ValueError, match=r"say GPU see none: .*nvidia-smi"):
            check_network(MapSettings(), client)


def test_the_networks_library_has_the_threads_of_its_worker(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_here() is None
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_here() == 1
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=3,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.submit(threads_here).result() == 3


@pytest.mark.parametrize("n_workers", [0, (2, 1), (0, 3), -1])
def test_numbers_of_workers_that_make_no_sense_are_refused(n_workers):
    with pytest.raises(ValueError, match="1 <= MIN <= MAX"):
        local(n_workers)


def test_a_memory_that_holds_no_worker_is_refused():
    with pytest.raises(ValueError, match="such as 4GiB, got 4"):
        local(1, worker_memory=4)


def test_a_place_that_is_none_is_refused():
    places = "local, cuda, kubernetes, gateway, none, or a scheduler's address"
    with pytest.raises(ValueError, match=places), connect("moon"):
        pass


def test_a_number_of_workers_that_follows_the_work_is_refused_beside_gpu_workers_on_kubernetes():
    with (
        pytest.raises(ValueError, match=r"is fixed, got \(2, 100\) with 3 GPU workers: .*give one number"),
        connect("kubernetes", n_workers=(2, 100), gpu_workers=3, image="example.org/calfin:0"),
    ):
        pass


@pytest.mark.parametrize("cluster", ["local", "kubernetes"])
def test_an_option_that_a_cluster_does_not_take_is_refused_with_those_that_it_takes(cluster):
    with (
        pytest.raises(ValueError, match=rf"--cluster {cluster} has no option moons: it takes .*worker_memory"),
        connect(cluster, moons=2),
    ):
        pass


@pytest.mark.parametrize("cluster", ["none", "tcp://127.0.0.1:1"])
def test_workers_of_a_cluster_that_is_not_started_here_are_not_asked_for(cluster):
    with pytest.raises(ValueError, match="leave them out"), connect(cluster, n_workers=2):
        pass


def options(*words):
    call = ["map", "--catalog", "c", "--domains", "d", "--store", "s", *words]
    return make_parser().parse_args(call)


def test_flags_say_how_many_workers_and_with_what(monkeypatch):
    read = options(
        "--cluster", "kubernetes", "--workers", "2:10", "--worker-memory", "8GiB", "--cluster-option", "image=a:1"
    )
    assert (read.workers, read.worker_memory, read.cluster_option) == ((2, 10), "8GiB", [("image", "a:1")])
    assert options("--workers", "3", "--cluster-option", "gpu_workers=2").cluster_option == [("gpu_workers", 2)]
    assert options().cluster == "auto"
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://scheduler:8786")
    assert options().cluster == "tcp://scheduler:8786"


@pytest.mark.parametrize("words", [["--workers", "many"], ["--cluster-option", "image"]])
def test_flags_that_cannot_be_read_end_the_call_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        options(*words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_workers_with_too_little_memory_for_the_network_are_told_with_a_remedy():
    by_keras = MapSettings(inference=InferenceSettings(engine="keras"))  # TensorFlow alone takes more than that
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        connect("local", n_workers=1, worker_memory="512MiB") as client,
        pytest.raises(ValueError, match=r"want of memory: give each 1\.5 GB or more"),
    ):
        check_network(by_keras, client)


class Reluctant:
    """Workers that end later than Dask waits for them."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        raise TimeoutError


def test_workers_that_end_late_fail_no_run_and_hide_no_error(caplog):
    with ended(Reluctant()):
        pass
    assert "did not end in time" in caplog.text
    for error in (ValueError, TimeoutError):
        with pytest.raises(error, match="of the run"), ended(Reluctant()):
            raise error("of the run")


def test_own_sensors_are_known_to_workers_and_to_those_that_come_later():
    row = Sensor(("aster-l1t",), r"AST_L1T", ("VNIR_Band3N",))
    register_sensor(row)
    try:
        with connect("local", n_workers=1) as client:
            share_sensors(client)
            client.cluster.scale(2)
            client.wait_for_workers(2)
            assert list(client.run(own_sensors).values()) == [(row,), (row,)]
    finally:
        sensors.table._own.clear()
