"""The table of sensors: which asset of an item shows ice, its nodata, scale and quality bits; and rows of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

Kind = Literal["optical", "sar", "unknown"]


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

    @property
    def nodata(self) -> int | None:
        """Number that means no data, where the file itself does not say; None where none does."""
        if not self.fill:
            return None
        return 1 << self.fill[0] if self.is_bits else self.fill[0]


QA_PIXEL = Quality(("qa_pixel", "QA_PIXEL", "QA_PIXEL.TIF"), fill=(0,), cloud=(2, 3), is_bits=True)
"""Landsat Collection 2: bit 0 fill, 1 dilated cloud, 2 cirrus (high confidence), 3 cloud, 4 cloud shadow, 5 snow.
The dilation and the shadow are not cloud: a front is seen through both, and ice edges trigger them."""

BQA = Quality(("BQA", "bqa", "BQA.TIF"), fill=(0,), cloud=(4,), is_bits=True)
"""Landsat Collection 1: bit 0 fill, 4 cloud, the bit CALFIN counts (method section 2.1)."""

SCL = Quality(("scl", "SCL", "SCL_20m"), fill=(0,), cloud=(8, 9, 10), is_bits=False)
"""Sentinel-2 scene classes: 0 no data, 3 cloud shadow, 8 and 9 cloud of medium and high probability, 10 thin cirrus."""


@dataclass(frozen=True)
class Sensor:
    """One row of the table: where it applies, and what to read there. `register_sensor` adds rows of your own.

    Attributes
    ----------
    collections
        Ids of STAC collections; an item of a collection with another name is known by its id.
    id_pattern
        Regular expression that the id of an item begins with; empty or `(?!)` for none.
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
_S2_L1 = ("sentinel-2-l1c", "sentinel-s2-l1c")
_S2 = ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-pre-c1-l2a", "sentinel-s2-l2a-cogs", "sentinel2-l2a")
_L1_ID, _L2_ID = r"L[A-Z]\d\d_L1", r"L[A-Z]\d\d_L2S[PR]"
_QA = (QA_PIXEL, BQA)
_VISIBLE = ("blue", "green", "red")
_TM = {name: (name, f"SR_B{n}", f"SR_B{n}.TIF") for n, name in enumerate(_VISIBLE, 1)}
_OLI = {name: (name, f"SR_B{n}", f"SR_B{n}.TIF") for n, name in enumerate(_VISIBLE, 2)}
_MSI = {name: (name, f"B0{n}", f"B0{n}_10m") for n, name in enumerate(_VISIBLE, 2)}
_SURFACE = partial(Sensor, _L2, _L2_ID, scale=2.75e-5, offset=-0.2, quality=_QA)  # reflectance of Landsat's level 2
_CO = ("hh", "HH", "vv", "VV")
_CROSS = {"cross": ("hv", "HV", "vh", "VH")}

SENSORS = (
    # MSS has two near-infrared bands: the second (800 to 1100 nm), where water is darkest, is the one CALFIN used.
    Sensor(_L1, _L1_ID, ("nir09", "B7", "B7.TIF", "nir08", "B6", "B6.TIF"), ("LM01", "LM02", "LM03"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir09", "B4", "B4.TIF", "nir08", "B3", "B3.TIF"), ("LM04", "LM05"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir08", "B4", "B4.TIF"), ("LT04", "LT05", "LE07"), quality=_QA),
    Sensor(_L1, _L1_ID, ("nir08", "B5", "B5.TIF"), ("LC08", "LC09", "LO08", "LO09"), quality=_QA),
    _SURFACE(("nir08", "SR_B4", "SR_B4.TIF"), ("LT04", "LT05", "LE07"), further=_TM),
    _SURFACE(("nir08", "SR_B5", "SR_B5.TIF"), ("LC08", "LC09"), further=_OLI),
    # Level 1 of Sentinel-2 has no band of clouds; its numbers stay as they are, as those of Landsat do.
    Sensor(_S2_L1, r"S2[A-D]_.*L1C", ("nir", "B08")),
    Sensor(_S2, r"S2[A-D]_.*L2A", ("nir", "B08", "B08_10m"), scale=1e-4, quality=(SCL,), further=_MSI),
    Sensor(("sentinel-1-rtc", "sentinel1-rtc"), r"S1[A-D]_.*_rtc", _CO, kind="sar", decibel=10, further=_CROSS),
    Sensor(("sentinel-1-grd", "sentinel1-grd"), r"S1[A-D]_.*_GRD", _CO, kind="sar", decibel=20, further=_CROSS),
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
        It applies nowhere, names no asset, has a text in place of names, or its pattern is no regular expression.

    Examples
    --------
    >>> register_sensor(Sensor(("aster-l1t",), r"AST_L1T", ("VNIR_Band3N",)))
    >>> own_sensors()[0].collections
    ('aster-l1t',)
    """
    if not sensor.assets or not (sensor.collections or sensor.id_pattern):
        raise ValueError(f"a sensor needs assets, and collections or a pattern of ids, got {sensor}")
    if texts := [of for of in (sensor.collections, sensor.assets, sensor.instruments) if isinstance(of, str)]:
        raise ValueError(f"collections, assets and instruments are tuples of names, got {texts}: write ({texts[0]!r},)")
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
