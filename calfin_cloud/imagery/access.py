"""Where a file of an item really lies: its address, signed, after all redirects, and whether a raster is there.

It happens on the worker just before reading, since tokens expire. Credentials come from the worker's environment; GDAL
finds them itself.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import closing
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import pystac
import requests

from calfin_cloud.imagery.addresses import check_resolved, host_of, redirected, shown, without_query
from calfin_cloud.schema import SceneError

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
    return href.partition("?")[0] if _is_signed_here(href, catalog) else href


def locate(href: str, catalog: str, *, seconds: float) -> tuple[str, bool]:
    """Sign an address and follow it to where the file lies; a signature that is refused is renewed once.

    Returns
    -------
    tuple
        The address to open, and whether the file begins like a raster, which is known of web servers only.

    Raises
    ------
    SceneError
        `refused_address`, if a redirect leads where the catalogue could not have sent us.
    StatusError
        What the server answered in place of a file.
    requests.RequestException
        It did not answer.
    """
    if urlsplit(href).scheme not in ("http", "https"):
        return href, True
    try:
        return _ask_first_bytes(signed(href, catalog), catalog, seconds=seconds)
    except StatusError as error:
        if error.status != 403 or not _is_signed_here(href, catalog):
            raise
    return _ask_first_bytes(signed(href, catalog, anew=True), catalog, seconds=seconds)


def _ask_first_bytes(href: str, catalog: str, *, seconds: float) -> tuple[str, bool]:
    """Ask a server for the first bytes of a file: where it really lies, and whether it begins like a raster.

    Redirects are followed one by one, each checked as the address itself was. GDAL's own errors do not tell a busy
    server from a file that is none, nor an expired signature from a missing file: this request does.
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
    if not _is_signed_here(href, catalog):
        return href
    with warnings.catch_warnings():  # it declares its own settings in a way that pydantic deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import planetary_computer  # noqa: PLC0415 - a second of import that most workers never need
        from planetary_computer import sas  # noqa: PLC0415
    if anew:
        sas.TOKEN_CACHE.clear()
    return str(planetary_computer.sign_url(href))


def _is_signed_here(href: str, catalog: str) -> bool:
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
