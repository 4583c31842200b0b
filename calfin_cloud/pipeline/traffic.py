"""What GDAL has fetched over the network in this process, counted by GDAL itself: requests and bytes."""

from __future__ import annotations

import ctypes
import json
from typing import NamedTuple

import rasterio._base


class Traffic(NamedTuple):
    """Requests for scenes (GET, HEAD and listings) and bytes of their answers; files on disk are no traffic."""

    requests: int
    bytes: int


def start_counting() -> None:
    """Count from zero, in all threads of this process."""
    gdal = _gdal()
    gdal.CPLSetConfigOption(b"CPL_VSIL_NETWORK_STATS_ENABLED", b"YES")
    gdal.VSINetworkStatsReset()


def stop_counting() -> Traffic:
    """Return what was counted, and count no more."""
    gdal = _gdal()
    text = gdal.VSINetworkStatsGetAsSerializedJSON(None)
    counted = json.loads(ctypes.string_at(text) if text else b"{}")
    gdal.VSIFree(text)
    gdal.CPLSetConfigOption(b"CPL_VSIL_NETWORK_STATS_ENABLED", None)
    gdal.VSINetworkStatsReset()
    methods = counted.get("methods", {}).values()
    # Before GDAL opens a file on a web server, `imagery` asks for its first bytes.
    looks = len(counted.get("handlers", {}).get("vsicurl", {}).get("files", ()))
    return Traffic(looks + sum(m["count"] for m in methods), sum(m.get("downloaded_bytes", 0) for m in methods))


def _gdal() -> ctypes.CDLL:
    """Open GDAL's C functions: rasterio has none for this, but a handle of its extension finds those of its GDAL."""
    gdal = ctypes.CDLL(rasterio._base.__file__)
    gdal.CPLSetConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    gdal.VSINetworkStatsGetAsSerializedJSON.argtypes = [ctypes.c_void_p]
    gdal.VSINetworkStatsGetAsSerializedJSON.restype = ctypes.c_void_p
    gdal.VSIFree.argtypes = [ctypes.c_void_p]
    return gdal
