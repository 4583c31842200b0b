"""The bands that features of the sea are measured in, a GeoTIFF a scene: `bands/<domain>/<scene>.tif`.

They are kept so that features can be measured anew without the scenes, as fronts are traced anew from masks.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from calfin_cloud.storage.files import DamagedFileError, looking_twice, open_place, write_whole
from calfin_cloud.storage.stores import scene_path

Floats = NDArray[np.float32]

STEPS = {"reflectance": (5e-5, -0.2), "dB": (0.003, -100.0), "cloud": (1.0, -1.0)}
"""Scale and offset of a band's 16-bit numbers, by what it has; 0 is no data.

dB reach to 96.6, since the uncalibrated numbers of GRD do: 20 log10(65535) is 96.3.
"""

REMEDY = "delete it; `calfin retrace --all` then `calfin retry` reads the scene again"


class KeptBands(NamedTuple):
    """Bands of a scene by name, (y, x) float32 with NaN = missing, and what else is known of them (JSON values)."""

    bands: dict[str, Floats]
    about: dict[str, Any]


def write_bands(
    store: str,
    domain_name: str,
    scene_id: str,
    bands: Mapping[str, tuple[str, Floats]],
    grid: GeoBox,
    about: Mapping[str, Any],
) -> None:
    """Write the bands of one scene, each as what it has (of `STEPS`) and its numbers; twice is once."""
    numbers = np.stack([_steps(values, of) for of, values in bands.values()] or [np.zeros(grid.shape, np.uint16)])
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(numbers), "nodata": 0}
    profile |= {"width": numbers.shape[2], "height": numbers.shape[1], "interleave": "band"}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "zstd", "zstd_level": 1}
    with MemoryFile() as memory:
        with memory.open(crs=f"EPSG:{grid.crs.epsg}", transform=grid.transform, **profile) as file:
            file.write(numbers)
            if bands:
                file.descriptions = tuple(bands)
                file.scales, file.offsets = zip(*(STEPS[of] for of, _ in bands.values()), strict=True)
            file.update_tags(about=json.dumps(about, sort_keys=True), crc32=zlib.crc32(numbers.tobytes()))
        body = bytes(memory.getbuffer())
    fs, root = open_place(store)
    write_whole(fs, f"{root}/{scene_path('bands', domain_name, scene_id, 'tif')}", body)


@looking_twice
def read_bands(store: str, domain_name: str, scene_id: str) -> KeptBands | None:
    """Read the bands of one scene, None where the store has kept none.

    Raises
    ------
    DamagedFileError
        They are not those that were written.
    """
    fs, root = open_place(store)
    path = f"{root}/{scene_path('bands', domain_name, scene_id, 'tif')}"
    try:
        body = bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None
    try:
        with MemoryFile(body) as memory, memory.open() as file:
            numbers, tags = file.read(), file.tags()
            names, scales, offsets = file.descriptions, file.scales, file.offsets
    except rasterio.RasterioIOError as error:
        raise DamagedFileError(path, str(error), REMEDY) from None
    if tags.get("crc32") != str(zlib.crc32(numbers.tobytes())):
        raise DamagedFileError(path, "its numbers are not those that were written", REMEDY)
    there = [(name, *of) for name, *of in zip(names, numbers, scales, offsets, strict=True) if name]
    values = {
        name: np.where(of > 0, of * np.float32(scale) + np.float32(offset), np.float32(np.nan))
        for name, of, scale, offset in there
    }
    return KeptBands(values, json.loads(tags["about"]))


def _steps(values: Floats, of: str) -> NDArray[np.uint16]:
    """Round to the steps of a band; what lies beyond them is the last one."""
    scale, offset = STEPS[of]
    steps = np.clip(np.rint((values - np.float32(offset)) / np.float32(scale)), 1, 65_535)
    return np.where(np.isnan(steps), 0, steps).astype(np.uint16)
