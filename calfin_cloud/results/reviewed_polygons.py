"""Ocean and ice of scenes whose fronts people or all dates changed, closed anew from the stored masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely.geometry import LineString

from calfin_cloud.domains import Domain
from calfin_cloud.fronts import fjord_from_scenes, pixels_of
from calfin_cloud.polygons import Polygons, PolygonSettings, close_polygons
from calfin_cloud.schema import POLYGON_KINDS
from calfin_cloud.storage import domain_of, read_places, read_polygons, read_scene_masks, read_store, read_store_domains
from calfin_cloud.timeseries import length_scale

MANUAL = (0, 3)
"""Quality flags of lines that people drew (calfin-method 8)."""
OF_SCENE = ("key", "domain", "scene_id", "glacier_id", "datetime", "platform")


def reviewed_polygons(store: str, fronts: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Read the polygons of a store; those of scenes whose fronts people or all dates changed are closed anew.

    Parameters
    ----------
    fronts
        Table of `reviewed_fronts`; scenes that it lacks have no row.

    Returns
    -------
    GeoDataFrame
        As `storage.read_polygons`. A scene with no front left has no row, one whose fronts do not close says why.
    """
    polygons, changed = read_polygons(store), changed_scenes(fronts)
    left = fronts[fronts["key"].isin(changed) & (fronts["state"] == "front") & (fronts["verdict"] != "reject")]
    domains = {d.name: d for d in read_store_domains(store)}
    rows = [row for _, scene in left.groupby("key", sort=False) for row in _rows(store, domains, scene)]
    kept = polygons[polygons["key"].isin(fronts["key"]) & ~polygons["key"].isin(changed)]
    if not rows:
        return kept.reset_index(drop=True)
    anew = gpd.GeoDataFrame(rows, geometry="geometry", crs=polygons.crs)[list(polygons.columns)]
    return pd.concat([kept, anew], ignore_index=True) if len(kept) else anew


def changed_scenes(fronts: gpd.GeoDataFrame) -> set[str]:
    """Keys of the scenes whose fronts people or all dates changed, of a table of `reviewed_fronts`."""
    is_drawn = (fronts["verdict"] != "") & fronts["quality_flag"].isin(MANUAL)
    is_new = ~fronts["choice"].isin(["", "kept"])
    return set(fronts.loc[is_drawn | is_new | (fronts["verdict"] == "reject"), "key"])


def close_scene(store: str, domain: Domain, scene_id: str, lines: Sequence[LineString]) -> Polygons:
    """Close lines (in the domain's CRS) of a scene as the store closes its fronts, see `polygons.close_polygons`."""
    place = read_places(store, domain.name).get(scene_id)
    ice = np.full(domain.shape, np.nan) if place is None else read_scene_masks(store, domain.name, place)[1]
    fjord = domain.fjord_mask
    if fjord is None:
        fjord = fjord_from_scenes([(ice, [pixels_of(line, domain.grid.transform) for line in lines])])
    settings = PolygonSettings(**read_store(store).get("settings", {}).get("polygons", {}))
    return close_polygons(lines, ice, domain.grid, fjord_mask=fjord, settings=settings)


def _rows(store: str, domains: dict[str, Domain], scene: gpd.GeoDataFrame) -> list[dict[str, Any]]:
    """Rows of `POLYGON_SCHEMA` of one scene."""
    first = scene.iloc[0]
    domain = domain_of(domains, first["domain"], store)
    made = close_scene(store, domain, str(first["scene_id"]), list(scene.geometry))
    same = {name: first[name] for name in OF_SCENE} | {"fjord": domain.fjord_source or "scene", "detail": made.detail}
    rows = []
    for kind in POLYGON_KINDS:
        shape = getattr(made, kind)
        reason = made.reason if made.reason or shape is not None else f"no_{kind}"
        area = np.nan if shape is None else shape.area / length_scale(domain.crs, shape) ** 2
        rows.append(same | {"kind": kind, "reason": reason, "area_m2": area, "geometry": shape})
    return rows
