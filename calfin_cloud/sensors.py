"""Which asset of a STAC item shows ice, and how its numbers become a signal and a cloud mask: one table of sensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import pystac
from numpy.typing import ArrayLike, NDArray

from calfin_cloud.schema import SceneError

Kind = Literal["optical", "sar", "unknown"]

IMAGE_DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG"]
"""GDAL formats that are opened: no VRT, whatever its name. The metadata of a TIFF or JPEG 2000 can refer to other files
all the same; `imagery` refuses such a file before it uses anything of it."""

ONE_FILE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", "GDAL_GEOREF_SOURCES": "INTERNAL"}
"""GDAL's settings with which it looks for nothing beside a file: .aux.xml, .ovr, .msk, world files, IMD and RPC."""

ITEM_FIELDS = frozenset(
    ["type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "properties", "links", "assets", "collection"]
)
"""Fields that every STAC item may have; all others are extra ones."""

CATALOG_FIELD = "calfin:catalog"
"""Field of an item that names the catalogue it came from; `scenes` sets it, and it decides what `imagery` may open."""

RADAR = (
    r"sentinel[-_ ]?1|s1|terrasar|tandem|tsx|tdx|ers|envisat|radarsat|rcm|alos-2|palsar|cosmo|iceye|capella|saocom|paz"
)
"""How the names of satellites with a radar begin."""

SLC_OFF_SINCE = datetime(2003, 5, 31, 23, 59, 59, tzinfo=UTC)
"""Landsat 7 scenes after this day may have stripes without data (CALFIN's rule, method section 8)."""

S2_OFFSET_BASELINE = "04.00"
"""Since this processing baseline Sentinel-2 L2A numbers carry 1000 more: reflectance = DN * 1e-4 - 0.1."""


@dataclass(frozen=True)
class Quality:
    """How a quality band says fill and cloud.

    Attributes
    ----------
    assets
        Names of the band among the assets of an item, the preferred one first.
    fill, cloud
        Bits, counted from 0, or class numbers that mean no data, and cloud.
    is_bits
        Whether these are bits that may be set together; otherwise they are classes.

    Examples
    --------
    >>> Quality(("SCL",), fill=(0,), cloud=(8, 9, 10), is_bits=False).cloud
    (8, 9, 10)
    """

    assets: tuple[str, ...]
    fill: tuple[int, ...]
    cloud: tuple[int, ...]
    is_bits: bool


QA_PIXEL = Quality(("qa_pixel", "QA_PIXEL", "QA_PIXEL.TIF"), fill=(0,), cloud=(2, 3), is_bits=True)
"""Landsat Collection 2: bit 0 fill, 1 dilated cloud, 2 cirrus (high confidence), 3 cloud, 4 cloud shadow, 5 snow.
The dilation and the shadow are not cloud: a front is seen through both, and ice edges trigger them."""

BQA = Quality(("BQA", "bqa", "BQA.TIF"), fill=(0,), cloud=(4,), is_bits=True)
"""Landsat Collection 1: bit 0 fill, 4 cloud, the bit CALFIN counts (method section 2.1)."""

SCL = Quality(("scl", "SCL"), fill=(0,), cloud=(8, 9, 10), is_bits=False)
"""Sentinel-2 scene classes: 0 no data, 3 cloud shadow, 8 and 9 cloud of medium and high probability, 10 thin cirrus."""


@dataclass(frozen=True)
class Sensor:
    """One row of the table: where it applies, and what to read there. `register_sensor` adds rows of your own.

    Attributes
    ----------
    collections
        Ids of STAC collections; an item of a collection with another name is known by its id.
    id_pattern
        Regular expression that the id of an item begins with; `(?!)` for none.
    assets
        Names of the band that shows ice, the preferred one first: near infrared, or HH before VV.
    instruments
        First four letters of a Landsat id; none for any instrument.
    kind
        `optical` or `sar`, which decides the second opinion that a front gets.
    nodata
        Numbers at or below it are missing, where the file itself does not say.
    scale, offset
        Reflectance = scale * number + offset, unless the item says otherwise; with scale 1 numbers stay as they are.
    decibel
        10 turns power into dB, 20 amplitude; 0 leaves the numbers.
    quality
        How bands of clouds are read; the first whose asset an item has. Without one every pixel is clear.
    further
        Bands that only features of the sea need (`features`), with the `scale` and `offset` of the row: red, green and
        blue of light, `cross` of radar (HV or VH).

    Examples
    --------
    >>> Sensor(("aster-l1t",), r"AST_L1T", ("VNIR_Band3N",)).kind
    'optical'
    """

    collections: tuple[str, ...]
    id_pattern: str
    assets: tuple[str, ...]
    instruments: tuple[str, ...] = ()
    kind: Kind = "optical"
    nodata: float = 0.0
    scale: float = 1.0
    offset: float = 0.0
    decibel: Literal[0, 10, 20] = 0
    quality: tuple[Quality, ...] = ()
    further: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_L1 = ("landsat-c2-l1", "landsat-c2l1", "landsat-c1-l1", "landsat-8-l1-c1")
_L2 = ("landsat-c2-l2", "landsat-c2l2-sr", "landsat-8-c2-l2")
_S2 = ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-pre-c1-l2a", "sentinel-s2-l2a-cogs", "sentinel2-l2a")
_L1_ID, _L2_ID = r"L[A-Z]\d\d_L1", r"L[A-Z]\d\d_L2S[PR]"
_QA = (QA_PIXEL, BQA)
_VISIBLE = ("blue", "green", "red")
_TM = {name: (name, f"SR_B{n}", f"SR_B{n}.TIF") for n, name in enumerate(_VISIBLE, 1)}
_OLI = {name: (name, f"SR_B{n}", f"SR_B{n}.TIF") for n, name in enumerate(_VISIBLE, 2)}
_MSI = {name: (name, f"B0{n}") for n, name in enumerate(_VISIBLE, 2)}
_CROSS = {"cross": ("hv", "HV", "vh", "VH")}

SENSORS = (
    # MSS has two near-infrared bands: the second (800 to 1100 nm), where water is darkest, is the one CALFIN used.
    Sensor(_L1, _L1_ID, ("nir09", "B7", "B7.TIF", "nir08", "B6", "B6.TIF"), ("LM01", "LM02", "LM03"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir09", "B4", "B4.TIF", "nir08", "B3", "B3.TIF"), ("LM04", "LM05"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir08", "B4", "B4.TIF"), ("LT04", "LT05", "LE07"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir08", "B5", "B5.TIF"), ("LC08", "LC09", "LO08", "LO09"), quality=_QA),
    Sensor(
        _L2,
        _L2_ID,
        ("nir08", "SR_B4", "SR_B4.TIF"),
        ("LT04", "LT05", "LE07"),
        scale=2.75e-5,
        offset=-0.2,
        quality=_QA,
        further=_TM,
    ),
    Sensor(
        _L2,
        _L2_ID,
        ("nir08", "SR_B5", "SR_B5.TIF"),
        ("LC08", "LC09"),
        scale=2.75e-5,
        offset=-0.2,
        quality=_QA,
        further=_OLI,
    ),
    Sensor(_S2, r"S2[A-D]_.*L2A", ("nir", "B08"), scale=1e-4, quality=(SCL,), further=_MSI),
    Sensor(
        ("sentinel-1-rtc", "sentinel1-rtc"),
        r"S1[A-D]_.*_rtc",
        ("hh", "HH", "vv", "VV"),
        kind="sar",
        decibel=10,
        further=_CROSS,
    ),
    Sensor(
        ("sentinel-1-grd", "sentinel1-grd"),
        r"S1[A-D]_.*_GRD",
        ("hh", "HH", "vv", "VV"),
        kind="sar",
        decibel=20,
        further=_CROSS,
    ),
    Sensor(("images",), r"(?!)", ("image",), nodata=-np.inf),
)
"""The table; the first row that applies to an item is taken. `images` are files the user names: one band, as it is."""


def _assets_of(rows: Sequence[Sensor]) -> frozenset[str]:
    return frozenset(key for row in rows for keys in (row.assets, *(q.assets for q in row.quality)) for key in keys)


def _further_of(rows: Sequence[Sensor]) -> frozenset[str]:
    return frozenset(key for row in rows for keys in row.further.values() for key in keys)


READ_ASSETS = _assets_of(SENSORS)
"""Assets that decide a front: what the digest of an item is made of."""

FEATURE_ASSETS = _further_of(SENSORS)
"""Assets that are read too where features of the sea are wanted."""


_own: list[Sensor] = []


def register_sensor(sensor: Sensor) -> None:
    """Read a sensor that the table does not know, or read one of its collections differently, in this process.

    A row of your own goes before the rows of the table. Register it before you search, since a search drops assets that
    nothing reads. `map_fronts` and `plan_run` take the rows along to the workers of their client, those that come later
    too. A store notes them among what it was made with, so that later runs have to register them too.

    Parameters
    ----------
    sensor
        Where it applies and what is read there.

    Raises
    ------
    ValueError
        It applies nowhere, names no asset, or its pattern is no regular expression.

    Examples
    --------
    >>> register_sensor(Sensor(("aster-l1t",), r"AST_L1T", ("VNIR_Band3N",)))
    >>> own_sensors()[0].collections
    ('aster-l1t',)
    """
    if not sensor.assets or not (sensor.collections or sensor.id_pattern):
        raise ValueError(f"a sensor needs assets, and collections or a pattern of ids, got {sensor}")
    try:
        re.compile(sensor.id_pattern)
    except re.error as error:
        raise ValueError(f"id_pattern is no regular expression: {error}, got {sensor.id_pattern!r}") from error
    if sensor not in _own:
        _own.insert(0, sensor)


def own_sensors() -> tuple[Sensor, ...]:
    """Return the rows that `register_sensor` added, the last one first."""
    return tuple(_own)


def read_assets() -> frozenset[str]:
    """Names of the assets of any item that decide a front."""
    return READ_ASSETS | _assets_of(own_sensors())


def listed_assets() -> frozenset[str]:
    """Names of the assets that a search keeps of any item: what may be read of it."""
    return read_assets() | FEATURE_ASSETS | _further_of(own_sensors())


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


def item_of(record: Mapping[str, Any]) -> pystac.Item:
    """Make an item of its JSON values; `pystac.Item.from_dict` copies all of them, in thrice the time.

    Raises
    ------
    KeyError, ValueError, pystac.STACError
        For values that are no item, or have no time.

    Examples
    --------
    >>> record = {"id": "a", "properties": {"datetime": "2020-07-01T12:00:00Z"}, "assets": {}}
    >>> item_of(record).datetime.year
    2020
    """
    properties = record["properties"]
    moment = properties.get("datetime")  # None where an item has the start and the end of an interval
    item = pystac.Item(
        record["id"],
        record.get("geometry"),
        record.get("bbox"),
        datetime.fromisoformat(moment) if moment else None,
        dict(properties),
        stac_extensions=record.get("stac_extensions"),
        collection=record.get("collection"),
        extra_fields={key: value for key, value in record.items() if key not in ITEM_FIELDS},
    )
    for key, asset in record["assets"].items():
        item.add_asset(key, pystac.Asset.from_dict(asset))
    item.links = [pystac.Link.from_dict(link).set_owner(item) for link in record.get("links", ())]
    return item


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
    return _utc(moment) > SLC_OFF_SINCE


def acquired(item: pystac.Item) -> pd.Timestamp:
    """When a scene was taken, in UTC: the item's time, or the start of its interval.

    Raises
    ------
    ValueError
        The item has neither.
    """
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise ValueError(f"item {item.id} has neither datetime nor start_datetime: take items from search_scenes")
    return _utc(moment)


def _utc(moment: datetime) -> pd.Timestamp:
    stamp = pd.Timestamp(moment)
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


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
    table = (*_own, *SENSORS)
    rows = [row for row in table if collection in row.collections]
    rows = rows or [row for row in table if re.match(row.id_pattern, item.id)]
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
    """Scale and offset to reflectance: the item's own `raster:bands`, else the table's; 1 and 0 for digital numbers.

    Earth Search says with `earthsearch:boa_offset_applied` that Sentinel-2 numbers no longer carry the offset that
    `raster:bands` still names; Planetary Computer says nothing, so the processing baseline decides.
    """
    if sensor.scale == 1:
        return 1.0, 0.0
    bands: list[dict[str, Any]] = asset.extra_fields.get("raster:bands") or [asset.extra_fields]
    own = {
        **bands[0],
        **{k.removeprefix("raster:"): v for k, v in bands[0].items()},
    }  # STAC 1.1 names them raster:scale
    is_late = str(item.properties.get("s2:processing_baseline", "")) >= S2_OFFSET_BASELINE
    offset = own.get("offset", -0.1 if is_late else sensor.offset)
    if item.properties.get("earthsearch:boa_offset_applied"):
        offset = 0.0
    return float(own.get("scale") or sensor.scale), float(offset or 0.0)


def _assets(item: pystac.Item) -> list[str]:
    return sorted(item.assets)[:40]
