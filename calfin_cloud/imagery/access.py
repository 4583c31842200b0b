"""How GDAL gets at a file: settings, signatures and payer by provider, and a first look at what a server has there.

All of it happens on the worker just before reading, since settings made in the client do not reach workers and tokens
expire. Credentials come from the worker's environment; GDAL finds them itself.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pystac
import rasterio
import requests
from rasterio.session import DummySession

from calfin_cloud.imagery.addresses import check_resolved, host_of, redirected, shown, without_query
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import IMAGE_DRIVERS

GDAL_SETTINGS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    # A busy answer to one of a file's requests is asked for again by GDAL; other trouble is `patience`'s.
    "GDAL_HTTP_MAX_RETRY": 2,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_LOW_SPEED_TIME": 20,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,
    # A scene is opened once; what GDAL remembers of an address beyond that is only that it once failed.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
    # What a file is fetched in where a single block is wanted; GDAL reads this once a process.
    "CPL_VSIL_CURL_CHUNK_SIZE": 4096,
    # MB of decoded blocks, for all threads together; by default a twentieth of the machine.
    "GDAL_CACHEMAX": 128,
}
"""Set around each read. On a COG of 4096 px with blocks of 512, chunks of 4096 bytes in place of 16,384 took the bytes
fetched over those needed from 2.5 to 1.3 where the domain lies in one block of a quality band. `VSI_CACHE` took 7 %
more bytes, `GDAL_HTTP_MULTIRANGE=SINGLE_GET` twice the requests; with `CPL_VSIL_CURL_USE_HEAD=NO` the server sends the
whole file twice; `GDAL_INGESTED_BYTES_AT_OPEN` and merging of ranges changed nothing."""

REQUESTER_PAYS = {"usgs-landsat": "us-west-2", "sentinel-s1-l1c": "eu-central-1", "sentinel-s2-l2a": "eu-central-1"}
"""Buckets of the catalogues we know whose readers pay, and their regions; other catalogues say it of their items."""

ANONYMOUS = {
    "sentinel-cogs": "us-west-2",
    "e84-earth-search-sentinel-data": "us-west-2",
    "sentinel-s1-rtc-indigo": "us-west-2",
}
"""Buckets that anyone may read: credentials for another place would only make the request fail."""

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
VIRTUAL_MACHINE = ("/sys/hypervisor/uuid", "/sys/devices/virtual/dmi/id/board_asset_tag")
"""Where there may be AWS credentials: variables, and files of machines that may be Amazon's and have a role."""

PLANETARY_COMPUTER = "planetarycomputer.microsoft.com"
FIRST_BYTES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG", b"\0\0\0\x0c", b"\xff\x4f\xff\x51")
"""How the files of `IMAGE_DRIVERS` begin: TIFF, BigTIFF, PNG, JPEG 2000."""

MOST_REDIRECTS = 5


