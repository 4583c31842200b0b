"""Catalogue, domain and period in; sorted, unique STAC items that touch the domain out. Also items of plain images."""

from __future__ import annotations

import calendar
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import fsspec
import numpy as np
import pystac
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from pystac.stac_io import DefaultStacIO
from pystac_client import Client
from pystac_client.stac_api_io import StacApiIO
from rasterio.crs import CRS
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry
from urllib3 import Retry

from calfin_cloud.domains import Domain
from calfin_cloud.sensors import CATALOG_FIELD, IMAGE_DRIVERS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicCatalog:
    """A public STAC API by name: its address, and the collections searched unless the user names some."""

    url: str
    collections: tuple[str, ...]


CATALOGS = {
    "earth-search": PublicCatalog(
        "https://earth-search.aws.element84.com/v1", ("landsat-c2-l2", "sentinel-2-l2a", "sentinel-1-grd")
    ),
    "planetary-computer": PublicCatalog(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        ("landsat-c2-l1", "landsat-c2-l2", "sentinel-2-l2a", "sentinel-1-rtc"),
    ),
    "usgs": PublicCatalog("https://landsatlook.usgs.gov/stac-server", ("landsat-c2l1", "landsat-c2l2-sr")),
}

RETRY = Retry(total=5, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=None)
"""Busy and overloaded servers are asked again, searches by POST too: they change nothing."""

Period = tuple[datetime | None, datetime | None]


def search_scenes(
    catalog: str | Path,
    domain: Domain,
    period: str,
    *,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
) -> list[pystac.Item]:
    """Find the items of a catalogue that touch the domain within the period, sorted by time and id, each id once.

    Asset addresses come out absolute and unsigned. An item without geometry and bounding box is kept, since it may
    touch the domain; an item without a cloud cover passes `max_cloud`.

    Parameters
    ----------
    catalog
        A name of `CATALOGS`, the URL of a STAC API, or the URL or file of a static catalogue, of an item collection
        (GeoJSON FeatureCollection) or of one item.
    period
        Years, months, days or instants, both ends included, either end open: `2019`, `2019-06/2019-09`, `2019-06/..`.
    collections
        Ids of the collections to search; by default those of the named catalogue, or all that there are.
    max_cloud
        Highest `eo:cloud_cover` of a whole scene, in percent.
    """
    start, end = period_bounds(period)
    named = CATALOGS.get(str(catalog))
    address = _absolute(named.url if named else str(catalog))
    wanted = _id_list(collections) or (list(named.collections) if named else [])
    area = _lonlat_area(domain)
    items = _find_items(address, area, (start, end), wanted)
    kept = [item for item in items if _is_wanted(item, area, (start, end), wanted, max_cloud)]
    unique = {item.id: item for item in sorted(kept, key=_order, reverse=True)}  # the first of an id wins
    if len(unique) < len(kept):
        log.info("%s: %d items repeat the id of another and are left out", address, len(kept) - len(unique))
    return sorted(unique.values(), key=_order)


def period_bounds(period: str) -> Period:
    """First and last instant (UTC) of a period such as `2019`, `2019-06/2019-09`, `2019-06-15/..`; None is an open end.

    Both ends are included to the last microsecond: `2019-06/2019-09` ends with September.
    """
    first, *rest = [part.strip() for part in str(period).split("/")]
    if len(rest) > 1 or not (first or rest):
        raise ValueError(f"a period is DATE or DATE/DATE, got {period!r}; for example 2019-06/2019-09 or 2019/..")
    last = rest[0] if rest else first
    start = None if first in ("", "..") else _date_range(first, period)[0]
    end = None if last in ("", "..") else _date_range(last, period)[1]
    if start and end and start > end:
        raise ValueError(f"the period {period!r} ends before it starts; write it as {last}/{first}")
    return start, end


