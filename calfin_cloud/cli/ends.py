"""An error that ends a verb becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import logging
import select
import signal
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from calfin_cloud.cli.output import note, notes
from calfin_cloud.whole_files import FULL_NUMBERS

MISTAKE, TRY_AGAIN, UNEXPECTED, INTERRUPTED, UNREAD = 2, 3, 70, 130, 141
"""Exit codes. An unexpected error is neither 1 nor 2, after which a Kubernetes Job is not tried again."""

RESUMED = {"map", "retry", "retrace", "reconcile", "compact", "merge", "train"}
"""Verbs that keep what was done before they were stopped."""

REMEDIES: dict[type, str] = {
    FileNotFoundError: "check the path",
    NotADirectoryError: "a folder is needed there, which may be new",
    FileExistsError: "a folder is needed there, which may be new",
    IsADirectoryError: "a file is needed there",
    PermissionError: "choose a path that you may read or write",
}
"""What to do about an error of the file system."""

PASSING_NUMBERS = {
    errno.EBUSY,  # what s3fs makes of 503
    errno.EIO,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
PASSING_CLASSES = {
    "ConnectionError",  # Python and botocore
    "HTTPClientError",
    "ResponseParserError",  # of botocore: an answer that is no XML, such as the page of a proxy
    "ClientConnectionError",  # aiohttp
    "ServiceRequestError",  # azure
    "ServiceResponseError",
    "TransportError",  # google
    "TimeoutError",
}
"""Errors of clients of object stores, by name since not all clients are installed."""


class ToldToEndError(KeyboardInterrupt):
    """The process was told to end by SIGTERM, as Kubernetes and batch queues send it before they kill."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that a verb closes what it opened and says whether what it did is kept."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise ToldToEndError

    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(verb: str, error: BaseException) -> int:
    """Say what ended a verb, and return the exit code of that."""
    if isinstance(error, KeyboardInterrupt):
        how = "resumes" if verb in RESUMED else "begins anew"
        is_told = isinstance(error, ToldToEndError)
        why = "told to end" if is_told else "interrupted"
        note(f"calfin {verb}: {why}; the same call {how}", level=logging.ERROR)
        return 128 + signal.SIGTERM if is_told else INTERRUPTED
    if isinstance(error, BrokenPipeError) and _is_unread():  # whoever reads has seen enough, as `head` has
        return UNREAD
    if mistake := _mistaken(error):
        note(f"calfin {verb}: {mistake}", level=logging.ERROR)
        return MISTAKE
    if not hasattr(error, "exit_code") and may_pass(error):
        note(f"calfin {verb}: no answer from a server: {error}; make the same call again later", level=logging.ERROR)
        return TRY_AGAIN
    if not isinstance(error, ValueError | OSError):
        notes.error("calfin %s: an unexpected error; please report it", verb, exc_info=error)
        return UNEXPECTED
    note(f"calfin {verb}: {told(error)}", level=logging.ERROR)
    return int(getattr(error, "exit_code", MISTAKE))


def _is_unread() -> bool:
    """Whether nobody reads what is printed any more; a connection to a server breaks with the same error."""
    try:
        sys.stdout.flush()
        polled = select.poll()
        polled.register(sys.stdout, 0)
        return any(events & select.POLLERR for _, events in polled.poll(0))
    except BrokenPipeError:
        return True
    except (AttributeError, ValueError, OSError):  # Windows has no poll, and what is no file cannot break
        return False


def _mistaken(error: BaseException) -> str | None:
    """Say what is wrong with an address or a certificate, where a client of an object store takes it for no answer."""
    if type(error).__name__ == "ParamValidationError":  # of botocore: no bucket can be called so
        return str(error).replace("\n", " ")
    if not {kind.__name__ for kind in type(error).__mro__} & PASSING_CLASSES:
        return None
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error)):
        return f"{error}; name the file of its authority in AWS_CA_BUNDLE, for https:// in SSL_CERT_FILE"
    if any(isinstance(cause, FileNotFoundError) for cause in _chain(error)):
        return f"{error}: a file that the environment names is missing, such as that of AWS_CA_BUNDLE"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def may_pass(error: BaseException) -> bool:
    """Whether an error says that a storage is silent or busy, which may be over by the next call."""
    if _mistaken(error):
        return False
    if getattr(error, "code", getattr(error, "status_code", None)) in (429, 500, 502, 503, 504):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & PASSING_CLASSES) or (isinstance(error, OSError) and error.errno in PASSING_NUMBERS)


def told(error: Exception) -> str:
    """Message of an error; s3fs tells with a word or with none that a server has refused it."""
    if isinstance(error, PermissionError) and error.filename is None:
        return (
            f"the object store refuses: {error.__cause__ or error}; check its keys and endpoint in the environment, "
            "and that they may list what lies below the address, and read, write and delete it"
        )
    if isinstance(error, OSError) and error.errno in FULL_NUMBERS:
        where = f" for {error.filename}" if error.filename else ""
        return f"no space is left{where}: free some and make the same call again"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename}: the file system is read-only; {REMEDIES[PermissionError]}"
    if isinstance(error, OSError) and error.filename is not None and type(error) in REMEDIES:
        return f"{error.filename}: {str(error.strerror).lower()}; {REMEDIES[type(error)]}"
    return str(error)
