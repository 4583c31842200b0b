"""What to do when a file cannot be read: whether to ask again, how long to wait, when to give up, and what to say.

A scene has a deadline, whatever number of files, requests and attempts it takes.
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

DEADLINE_S = 120.0
"""Longest time for a scene, all its layers together."""

ATTEMPTS = {"unreachable": 6, "unreadable": 3}
"""Attempts at a file: the network mends itself, a broken block of a file seldom does."""

FIRST_PAUSE_S = 0.5
"""Pause before the second attempt, doubled before each further one, times a random number from 0.5 to 1.5."""

READING_THREADS = 8
"""Files that a process reads at once; those given up at their deadline count until GDAL lets go of them too."""

LASTING = r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidCredentials|NotFound|NoSuch(Key|Bucket)"
"""What GDAL or a server of S3 says of trouble that another attempt does not end."""

BUSY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_places = threading.BoundedSemaphore(READING_THREADS)
_pool = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="calfin-reading")


class Trouble(NamedTuple):
    """Why a file could not be read: a reason code of `schema`, and whether another attempt makes sense."""

    reason: str
    is_lasting: bool
    wait_s: float = 0.0


def within_deadline(read: Callable[[float], T], what: str, *, seconds: float) -> T:
    """Read in a thread of its own: `read` gets the end of its time; `SceneError("unreachable")` after `seconds`.

    A thread that is left behind ends with its request, which GDAL stops once nothing comes for 20 s.
    """
    _places.acquire()
    future = _pool.submit(read, time.monotonic() + seconds)
    future.add_done_callback(lambda _: _places.release())
    try:
        result: T = future.result(timeout=seconds)
    except TimeoutError:
        raise SceneError("unreachable", f"no answer within {seconds:g} s from {shown(what)}") from None
    return result


def with_patience(read: Callable[[], T], href: str, *, until: float) -> T:
    """Read until it succeeds, its trouble lasts, or time or attempts are over; then raise a `SceneError`."""
    for attempt in itertools.count(1):
        try:
            return read()
        except SceneError:
            raise
        except Exception as error:
            trouble, words = trouble_of(error, href), _told(error)
        pause = max(trouble.wait_s, random.uniform(0.5, 1.5) * FIRST_PAUSE_S * 2 ** (attempt - 1))
        if trouble.is_lasting or attempt == ATTEMPTS[trouble.reason] or time.monotonic() + pause > until:
            break
        time.sleep(pause)
    # Raised here and not in the handler: GDAL's errors cannot be sent between processes and may hold a signature.
    times = "" if attempt == 1 else f" in {attempt} attempts"
    raise SceneError(trouble.reason, f"cannot read {shown(href)}{times}: {words}")


def trouble_of(error: BaseException, href: str) -> Trouble:
    """Tell trouble that passes from trouble that lasts."""
    if isinstance(error, ValueError) or urlsplit(href).scheme in ("", "file"):
        return Trouble("unreadable", is_lasting=True)
    if isinstance(error, StatusError):
        return _trouble_of_status(error.status, error.retry_after_s)
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        return Trouble("unreachable", is_lasting=False)
    words = " ".join(_words_of(error))
    if found := re.search(r"HTTP response code: (\d+)", words):
        return _trouble_of_status(int(found.group(1)))
    if re.search(LASTING, words):
        return Trouble("unreadable", is_lasting=True)
    is_network = re.search(r"CURL error|CPLE_AWSError|timed out", words) is not None
    return Trouble("unreachable" if is_network else "unreadable", is_lasting=False)


def _trouble_of_status(status: int, wait_s: float = 0.0) -> Trouble:
    is_busy = status in BUSY_STATUS or status == 0
    return Trouble("unreachable" if is_busy else "unreadable", is_lasting=not is_busy, wait_s=wait_s)


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
