"""A real scene that comes with the package: a static STAC catalogue, its domain, and fronts to compare with."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

import geopandas as gpd
import pystac
import rasterio
import shapely
from shapely.geometry import mapping

from calfin_cloud.domains import write_domains
from calfin_cloud.glaciers import domain_from_glacier, find_glacier
from calfin_cloud.whole_files import whole_file

GLACIER = "Harald-Moltke-Brae"
TAKEN = datetime(2021, 9, 27, tzinfo=UTC)
"""The day whose front the water line of the scene fits best: the source does not say when it was taken."""

AUTHOR = "Loebel et al. (2024)"


def write_real_sample(folder: str | Path) -> Path:
    """Write a real Landsat 8 scene of Harald Moltke Bræ, Greenland, as a static STAC catalogue; return its path.

    Beside `catalog.json` lie `domains.geojson` with the domain and its termini of 2009 to 2021 (MEaSUREs),
    `reference.parquet` with 159 fronts of 2019 to 2021 that another network traced (`datetime, glacier_id, author,
    geometry`, EPSG:3413; Loebel et al. 2024), and `README.md` with sources and licences. Nothing is downloaded: the
    scene, 1.4 MB, comes with the package.

    Parameters
    ----------
    folder
        Is made where it is not there; files of the same names in it are replaced.

    Returns
    -------
    Path
        The catalogue, for `search_scenes` or `calfin map --catalog`.

    Raises
    ------
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> catalog = cc.write_real_sample("real")
    >>> domains = cc.read_domains("real/domains.geojson")
    >>> [item.id for item in cc.search_scenes(catalog, domains[0], "2021")]
    ['harald-moltke-brae_20210927']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("calfin_cloud.sample") / "harald_moltke") as shipped:
        item = _item(shipped / "scene.tif")
        place = folder / str(item.collection_id) / item.id
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped / "scene.tif", place / f"{item.id}.tif")
        shutil.copyfile(shipped / "README.md", folder / "README.md")
        shutil.copyfile(shipped / "LICENSE.md", folder / "LICENSE.md")
        fronts = gpd.read_parquet(shipped / "fronts.parquet")
    glacier = find_glacier(GLACIER)
    write_domains([domain_from_glacier(GLACIER)], folder / "domains.geojson")
    table = fronts.rename(columns={"date": "datetime"}).assign(glacier_id=glacier.id, author=AUTHOR)
    with whole_file(folder / "reference.parquet") as unfinished:
        table[["datetime", "glacier_id", "author", "geometry"]].to_parquet(unfinished)
    return _write_catalog(folder, item)


def _item(scene: Path) -> pystac.Item:
    """Item of the scene, in the collection of files that a person names: its band is not one of an agency's list."""
    with rasterio.open(scene) as file:
        grid = {"proj:code": f"EPSG:{file.crs.to_epsg()}", "proj:shape": list(file.shape)}
        grid["proj:transform"] = list(file.transform)[:6]
        corners = gpd.GeoSeries([shapely.segmentize(shapely.box(*file.bounds), 1000)], crs=file.crs)
    footprint = corners.to_crs(4326).iloc[0]
    words = {"platform": "landsat-8", "description": f"The source names no day: {TAKEN:%Y-%m-%d} fits its front best"}
    name = f"{GLACIER.lower()}_{TAKEN:%Y%m%d}"
    item = pystac.Item(
        name, mapping(footprint), list(footprint.bounds), TAKEN, {**words, **grid}, collection="images"
    )  # fmt: skip
    item.add_asset("image", pystac.Asset(f"./{name}.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    return item


def _write_catalog(folder: Path, item: pystac.Item) -> Path:
    catalog = pystac.Catalog("calfin-real-sample", "A real scene of a calving glacier: Harald Moltke Bræ, Greenland")
    extent = pystac.Extent.from_items([item])
    collection = pystac.Collection("images", "Landsat 8, courtesy of the U.S. Geological Survey", extent, license="MIT")
    catalog.add_child(collection)
    collection.add_item(item)
    catalog.normalize_and_save(str(folder), catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"
