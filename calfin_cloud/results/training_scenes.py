"""Scenes of a store with the masks that their fronts close, in CALFIN's layout, so that others can train on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize

from calfin_cloud.columns import satellite_code
from calfin_cloud.domains import Domain
from calfin_cloud.results.reviewed_polygons import close_scene
from calfin_cloud.storage import check_places, domain_of, outside_stores, read_scene_grey
from calfin_cloud.whole_files import whole_file


def write_training_scenes(
    store: str, folder: Path, fronts: gpd.GeoDataFrame, domains: Mapping[str, Domain]
) -> list[Path]:
    """Write the scenes of fronts as pairs: `<Domain>_<Satellite>_<scene>_<date>.png`, and the same with `_mask.png`.

    The picture is the scene as the network saw it, the mask is 255 on ice and land and 0 on the ocean that the fronts
    close. Both are on the grid of the domain. Beside the picture lies its georeference (`.wld`, and the CRS in
    `.png.aux.xml`), which GDAL reads. Scenes whose fronts do not close an ocean are left out.

    Raises
    ------
    ValueError
        The folder lies within a store.
    """
    outside_stores(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for _, scene in fronts[fronts["state"] == "front"].groupby("key"):
        first = scene.iloc[0]
        domain, scene_id = domain_of(domains, first["domain"], store), str(first["scene_id"])
        made = _training_pair(store, domain, scene_id, scene)
        if made is None:
            continue
        plain = "".join(c if c.isalnum() else "-" for c in scene_id)[:120]
        satellite = satellite_code(first["platform"], scene_id)
        stem = f"{domain.name.replace('_', '-')}_{satellite}_{plain}_{first['datetime']:%Y-%m-%d}"
        for ending, picture in zip(("", "_mask"), made, strict=True):
            paths.append(folder / f"{stem}{ending}.png")
            _write_picture(paths[-1], picture, domain)
    return paths


def write_domain_files(domain: Domain, folder: Path) -> list[Path]:
    """Write the box of a domain (Shapefile, as CALFIN cuts scenes by) and where in it a front may lie.

    The latter is `<Domain>_fjord_boundaries.png` and `.tif`: 255 where a front may lie, 0 on walls, rock and coast; it
    exists for domains that have such a boundary.
    """
    name = domain.name.replace("_", "-")
    outline = folder / "domains" / f"{name}.shp"
    outline.parent.mkdir(parents=True, exist_ok=True)
    about = {"RefName": [domain.name], "GlacierID": [domain.glacier_id]}
    with whole_file(outline) as unfinished:
        gpd.GeoDataFrame(about, geometry=[domain.polygon], crs=domain.crs).to_file(unfinished, encoding="utf-8")
    if domain.fjord_mask is None:
        return [outline]
    paths = [folder / "fjord_boundaries" / f"{name}_fjord_boundaries{ending}" for ending in (".png", ".tif")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        _write_picture(path, np.where(domain.fjord_mask, 255, 0).astype(np.uint8), domain)
    return [outline, *paths]


def _write_picture(path: Path, picture: NDArray[np.uint8], domain: Domain) -> None:
    """Write a grey picture (y, x) with its georeference."""
    height, width = picture.shape
    about: dict[str, Any] = {"count": 1, "height": height, "width": width, "dtype": "uint8", "crs": domain.crs}
    if path.suffix == ".png":
        about |= {"driver": "PNG", "WORLDFILE": "YES"}
    else:
        about |= {"driver": "GTiff", "compress": "deflate"}
    with (
        whole_file(path) as unfinished,
        rasterio.open(unfinished, "w", transform=domain.grid.transform, **about) as file,
    ):
        file.write(picture, 1)


def _training_pair(store: str, domain: Domain, scene_id: str, scene: gpd.GeoDataFrame) -> tuple[Any, Any] | None:
    """Picture and mask of one scene, uint8 (y, x); None where its fronts close no ocean."""
    places = check_places(store, domain.name, scene["key"])
    grey = read_scene_grey(store, domain.name, places[scene_id])
    ocean = close_scene(store, domain, scene_id, list(scene.geometry)).ocean
    if grey is None or ocean is None:
        return None
    wet = rasterize([(ocean, 1)], out_shape=domain.shape, transform=domain.grid.transform, dtype="uint8")
    return grey, np.where(wet > 0, 0, 255).astype(np.uint8)
