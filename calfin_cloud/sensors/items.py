"""STAC items: made of their JSON values, when they were taken, and what GDAL may open of their files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pystac

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


GRANULES_FIELD = "calfin:granules"
"""Field of an item with further granules of its pass, as JSON values, which are read where it has no data; `scenes`
sets it."""


def item_of(record: Mapping[str, Any]) -> pystac.Item:
    """Make an item of its JSON values; `pystac.Item.from_dict` copies all of them, in thrice the time.

    Raises `KeyError`, `ValueError` or `pystac.STACError` for values that are no item, or have no time.
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


def granules_of(item: pystac.Item) -> list[pystac.Item]:
    """Further granules of the pass of an item, in the order in which they are read; none of most items."""
    catalog = item.extra_fields.get(CATALOG_FIELD, "")  # which decides what may be opened: no granule names its own
    return [item_of({**granule, CATALOG_FIELD: catalog}) for granule in item.extra_fields.get(GRANULES_FIELD, ())]


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
    return pd.Timestamp(in_utc(moment))


def in_utc(moment: datetime) -> datetime:
    """Give a time its zone; a bare one is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
