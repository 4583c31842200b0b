"""One run writes to a store at a time: the others say who it is, and a dead or sleeping one is followed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from s3fs import S3FileSystem
from servers.proxy import FaultProxy, flipped, listening
from storing import DOMAIN, NOON, PLACES, contents, new_store, paths_in, write_masks

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.storage import files, leases

HOLD = """
import sys, time
from calfin_cloud.storage import hold_lease, leases
leases.EXPIRES_S, leases.RENEWS_S = float(sys.argv[2]), float(sys.argv[3])
with hold_lease(sys.argv[1], "map") as check:
    print("held", flush=True)
    for line in sys.stdin:
        check()
        print("written", flush=True)
"""


@pytest.fixture(params=PLACES)
def store(request):
    return new_store(request.param, request)


@pytest.fixture(params=("disk", pytest.param("s3", marks=pytest.mark.slow)))
def slow_store(request):
    return new_store(request.param, request)


def short_s(store):
    """A time after which a silent run may be followed: files on disk have a finer time than S3, which tells seconds."""
    return 0.4 if store.startswith("/") else 2.0


def process(store, *, expires=90.0, renews=15.0):
    """A process that holds the store, and writes to it when told."""
    words = [sys.executable, "-c", HOLD, store, str(expires), str(renews)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(words, **pipes)
    assert started.stdout.readline() == "held\n", started.communicate()[1]
    return started


def end(started):
    started.kill()
    started.communicate()


def tell(started):
    """Have a process write; return what it says."""
    started.stdin.write("write\n")
    started.stdin.flush()
    return started.stdout.readline()


def held_by_another_machine(store, **about):
    """Put a lease there as a run elsewhere would; return its path."""
    fs, root = files.open_place(store)
    content = {"verb": "map", "host": "far", "process": 7, "since": "2026-01-01T00:00:00+00:00", "token": "t"}
    path = f"{root}/{leases.HOLDER}"
    files.write_whole(fs, path, json.dumps(content | {"machine": "another", "started": "1"} | about).encode())
    return path


def test_a_second_run_hears_who_holds_the_store_and_nothing_stays_behind(store):
    with storage.hold_lease(store, "map") as check:
        check()
        holder = storage.lease_holder(store)
        assert (holder["verb"], holder["process"]) == ("map", os.getpid())
        with pytest.raises(storage.StoreInUseError) as refused, storage.hold_lease(store, "retry"):
            pass
        assert f"`calfin map` on {holder['host']} (process {os.getpid()}) since {holder['since']}" in str(refused.value)
        check()
    assert storage.lease_holder(store) is None
    assert paths_in(store) == []
    with storage.hold_lease(store, "retry"):
        pass


def test_of_many_runs_at_once_never_two_hold_the_store(store):
    holding, most, held = [], [], []
    start = threading.Barrier(6)

    def run():
        start.wait()
        for _ in range(5):
            try:
                with storage.hold_lease(store, "map"):
                    holding.append(1)
                    most.append(len(holding))
                    held.append(1)
                    time.sleep(0.01)
                    holding.pop()
            except storage.StoreInUseError:
                time.sleep(0.01)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert held
    assert paths_in(store) == []


def test_runs_that_come_while_others_go_leave_a_free_store(tmp_path):
    """Half of the rounds show a run that looks at a holder who leaves meanwhile."""
    store = str(tmp_path / "store")
    (tmp_path / "store").mkdir()

    def run():
        start.wait()
        for _ in range(8):
            with suppress(storage.StoreInUseError), storage.hold_lease(store, "map"):
                pass

    for _ in range(40):
        start = threading.Barrier(6)
        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert paths_in(store) == []


def test_a_killed_run_on_this_machine_frees_the_store_at_once(store):
    killed = process(store)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert storage.lease_holder(store)["process"] == killed.pid
    with storage.hold_lease(store, "retry") as check:
        check()
    assert paths_in(store) == []


def test_a_killed_run_whose_parent_has_not_looked_is_as_dead(slow_store):
    zombie = process(slow_store)
    os.kill(zombie.pid, signal.SIGKILL)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with storage.hold_lease(slow_store, "retry"):
        pass
    zombie.communicate()


def test_another_process_under_the_number_of_a_dead_one_is_no_holder(store):
    held_by_another_machine(store, machine=leases._machine(), process=os.getpid(), started="1")
    with storage.hold_lease(store, "retry"):
        assert storage.lease_holder(store)["verb"] == "retry"


def test_a_living_run_on_another_machine_is_waited_for_until_it_has_long_been_silent(store, monkeypatch):
    path = held_by_another_machine(store)
    with pytest.raises(storage.StoreInUseError, match="on far"), storage.hold_lease(store, "retry"):
        pass
    monkeypatch.setattr(leases, "EXPIRES_S", short_s(store))
    time.sleep(1.6 * short_s(store))
    with storage.hold_lease(store, "retry"):
        fs, _ = files.open_place(store)
        assert b"far" not in fs.cat_file(path)


@pytest.mark.parametrize(
    "odd", [{"process": None}, {"process": "x"}, {"process": [1]}, {"token": "a\0b"}, {"token": {}}]
)
def test_a_lease_with_odd_values_has_no_name_and_is_waited_for_until_it_has_long_been_silent(tmp_path, odd):
    store = str(tmp_path / "store")
    path = held_by_another_machine(store, **{"machine": leases._machine(), **odd})
    assert storage.lease_holder(store)["free_from"] != "now"
    with pytest.raises(storage.StoreInUseError, match="if it was killed"), storage.hold_lease(store, "retry"):
        pass
    os.utime(path, times=(time.time() - 1000,) * 2)
    with storage.hold_lease(store, "retry"):
        pass


def test_a_wrong_clock_of_this_machine_changes_nothing(tmp_path, monkeypatch):
    store, real = str(tmp_path / "store"), time.time
    held_by_another_machine(store)
    for hours in (-30, 30):
        monkeypatch.setattr(time, "time", lambda hours=hours: real() + timedelta(hours=hours).total_seconds())
        with pytest.raises(storage.StoreInUseError), storage.hold_lease(store, "retry"):
            pass


def test_a_run_that_slept_and_was_followed_writes_no_more(slow_store):
    asleep = process(slow_store, expires=short_s(slow_store), renews=0.1)
    try:
        assert tell(asleep) == "written\n"
        os.kill(asleep.pid, signal.SIGSTOP)
        time.sleep(1.8 * short_s(slow_store))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "EXPIRES_S", short_s(slow_store))
            with storage.hold_lease(slow_store, "retry") as check:
                os.kill(asleep.pid, signal.SIGCONT)
                assert tell(asleep) == ""
                check()
        assert "another one has taken the store over" in asleep.communicate()[1]
    finally:
        end(asleep)
    assert paths_in(slow_store) == []


def test_a_run_that_slept_through_a_whole_other_run_writes_no_more(slow_store):
    asleep = process(slow_store, expires=short_s(slow_store), renews=0.1)
    try:
        os.kill(asleep.pid, signal.SIGSTOP)
        time.sleep(1.8 * short_s(slow_store))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "EXPIRES_S", short_s(slow_store))
            with storage.hold_lease(slow_store, "retry"):
                pass
        os.kill(asleep.pid, signal.SIGCONT)
        assert tell(asleep) == ""
    finally:
        end(asleep)


def test_a_run_that_slept_and_was_not_followed_goes_on(slow_store):
    asleep = process(slow_store, expires=short_s(slow_store), renews=0.1)
    try:
        os.kill(asleep.pid, signal.SIGSTOP)
        time.sleep(1.5 * short_s(slow_store))
        os.kill(asleep.pid, signal.SIGCONT)
        assert tell(asleep) == "written\n"
    finally:
        end(asleep)


def test_a_long_run_renews_its_lease(store, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES_S", 3.0)
    monkeypatch.setattr(leases, "RENEWS_S", 0.3)
    with storage.hold_lease(store, "map") as check:
        monkeypatch.setattr(leases, "_machine", lambda: "another")  # the other run is not on this machine
        time.sleep(5)
        with pytest.raises(storage.StoreInUseError), storage.hold_lease(store, "retry"):
            pass
        check()


def test_what_killed_runs_left_behind_is_deleted(tmp_path):
    for name in ("lease-now-1", "lease-0123456789abcdef", ".lease-0123456789abcdef.part", "lease-0123456789abcdef-1"):
        (tmp_path / name).write_bytes(b"left")
    with storage.hold_lease(str(tmp_path), "map"):
        pass
    assert paths_in(str(tmp_path)) == []


def test_a_run_killed_on_another_machine_is_told_with_the_second_that_frees_the_store(store):
    path = held_by_another_machine(store)
    fs, _ = files.open_place(store)
    free = fs.modified(path) + timedelta(seconds=leases.EXPIRES_S)
    words = f"if it was killed, the store is free from {free:%Y-%m-%dT%H:%M:%SZ} on"
    with pytest.raises(storage.StoreInUseError, match=words), storage.hold_lease(store, "retry"):
        pass


def test_a_commit_that_slept_while_another_run_came_and_went_is_not_made(store, monkeypatch):
    fs, root = files.open_place(store)
    path, real = f"{root}/fronts/x", leases.move_file

    def slow_move(fs, staged, to):
        monkeypatch.setattr(leases, "move_file", real)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases._Lease, "_has_ended", lambda *_: True)
            with storage.hold_lease(store, "retry"):
                pass
        real(fs, staged, to)

    with storage.hold_lease(store, "map"):
        monkeypatch.setattr(leases, "move_file", slow_move)
        with pytest.raises(storage.LeaseLostError):
            leases.commit_whole(fs, root, path, b"late")
    assert paths_in(store) == []


def test_a_commit_that_slept_over_a_half_written_file_says_that_another_run_has_followed(tmp_path, monkeypatch):
    store, real = str(tmp_path / "store"), os.fsync
    fs, root = files.open_place(store)

    def slow_fsync(number):
        monkeypatch.setattr(os, "fsync", real)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases._Lease, "_has_ended", lambda *_: True)
            with storage.hold_lease(store, "retry"):
                pass
        real(number)

    with storage.hold_lease(store, "map"):
        monkeypatch.setattr(os, "fsync", slow_fsync)
        with pytest.raises(storage.LeaseLostError):
            leases.commit_whole(fs, root, f"{root}/fronts/x", b"late")
    assert paths_in(store) == []


def test_a_run_that_slept_while_it_laid_out_masks_deletes_none_of_its_followers(store, monkeypatch):
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    masks, real = np.random.default_rng(0).random((2, *DOMAIN.shape), dtype=np.float32), leases.move_file

    def slow_move(fs, staged, to):
        monkeypatch.setattr(leases, "move_file", real)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases._Lease, "_has_ended", lambda *_: True)
            with storage.hold_lease(store, "map"):
                write_masks(store, DOMAIN.name, storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})["b"], masks)
        real(fs, staged, to)

    with storage.hold_lease(store, "map"):
        monkeypatch.setattr(leases, "move_file", slow_move)
        with pytest.raises(storage.LeaseLostError):
            storage.add_scenes(store, DOMAIN, {"a": NOON})
    np.testing.assert_allclose(storage.read_scene_masks(store, DOMAIN.name, 1), masks, atol=0.005)


def test_what_outlives_its_run_writes_no_more(store):
    with storage.hold_lease(store, "map") as check:
        check()
    with pytest.raises(storage.LeaseLostError):
        check()


def test_a_lease_has_no_secrets(request):
    store = new_store("s3", request)
    with storage.hold_lease(store, "map"):
        text = b"".join(contents(store).values()).decode()
    server = request.getfixturevalue("s3")
    assert server.key not in text
    assert server.secret not in text


def test_status_says_until_when_a_killed_run_holds_a_store(tmp_path, capsys):
    store = str(tmp_path / "store")
    storage.open_store(store, crs="EPSG:3413", made_by={})
    fs, _ = files.open_place(store)
    path = held_by_another_machine(store)
    free = fs.modified(path) + timedelta(seconds=leases.EXPIRES_S)
    assert main(["status", store]) == 0
    assert f"if it was killed, the store is free from {free:%Y-%m-%dT%H:%M:%SZ} on" in capsys.readouterr().out
    gone = json.loads(leases._about("retrace", "t")) | {"started": "0"}
    storage.begin_change(store, "retrace")
    Path(path).write_text(json.dumps(gone))
    assert main(["status", store]) == 0
    told = capsys.readouterr().out
    assert "was killed while it wrote: the store is free" in told
    assert "was stopped before its end: run it again to the end; or back to what it was" in told


def test_a_bit_that_flips_while_a_lease_is_read_neither_ends_a_run_nor_lets_another_follow(tmp_path, monkeypatch):
    """A run took itself for followed, and left the store held; or a second one took a living run for a dead one."""
    store, draw, read = str(tmp_path / "store"), random.Random(1), LocalFileSystem.cat_file
    flips = list[str]()

    def flip_some(self, path, *args, **more):
        data = read(self, path, *args, **more)
        if not path.endswith(leases.HOLDER) or draw.random() < 0.9:
            return data
        flips.append(path)
        return flipped(data, draw)

    living = process(store)
    monkeypatch.setattr(LocalFileSystem, "cat_file", flip_some)
    for _ in range(100):
        with pytest.raises(storage.StoreInUseError), storage.hold_lease(store, "retry"):
            pass
    assert tell(living) == "written\n"
    end(living)
    with storage.hold_lease(store, "map") as check:
        for _ in range(200):
            check()
    assert len(flips) > 30


def test_a_run_whose_lease_cannot_be_given_back_tells_what_ended_it_and_the_next_one_need_not_wait(
    s3, monkeypatch, request
):
    """The error of the lease was told, since not every client raises an OSError; the same process waited for 90 s."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with listening(FaultProxy(s3.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        S3FileSystem.clear_instance_cache()
        store = new_store("s3", request)

        def run():
            with storage.hold_lease(store, "map"):
                proxy.stop()
                raise ValueError("ends the run")

        with pytest.raises(ValueError, match="ends the run"):
            run()
        proxy.start()
        assert storage.lease_holder(store)["free_from"] == "now"
        with storage.hold_lease(store, "map") as check:
            check()
            with pytest.raises(storage.StoreInUseError), storage.hold_lease(store, "retry"):
                pass
    S3FileSystem.clear_instance_cache()
