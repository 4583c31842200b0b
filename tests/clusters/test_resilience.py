"""Workers, schedulers and drivers end in the middle of a run, as real processes do: nothing is lost."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client
from faults.world import calfin, calfin_process, tables

from calfin_cloud import clusters
from clusters.conftest import N_SCENES
from clusters.farm import farm, kill, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def fronts_of(store: str) -> list[Path]:
    return list(Path(store, "fronts").glob("*.parquet"))


def started(world, store: str, *more: str, cluster: str) -> subprocess.Popen[bytes]:
    """A run that has stored a batch and is not yet through."""
    run = calfin_process(*world.map_call(store, *more, cluster=cluster), stderr=subprocess.PIPE)
    wait_until(lambda: fronts_of(store) or run.poll() is not None)
    assert run.poll() is None, run.stderr.read().decode()
    return run


@pytest.mark.slow
def test_workers_that_are_killed_or_retired_in_the_middle_of_a_run_lose_nothing(world, tmp_path):
    store = str(tmp_path / "store")
    with farm(2) as cluster, Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2)
        run = started(world, store, cluster=cluster.address)
        kill(cluster.workers[0])
        cluster.workers += [cluster.start_worker(), cluster.start_worker()]
        client.wait_for_workers(3)
        (retired, *_) = client.scheduler_info(n_workers=-1)["workers"]
        client.retire_workers([retired])
        _, errors = run.communicate(timeout=600)
        assert run.returncode == 0, errors.decode()
    assert tables(store) == tables(world.undisturbed)


def test_a_run_whose_workers_are_all_gone_ends_with_3_and_the_same_call_resumes(world, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "faults")
    store = str(tmp_path / "store")
    with farm(1) as cluster:
        monkeypatch.setitem(clusters.NO_WORKER_S, cluster.address, 2.0)
        killing = threading.Thread(target=lambda: (wait_until(lambda: fronts_of(store)), kill(cluster.workers[0])))
        killing.start()
        assert calfin(*world.map_call(store, cluster=cluster.address)) == 3
        killing.join()
    assert "all workers are gone, and none came within 2 s; finished batches are stored" in caplog.text
    assert 0 < len(fronts_of(store)) < N_SCENES
    assert calfin(*world.map_call(store)) == 0
    assert tables(store) == tables(world.undisturbed)


def test_a_cluster_without_workers_is_given_up_only_while_tasks_wait_for_them():
    with clusters.connect("local", n_workers=1) as client:
        client.cluster.scale(0)
        wait_until(lambda: not client.nthreads())
        with clusters.watched(client, 0.2) as given_up:
            time.sleep(1)
            assert not given_up()
            assert client.submit(int, "7", pure=False).status == "pending"  # held no longer, so nothing waits
            time.sleep(1)
            assert not given_up()
            waiting = client.submit(int, "7", pure=False)
            wait_until(given_up)
            wait_until(lambda: waiting.status == "cancelled")
        assert client.status == "closed"


def test_tasks_for_a_gpu_are_given_up_when_the_last_worker_with_one_is_gone_and_others_stay():
    with clusters.connect("local", n_workers=1) as client:
        with clusters.watched(client, 0.2) as given_up:
            begun = client.submit(time.sleep, 1.5, pure=False)
            time.sleep(1)
            assert not given_up()
            begun.result()
            waiting = client.submit(int, "7", resources={"GPU": 1}, pure=False)
            wait_until(given_up)
            wait_until(lambda: waiting.status == "cancelled")
        assert client.status == "closed"
    assert given_up().startswith("the workers that could run what waits are gone, those that say GPU or CPU, and none")


def test_a_lost_scheduler_ends_the_run_with_3_and_a_new_cluster_resumes_it(world, tmp_path):
    store = str(tmp_path / "store")
    with farm(1) as cluster:
        run = started(world, store, cluster=cluster.address)
        kill(cluster.scheduler)
        _, errors = run.communicate(timeout=600)
        assert run.returncode == 3, errors.decode()
        assert "the scheduler is lost" in errors.decode()
        assert "Traceback" not in errors.decode()
    assert 0 < len(fronts_of(store)) < N_SCENES
    with farm(1) as cluster:
        assert calfin(*world.map_call(store, cluster=cluster.address)) == 0
    assert tables(store) == tables(world.undisturbed)


@pytest.mark.parametrize("cluster", ["none", pytest.param("local", marks=pytest.mark.slow)])
def test_sigterm_ends_a_run_and_leaves_no_process(world, tmp_path, cluster):
    store = str(tmp_path / "store")
    run = started(world, store, cluster=cluster)
    family = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, signal.SIGTERM)
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 128 + signal.SIGTERM, errors.decode()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    assert calfin(*world.map_call(store)) == 0
    assert tables(store) == tables(world.undisturbed)
