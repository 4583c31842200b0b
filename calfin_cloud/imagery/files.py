"""An address in; an open file out that refers to no other file, read with the settings of its provider."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio._env import del_gdal_config
from rasterio.env import hasenv
from rasterio.errors import NotGeoreferencedWarning
from rasterio.session import DummySession, Session

from calfin_cloud.imagery.addresses import shown
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import IMAGE_DRIVERS, ONE_FILE

# For good, and not around each read: threads read at once, and `catch_warnings` is not made for them. Who needs a
# georeference checks for it; plain images have none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

LOWEST = -3.4028234663852886e38  # of float32: what GIS programs write where nothing is, often without saying so

GDAL_SETTINGS: dict[str, Any] = ONE_FILE | {
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    # A busy answer to one of a file's requests is asked for again by GDAL; other failures are those of `retries`.
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
    # The quick way to read a whole PNG gives zeros for what a broken file lacks.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}
"""Set around each read. On a COG of 4096 px with blocks of 512, chunks of 4096 bytes in place of 16,384 took the bytes
fetched over those needed from 2.5 to 1.3 where the domain lies in one block of a quality band. `VSI_CACHE` took 7 %
more bytes, `GDAL_HTTP_MULTIRANGE=SINGLE_GET` twice the requests; with `CPL_VSIL_CURL_USE_HEAD=NO` the server sends the
whole file twice; `GDAL_INGESTED_BYTES_AT_OPEN` and merging of ranges changed nothing."""

REFERRING_DOMAINS = ("OVERVIEWS", "GEOLOCATION")
"""Domains of a file's metadata in which GDAL finds the names of other files, which it opens with any driver: the
overviews are in OVERVIEW_FILE, the coordinates of the pixels in X_DATASET and Y_DATASET."""

GRID_FILES = r"(nadgrids|geoidgrids)=(?!@null\b)|PROJ4_GRIDS|PARAMETERFILE|GRID ?FILE|\+init="
"""Parts of a CRS that name a file which PROJ opens; `@null`, as in that of web maps, is none."""

REQUESTER_PAYS = {
    "usgs-landsat": "us-west-2",
    "sentinel-s1-l1c": "eu-central-1",
    "sentinel-s2-l1c": "eu-central-1",
    "sentinel-s2-l2a": "eu-central-1",
}
"""Buckets whose readers pay, and their regions. No catalogue can add to them: whoever wants to pay for another bucket
sets AWS_REQUEST_PAYER=requester, a variable of GDAL's."""

ANONYMOUS = {
    "sentinel-cogs": "us-west-2",
    "e84-earth-search-sentinel-data": "us-west-2",
    "sentinel-s1-rtc-indigo": "us-west-2",
}
"""Buckets that anyone may read: credentials for another place would only make the request fail."""

OWN_SERVERS = {"eodata": "https://eodata.dataspace.copernicus.eu"}
"""Buckets that are not at Amazon, and their servers; whoever reads them has keys from there. One that the environment
names goes before."""

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "GDAL_CONFIG_FILE",
)
KEYS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_DEFAULT_REGION"),
    *("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_NO_SIGN_REQUEST"),
)
"""Variables that a session of boto3 with keys from the environment depends on."""

VIRTUAL_MACHINE = ("/sys/hypervisor/uuid", "/sys/devices/virtual/dmi/id/board_asset_tag")
"""Where there may be AWS credentials: variables, and files of machines that may be Amazon's and have a role. GDAL's own
file of settings may have some for one bucket alone."""

_new_session = Session.from_environ


@lru_cache(maxsize=4)
def _session_of(_environment: tuple[str | None, ...]) -> Session:
    return _new_session()


def _session_from_environ(*args: Any, **kwargs: Any) -> Session:  # noqa: ANN401 - as in rasterio
    if args or kwargs:
        return _new_session(*args, **kwargs)
    return _session_of(tuple(os.environ.get(name) for name in KEYS))


# With keys in the environment rasterio makes a session of boto3 for each array that it warps or draws on, four in a
# reprojection, in some 10 ms each. The same keys are the same session.
Session.from_environ = staticmethod(_session_from_environ)


