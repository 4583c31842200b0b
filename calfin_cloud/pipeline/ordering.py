"""Jobs of a run, some at a time in threads of their own: results in order, and tasks given up where the run fails.

How many at a time follows from the workers that there are: what a run asks of its cluster while it goes.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, wait
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from contextvars import ContextVar, copy_context
from threading import Lock, Thread
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

from distributed import Client, Future

BATCHES_ALIVE = 3  # one is read while one is predicted and one is traced
THREADS_A_BATCH = 8  # that many workers have work, four scenes each, while batches end and begin
MOST_ALIVE = 64  # batches: 2,000 scenes

ASK_AGAIN_S = 2.0  # clusters grow and shrink
_ANSWERS: WeakKeyDictionary[Client, dict[Callable[[Client], Any], tuple[float, Any]]] = WeakKeyDictionary()

LOOK_S = 5.0
LAST_WORDS_S = 10.0  # in which a job of a closed client may say more of what happened

T = TypeVar("T")
R = TypeVar("R")


def lately(ask: Callable[[Client], T], client: Client) -> T:
    """Answer to a question about the workers of a client, at most `ASK_AGAIN_S` old: with 32 of them one takes 5 ms."""
    answers, now = _ANSWERS.setdefault(client, {}), time.monotonic()
    when, answer = answers.get(ask, (-math.inf, None))
    if now - when > ASK_AGAIN_S:
        answer = ask(client)
        answers[ask] = now, answer
    return cast("T", answer)


class _Started:
    """Tasks that the jobs of a run have started, as long as anyone holds them."""

    def __init__(self) -> None:
        self.futures, self.lock, self.is_over = WeakSet[Future](), Lock(), False

    def add(self, futures: Iterable[Future]) -> None:
        """Take more of them; raise `CancelledError` where the run is over, so that a job of it starts no others."""
        with self.lock:
            self.futures.update(futures)
        if self.is_over:
            raise CancelledError("the run has ended")

    def cancel(self, client: Client) -> None:
        """Give up those that have not begun, so that the next run need not wait for them."""
        self.is_over = True
        with self.lock:
            futures = list(self.futures)
        with suppress(Exception):  # a cluster that is lost has no tasks, and what ended the run is told
            if futures and client.status == "running":
                client.cancel(futures)


_started: ContextVar[_Started | None] = ContextVar("_started", default=None)


def started(futures: Iterable[Future]) -> None:
    """Say which tasks the job of this thread has started."""
    if of_run := _started.get():
        of_run.add(futures)


def in_order(run: Callable[[T], R], jobs: Iterable[T], client: Client | None) -> Iterator[R]:
    """Run jobs, on a cluster as many at a time as keep its workers busy, and yield what they return in order.

    Where one fails, or the run is interrupted, the tasks of the others are given up.
    """
    if client is None:
        yield from map(run, jobs)
        return
    running, tasks = deque[ThreadFuture[R]](), _Started()
    try:
        for job in jobs:
            running.append(_in_thread(run, job, tasks))
            while len(running) > lately(_most_alive, client):
                yield _result_of(running.popleft(), client)
        while running:
            yield _result_of(running.popleft(), client)
    except BaseException:
        tasks.cancel(client)
        raise


def _result_of(job: ThreadFuture[R], client: Client) -> R:
    """Wait for a job; raise `CancelledError` where its client has been closed and the job still waits for an answer."""
    while not wait([job], timeout=LOOK_S).done:
        if client.status == "closed" and not wait([job], timeout=LAST_WORDS_S).done:
            raise CancelledError("the client was closed while it fetched results")
    return job.result()


def _in_thread(run: Callable[[T], R], job: T, tasks: _Started) -> ThreadFuture[R]:
    """Run a job in a daemon thread, so that the process can end: a job whose client is gone may wait for ever.

    Each job gets a thread of its own, since a pool of Dask keeps up to `MOST_ALIVE` threads, and each holds memory. It
    has a copy of this context, and with it the lease of its run.
    """
    future: ThreadFuture[R] = ThreadFuture()

    def work() -> None:
        try:
            future.set_result(run(job))
        except BaseException as error:
            future.set_exception(error)

    context = copy_context()
    context.run(_started.set, tasks)
    Thread(target=context.run, args=(work,), daemon=True).start()
    return future


def _most_alive(client: Client) -> int:
    n_threads = int(sum(client.nthreads().values()))
    return min(max(BATCHES_ALIVE, n_threads // THREADS_A_BATCH), MOST_ALIVE)
