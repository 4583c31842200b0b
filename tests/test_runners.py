"""How scenes are cut into tasks: every picture once, enough of them for a GPU, and no scene left out."""

import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import CancelledError
from functools import partial
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Timer

import dask
import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import calfin_cloud as cc
from calfin_cloud.clusters import connect
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.opinions import Pictures
from calfin_cloud.pipeline import MapSettings, ordering
from calfin_cloud.pipeline.batches import Batch
from calfin_cloud.pipeline.ordering import in_order
from calfin_cloud.pipeline.runners import WorkersDiedError, _gathered, _Tasks, _together, run_each, waves
from calfin_cloud.pipeline.workers import (
    MOST_PIXELS,
    MOST_SCENES,
    Placement,
    group_length,
    placement_of,
)
from calfin_cloud.storage import hold_lease, keep_domain, kept_domains
from calfin_cloud.storage.leases import LeaseLostError


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 200))
def test_groups_share_tasks_so_that_each_has_enough_pictures_and_each_picture_one_task(lengths, fewest):
    tasks = _together(lengths, fewest)
    places = [place for task in tasks for place in task]
    assert places == [place for place, length in enumerate(lengths) if length]
    assert len(tasks) <= 1 or all(sum(lengths[place] for place in task) >= fewest for task in tasks)


@given(side=st.integers(64, 4096), n_scenes=st.integers(1, 300), n_threads=st.integers(1, 64))
def test_a_group_gives_every_thread_work_and_is_bounded(side, n_scenes, n_threads):
    domain = Domain("a", box_grid((0, 0, side * 30, side * 30), 3413, 30.0))
    length = group_length(domain, n_scenes, Placement(None, None, n_threads))
    assert 1 <= length <= MOST_SCENES
    assert length == 1 or length * side**2 <= MOST_PIXELS
    assert -(-n_scenes // length) >= min(n_threads, n_scenes) or length == -(-n_scenes // n_threads)


def client_that(**answers):
    """A client that can be a key, as real ones can."""
    return type("Client", (), {name: staticmethod(answer) for name, answer in answers.items()})()


def test_workers_are_asked_for_once_in_a_while_and_each_client_for_its_own(monkeypatch):
    asked = []
    one, other = client_that(), client_that()
    ask = lambda client: asked.append(client) or len(asked)  # noqa: E731
    assert [ordering.lately(ask, client) for client in (one, one, other, one, other)] == [1, 1, 2, 1, 2]
    monkeypatch.setattr(ordering, "ASK_AGAIN_S", -1.0)
    assert ordering.lately(ask, one) == 3
    gone = weakref.ref(one)
    asked.clear()
    del one
    assert gone() is None


@pytest.mark.parametrize("closed", ["cluster", "client"])
def test_a_client_that_is_closed_or_its_cluster_is_told_in_words_before_anything_is_written(closed, tmp_path):
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as cluster:
        client = Client(cluster)
        if closed == "client":
            client.close()
    domain = Domain("A", box_grid((0, 0, 6_000, 6_000), 3413))
    with pytest.raises(ConnectionError, match="the client or its cluster is closed: start one"):
        cc.map_fronts([domain], lambda _: [], tmp_path / "store", client=client)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("resources", "expected"), [({}, [32, 32, 32, 32]), ({"GPU": 1}, [128])])
def test_batches_are_taken_together_only_where_a_gpu_wants_many_pictures(resources, expected):
    workers = {"w": {"resources": resources, "nthreads": 1}}
    client = client_that(status="running", scheduler_info=lambda n_workers: {"workers": workers})
    domain = Domain("a", box_grid((0, 0, 3000, 3000), 3413, 30.0))
    batches = [Batch(domain, [object()] * 32, list(np.arange(32))) for _ in range(4)]
    assert [sum(len(b.scenes) for b in wave) for wave in waves(iter(batches), client)] == expected
    assert [len(wave) for wave in waves(iter(batches), None)] == [1] * 4


def once(seen: str) -> int:
    """A step that its worker survives once."""
    if os.path.exists(seen):
        os.kill(os.getpid(), signal.SIGKILL)
    open(seen, "w").close()
    return 1


def test_a_result_that_is_lost_with_its_worker_and_then_kills_others_is_an_error_of_its_group(tmp_path):
    seen = str(tmp_path / "seen")
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), connect("local", n_workers=1) as client:
        made = [client.submit(once, seen, pure=False)]
        assert _gathered(client, made) == [1]
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        assert [type(error) for error in _gathered(client, made)] == [KilledWorker]
        with pytest.raises(WorkersDiedError, match="stay as they were: give each worker more memory"):
            list(run_each(once, [seen], client=client))  # as a retrace does: no front may get lost that way
        os.remove(seen)
        assert list(run_each(once, [seen], client=client)) == [1]


