"""Fjord boundaries of domains, derived from the scenes of a store where nobody has drawn them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from calfin_cloud.domains import Domain, with_fjord_mask
from calfin_cloud.fronts import FEWEST_DATES, fjord_from_scenes, pixels_of
from calfin_cloud.results.reviewing import usable_fronts
from calfin_cloud.storage import check_places, read_fronts, read_scene_masks

log = logging.getLogger(__name__)


def derive_fjords(store: str, domains: Sequence[Domain], *, ice_mask: gpd.GeoDataFrame | None = None) -> list[Domain]:
    """Give the domains without a fjord boundary one that their stored masks and fronts show.

    Parameters
    ----------
    store
        fsspec URI of a store that has scenes of the domains.
    domains
        Those with a boundary stay as they are, and those with too few fronts (`FEWEST_DATES`; with an ice mask, one).
    ice_mask
        Polygons of glacier ice in any CRS: all land beside it is wall.
    """
    traced = read_fronts(store).query("state == 'front'")["key"]
    fronts = usable_fronts(store, flagged=False)  # none that a person rejected
    fronts = fronts[fronts["key"].isin(traced)]  # a line drawn where the network saw nothing has no masks beside it
    return [d if d.fjord_boundary is not None else _derive(store, d, fronts, ice_mask) for d in domains]


def _derive(store: str, domain: Domain, fronts: gpd.GeoDataFrame, ice_mask: gpd.GeoDataFrame | None) -> Domain:
    mine = fronts[fronts["domain"] == domain.name]
    glacier = None if ice_mask is None else _burn(ice_mask, domain)
    needed = FEWEST_DATES if glacier is None else 1
    if mine["key"].nunique() < needed:
        log.warning("%s: %d scenes with a front, %d are needed", domain.name, mine["key"].nunique(), needed)
        return domain
    fjord = fjord_from_scenes(_scenes(store, domain, mine), glacier=glacier)
    if fjord is None:
        return domain
    return with_fjord_mask(domain, fjord, "dates" if glacier is None else "ice_mask")


def _scenes(
    store: str, domain: Domain, fronts: gpd.GeoDataFrame
) -> Iterator[tuple[NDArray[np.float32], list[NDArray[np.float64]]]]:
    """Ice mask and fronts in pixels of each scene with a front, one at a time."""
    places = check_places(store, domain.name, fronts["key"])
    for scene_id, of_scene in fronts.groupby("scene_id"):
        ice = read_scene_masks(store, domain.name, places[str(scene_id)])[1]
        yield ice, [pixels_of(line, domain.grid.transform) for line in of_scene.geometry]


def _burn(polygons: gpd.GeoDataFrame, domain: Domain) -> NDArray[np.bool_]:
    """Polygons on the grid of a domain, (y, x) bool."""
    shapes = polygons.geometry.to_crs(domain.crs)
    inside = [(shape, 1) for shape in shapes[shapes.intersects(domain.polygon)]]
    if not inside:
        return np.zeros(domain.shape, dtype=bool)
    burnt = rasterize(inside, out_shape=domain.shape, transform=domain.grid.transform, dtype="uint8")
    return np.asarray(burnt, dtype=bool)
