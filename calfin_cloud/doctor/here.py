"""Checks of this machine: Python and GDAL, the network's weights, disks, credentials."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec

import dask
import numpy as np
import pyproj
import rasterio
import rasterio.warp
from pyproj.exceptions import ProjError

from calfin_cloud import network as networks  # Keras waits until it is needed
from calfin_cloud.doctor.findings import Finding, Status, problem
from calfin_cloud.fronts import calibration_beside, read_calibration
from calfin_cloud.network import Engine, InferenceSettings, load_predictor, network_id, weights_path
from calfin_cloud.sensors import IMAGE_DRIVERS
from calfin_cloud.storage.files import open_place

LEAST_DISK, ENOUGH_DISK = 10**9, 10**10  # bytes; 3000 scenes of 400 px write 1 GB
WARN_S = 30 * 86400.0  # before a certificate ends
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
BUNDLES = {"GDAL_CURL_CA_BUNDLE": "scenes", "REQUESTS_CA_BUNDLE": "catalogues", "AWS_CA_BUNDLE": "stores"}
"""Variables that name a list of certificates, and what is read with it. `CURL_CA_BUNDLE` rasterio does not look at."""


def check_libraries() -> Finding:
    """Whether GDAL opens what catalogues have, and GDAL and PROJ agree on the grid of Greenland."""
    remedy = (
        "install rasterio and pyproj from one place (all with pip, or all with conda), and unset PROJ_DATA, PROJ_LIB "
        "and GDAL_DATA"
    )
    with rasterio.Env() as env:
        missing = sorted(set(IMAGE_DRIVERS) - set(env.drivers()))
    if missing:
        return Finding("libraries", "problem", f"GDAL lacks the drivers {missing}", remedy)
    try:
        theirs = rasterio.warp.transform("EPSG:4326", "EPSG:3413", [-50.0], [70.0])
        ours = pyproj.Transformer.from_crs(4326, 3413, always_xy=True).transform([-50.0], [70.0])
    except (rasterio.errors.RasterioError, ProjError, ValueError) as error:
        return problem("libraries", error, remedy)
    apart_m = float(np.abs(np.subtract(theirs[:2], ours)).max())
    if not apart_m < 0.01:
        return Finding("libraries", "problem", f"GDAL and pyproj place a point {apart_m} m apart", remedy)
    versions = f"Python {platform.python_version()}, GDAL {rasterio.__gdal_version__}, PROJ {pyproj.proj_version_str}"
    return Finding("libraries", "ok", versions)


def check_network(name: str, engine: Engine = "auto") -> Finding:
    """Whether the weights are whole, the network can be made of them for its engine, and the calibration is theirs."""
    try:
        load_predictor(name, InferenceSettings(engine=engine))
        read_calibration(calibration_beside(weights_path(name)), network=network_id(name))
    except (ValueError, OSError) as error:
        return problem("network", error, "fetch the weights again, calibrate them, or install calfin-cloud again")
    return Finding("network", "ok", network_id(name))


def check_keys(environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether the keys of S3 in the environment are a pair."""
    there = [name for name in KEYS if environment.get(name)]
    if len(there) == 1:
        (lacking,) = set(KEYS) - set(there)
        return Finding("credentials", "problem", f"{there[0]} is set and {lacking} is not", "set both, or neither")
    if environment.get("AWS_SESSION_TOKEN") and not there:
        return Finding("credentials", "problem", f"AWS_SESSION_TOKEN is set without {' and '.join(KEYS)}", "set all")
    said = "keys of S3 are in the environment" if there else "no keys of S3 in the environment"
    return Finding("credentials", "ok", said)


def check_certificates(environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether certificates of one's own are known to all that read over https."""
    own = [name for name in (*BUNDLES, "CURL_CA_BUNDLE", "SSL_CERT_FILE") if environment.get(name)]
    if not own:
        return Finding("certificates", "ok", "no list of certificates of your own")
    lacking = [f"{name} ({what})" for name, what in BUNDLES.items() if not environment.get(name)]
    if lacking:
        said = f"{', '.join(own)} is set, and not {', '.join(lacking)}"
        return Finding("certificates", "warning", said, "set all three to the same file, here and on the workers")
    gone = [name for name in BUNDLES if not os.path.isfile(environment[name])]
    if gone:
        return Finding("certificates", "problem", f"there is no file where {', '.join(gone)} says", "correct the path")
    return Finding("certificates", "ok", "one list of certificates for scenes, catalogues and stores")


def check_dask_certificate() -> Finding:
    """Whether the certificate of Dask's connections, which `deploy/certificates.sh` makes for a year, is still good."""
    check, path = "certificate of Dask", dask.config.get("distributed.comm.tls.client.cert", None)
    if not path:
        return Finding(check, "ok", "connections without TLS")
    remedy = "make new ones with deploy/certificates.sh, and renew the Secret"
    try:
        about = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # Python has no public way
        left = ssl.cert_time_to_seconds(about["notAfter"]) - time.time()
    except (OSError, ssl.SSLError) as error:
        return problem(check, error, remedy)
    days = f"{abs(left) / 86400:.0f} days"
    if left <= 0:
        return Finding(check, "problem", f"{path} ended {days} ago", remedy)
    return Finding(check, "warning" if left < WARN_S else "ok", f"{path} lasts {days}", remedy if left < WARN_S else "")


def check_disk(store: str | None) -> list[Finding]:
    """Whether there is room: for the store if it is on disk, and for what workers put aside."""
    places = {"temporary files": dask.config.get("temporary-directory") or tempfile.gettempdir()}
    if store is not None:
        fs, root = open_place(store)
        if "file" in fs.protocol:
            places["store"] = root
    return [_check_room(what, place) for what, place in places.items()]


def _check_room(what: str, place: str) -> Finding:
    place = os.path.abspath(place)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.1f} GB free for {what} in {place}"
    if free >= ENOUGH_DISK:
        return Finding("disk", "ok", said)
    status: Status = "problem" if free < LEAST_DISK else "warning"
    return Finding("disk", status, said, "make room, or choose another place (3000 scenes of 400 px write 1 GB)")


def check_gpu_here() -> Finding:
    """Whether a GPU is seen where the extra for it is installed."""
    if find_spec("dask_cuda") is None:
        return Finding("gpu", "ok", "the extra gpu is not installed: the network runs on the CPU")
    if n := networks.count_gpus():
        return Finding("gpu", "ok", f"{n} GPUs")
    return Finding("gpu", "warning", "the extra gpu is installed, but no GPU is seen", GPU_REMEDY)


GPU_REMEDY = (
    "check nvidia-smi and CUDA_VISIBLE_DEVICES, and that TensorFlow is the one with CUDA "
    '(pip install "calfin-cloud[gpu]"); without a GPU --cluster local is right'
)