def test_a_run_that_fails_ends_though_a_job_of_it_waits_for_what_never_comes():
    code = """
from threading import Event
from calfin_cloud.pipeline.ordering import in_order

def run(job):
    if job:
        Event().wait()
    raise ValueError("the first job fails")

class Client:
    nthreads = dict

list(in_order(run, [0, 1], Client()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "ValueError: the first job fails" in done.stderr


def test_a_job_that_waits_for_a_client_that_was_closed_meanwhile_ends_the_run(monkeypatch):
    """Dask may leave a thread waiting that fetches results in the moment in which the client is closed."""
    monkeypatch.setattr(ordering, "LOOK_S", 0.1)
    monkeypatch.setattr(ordering, "LAST_WORDS_S", 0.1)
    with connect("local", n_workers=1) as client:

        def run(job: str) -> None:
            Timer(0.5, client.close).start()
            Event().wait()

        with pytest.raises(CancelledError, match="the client was closed"):
            list(in_order(run, ["fetches"], client))


def test_a_job_that_outlives_its_run_commits_nothing_though_the_store_is_held_anew(tmp_path):
    store, is_over, told = str(tmp_path), Event(), SimpleQueue()
    client = client_that(nthreads=dict)

    def run(job: str) -> None:
        if job == "fails":
            raise OSError("the first job fails")
        is_over.wait(60)  # between its last look at the lease and the commit
        try:
            keep_domain(store, Domain("late", box_grid((0, 0, 3000, 3000), 3413, 30.0)))
        except LeaseLostError as error:
            told.put(error)
        else:
            told.put(None)

    with pytest.raises(OSError, match="the first job fails"), hold_lease(store, "map"):
        list(in_order(run, ["fails", "late"], client))
    with hold_lease(store, "map"):
        is_over.set()
        assert isinstance(told.get(timeout=60), LeaseLostError)
        keep_domain(store, Domain("own", box_grid((0, 0, 3000, 3000), 3413, 30.0)))
    assert kept_domains(store) == {"own"}


def step_that(folder: str, name: str, *, waits_for: str = "") -> None:
    """A step that notes that it has begun, and may wait."""
    Path(folder, name).touch()
    while waits_for and not Path(folder, waits_for).exists():
        time.sleep(0.01)


def test_tasks_of_a_run_that_has_failed_are_given_up_unless_a_worker_has_them(tmp_path):
    """Workers went on with all that the other jobs had started, and a second run had to wait for it."""
    with connect("local", n_workers=1) as client:

        def run(job: str) -> None:
            if job == "fails":
                while not Path(tmp_path, "0").exists() or len(client.futures) < 5:  # as many as are started at a time
                    time.sleep(0.01)
                raise OSError("the first one fails")
            step = partial(step_that, str(tmp_path), waits_for="end")
            list(run_each(step, [str(n) for n in range(20)], client=client))

        with pytest.raises(OSError, match="the first one fails"):
            list(in_order(run, ["fails", "goes on"], client))
        deadline = time.monotonic() + 60
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            assert time.monotonic() < deadline, "tasks of the run that has failed still wait"
            time.sleep(0.01)
        Path(tmp_path, "end").touch()
        client.submit(step_that, str(tmp_path), "next run").result()
        a_thread = float(dask.config.get("distributed.scheduler.worker-saturation"))  # one that runs, and one ahead
        assert len(list(tmp_path.glob("[0-9]*"))) <= sum(ceil(a_thread * n) for n in client.nthreads().values())


class LostError(Exception):
    """What ends a worker in the midst of a step."""


def pictures_or_lost(n: int) -> Pictures:
    if n < 0:
        raise LostError("gone")
    return Pictures(np.full((n, 256, 256, 3), 128, np.uint8), np.zeros(n, bool), np.zeros(n, bool))


def test_a_group_that_is_lost_between_two_steps_takes_no_other_with_it():
    with connect("local", n_workers=1) as c:
        tasks = _Tasks(c, placement_of(c), MapSettings(network="calfin-small-2"))
        first, lost, without = tasks.predict(tasks.each(pictures_or_lost, [2, -1, 0]))
        assert c.gather(first).shape == (2, 256, 256, 4)
        assert isinstance(lost.exception(), LostError)
        assert c.gather(without).shape == (0, 256, 256, 4)