class StatusError(OSError):
    """A server refused: `status` of HTTP, and the seconds after which it wants to be asked again."""

    def __init__(self, status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def address_of(asset: pystac.Asset, catalog: str) -> str:
    """Address of an asset, unsigned where we sign it; USGS answers http with a login page, so there it is in S3."""
    bucket = asset.extra_fields.get("alternate", {}).get("s3", {}).get("href")
    href = str(bucket if bucket and host_of(asset.href) == "landsatlook.usgs.gov" else asset.href)
    return href.partition("?")[0] if is_signed_here(href, catalog) else href


def reader_pays(item: pystac.Item, asset: pystac.Asset) -> bool:
    """Say whether item or asset name its reader as payer (storage extension 1 and 2, alternate assets)."""
    told = [asset.extra_fields, item.properties, asset.extra_fields.get("alternate", {}).get("s3", {})]
    schemes = item.properties.get("storage:schemes", {})
    told += [schemes.get(ref, {}) for ref in asset.extra_fields.get("storage:refs", ())]
    return any(place.get("storage:requester_pays") or place.get("requester_pays") for place in told)


@contextmanager
def opened(
    href: str,
    *,
    pays: bool,
    seconds: float,
    **options: Any,  # noqa: ANN401 - GDAL's open options
) -> Iterator[rasterio.DatasetReader]:
    """Open a file with the settings of its provider, for reading within the block; no request outlasts `seconds`."""
    settings = settings_of(href, pays=pays) | {"GDAL_HTTP_TIMEOUT": max(1.0, seconds)}
    if "AWS_REQUEST_PAYER" in settings and "AWS_NO_SIGN_REQUEST" in settings:
        raise SceneError("unreadable", f"the reader of {shown(href)} pays for it: set AWS credentials")
    with (
        # The session is a dummy, else rasterio would make one of boto3's for each read, and GDAL signs as well.
        rasterio.Env(DummySession(), **settings),
        rasterio.DatasetReader(href, driver=IMAGE_DRIVERS, sharing=False, **options) as file,
    ):
        yield file


def settings_of(href: str, *, pays: bool = False) -> dict[str, Any]:
    """GDAL's settings for an address, by its provider."""
    parts = urlsplit(href)
    if parts.scheme != "s3":
        return dict(GDAL_SETTINGS)
    bucket, endpoint = parts.netloc, _endpoint()
    settings = GDAL_SETTINGS | endpoint
    region = REQUESTER_PAYS.get(bucket) or ANONYMOUS.get(bucket)
    if region and not endpoint:
        settings["AWS_REGION"] = region
    if pays or bucket in REQUESTER_PAYS:
        settings["AWS_REQUEST_PAYER"] = "requester"
    if bucket in ANONYMOUS or not _may_have_credentials():
        settings["AWS_NO_SIGN_REQUEST"] = "YES"
    return settings


def _may_have_credentials() -> bool:
    """Say whether this process may find AWS credentials: to look for some in vain costs GDAL 7 s, at every file."""
    if "AWS_NO_SIGN_REQUEST" in os.environ:
        return True  # GDAL reads it itself
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE"), "~/.aws/credentials", "~/.aws/config", *VIRTUAL_MACHINE)
    return any(os.environ.get(name) for name in CREDENTIALS) or any(Path(f).expanduser().exists() for f in files if f)


def _endpoint() -> dict[str, str]:
    """Server of S3 that the environment names in the words of GDAL or of boto3, in the words of GDAL."""
    names = ("AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    address = next((os.environ[name] for name in names if os.environ.get(name)), "")
    scheme, _, host = address.rpartition("://")
    host = host.rstrip("/")
    if not host or host.endswith("amazonaws.com"):
        return {}
    settings = {"AWS_S3_ENDPOINT": host, "AWS_VIRTUAL_HOSTING": os.environ.get("AWS_VIRTUAL_HOSTING", "FALSE")}
    return settings | ({"AWS_HTTPS": "YES" if scheme == "https" else "NO"} if scheme else {})


def look_at(href: str, catalog: str, *, seconds: float) -> tuple[str, bool]:
    """Ask a server for the first bytes of a file: where it really lies, and whether it begins like a raster.

    Redirects are followed one by one, each checked as the address itself was. GDAL's own errors do not tell a busy
    server from a file that is none, nor an expired signature from a missing file: this look does.

    Raises
    ------
    StatusError
        What the server answered in place of a file.
    requests.RequestException
        It did not answer.
    """
    for _ in range(MOST_REDIRECTS + 1):
        check_resolved(href, catalog)
        headers = {"Range": "bytes=0-15", "Accept-Encoding": "identity"}
        timeout = (min(10.0, seconds), min(20.0, seconds))
        with closing(_session().get(href, headers=headers, allow_redirects=False, stream=True, timeout=timeout)) as got:
            if got.is_redirect:
                href = redirected(href, urljoin(href, got.headers["Location"]), catalog)
                continue
            if got.status_code >= 400:
                raise StatusError(got.status_code, _seconds(got.headers.get("Retry-After", "")))
            # One byte more than there is: the connection is then free for the next file.
            return href, (got.raw.read(17) or b"").startswith(FIRST_BYTES)
    raise SceneError("refused_address", f"refused to open {shown(href)}: more than {MOST_REDIRECTS} redirects")


@lru_cache(maxsize=1)
def _session() -> requests.Session:
    session = requests.Session()  # keeps connections, and knows the proxies of the environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0


def signed(href: str, catalog: str, *, anew: bool = False) -> str:
    """Sign at the last moment, since tokens of the Planetary Computer live for less than an hour; `anew` for a new one.

    Other addresses stay as they are.
    """
    if not is_signed_here(href, catalog):
        return href
    with warnings.catch_warnings():  # it declares its own settings in a way that pydantic deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import planetary_computer  # noqa: PLC0415 - a second of import that most workers never need
        from planetary_computer import sas  # noqa: PLC0415
    if anew:
        sas.TOKEN_CACHE.clear()
    return str(planetary_computer.sign_url(href))


def is_signed_here(href: str, catalog: str) -> bool:
    """Say whether an address gets a token of ours: a blob of the Planetary Computer."""
    is_blob = host_of(href).endswith(".blob.core.windows.net")
    return is_blob and host_of(catalog) == PLANETARY_COMPUTER


class _NoQueries(logging.Filter):
    """Takes the signatures out of what libraries log of the addresses that they open."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_query(record.getMessage()), ()
        return True


_LOGGERS = ("rasterio", "rasterio._base", "rasterio._env", "rasterio._err", "rasterio._io", "rasterio._warp")
for _name in (*_LOGGERS, "rasterio.env", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_NoQueries())