@contextmanager
def opened(
    href: str | Path, *, seconds: float = 60.0, overview: tuple[int, str] | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a file with the settings of its provider, for reading within the block; no request outlasts `seconds`.

    With `overview`, its level and the offset of its image in a TIFF, that is opened in place of the whole.

    Raises
    ------
    SceneError
        `refused_address` if the file names others, which GDAL would open: nothing of it has been used by then.
        `unreadable` if its reader pays or needs keys, and there are no credentials.
    rasterio.RasterioIOError
        GDAL cannot open it.
    """
    name = gdal_name(str(href))
    settings = settings_of(str(href)) | {"GDAL_HTTP_TIMEOUT": max(1.0, seconds), "CPL_VSIL_CURL_ALLOWED_FILENAME": name}
    if "AWS_NO_SIGN_REQUEST" in settings:
        _check_needs_no_keys(str(href), settings)
    path, options = str(href), {}
    if overview and name.startswith("/vsi"):
        # By its offset, since a level makes GDAL look for overviews elsewhere before we can check, and a server may by
        # now answer otherwise than when we did.
        path = f"GTIFF_DIR:off:{overview[1]}:{name}"
    elif overview:
        options = {"overview_level": overview[0]}  # by its offset, GDAL would look for files beside it
    with (
        _configured(settings),
        rasterio.DatasetReader(path, driver=IMAGE_DRIVERS, sharing=False, **options) as file,
    ):
        _check_names_no_other(file, str(href))
        yield file


def _check_needs_no_keys(href: str, settings: Mapping[str, Any]) -> None:
    """Raise `SceneError("unreadable")` where a reader without credentials would only be refused."""
    if "AWS_REQUEST_PAYER" in settings:
        raise SceneError("unreadable", f"the reader of {shown(href)} pays for it: set AWS credentials")
    if urlsplit(href).netloc in OWN_SERVERS:
        server = settings["AWS_S3_ENDPOINT"]
        raise SceneError(
            "unreadable",
            f"{shown(href)} is read with keys of {server}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )


@contextmanager
def _configured(settings: Mapping[str, Any]) -> Iterator[None]:
    """Give this thread settings of GDAL, and none afterwards: rasterio would leave what the environment said then."""
    # The session is a dummy, else rasterio would make one of boto3's for each read, and GDAL signs as well.
    try:
        with rasterio.Env(DummySession(), **settings):
            yield
    finally:
        if not hasenv():  # else it has those of the file that is still open
            for name in settings:
                del_gdal_config(name)


def _check_names_no_other(file: rasterio.DatasetReader, href: str) -> None:
    """Raise `SceneError("refused_address")` for a file that makes GDAL or PROJ open others."""
    # One by one: to list its domains, GDAL reads all images of the file.
    named = [name for name in REFERRING_DOMAINS for band in (0, *file.indexes) if file.tags(band, ns=name)]
    for crs in (file.crs, file.gcps[1]):
        named += [found.group() for found in re.finditer(GRID_FILES, crs.wkt if crs else "", re.IGNORECASE)]
    if named:
        raise SceneError(
            "refused_address", f"refused to read {shown(href)}: it refers to other files in its metadata ({named[0]})"
        )


def gdal_name(href: str) -> str:
    """Name of a file among those of GDAL: `/vsicurl/https://...`, `/vsis3/bucket/key`."""
    scheme, _, rest = href.partition("://")
    if scheme in ("http", "https"):
        return f"/vsicurl/{href}"
    handlers = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/", "file": ""}
    return handlers[scheme] + rest if scheme in handlers and rest else href


def settings_of(href: str) -> dict[str, Any]:
    """GDAL's settings for an address, by its provider."""
    parts = urlsplit(href)
    if parts.scheme != "s3":
        return dict(GDAL_SETTINGS)
    bucket = parts.netloc
    endpoint = _endpoint(default=OWN_SERVERS.get(bucket, ""))
    settings = GDAL_SETTINGS | endpoint
    region = REQUESTER_PAYS.get(bucket) or ANONYMOUS.get(bucket)
    if region and not endpoint:
        settings["AWS_REGION"] = region
    if bucket in REQUESTER_PAYS or (os.environ.get("AWS_REQUEST_PAYER") and bucket not in ANONYMOUS):
        settings["AWS_REQUEST_PAYER"] = "requester"
    if bucket in ANONYMOUS or not _may_have_credentials():
        settings["AWS_NO_SIGN_REQUEST"] = "YES"
    return settings


def _may_have_credentials() -> bool:
    """Say whether this process may find AWS credentials: to look for some in vain costs GDAL 7 s, at every file."""
    if "AWS_NO_SIGN_REQUEST" in os.environ:
        return True  # GDAL reads it itself
    own = ("~/.aws/credentials", "~/.aws/config", "~/.gdal/gdalrc")
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE"), *own, *VIRTUAL_MACHINE)
    return any(os.environ.get(name) for name in CREDENTIALS) or any(Path(f).expanduser().exists() for f in files if f)


def _endpoint(default: str) -> dict[str, str]:
    """Server of S3 that the environment names in the words of GDAL or of boto3, else `default`, in the words of GDAL.

    None is named where it is Amazon's, which GDAL takes by itself.
    """
    names = ("AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    address = next((os.environ[name] for name in names if os.environ.get(name)), "").rstrip("/")
    if not address or address.endswith("amazonaws.com"):
        address = default
    if not address:
        return {}
    scheme, _, host = address.rpartition("://")
    settings = {"AWS_S3_ENDPOINT": host, "AWS_VIRTUAL_HOSTING": os.environ.get("AWS_VIRTUAL_HOSTING", "FALSE")}
    return settings | ({"AWS_HTTPS": "YES" if scheme == "https" else "NO"} if scheme else {})
