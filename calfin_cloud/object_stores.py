"""Object stores: the schemes of their addresses, and a sentence where a client lacks its package or credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Extra of this package that brings the client, by the scheme of an address."""

NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")


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
