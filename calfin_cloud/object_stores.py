"""Object stores: the schemes of their addresses, how long a silent one is waited for, and what a client lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Extra of this package that brings the client, by the scheme of an address."""

ROUNDS, ATTEMPTS, SILENT_S = 3, 3, 10
"""How often s3fs asks a server that takes connections and never answers, in each round its client, for so long each.
A body is read in rounds of rounds: so it is given up after 27 requests and some five minutes, all else after nine. By
themselves they ask 125 times, for half an hour, and 25 times. `AWS_MAX_ATTEMPTS` is heard."""
CONNECTIONS = 32  # to a server: more than are read at a time, who would else wait for those before them in turn

NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")


def open_files(address: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:  # noqa: ANN401 - of fsspec
    """Open the file system of an address, whose listings are never old; return it, and the path there.

    Raises
    ------
    ValueError
        Its client is not installed, or finds no credentials.

    Examples
    --------
    >>> open_files("/data/fronts")[1]
    '/data/fronts'
    """
    with telling_lacks(address):
        fs, path = fsspec.url_to_fs(address, use_listings_cache=False, **options)
    if address.startswith("s3://"):
        fs.retries = ROUNDS
        fs.config_kwargs.setdefault("read_timeout", SILENT_S)
        fs.config_kwargs.setdefault("max_pool_connections", CONNECTIONS)
        if "AWS_MAX_ATTEMPTS" not in os.environ:
            fs.config_kwargs.setdefault("retries", {"total_max_attempts": ATTEMPTS})
    return fs, path


def store_text(store: Any) -> str:  # noqa: ANN401 - whatever was given
    """Address of a store, as text.

    Raises
    ------
    TypeError
        It is none, but for example the table of its fronts.
    """
    if isinstance(store, str | os.PathLike):
        return str(os.fspath(store))
    raise TypeError(
        f"a store is the folder or address that `calfin map` wrote to, got {type(store).__name__}: give its path, "
        "or what `open_store` returns"
    )


def has_store(address: str) -> bool:
    """Whether a store of `calfin map` lies at an address; raises what `open_files` and the client raise."""
    fs, root = open_files(address)
    with telling_lacks(address):
        return bool(fs.exists(f"{root.rstrip('/')}/store.json"))


@contextmanager
def telling_lacks(address: str) -> Iterator[None]:
    """Say in a sentence that the client of an object store is not installed, or finds no credentials.

    Raises
    ------
    ValueError
        It is so; clients say it in errors of their own.

    Examples
    --------
    >>> with telling_lacks("s3://bucket/fronts"):
    ...     raise ImportError("Install s3fs to access S3")
    Traceback (most recent call last):
    ValueError: s3://bucket/fronts: Install s3fs to access S3: pip install "calfin-cloud[s3]"
    """
    try:
        yield
    except ImportError as error:
        extra = EXTRAS.get(address.partition("://")[0])
        if extra is None:
            raise
        raise ValueError(f'{address}: {error}: pip install "calfin-cloud[{extra}]"') from None
    except Exception as error:
        if type(error).__name__ not in NO_CREDENTIALS:
            raise
        raise ValueError(
            f"{address}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or check the address"
        ) from None
