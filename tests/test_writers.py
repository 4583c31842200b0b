"""Three writers that pause for longer than a lease lasts, on a simulated storage and clock: no two ever commit."""

import random
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from calfin_cloud.storage import LeaseLostError, StoreInUseError, files, leases

PAUSE_S = (0.0, 0.0, 1.0, 20.0, 100.0, 1000.0)  # the lease lasts 90 s


class KilledError(BaseException):
    """As sudden as SIGKILL for the code under test."""


class Turns:
    """Lets one writer at a time go on to its next request, in an order that a seed decides."""

    def __init__(self, seed, pauses_s, killed):
        self.pauses_s, self.killed = pauses_s, killed
        self.draw = random.Random(seed)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.mine = threading.local()
        self.waiting = {}
        self.idle = threading.Semaphore(0)

    def wait(self):
        """Wait for the next turn."""
        turn = self.mine.turn
        self.idle.release()
        turn.acquire()
        if self.draw.random() < self.killed:
            raise KilledError

    def run(self, writers):
        """Run the writers to their ends."""
        for writer in writers:
            turn = threading.Semaphore(0)
            self.waiting[turn] = threading.Thread(target=self._live, args=(writer, turn))
            self.waiting[turn].start()
            self.idle.acquire()
        while self.waiting:
            self.now += timedelta(seconds=self.draw.uniform(0, self.draw.choice(self.pauses_s)))
            self.draw.choice(list(self.waiting)).release()
            self.idle.acquire()

    def _live(self, writer, turn):
        self.mine.turn = turn
        try:
            self.wait()
            writer()
        except KilledError:
            pass
        finally:
            self.waiting.pop(turn)
            self.idle.release()


class Storage:
    """What a bucket does, each request at one moment: files with the time at which they were written."""

    protocol = "simulated"

    def __init__(self, turns):
        self.turns, self.files, self.committed = turns, {}, []

    def _get(self, path):
        self.turns.wait()
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def cat_file(self, path):
        return self._get(path)[0]

    def modified(self, path):
        return self._get(path)[1]

    def exists(self, path):
        self.turns.wait()
        return path in self.files

    def ls(self, root, detail):
        self.turns.wait()
        return list(self.files)

    def pipe_file(self, path, data, mode="overwrite"):
        self.turns.wait()
        if mode == "create" and path in self.files:
            raise FileExistsError(path)
        self.files[path] = data, self.turns.now

    def rm_file(self, path):
        self.turns.wait()
        self.files.pop(path, None)

    def cp_file(self, path, to):
        data, _ = self._get(path)
        self.files[to] = data, self.turns.now
        if "/fronts/" in to:
            self.committed.append(data)


def run_schedule(seed, pauses_s=PAUSE_S, killed=0.003):
    """Let three writers hold a store and commit to it twice each; count what became of them."""
    turns = Turns(seed, pauses_s, killed)
    storage, seen = Storage(turns), Counter()
    before = len(storage.committed)

    def write():
        lease = leases._Lease("store", "map", (storage, "root"))
        try:
            lease.take()
        except StoreInUseError:
            seen["refused"] += 1
            return lease.release()
        storage.committed.append(f"begun {lease.token}".encode())
        try:
            for n in range(2):
                lease.commit(f"root/fronts/{n}", lease.token.encode())
                lease.give_sign()
            lease.release()
        except LeaseLostError:
            seen["lost"] += 1

    def write_twice():
        write()
        write()

    turns.run([write_twice] * 3)
    seen["left"] = f"root/{leases.HOLDER}" in storage.files
    holder = None
    for event in storage.committed[before:]:
        if event.startswith(b"begun "):
            holder = event.removeprefix(b"begun ")
            seen["begun"] += 1
        else:
            seen["commits"] += 1
            seen["wrong"] += event != holder
    return seen


def run_schedules(n, *of):
    return sum((run_schedule(seed, *of) for seed in range(n)), Counter())


@pytest.fixture(autouse=True)
def _one_machine(monkeypatch):
    """Asked once: it is the same for all, and reading it would take half of the time."""
    machine, started = leases._machine(), leases._started(1)
    monkeypatch.setattr(files, "READERS", 1)  # no threads but those that take turns
    monkeypatch.setattr(leases, "_machine", lambda: machine)
    monkeypatch.setattr(leases, "_started", lambda _: started)


@pytest.mark.parametrize("n", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_two_of_three_writers_ever_commit_however_long_they_sleep_between_two_requests(n):
    seen = run_schedules(n)
    assert seen["wrong"] == 0
    assert min(seen["commits"], seen["begun"], seen["refused"], seen["lost"]) > n / 5, seen


def test_writers_that_neither_sleep_nor_die_leave_a_free_store():
    n = 1000
    seen = run_schedules(n, (0.0, 1.0), 0.0)
    assert (seen["wrong"], seen["lost"], seen["left"]) == (0, 0, 0)
    assert min(seen["commits"], seen["begun"], seen["refused"]) > n, seen


@pytest.mark.parametrize("left_out", ["check", "_delete_others"])
def test_the_measure_itself_finds_a_lease_that_leaves_out_a_step(monkeypatch, left_out):
    monkeypatch.setattr(leases._Lease, left_out, lambda _: None)
    assert run_schedules(500)["wrong"] > 0
