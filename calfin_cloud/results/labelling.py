"""Fronts that people vouch for go in; labelled samples come out, of pictures a store keeps: no scene is read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

from calfin_cloud.datasets import ICE, OCEAN, UNKNOWN, Sample
from calfin_cloud.domains import Domain
from calfin_cloud.products import read_product
from calfin_cloud.results.lineage import stored_item
from calfin_cloud.results.reviewed_polygons import close_scene
from calfin_cloud.results.reviewing import usable_fronts
from calfin_cloud.sensors import item_of, kind_of
from calfin_cloud.storage import read_fronts, read_places, read_scene_grey, read_scene_masks, read_store_domains

SURE = 0.9
"""Beyond what the fronts close, ice or ocean is labelled where the stored mask is so sure of it."""


def labelled_samples(
    store: str, *, domains: Sequence[str] = (), lines: str | Path | None = None, days: int = 0
) -> list[Sample]:
    """Make labelled samples of the scenes of a store whose fronts a person drew or vouches for, by date.

    A sample's glacier is the name of its domain. Ice and ocean are those that the fronts close
    (`polygons.close_polygons`), beyond them those that the stored mask is sure of; a scene whose fronts close nothing
    has its fronts alone.

    Parameters
    ----------
    domains
        Names of the only domains that are looked at; all where not given.
    lines
        Vector file of drawn fronts with dates (`products.read_product`), in any CRS. Without it, the scenes whose
        fronts were all accepted or redrawn are taken, see `usable_fronts`.
    days
        A line belongs to the scenes that it names; else a scene has, of each glacier in its domain, the lines of the
        nearest date, so many days apart at most, in UTC.

    Raises
    ------
    ValueError
        A domain is not in the store, no scene has such a front, or the store keeps no pictures.
    """
    by_name = {domain.name: domain for domain in read_store_domains(store)}
    if unknown := sorted(set(domains) - set(by_name)):
        raise ValueError(f"{store} has no domain {unknown}, its domains are {sorted(by_name)[:20]}: correct the name")
    wanted = {name: by_name[name] for name in domains or by_name}
    fronts = _reviewed(store) if lines is None else _drawn(store, wanted, lines, days)
    fronts = fronts[fronts["domain"].isin(list(wanted))]
    if fronts.empty:
        raise ValueError(
            f"{store} has no scene whose fronts were all accepted or redrawn: review some, or give drawn lines"
            if lines is None
            else f"no front of {lines} lies in a domain of {store} within {days} days of a scene: check its dates and "
            "its CRS, or allow more days"
        )
    made = [_sample(store, wanted[scene["domain"].iloc[0]], scene) for _, scene in fronts.groupby("key")]
    samples = [sample for sample in made if sample is not None]
    if not samples:
        raise ValueError(f"{store} keeps no picture of the {len(made)} labelled scenes: map them once more")
    return sorted(samples, key=lambda sample: (sample.datetime, sample.name))


def _reviewed(store: str) -> gpd.GeoDataFrame:
    """Fronts of the scenes of which a person accepted or redrew each that nobody rejected."""
    fronts = usable_fronts(store, flagged=False)
    is_good = fronts["verdict"].isin(["accept", "redraw"]).groupby(fronts["key"]).transform("all")
    return fronts[is_good]


def _drawn(store: str, domains: dict[str, Domain], lines: str | Path, days: int) -> gpd.GeoDataFrame:
    """Rows of the scenes that drawn lines are of, with these lines as geometry."""
    scenes = read_fronts(store).drop_duplicates("key")
    drawn = read_product(lines).to_crs(scenes.crs)
    rows = list(_matched(scenes, drawn, domains, pd.Timedelta(days=days)))
    return gpd.GeoDataFrame(rows, columns=scenes.columns, crs=scenes.crs)


def _matched(
    scenes: gpd.GeoDataFrame, drawn: gpd.GeoDataFrame, domains: dict[str, Domain], within: pd.Timedelta
) -> Iterator[pd.Series]:
    for _, scene in scenes[scenes["domain"].isin(list(domains))].iterrows():
        here = drawn[drawn.intersects(domains[scene["domain"]].polygon)]
        apart = (here["datetime"].dt.normalize() - scene["datetime"].normalize()).abs()
        named = here["scene_id"] == scene["scene_id"]
        nearest = apart == apart.groupby(here["glacier_id"]).transform("min")  # one date of a glacier, not several
        for line in here.geometry[named if named.any() else nearest & (apart <= within)]:
            yield scene.where(scene.index != "geometry", line)


def _sample(store: str, domain: Domain, scene: gpd.GeoDataFrame) -> Sample | None:
    """Label one scene by its lines; None where the store has no picture of it."""
    first = scene.iloc[0]
    scene_id = str(first["scene_id"])
    place = read_places(store, domain.name).get(scene_id)
    grey = None if place is None else read_scene_grey(store, domain.name, place)
    if place is None or grey is None:
        return None
    lines = [part for line in scene.geometry for part in getattr(line, "geoms", [line])]
    content = stored_item(store, str(first["key"]))
    is_light = content is not None and kind_of(item_of(content)) == "optical"
    _, lowest, _, highest = domain.area_lonlat.bounds
    return Sample(
        str(first["key"]),
        domain.name,
        "optical" if is_light else "sar",
        np.where(grey > 0, grey, np.nan).astype(np.float32),
        _burnt(lines, domain) > 0,
        _ice(store, domain, scene_id, place, lines),
        pixel_size_m=domain.ground_m,
        datetime=first["datetime"].to_pydatetime(),
        platform=str(first["platform"]),
        is_southern=lowest + highest < 0,
    )


def _ice(store: str, domain: Domain, scene_id: str, place: int, lines: Sequence[LineString]) -> NDArray[np.uint8]:
    closed = close_scene(store, domain, scene_id, lines)
    if closed.ocean is None or closed.ice is None:
        return np.full(domain.shape, UNKNOWN, np.uint8)
    ocean, ice = (_burnt([shape], domain) > 0 for shape in (closed.ocean, closed.ice))
    mask = read_scene_masks(store, domain.name, place)[1]
    return np.select([ocean, ice, mask >= SURE, mask <= 1 - SURE], [OCEAN, ICE, ICE, OCEAN], UNKNOWN).astype(np.uint8)


def _burnt(shapes: Sequence[BaseGeometry], domain: Domain) -> NDArray[np.uint8]:
    """Raster (y, x) of shapes: 1 on them, 0 elsewhere."""
    made = rasterize([(s, 1) for s in shapes], out_shape=domain.shape, transform=domain.grid.transform, dtype="uint8")
    return np.asarray(made)
