"""An item in; the band of it that shows ice, and how its numbers become a signal and a cloud mask, out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
from numpy.typing import ArrayLike, NDArray

from calfin_cloud.schema import SceneError
from calfin_cloud.sensors.items import in_utc
from calfin_cloud.sensors.table import SENSORS, Kind, Quality, Sensor, own_sensors

RADAR = (
    r"sentinel[-_ ]?1|s1|terrasar|tandem|tsx|tdx|ers|envisat|radarsat|rcm|alos-2|palsar|cosmo|iceye|capella|saocom|paz"
)
"""How the names of satellites with a radar begin."""

SLC_OFF_SINCE = datetime(2003, 5, 31, 23, 59, 59, tzinfo=UTC)
"""Landsat 7 scenes after this day may have stripes without data (CALFIN's rule, method section 8)."""

S2_OFFSET_BASELINE = "04.00"
"""Since this processing baseline Sentinel-2 L2A numbers carry 1000 more: reflectance = DN * 1e-4 - 0.1."""


@dataclass(frozen=True)
class Band:
    """The band of one item that shows ice, ready to be read on a worker."""

    asset: str
    sensor: Sensor
    scale: float
    offset: float
    quality_asset: str | None
    quality: Quality | None
    slc_off_possible: bool
    kind: Kind

    @property
    def is_reflectance(self) -> bool:
        """Whether the signal is reflectance; that of level 2, of the surface."""
        return self.kind == "optical" and self.sensor.scale != 1

    @property
    def nodata(self) -> float | None:
        """Number of the file that means no data, where the file itself does not say; None if any number is data."""
        return self.sensor.nodata if np.isfinite(self.sensor.nodata) else None

    def signal(self, values: ArrayLike) -> NDArray[np.float32]:
        """Turn the numbers of the file into reflectance, digital numbers or dB: any shape, float32, missing is NaN.

        A number at or below nodata is missing, as is what is not positive in SAR, where no logarithm exists.
        """
        numbers = np.asarray(values, dtype=np.float32)
        valid = np.isfinite(numbers) & (numbers > self.sensor.nodata)
        if self.sensor.decibel:
            numbers = self.sensor.decibel * np.log10(np.where(valid & (numbers > 0), numbers, np.nan))
        else:
            numbers = self.scale * numbers + self.offset
        return np.where(valid, numbers, np.nan).astype(np.float32)

    def cloud(self, values: ArrayLike) -> NDArray[np.float32]:
        """1 cloud, 0 none, NaN unknown, float32, of the numbers in the quality file; all NaN without such a band."""
        if self.quality is None:
            return np.full(np.shape(values), np.nan, dtype=np.float32)
        return cloud_from_quality(values, self.quality)


def band_of(item: pystac.Item) -> Band:
    """Find the band of `item` that shows ice; raise `SceneError("no_band")` where the item has none.

    Landsat: near infrared; Sentinel-2: B08 at 10 m; Sentinel-1: HH, else VV.
    """
    return _band(item, _sensor_of(item))


def further_bands_of(item: pystac.Item) -> dict[str, Band]:
    """Find the bands of `item` beyond that which shows ice, by name: `red`, `green`, `blue`, or `cross`.

    Only those that it has, of sensors that give reflectance or backscatter; `Band.signal` calibrates them.
    """
    try:
        sensor = _sensor_of(item)
    except SceneError:
        return {}
    there = {name: keys for name, keys in sensor.further.items() if set(keys) & set(item.assets)}
    return {name: _band(item, replace(sensor, assets=keys, quality=())) for name, keys in there.items()}


def _band(item: pystac.Item, sensor: Sensor) -> Band:
    asset = next((key for key in sensor.assets if key in item.assets), None)
    if asset is None:
        raise SceneError(
            "no_band", f"{item.id} lacks the band that shows ice: expected one of {sensor.assets}, got {_assets(item)}"
        )
    quality = next((q for q in sensor.quality if set(q.assets) & set(item.assets)), None)
    quality_asset = next((key for key in quality.assets if key in item.assets), None) if quality else None
    scale, offset = _scale_offset(item, item.assets[asset], sensor)
    # A file that the user names is of the kind that its satellite has; where none is named, of light.
    kind = "sar" if re.match(RADAR, str(item.properties.get("platform")).lower()) else sensor.kind
    return Band(asset, sensor, scale, offset, quality_asset, quality, is_slc_off(item), kind)


def kind_of(item: pystac.Item) -> Kind:
    """Whether `item` was seen by light or by radar; `unknown` where the table does not tell its sensor."""
    try:
        return band_of(item).kind
    except SceneError:
        return "unknown"


def is_slc_off(scene: pystac.Item | str, moment: datetime | None = None) -> bool:
    """Say whether a scene may have the stripes of Landsat 7 without its scan-line corrector: after 2003-05-31.

    Parameters
    ----------
    scene
        A STAC item, also of a file that the user names; or the name of a satellite.
    moment
        When that satellite took the scene (a bare time is UTC); an item says it itself.

    Examples
    --------
    >>> is_slc_off("landsat-7", datetime(2010, 7, 1))
    True
    """
    if isinstance(scene, pystac.Item):
        platform = "landsat-7" if _landsat_code(scene) == "LE07" else str(scene.properties.get("platform"))
        moment = scene.datetime or scene.common_metadata.start_datetime
    else:
        platform = scene
    if moment is None or not re.fullmatch(r"landsat[-_ ]?7|le07", platform.lower()):
        return False
    return in_utc(moment) > SLC_OFF_SINCE


def cloud_from_quality(values: ArrayLike, spec: Quality) -> NDArray[np.float32]:
    """Turn quality numbers into 1 (cloud), 0 (clear) and NaN (fill, or not a number), any shape, float32."""
    numbers = np.asarray(values)
    known = np.isfinite(numbers)
    codes = np.where(known, numbers, 0).astype(np.int32)
    if spec.is_bits:
        fill, cloud = ((codes & sum(1 << bit for bit in bits)) != 0 for bits in (spec.fill, spec.cloud))
    else:
        fill, cloud = np.isin(codes, spec.fill), np.isin(codes, spec.cloud)
    return np.where(known & ~fill, cloud, np.nan).astype(np.float32)


def _sensor_of(item: pystac.Item) -> Sensor:
    collection = item.collection_id or ""
    table = (*own_sensors(), *SENSORS)
    rows = [row for row in table if collection in row.collections]
    rows = rows or [row for row in table if row.id_pattern and re.match(row.id_pattern, item.id)]
    code = _landsat_code(item)
    for row in rows:
        if not row.instruments or code in row.instruments:
            return row
    known = sorted({name for row in table for name in row.collections})
    raise SceneError(
        "no_band",
        f"{item.id} of collection {collection!r}, platform {item.properties.get('platform')!r}, is of no known sensor; "
        f"known collections: {known}; its assets: {_assets(item)}",
    )


def _landsat_code(item: pystac.Item) -> str:
    """Instrument and satellite as in a Landsat id, such as LE07; from platform and instruments where the id differs."""
    if found := re.match(r"L[A-Z]\d\d(?=_)", item.id):
        return found.group()
    properties = item.properties
    platform = str(properties.get("platform") or properties.get("eo:platform") or "")
    number = re.search(r"landsat[-_ ]?(\d)", platform.lower())
    if not number:
        return ""
    n = int(number.group(1))
    is_mss = n <= 3 or (n <= 5 and "mss" in str(properties.get("instruments", "")).lower())
    return f"L{'M' if is_mss else {4: 'T', 5: 'T', 7: 'E'}.get(n, 'C')}{n:02d}"


def _scale_offset(item: pystac.Item, asset: pystac.Asset, sensor: Sensor) -> tuple[float, float]:
    """Scale and offset to reflectance: the item's own, else the table's; 1 and 0 for digital numbers.

    Earth Search says with `earthsearch:boa_offset_applied` that Sentinel-2 numbers no longer carry the offset that
    `raster:bands` still names; Planetary Computer says nothing, so the processing baseline decides, which
    Copernicus calls the processing version.
    """
    if sensor.scale == 1:
        return 1.0, 0.0
    extra = asset.extra_fields
    bands: list[dict[str, Any]] = extra.get("raster:bands") or extra.get("bands") or [{}]
    # STAC 1.1 names them raster:scale, of the asset or of its band
    own = {name.removeprefix("raster:"): value for of in (extra, bands[0]) for name, value in of.items()}
    offset = own.get("offset")
    if offset is None:
        baseline = item.properties.get("s2:processing_baseline") or item.properties.get("processing:version") or ""
        is_late = str(baseline).zfill(5) >= S2_OFFSET_BASELINE
        offset = -0.1 if is_late else sensor.offset
    if item.properties.get("earthsearch:boa_offset_applied"):
        offset = 0.0
    return float(own.get("scale") or sensor.scale), float(offset)


def _assets(item: pystac.Item) -> list[str]:
    return sorted(item.assets)[:40]
