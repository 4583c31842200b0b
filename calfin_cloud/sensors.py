"""Which asset of a STAC item shows ice, and how its numbers become a signal and a cloud mask: one table of sensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pystac
from numpy.typing import ArrayLike, NDArray

from calfin_cloud.schema import SceneError

SLC_OFF_SINCE = datetime(2003, 5, 31, 23, 59, 59, tzinfo=UTC)
"""Landsat 7 scenes after this day may have stripes without data (CALFIN's rule, method section 8)."""

S2_OFFSET_BASELINE = "04.00"
"""Since this processing baseline Sentinel-2 L2A numbers carry 1000 more: reflectance = DN * 1e-4 - 0.1."""


@dataclass(frozen=True)
class Quality:
    """How a quality band says fill and cloud: by bits set in it (`is_bits`) or by its class numbers."""

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
    """One row of the table: where it applies, and what to read there.

    `collections` are the names of Earth Search, Planetary Computer, USGS and stactools; items of a collection with
    another name are known by their id. `instrument` is the start of the Landsat id, or the empty text for any. `assets`
    come in order of preference. A table `scale` other than 1 gives reflectance; `decibel` 10 turns power, 20 amplitude
    into dB.
    """

    collections: tuple[str, ...]
    id_pattern: str
    assets: tuple[str, ...]
    instrument: str = ""
    kind: Literal["optical", "sar"] = "optical"
    nodata: float = 0.0
    scale: float = 1.0
    offset: float = 0.0
    decibel: Literal[0, 10, 20] = 0
    quality: tuple[Quality, ...] = ()


L1 = ("landsat-c2-l1", "landsat-c2l1", "landsat-c1-l1", "landsat-8-l1-c1")
L2 = ("landsat-c2-l2", "landsat-c2l2-sr", "landsat-8-c2-l2", "landsat-ot-c2-l2", "landsat-etm-c2-l2", "landsat-tm-c2-l2")
L1_ID, L2_ID = r"L[A-Z]\d\d_L1", r"L[A-Z]\d\d_L2S[PR]"
QA_L1 = (QA_PIXEL, BQA)
SR = {"scale": 2.75e-5, "offset": -0.2, "quality": (QA_PIXEL,)}

SENSORS = (
    # MSS has two near-infrared bands: the second (800-1100 nm), where water is darkest, is the one CALFIN used.
    *(Sensor(L1, L1_ID, ("nir09", "B7", "B7.TIF", "nir08", "B6", "B6.TIF"), f"LM0{n}", quality=QA_L1) for n in "123"),
    *(Sensor(L1, L1_ID, ("nir09", "B4", "B4.TIF", "nir08", "B3", "B3.TIF"), f"LM0{n}", quality=QA_L1) for n in "45"),
    *(Sensor(L1, L1_ID, ("nir08", "B4", "B4.TIF"), name, quality=QA_L1) for name in ("LT04", "LT05", "LE07")),
    *(Sensor(L1, L1_ID, ("nir08", "B5", "B5.TIF"), name, quality=QA_L1) for name in ("LC08", "LO08", "LC09", "LO09")),
    *(Sensor(L2, L2_ID, ("nir08", "SR_B4", "SR_B4.TIF"), name, **SR) for name in ("LT04", "LT05", "LE07")),  # type: ignore[arg-type]
    *(Sensor(L2, L2_ID, ("nir08", "SR_B5", "SR_B5.TIF"), name, **SR) for name in ("LC08", "LC09")),  # type: ignore[arg-type]
    Sensor(
        ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-pre-c1-l2a", "sentinel-s2-l2a-cogs", "sentinel2-l2a"),
        r"S2[A-D]_.*(L2A|MSIL2A)",
        ("nir", "B08"),
        scale=1e-4,
        quality=(SCL,),
    ),
    Sensor(
        ("sentinel-1-grd", "sentinel1-grd"),
        r"S1[A-D]_.*GRD[HMF]?_((?!rtc).)*$",
        ("hh", "HH", "vv", "VV"),
        kind="sar",
        decibel=20,
    ),
    Sensor(
        ("sentinel-1-rtc", "sentinel1-rtc"),
        r"S1[A-D]_.*rtc",
        ("hh", "HH", "vv", "VV"),
        kind="sar",
        decibel=10,
    ),
    Sensor(("images",), r"(?!)", ("image",), nodata=-np.inf),
)
