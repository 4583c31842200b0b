"""What is fetched over the network to read scenes, as GDAL counts it itself."""

from __future__ import annotations

import ctypes
import json
from typing import NamedTuple

import rasterio._base


class NetworkStatistics(NamedTuple):
    """What GDAL has fetched: requests for scenes (GET, HEAD and listings), bytes of their answers; none for files."""

    requests: int
    bytes: int


def start_counting() -> None:
    """Count from zero, in all threads of this process."""
    gdal = _gdal()
    gdal.CPLSetConfigOption(b"CPL_VSIL_NETWORK_STATS_ENABLED", b"YES")
    gdal.VSINetworkStatsReset()


def stop_counting() -> NetworkStatistics:
    """Stop counting, and return the counts since `start_counting`."""
    gdal = _gdal()
    text = gdal.VSINetworkStatsGetAsSerializedJSON(None)
    counted = json.loads(ctypes.string_at(text) if text else b"{}")
    gdal.VSIFree(text)
    gdal.CPLSetConfigOption(b"CPL_VSIL_NETWORK_STATS_ENABLED", None)
    gdal.VSINetworkStatsReset()
    methods = counted.get("methods", {}).values()
    # Before GDAL opens a file on a web server, `imagery` asks for its first bytes.
    looks = len(counted.get("handlers", {}).get("vsicurl", {}).get("files", ()))
    n_bytes = sum(m.get("downloaded_bytes", 0) for m in methods)
    return NetworkStatistics(looks + sum(m["count"] for m in methods), n_bytes)


def _gdal() -> ctypes.CDLL:
    """Open GDAL's C functions: rasterio has none for this, but a handle of its extension finds those of its GDAL."""
    gdal = ctypes.CDLL(rasterio._base.__file__)
    gdal.CPLSetConfigOption.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    gdal.VSINetworkStatsGetAsSerializedJSON.argtypes = [ctypes.c_void_p]
    gdal.VSINetworkStatsGetAsSerializedJSON.restype = ctypes.c_void_p
    gdal.VSIFree.argtypes = [ctypes.c_void_p]
    return gdal
