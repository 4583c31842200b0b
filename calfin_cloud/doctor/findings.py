"""What a check found, in words a user can act on and without secrets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found: a status, the detail, and what to do unless all is well."""

    check: str
    status: Status
    detail: str
    remedy: str = ""


REMEDIES = (
    (
        r"pays for it",
        "the bucket lets its reader pay: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on the workers too",
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|has expired",
        "the credentials have expired: get new ones (e.g. aws sso login)",
    ),
    (
        r"InvalidAccessKeyId|InvalidAccessKey|SignatureDoesNotMatch",
        "the keys do not belong to this server: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the endpoint "
        "(AWS_ENDPOINT_URL)",
    ),
    (
        r"RequestTimeTooSkewed",
        "the clock of this machine is wrong: set it by NTP (timedatectl set-ntp true)",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|HTTP status 301",
        "the bucket is in another region: set AWS_REGION and AWS_DEFAULT_REGION to its own",
    ),
    (
        r"NoSuchBucket|[Bb]ucket does not exist",
        "there is no such bucket on this server: make it, or check its name and AWS_ENDPOINT_URL",
    ),
    (
        r"No module named|Please install|[Ii]nstall s3fs",
        'the file system needs a package: pip install "calfin-cloud[s3]" for s3://, [gcs] for gs://, [azure] for az://',
    ),
    (
        r"NoCredentials|Unable to locate credentials|InvalidCredentials|credentials not found",
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, on the workers too",
    ),
    (
        r"Could not resolve|NameResolution|Name or service not known|name resolution|getaddrinfo",
        "the name of the server is unknown here: check its spelling, DNS, and the proxy (HTTPS_PROXY)",
    ),
    (
        r"WRONG_VERSION_NUMBER|wrong version number|SSLError|SSL routines|certificate|UNEXPECTED_EOF",
        "http and https, or the certificate, do not fit: a server without TLS needs http:// in AWS_ENDPOINT_URL and "
        "AWS_HTTPS=NO, a private certificate GDAL_CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE and AWS_CA_BUNDLE",
    ),
    (
        r"Permission denied: '/",
        "the disk refuses: choose a folder that you, and the workers, may write to",
    ),
    (
        r"AccessDenied|Forbidden|Permission|HTTP status 40[13]|HTTP response code: 40[13]|status 40[13]|\b40[13]\b",
        "the server refuses: credentials are missing, have expired, or may not do this; renew them, or ask for access",
    ),
    (
        r"NoSuchKey|HTTP status 4(04|10)|\b404\b|does not exist|No such file|FileNotFound",
        "it is not there: check the address and the endpoint; a catalogue may be older than its files",
    ),
    (
        r"Connection refused|Failed to connect|ConnectionError|connect to endpoint|Max retries|Couldn't connect",
        "nobody answers there: check the address, the endpoint (AWS_ENDPOINT_URL), the firewall and the proxy",
    ),
    (
        r"no answer within|[Tt]imed? ?out|Timeout|too slow|silent",
        "the server is silent: try again later, and check the firewall and the proxy (HTTPS_PROXY)",
    ),
    (r"No space left|ENOSPC|Disk quota", "the disk is full: delete something, or choose another place"),
    (r"Read-only file system|ReadOnly", "it cannot be written: choose another place"),
)
"""What to do, by what the message of an error says; the first that fits."""


def remedy_for(message: str, otherwise: str) -> str:
    """Say what to do about an error, by its message."""
    return next((remedy for pattern, remedy in REMEDIES if re.search(pattern, message)), otherwise)


def problem(check: str, error: BaseException | str, otherwise: str) -> Finding:
    """Turn an error into a finding: its message without secrets, and what to do about it."""
    said = error if isinstance(error, str) else _told(error)
    return Finding(check, "problem", without_secrets(said), remedy_for(said, otherwise))


def without_secrets(text: str) -> str:
    """Text on one line, without queries and users of addresses, and without what the environment keeps secret."""
    text = re.sub(r"\?[^\s\"'<>)]*", "", " ".join(text.split()))
    text = re.sub(r"(?<=://)[^/@\s]*@", "", text)
    for name, value in os.environ.items():
        if len(value) > 5 and re.search(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", name):
            text = text.replace(value, "***")
    return text[:600]


def _told(error: BaseException) -> str:
    """Name and message of an error and of what caused it."""
    told = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
    cause = error.__cause__ or error.__context__
    return f"{told} ({_told(cause)})" if cause is not None and str(cause) not in told else told
