"""The results of a store as a STAC collection: an item a scene, assets for masks, fronts and picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pystac
import shapely
from shapely.geometry import MultiLineString, mapping
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import cut_at_antimeridian
from calfin_cloud.feature_schema import FEATURES
from calfin_cloud.schema import short_name
from calfin_cloud.whole_files import write_whole_file

PARQUET, ZARR = "application/vnd.apache.parquet", "application/vnd+zarr"
LICENSE = "other"

FEATURE_FIELDS = {
    "icebergs": ("icebergs", "area_m2"),
    "melange": ("extent_m", "touches_front"),
    "plumes": ("area_m2", "relative_turbidity_median_fnu"),
}

Addresses = Callable[[str, str], Mapping[str, str]]
"""Domain and scene id -> addresses of its `masks`, `fronts` and `picture`, as far as there are any."""


def write_collection(
    folder: Path,
    fronts: gpd.GeoDataFrame,
    footprints: Mapping[str, BaseGeometry],
    addresses: Addresses,
    *,
    id_: str,
    description: str,
    made_by: Mapping[str, Any],
    features: Mapping[str, gpd.GeoDataFrame] | None = None,
) -> Path:
    """Describe the scenes of a store as a STAC collection with an item a scene, whatever state it ended in.

    The catalogue is self-contained: its links are relative. Items are written one by one, since pystac goes through all
    links of a collection for every item that it saves.

    Parameters
    ----------
    folder
        For `collection.json`, and a folder an item.
    fronts
        Table of `storage.read_fronts` with `flags` (`timeseries.flag_fronts`).
    footprints
        Area of each domain in longitude and latitude, in two parts at the antimeridian; a scene with a front has that
        as its geometry, another the domain.
    made_by
        Model, code and settings, which become fields `calfin:...` of the collection.
    features
        Tables of features of the sea by name (`feature_schema`), which become fields `calfin:...` of the items.
    """
    if fronts.empty:
        raise ValueError("the store has no scene to describe: map some first")
    seen = {name: table.set_index("key") for name, table in (features or {}).items()}
    up = [
        {"rel": rel, "href": "../collection.json", "type": "application/json"}
        for rel in ("root", "parent", "collection")
    ]
    down = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    for key, scene in fronts.to_crs(4326).groupby("key", sort=False):
        item = _item(scene, footprints[str(scene["domain"].iloc[0])], addresses)
        item.properties |= _feature_fields(str(key), seen)
        told = item.to_dict(include_self_link=False) | {"links": up, "collection": id_}
        place = folder / item.id / f"{item.id}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole_file(place, json.dumps(told, indent=2))
        down.append({"rel": "item", "href": f"./{item.id}/{item.id}.json", "type": "application/geo+json"})
    times = [when.to_pydatetime().astimezone(UTC) for when in (fronts["datetime"].min(), fronts["datetime"].max())]
    extent = pystac.Extent(pystac.SpatialExtent([_bbox(list(footprints.values()))]), pystac.TemporalExtent([[*times]]))
    fields = {f"calfin:{k}": v for k, v in made_by.items()}
    collection = pystac.Collection(id_, description, extent, license=LICENSE, extra_fields=fields)
    path = folder / "collection.json"
    told = collection.to_dict(include_self_link=False) | {"links": down}
    write_whole_file(path, json.dumps(told, indent=2))
    return path


def _item(rows: gpd.GeoDataFrame, footprint: BaseGeometry, addresses: Addresses) -> pystac.Item:
    first = rows.iloc[0]
    lines = rows.geometry[rows.geometry.notna()]
    parts = [part for line in lines for part in shapely.get_parts(cut_at_antimeridian(line))]
    shape = footprint if not parts else parts[0] if len(parts) == 1 else MultiLineString(parts)
    item = pystac.Item(
        short_name(f"{first['domain']}-{quote(first['scene_id'], safe='')}", of=str(first["key"])),
        mapping(shapely.orient_polygons(shape)),  # counter-clockwise, as RFC 7946 has them
        _bbox([shape]),
        first["datetime"].to_pydatetime().astimezone(UTC),
        {
            "platform": first["platform"],
            "calfin:scene_id": first["scene_id"],
            "calfin:domain": first["domain"],
            "calfin:state": first["state"],
            "calfin:reason": first["reason"],
            "calfin:quality_flag": int(first["quality_flag"]),
            "calfin:fronts": len(lines),
            "calfin:score": None if rows["score"].isna().all() else float(rows["score"].min()),
            "calfin:flags": sorted({flag for flags in rows["flags"] for flag in flags.split(",") if flag}),
            "calfin:verdicts": [verdict for verdict in rows["verdict"] if verdict] if "verdict" in rows else [],
            "calfin:reviewers": sorted({name for name in rows["reviewer"] if name}) if "reviewer" in rows else [],
            "calfin:model": first["model"],
            "calfin:code": first["code"],
        },
    )
    kinds = {"masks": (ZARR, "data"), "fronts": (PARQUET, "data"), "picture": (pystac.MediaType.PNG, "overview")}
    kinds |= dict.fromkeys(FEATURES, (PARQUET, "data"))
    for name, href in addresses(str(first["domain"]), str(first["scene_id"])).items():
        media_type, role = kinds[name]
        item.add_asset(name, pystac.Asset(href, media_type=media_type, roles=[role]))
    return item


def _bbox(lonlat: Sequence[BaseGeometry]) -> list[float]:
    """West, south, east and north of shapes; west is above east across the antimeridian (RFC 7946, 5.2)."""
    boxes = shapely.bounds(shapely.get_parts(lonlat))
    turned = boxes + np.where(boxes[:, 2:3] <= 0, [360.0, 0, 360, 0], 0)  # western parts, seen from the east
    around = [[*part[:, :2].min(axis=0), *part[:, 2:].max(axis=0)] for part in (boxes, turned)]
    west, south, east, north = min(around, key=lambda box: round(box[2] - box[0], 9))
    return [float(v) for v in (west, south, east - 360 if east > 180 else east, north)]


def _feature_fields(key: str, features: Mapping[str, gpd.GeoDataFrame]) -> dict[str, Any]:
    """Fields of the features of one scene: state and reason, and where it was measured a few numbers."""
    fields: dict[str, Any] = {}
    for name, table in features.items():
        if key not in table.index:
            continue
        row = table.loc[key]
        fields |= {f"calfin:{name}_state": row["state"], f"calfin:{name}_reason": row["reason"]}
        if row["state"] == "measured":
            fields |= {f"calfin:{name}_{column}": json_value(row[column]) for column in FEATURE_FIELDS[name]}
    return fields


def json_value(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    """Value as JSON has it: times in ISO 8601, NaN as None."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value
