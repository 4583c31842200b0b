"""Retries and deadlines: whether to ask for a file again, how long to wait, when to give up, and what to say.

A file has a deadline, whatever number of requests and attempts it takes; a scene has two files at most.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from distributed.threadpoolexecutor import ThreadPoolExecutor  # whose threads do not keep a process from ending

from calfin_cloud.imagery.access import StatusError
from calfin_cloud.imagery.addresses import shown, without_query
from calfin_cloud.schema import SceneError

T = TypeVar("T")

DEADLINE_S = 60.0
"""Longest time for a file of a scene, all its requests and attempts together."""

ATTEMPTS = {"unreachable": 6, "unreadable": 3}
"""Attempts at a file: the network mends itself, a broken block of a file seldom does."""

FIRST_PAUSE_S = 0.5
"""Pause before the second attempt, doubled before each further one, times a random number from 0.5 to 1.5."""

READING_THREADS = 8
"""Files that a process reads at once; those given up at their deadline count until GDAL lets go of them too."""

LASTING = r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidCredentials|NotFound|NoSuch(Key|Bucket)"
"""What GDAL or a server of S3 says of failures that another attempt does not end."""

BUSY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_slots = threading.BoundedSemaphore(READING_THREADS)
_pool = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="calfin-reading")


class Failure(NamedTuple):
    """Why a file could not be read: a reason code of `schema`, and whether another attempt makes sense."""

    reason: str
    is_lasting: bool
    wait_s: float = 0.0


def within_deadline(read: Callable[[float], T], what: str, *, seconds: float) -> T:
    """Read in a thread of its own: `read` gets the end of its time; `SceneError("unreachable")` after `seconds`.

    A thread that is left behind ends with its request, which GDAL stops once nothing comes for 20 s.
    """
    _slots.acquire()
    future = _pool.submit(read, time.monotonic() + seconds)
    future.add_done_callback(lambda _: _slots.release())
    try:
        result: T = future.result(timeout=seconds)
    except TimeoutError:
        raise SceneError("unreachable", f"no answer within {seconds:g} s from {shown(what)}") from None
    return result


def with_retries(read: Callable[[], T], href: str, *, until: float) -> T:
    """Read until it succeeds, the failure is lasting, or time or attempts are over; then raise a `SceneError`."""
    for attempt in itertools.count(1):
        try:
            return read()
        except SceneError:
            raise
        except Exception as error:
            failure, words = failure_of(error, href), _told(error)
        pause = max(failure.wait_s, random.uniform(0.5, 1.5) * FIRST_PAUSE_S * 2 ** (attempt - 1))
        if failure.is_lasting or attempt == ATTEMPTS[failure.reason] or time.monotonic() + pause > until:
            break
        time.sleep(pause)
    # Raised here and not in the handler: GDAL's errors cannot be sent between processes and may hold a signature.
    times = "" if attempt == 1 else f" in {attempt} attempts"
    raise SceneError(failure.reason, f"cannot read {shown(href)}{times}: {words}")


def failure_of(error: BaseException, href: str) -> Failure:
    """Tell failures that pass from those that last."""
    if isinstance(error, ValueError) or urlsplit(href).scheme in ("", "file"):
        return Failure("unreadable", is_lasting=True)
    if isinstance(error, StatusError):
        return _of_status(error.status, error.retry_after_s)
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        return Failure("unreachable", is_lasting=False)
    words = " ".join(_words_of(error))
    if found := re.search(r"HTTP response code: (\d+)", words):
        return _of_status(int(found.group(1)))
    if re.search(LASTING, words):
        return Failure("unreadable", is_lasting=True)
    is_network = re.search(r"CURL error|CPLE_AWSError|timed out", words) is not None
    return Failure("unreachable" if is_network else "unreadable", is_lasting=False)


def _of_status(status: int, wait_s: float = 0.0) -> Failure:
    is_busy = status in BUSY_STATUS or status == 0
    return Failure("unreachable" if is_busy else "unreadable", is_lasting=not is_busy, wait_s=wait_s)


def _told(error: BaseException) -> str:
    """Message of an error without query; of an answer in XML its code, since the rest is of this one request."""
    words = without_query(str(error) or repr(error))
    code = re.search(r"<Code>(\w+)</Code>", words)
    return f"the server says {code.group(1)}" if code else words


def _words_of(error: BaseException | None) -> list[str]:
    """Class names and messages of an error and its causes: GDAL says in the first what went wrong in the last."""
    words: list[str] = []
    while error is not None:
        words.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return words