def items_from_images(
    paths: Sequence[str | Path],
    datetimes: Sequence[str | datetime] | None = None,
    *,
    platform: str = "unknown",
) -> list[pystac.Item]:
    """Make items of the collection `images`, sorted by time and id, of georeferenced files with one band.

    The id is the name of the file without its suffix, with that of its folder where two files share it. `datetimes` is
    one date for all images or one for each; without, it is the first date in the file's name, else the file's own tag.
    """
    dates: Sequence[str | datetime | None] = datetimes or [None]
    if len(dates) not in (1, len(paths)):
        raise ValueError(f"give one date, or one for each image; got {len(dates)} dates for {len(paths)} images")
    dates = list(dates) * (len(paths) if len(dates) == 1 else 1)
    ids = _image_ids([str(path) for path in paths])
    items = [_image_item(str(path), id_, date, platform) for path, id_, date in zip(paths, ids, dates, strict=True)]
    return sorted(items, key=_order)


def images_of(items: Sequence[pystac.Item], domain: Domain) -> list[pystac.Item]:
    """Keep the items that touch the domain, in their order."""
    area = _lonlat_area(domain)
    return [item for item in items if _touches(item, area)]


# Reading a catalogue


def _find_items(address: str, area: BaseGeometry, period: Period, wanted: list[str]) -> Iterator[pystac.Item]:
    reader = _StaticReader(address)
    try:
        root = reader.read_json(address)
        if not isinstance(root, dict):
            raise TypeError(f"got a JSON {type(root).__name__}")
        found = _api_items(root, address, area, period, wanted) if "conformsTo" in root else _static_items(root, reader)
        items = [_settle(item, address) for item in found]
    except _KnownError as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError(
            f"cannot read the catalogue {address}: {_told(error)}; expected a STAC API, a catalog.json, items "
            f"as GeoJSON, or one of {sorted(CATALOGS)}"
        ) from error
    known = {item.collection_id for item in items if item.collection_id}
    if "conformsTo" not in root and items and not set(wanted) <= known:
        raise ValueError(_unknown_collections(address, set(wanted) - known, known))
    return iter(items)


class _KnownError(Exception):
    """A mistake already told in the user's words."""


def _told(error: BaseException) -> str:
    status = getattr(error, "status_code", None)
    text = f"{type(error).__name__}{f' (HTTP status {status})' if status else ''} {error}".strip()
    return text[:300] + (f", because of {_told(error.__cause__)}" if error.__cause__ else "")


def _api_items(
    root: dict[str, Any], address: str, area: BaseGeometry, period: Period, wanted: list[str]
) -> Iterable[pystac.Item]:
    client = Client.from_dict(root, href=address)
    client.set_self_href(address)
    client._stac_io = StacApiIO(timeout=(10, 60), max_retries=RETRY)
    known = {collection.id for collection in client.get_collections()} if wanted else set()
    if not set(wanted) <= known:
        raise _KnownError(_unknown_collections(address, set(wanted) - known, known))
    when = "/".join(_rfc3339(t) for t in period) if any(period) else None  # APIs refuse a range open at both ends
    return client.search(intersects=mapping(area), datetime=when, collections=wanted or None, limit=100).items()


def _static_items(root: dict[str, Any], reader: _StaticReader) -> Iterable[pystac.Item]:
    if root.get("type") == "FeatureCollection":
        return [pystac.Item.from_dict(feature, migrate=True) for feature in root["features"]]
    if root.get("type") == "Feature":
        return [pystac.Item.from_dict(root, href=reader.address, migrate=True)]
    catalog = pystac.read_dict(root, href=reader.address, stac_io=reader)
    assert isinstance(catalog, pystac.Catalog)
    catalog.set_self_href(reader.address)
    return catalog.get_items(recursive=True)


