"""Georeferenced files with one band in, items of the collection `images` out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pystac
import rasterio
import rasterio.warp
import shapely
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from shapely.geometry import mapping

from calfin_cloud.domains import Domain
from calfin_cloud.scenes.catalogs import absolute
from calfin_cloud.scenes.footprints import footprint_touches
from calfin_cloud.scenes.periods import date_range
from calfin_cloud.sensors import CATALOG_FIELD, IMAGE_DRIVERS, ONE_FILE, in_utc


def items_from_images(
    paths: str | Path | Iterable[str | Path],
    datetimes: str | date | Sequence[str | date] | None = None,
    *,
    platform: str = "unknown",
) -> list[pystac.Item]:
    """Make items of the collection `images`, sorted by time and id, of georeferenced files with one band.

    The id is the name of the file without its suffix, with that of its folder where two files share it. `datetimes` is
    one date for all images or one for each; without, it is the first date in the file's name, else the file's own tag.

    Parameters
    ----------
    paths
        GeoTIFFs with a CRS.
    datetimes
        One date for all images, or one for each, as text or of Python, NumPy or pandas; a bare time is UTC.
    platform
        Satellite of the images, which tells light from radar.

    Returns
    -------
    list
        Items for `stack_scenes`, of the collection `images`.

    Raises
    ------
    ValueError
        A file cannot be read, has several bands or numbered colours, no CRS or no date, or two share their names.

    Examples
    --------
    >>> image = "real/images/harald-moltke-brae_20210927/harald-moltke-brae_20210927.tif"
    >>> (item,) = cc.items_from_images([image], platform="landsat-8")
    >>> item.datetime.date().isoformat()
    '2021-09-27'
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    given = [datetimes] if datetimes is None or isinstance(datetimes, str | date) else datetimes
    dates = [_moment(each) for each in given] or [None]
    if len(dates) not in (1, len(paths)):
        raise ValueError(f"give one date, or one for each image; got {len(dates)} dates for {len(paths)} images")
    dates = dates * (len(paths) if len(dates) == 1 else 1)
    ids = _image_ids([str(path) for path in paths])
    items = [_image_item(str(path), id_, date, platform) for path, id_, date in zip(paths, ids, dates, strict=True)]
    return sorted(items, key=lambda item: (item.datetime, item.id))


def images_of(items: Sequence[pystac.Item], domain: Domain) -> list[pystac.Item]:
    """Keep the items that touch the domain, in their order."""
    area = domain.area_lonlat
    return [item for item in items if footprint_touches(item.id, item.geometry, item.bbox, area)]


def _image_ids(paths: list[str]) -> list[str]:
    stems = [_id_text(Path(path).stem) for path in paths]
    long = [_id_text(f"{Path(path).parent.name}-{Path(path).stem}") for path in paths]
    ids = [name if stems.count(stem) > 1 else stem for stem, name in zip(stems, long, strict=True)]
    if len(set(ids)) < len(ids):
        raise ValueError(f"the images must differ in name or folder, got {sorted(i for i in ids if ids.count(i) > 1)}")
    return ids


def _id_text(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", name).lstrip("-.") or "image"


def _image_item(path: str, id_: str, date: datetime | None, platform: str) -> pystac.Item:
    try:
        with rasterio.Env(**ONE_FILE), rasterio.DatasetReader(path, driver=IMAGE_DRIVERS) as image:
            n_bands, crs, tags = image.count, image.crs, image.tags()
            bounds, transform, size = image.bounds, image.transform, image.shape
            is_numbered = ColorInterp.palette in image.colorinterp
    except rasterio.RasterioIOError as error:
        raise ValueError(f"cannot read the image {path}: {error}; expected a GeoTIFF") from error
    if n_bands != 1 or crs is None:
        raise ValueError(
            f"{path} must have one band and a CRS, got {n_bands} bands and CRS {crs}; "
            "gdal_translate -b N picks a band, -a_srs sets a CRS"
        )
    if is_numbered:
        raise ValueError(
            f"{path} has numbers of colours, which are no brightness: gdal_translate -expand gray turns grey ones into "
            "levels; of others -expand rgb makes three bands, of which -b N picks one"
        )
    left, bottom, right, top = rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds, densify_pts=21)
    item = pystac.Item(
        id=id_,
        geometry=_outline(bounds, crs),
        bbox=[left, bottom, right, top],
        datetime=_image_date(path, date, tags),
        properties={
            "platform": platform,
            "proj:code": f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else None,
            "proj:shape": list(size),
            "proj:transform": list(transform)[:6],
        },
        collection="images",
        extra_fields={CATALOG_FIELD: absolute(path)},
    )
    item.add_asset("image", pystac.Asset(absolute(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"]))
    return item


def _outline(bounds: tuple[float, float, float, float], crs: CRS) -> dict[str, Any]:
    box = shapely.box(*bounds)
    dense = shapely.segmentize(box, max(box.length / 64, 1e-9))
    return dict(rasterio.warp.transform_geom(crs, "EPSG:4326", mapping(dense)))


def _moment(date: object) -> datetime | None:
    """Time of a date as text or of any library; None where none is given."""
    if date is None:
        return None
    if isinstance(date, datetime) and not pd.isna(date):  # NaT of pandas is a datetime, and no time
        return in_utc(date)
    return date_range(str(date), str(date))[0]


def _image_date(path: str, date: datetime | None, tags: dict[str, str]) -> datetime:
    if date is not None:
        return date
    if in_name := re.search(r"(?<!\d)((?:19|20)\d\d)[-_]?([01]\d)[-_]?([0-3]\d)(?!\d)", Path(path).stem):
        return date_range("-".join(in_name.groups()), path)[0]
    if in_tag := re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)", tags.get("TIFFTAG_DATETIME", "")):
        return date_range("-".join(in_tag.groups()), path)[0]
    raise ValueError(f"{path} has no date in its name (YYYYMMDD or YYYY-MM-DD) or tags: give one with --datetime")
