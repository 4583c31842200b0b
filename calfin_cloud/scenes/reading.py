"""Documents of catalogues: JSON of bounded size, asked for again where that helps; and what goes wrong, in words."""

from __future__ import annotations

import gc
import json
import logging
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import pystac
import requests
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry
from urllib3.exceptions import MaxRetryError, NameResolutionError

from calfin_cloud.object_stores import open_files
from calfin_cloud.public_catalogs import NAMES

log = logging.getLogger(__name__)

T = TypeVar("T")
Feature = dict[str, Any]
"""A STAC item as its JSON values."""

LATER = "check its address, or make the same call again later"
"""What to do about a catalogue that cannot be reached, at the end of its error."""

TRIES_OF_A_NAME = 3  # of a host that no server of names knows, within 2 s: theirs may slip, but it is mostly mistyped
UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class NamesRetry(Retry):
    """Asks a host whose name is unknown less often than one that is busy or silent."""

    def increment(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (as in urllib3)
        """Count a try that failed; raise the error where it was the last one."""
        tried = super().increment(*args, **kwargs)
        error = kwargs.get("error")
        is_unknown = getattr(getattr(error, "__cause__", None), "errno", None) in UNKNOWN_NAME
        if isinstance(error, NameResolutionError) and is_unknown and len(tried.history) >= TRIES_OF_A_NAME:
            raise MaxRetryError(kwargs["_pool"], tried.history[-1].url or "", error) from error
        return tried


RETRY = NamesRetry(
    total=5, backoff_factor=0.5, backoff_jitter=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None
)
"""Busy and overloaded servers are asked again, searches by POST too: they change nothing."""

TIMEOUT_S = (10, 60)  # to connect, and between two pieces of an answer
TRIES = 3  # where an answer breaks off in its middle, which RETRY does not see
LARGEST_DOCUMENT = 128 * 2**20  # bytes of one page or file; 100 items of the largest kind are 10 MB

PASSING = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.RetryError,
    ConnectionError,
    TimeoutError,
)
"""What may be over by the next call."""


class CatalogUnreachableError(OSError):
    """The server of a catalogue is silent, busy or broken."""

    exit_code = 3  # of the command line: the same call may succeed later


@contextmanager
def telling(address: str) -> Iterator[None]:
    """Turn what goes wrong with a catalogue into an error that names it, and says whether it may pass."""
    try:
        yield
    except KnownError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        said = f"cannot read the catalogue {shown(address)}: {_told(error)}"
        if _may_pass(error):
            raise CatalogUnreachableError(f"{said}; {LATER}") from error
        raise ValueError(
            f"{said}; expected a STAC API, a catalog.json, items as GeoJSON or stac-geoparquet, "
            f"or the name of a public catalogue: {NAMES}"
        ) from error


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python's collector of cycles wait, in all threads, while JSON values are made: they have no cycles.

    It would look through all that is alive, again and again, while a page of 100,000 values is made: 0.33 ms an item
    instead of 0.09.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def unless_odd(use: Callable[[Feature], T], feature: Feature) -> T | None:
    """Use an item; leave out one that cannot be used, with a warning that names it, so that its catalogue goes on."""
    try:
        return use(feature)
    except Exception as error:
        name = feature.get("id") if isinstance(feature, dict) else None
        told = repr(name) if isinstance(name, str) else str(feature)[:100]
        log.warning("left out the item %s: %s", told, _told(error))
        return None


def shown(address: str) -> str:
    """Address for messages and files: without query and user, where secrets are."""
    return re.sub(r"(?<=://)[^/@]*@", "", address.partition("?")[0])


class KnownError(Exception):
    """A mistake already told in the user's words."""


def _may_pass(error: BaseException) -> bool:
    """Whether the server failed, or the way to it, and not what was asked; no certificate gets better by waiting."""
    if status := getattr(error, "status_code", None):
        return bool(status == 429 or status >= 500)
    chain = list(_chain(error))  # pystac-client and s3fs raise errors of their own while they handle others
    is_refused = any(isinstance(e, requests.exceptions.SSLError | ssl.SSLError) for e in chain)
    return not is_refused and any(isinstance(e, PASSING) for e in chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> str:
    status = getattr(error, "status_code", None)
    text = f"{type(error).__name__}{f' (HTTP status {status})' if status else ''} {error}".strip()
    if inner := re.search(r"\(Caused by .*?\): (.*)[\"']\)\)$", text):  # what happened, within errors of urllib3
        text = inner[1]
    text = re.sub(r"\?\S*|(?<=://)[^/@\s]*@", "", text)[:300]
    return text + (f", because of {_told(error.__cause__)}" if error.__cause__ else "")


class Reader(StacApiIO):
    """Reads JSON of bounded size from http(s), folders and object stores; asks again where an answer breaks off."""

    def __init__(self) -> None:
        super().__init__(timeout=TIMEOUT_S, max_retries=RETRY)
        self.session.hooks["response"].append(_read_bounded)

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 (as in pystac)
        """Text of a link, an address or a file."""
        if isinstance(source, pystac.Link) or urlsplit(str(source)).scheme in ("http", "https"):
            return super().read_text(source, *args, **kwargs)
        fs, path = open_files(str(source))
        with fs.open(path) as file:
            content = file.read(LARGEST_DOCUMENT + 1)
        _check_size(len(content))
        return str(content, "utf-8")

    def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 (as in pystac)
        """Values of a JSON text."""
        with uncollected():
            try:
                return super().json_loads(txt, *args, **kwargs)
            except ValueError:  # orjson takes neither NaN nor half characters, which are in what some servers send
                whole = json.dumps(json.loads(txt), ensure_ascii=False).encode("utf-8", "replace")
                loaded: dict[str, Any] = json.loads(whole)
                return loaded

    def request(self, href: str, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 (as in pystac-client)
        """Text of the answer to one request."""
        for n_left in reversed(range(TRIES)):
            try:
                return super().request(href, *args, **kwargs)
            except APIError as error:
                if not n_left or not isinstance(error.__context__, requests.exceptions.ChunkedEncodingError):
                    raise
                time.sleep(random.uniform(0.2, 1.0))
        raise AssertionError("the last try returns or raises")


def _read_bounded(response: requests.Response, **_: object) -> None:
    """Read an answer before requests would, and no more of it than `LARGEST_DOCUMENT`, unpacked."""
    parts, size = [], 0
    for part in response.iter_content(2**18):
        size += len(part)
        _check_size(size)
        parts.append(part)
    response._content = b"".join(parts)


def _check_size(n_bytes: int) -> None:
    if n_bytes > LARGEST_DOCUMENT:
        raise ValueError(
            f"a page or file has more than {LARGEST_DOCUMENT >> 20} MB: split the collection, or serve it as an API"
        )