class _StaticReader(DefaultStacIO):
    """Reads the JSON of one static catalogue, from the place where it was opened and from no other."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.http = StacApiIO(timeout=(10, 60), max_retries=RETRY)

    def read_text_from_href(self, href: str) -> str:
        """Text of an address of the catalogue; `ValueError` for one elsewhere."""
        if _place(href) != _place(self.address):
            raise ValueError(f"the catalogue links to {href}, which is not where it is itself: open that one instead")
        if urlsplit(href).scheme in ("http", "https"):
            return self.http.read_text(href)
        with fsspec.open(href, "rt", encoding="utf-8") as file:
            return str(file.read())


def _settle(item: pystac.Item, address: str) -> pystac.Item:
    """Give the item absolute asset addresses, a datetime, and the mark of its catalogue, whatever it says itself."""
    base = item.get_self_href() or address
    for asset in item.assets.values():
        if not re.match(r"[A-Za-z][\w+.-]*:|/|<", asset.href):
            asset.href = urljoin(base, asset.href) if "://" in base else str(Path(base).parent / asset.href)
    item.datetime = _moment(item)
    item.extra_fields[CATALOG_FIELD] = address
    return item


# Filters, the same for every kind of catalogue


def _is_wanted(
    item: pystac.Item, area: BaseGeometry, period: Period, wanted: list[str], max_cloud: float | None
) -> bool:
    start, end = period
    moment = _moment(item)
    cloud = item.properties.get("eo:cloud_cover")
    return (
        (not wanted or item.collection_id in wanted)
        and (start is None or moment >= start)
        and (end is None or moment <= end)
        and (max_cloud is None or not isinstance(cloud, int | float) or cloud <= max_cloud)
        and _touches(item, area)
    )


def _touches(item: pystac.Item, area: BaseGeometry) -> bool:
    footprint = _footprint_of(item)
    if footprint is None:
        return True
    # An item east and one west of the antimeridian may name the same place by longitudes 360 degrees apart.
    return any(bool(shapely.transform(footprint, _shifted(d)).intersects(area)) for d in (-360, 0, 360))


def _footprint_of(item: pystac.Item) -> BaseGeometry | None:
    """Geometry of the item in longitude and latitude, else its box; None where it has neither that can be read."""
    try:
        footprint = _unwrapped(shapely.make_valid(shape(item.geometry))) if item.geometry else None
        if footprint is not None and not footprint.is_empty:
            return footprint
    except (ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError) as error:
        log.warning("item %s: cannot read its geometry (%s), taking its box", item.id, error)
    if not item.bbox or len(item.bbox) not in (4, 6):
        return None
    left, bottom, right, top = item.bbox if len(item.bbox) == 4 else [item.bbox[i] for i in (0, 1, 3, 4)]
    return shapely.box(left, bottom, right + 360 if right < left else right, top)


def _lonlat_area(domain: Domain) -> BaseGeometry:
    """Take the domain in longitude and latitude, cut in two at the antimeridian as GeoJSON wants it."""
    polygon = _unwrapped(domain.polygon_lonlat)
    if polygon.bounds[2] <= 180:
        return polygon
    west = polygon.intersection(shapely.box(-180, -90, 180, 90))
    east = shapely.transform(polygon.intersection(shapely.box(180, -90, 540, 90)), _shifted(-360))
    return shapely.union_all([west, east])


def _unwrapped(geometry: BaseGeometry) -> BaseGeometry:
    """Take longitudes 0 to 360 where a polygon spans half the globe: it rather crosses the antimeridian."""
    left, _, right, _ = geometry.bounds
    if geometry.geom_type != "Polygon" or right - left <= 180:
        return geometry
    return shapely.transform(geometry, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))


def _shifted(degrees: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda lonlat: lonlat + np.array([degrees, 0.0])


def _order(item: pystac.Item) -> tuple[datetime, str, str]:
    return _moment(item), item.id, item.collection_id or ""


def _moment(item: pystac.Item) -> datetime:
    """Time of the item in UTC; the start of its interval where it has only that."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise ValueError(f"the item {item.id} has no datetime")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# Dates and addresses


def _date_range(text: str, period: str) -> tuple[datetime, datetime]:
    """First and last microsecond of a year, month, day or instant."""
    try:
        if re.fullmatch(r"\d{4}", text):
            return _span(datetime(int(text), 1, 1), 366 if calendar.isleap(int(text)) else 365)
        if re.fullmatch(r"\d{4}-\d{2}", text):
            year, month = int(text[:4]), int(text[5:])
            return _span(datetime(year, month, 1), calendar.monthrange(year, month)[1])
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return _span(datetime.fromisoformat(text), 1)
        if not re.match(r"\d{4}-\d{2}-\d{2}[T ]", text):
            raise ValueError(f"{text!r} is no date")
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"cannot read the period {period!r}: {error}; write years, months, days or ISO times, as 2019-06/2019-09"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment, moment


def _span(first: datetime, n_days: int) -> tuple[datetime, datetime]:
    first = first.replace(tzinfo=UTC)
    return first, first + timedelta(days=n_days) - timedelta(microseconds=1)


def _rfc3339(moment: datetime | None) -> str:
    return moment.isoformat().replace("+00:00", "Z") if moment else ".."


def _absolute(address: str) -> str:
    address = address.removeprefix("file://")
    return address if "://" in address else str(Path(address).expanduser().resolve())


def _place(href: str) -> tuple[str, str]:
    parts = urlsplit(href.removeprefix("file://"))
    return parts.scheme, parts.netloc


def _id_list(collections: Sequence[str] | None) -> list[str]:
    return [collections] if isinstance(collections, str) else list(collections or [])


def _unknown_collections(address: str, unknown: set[str], known: set[str]) -> str:
    return f"{address} has no collection {sorted(unknown)}; it has {sorted(known)[:60]}"


# Plain images


def _image_ids(paths: list[str]) -> list[str]:
    stems = [_id_text(Path(path).stem) for path in paths]
    long = [_id_text(f"{Path(path).parent.name}-{Path(path).stem}") for path in paths]
    ids = [name if stems.count(stem) > 1 else stem for stem, name in zip(stems, long, strict=True)]
    if len(set(ids)) < len(ids):
        raise ValueError(f"the images must differ in name or folder, got {sorted(i for i in ids if ids.count(i) > 1)}")
    return ids


def _id_text(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", name).lstrip("-.") or "image"


def _image_item(path: str, id_: str, date: str | datetime | None, platform: str) -> pystac.Item:
    try:
        with rasterio.Env(), rasterio.DatasetReader(path, driver=IMAGE_DRIVERS) as image:
            n_bands, crs, tags = image.count, image.crs, image.tags()
            bounds, transform, size = image.bounds, image.transform, image.shape
    except rasterio.RasterioIOError as error:
        raise ValueError(f"cannot read the image {path}: {error}; expected a GeoTIFF") from error
    if n_bands != 1 or crs is None:
        raise ValueError(
            f"{path} must have one band and a CRS, got {n_bands} bands and CRS {crs}; "
            "gdal_translate -b N picks a band, -a_srs sets a CRS"
        )
    left, bottom, right, top = rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds, densify_pts=21)
    item = pystac.Item(
        id=id_,
        geometry=_footprint(bounds, crs),
        bbox=[left, bottom, right, top],
        datetime=_image_date(path, date, tags),
        properties={
            "platform": platform,
            "proj:code": f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else None,
            "proj:shape": list(size),
            "proj:transform": list(transform)[:6],
        },
        collection="images",
        extra_fields={CATALOG_FIELD: _absolute(path)},
    )
    item.add_asset("image", pystac.Asset(_absolute(path), media_type=pystac.MediaType.GEOTIFF, roles=["data"]))
    return item


def _footprint(bounds: tuple[float, float, float, float], crs: CRS) -> dict[str, Any]:
    box = shapely.box(*bounds)
    dense = shapely.segmentize(box, max(box.length / 64, 1e-9))
    return dict(rasterio.warp.transform_geom(crs, "EPSG:4326", mapping(dense)))


def _image_date(path: str, date: str | datetime | None, tags: dict[str, str]) -> datetime:
    if isinstance(date, datetime):
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    if date is not None:
        return _date_range(date, date)[0]
    if in_name := re.search(r"(?<!\d)((?:19|20)\d\d)[-_]?([01]\d)[-_]?([0-3]\d)(?!\d)", Path(path).stem):
        return _date_range("-".join(in_name.groups()), path)[0]
    if in_tag := re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)", tags.get("TIFFTAG_DATETIME", "")):
        return _date_range("-".join(in_tag.groups()), path)[0]
    raise ValueError(f"{path} has no date in its name (YYYYMMDD or YYYY-MM-DD) or tags: give one with --datetime")
