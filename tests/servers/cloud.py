"""Painted scenes as agencies publish them: COGs in buckets of theirs, and items modelled on real ones of each."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform
from shapely.geometry import mapping

from calfin_cloud.domains import Domain, box_grid, read_domains, write_domains
from calfin_cloud.sample import paint_scene, write_sample
from servers.s3 import S3

Json = dict[str, Any]
Form = Callable[[pystac.Item], None]

PIXEL_M = 60.0
"""Of the domains: coarse, so that a scene takes a third of a second."""

BUCKETS = {
    "usgs-landsat": "requester pays",
    "sentinel-cogs": "public",
    "scene-archive": "users only",
    "sentinel-s1-l1c": "requester pays",
    "eodata": "users only",
}

LANDSAT = {
    "view:off_nadir": 0,
    "view:sun_elevation": 28.4,
    "landsat:wrs_type": "2",
    "landsat:wrs_path": "016",
    "landsat:wrs_row": "008",
    "landsat:collection_category": "T1",
    "landsat:collection_number": "02",
}
SENTINEL_2 = {
    "constellation": "Sentinel 2",
    "sat:relative_orbit": 68,
    "s2:mgrs_tile": "22XDF",
    "s2:product_type": "S2MSI2A",
    "s2:datatake_type": "INS-NOBS",
}
SENTINEL_1 = {
    "constellation": "Sentinel-1",
    "sar:frequency_band": "C",
    "sar:instrument_mode": "EW",
    "sar:polarizations": ["HH", "HV"],
    "sar:product_type": "GRD",
    "sat:orbit_state": "descending",
    "s1:orbit_source": "RESORB",
}
REAL = {
    "landsat": (LANDSAT, ("red", "swir16", "qa_radsat", "thumbnail", "mtl.json")),
    "sentinel-2": (SENTINEL_2, ("red", "B02", "visual", "granule_metadata")),
    "sentinel-1": (SENTINEL_1, ("hv", "thumbnail", "safe-manifest")),
}
"""By mission, what real items say beside what the painter knows, and other assets, which lead nowhere here."""

SOUTH = (-6000.0, -1_206_000.0, 6000.0, -1_194_000.0)
"""Domain on the antimeridian where the Ross Ice Shelf ends, EPSG:3031."""


@dataclass(frozen=True)
class Cloud:
    """What agencies publish: items as an API serves them, and as a catalogue of the same files on this disk."""

    items: list[Json]
    local: Path
    north: Domain
    south: Domain
    agency: S3

    @property
    def collections(self) -> list[Json]:
        """Collections of the items."""
        return [collection(name) for name in sorted({item["collection"] for item in self.items})]

    @property
    def north_ids(self) -> list[str]:
        """Ids of the items that show the northern domain."""
        return sorted(item["id"] for item in self.items if item["bbox"][1] > 0)


def publish(folder: Path, s3: S3) -> Cloud:
    """Paint scenes of two glaciers into a folder, and let an agency put them into its buckets."""
    north, items = _paint_north(folder)
    south = Domain("Synthetic-South", box_grid(SOUTH, 3031, PIXEL_M), "south")
    forms = dict(zip([item.id for item in items], FORMS, strict=True))
    again = items[-1].clone()  # the last scene, which another agency has too
    again.id = items[-1].id.replace("_R068", "_N0509_R068")
    forms[again.id] = ("eodata", "1.1.0", as_copernicus)
    items += [again, *_paint_south(folder)]
    agency = s3.new_user("agency")
    _make_buckets(agency)
    local, public = [], []
    for item in items:
        bucket, version, form = forms.get(item.id, ("usgs-landsat", "1.1.0", as_painted))
        form(item)
        record = _record(item, version)
        local.append(record)
        public.append(_put(agency, bucket, record))
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": local}))
    return Cloud(public, path, north, south, agency)


def collection(name: str) -> Json:
    """Collection of the whole world and all times."""
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    about = {"description": f"Painted scenes in the form of {name}", "license": "CC0-1.0", "links": []}
    return {"type": "Collection", "stac_version": "1.0.0", "id": name, "extent": extent, **about}


# Painting


def _paint_north(folder: Path) -> tuple[Domain, list[pystac.Item]]:
    catalog = pystac.Catalog.from_file(write_sample(folder, scenes=len(FORMS), seed=5))
    (domain,) = read_domains(folder / "domains.geojson")
    coarse = replace(domain, grid=box_grid(domain.grid.boundingbox.bbox, domain.crs, PIXEL_M))
    write_domains([coarse], folder / "domains.geojson")
    items = {item.id: item for item in catalog.get_items(recursive=True)}
    for item in items.values():
        item.make_asset_hrefs_absolute()
    truth = gpd.read_parquet(folder / "truth.parquet")
    return coarse, [items[id_] for id_ in truth["scene_id"]]


def _paint_south(folder: Path) -> list[pystac.Item]:
    """One scene of Landsat 8 in EPSG:3031 under four footprints: all say that it lies on the antimeridian."""
    painted = paint_scene(np.random.default_rng(4), (440, 440), pixel_m=30.0)
    numbers = np.rint((painted.signal + 0.2) / 2.75e-5).astype("uint16")
    where = {"crs": "EPSG:3031", "transform": Affine(30, 0, SOUTH[0] - 600, 0, -30, SOUTH[3] + 600)}
    nir = _write(folder / "south_nir08.tif", numbers, nodata=0, **where)
    qa = _write(folder / "south_qa.tif", np.where(painted.cloud, 22280, 21824).astype("uint16"), nodata=1, **where)
    east, west = shapely.box(179.6, -79.1, 180, -78.9), shapely.box(-180, -79.1, -179.6, -78.9)
    footprints = {
        "057120": shapely.MultiPolygon([east, west]),
        "058120": shapely.box(179.6, -79.1, 180.4, -78.9),
        "059120": shapely.Polygon([(179.6, -79.1), (-179.6, -79.1), (-179.6, -78.9), (179.6, -78.9)]),
        "060120": shapely.box(-180, -90, 180, -78),
    }
    return [_southern(row, footprint, day, nir, qa) for day, (row, footprint) in enumerate(footprints.items(), 1)]


def _southern(row: str, footprint: shapely.Geometry, day: int, nir: Path, qa: Path) -> pystac.Item:
    properties = {"platform": "landsat-8", "instruments": ["oli", "tirs"], "proj:epsg": 3031, "eo:cloud_cover": 0.0}
    item = pystac.Item(
        f"LC08_L2SP_{row}_202101{day:02}_02_T2", mapping(footprint), list(footprint.bounds),
        datetime(2021, 1, day, 21, tzinfo=UTC), properties, collection="landsat-c2-l2",
    )  # fmt: skip
    scaled = {"nodata": 0, "data_type": "uint16", "scale": 2.75e-5, "offset": -0.2, "spatial_resolution": 30}
    item.add_asset("nir08", pystac.Asset(str(nir), extra_fields={"raster:bands": [scaled]}))
    item.add_asset("qa_pixel", pystac.Asset(str(qa)))
    return item


def _write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    height, width = values.shape
    own = {"driver": "COG", "width": width, "height": height, "count": 1, "dtype": values.dtype, "compress": "deflate"}
    with rasterio.open(path, "w", **own | profile) as file:
        file.write(values, 1)
    return path


# Forms of the painted items


def as_painted(item: pystac.Item) -> None:
    """Leave it in the form of Landsat C2 L2, Sentinel-2 L2A of Earth Search, or Sentinel-1 RTC."""


def as_level_1(item: pystac.Item) -> None:
    """Landsat C2 L1: numbers of 8 bits whose scale, to radiance, is not that of reflectance."""
    item.id, item.collection_id = item.id.replace("L2SP", "L1TP"), "landsat-c2-l1"
    asset = item.assets["nir08"]
    with rasterio.open(asset.href) as file:
        reflectance = file.read(1) * 2.75e-5 - 0.2
        numbers = np.where(file.read(1) == 0, 0, np.clip(np.rint(255 * reflectance), 1, 255)).astype("uint8")
        asset.href = str(_write(_beside(asset, "l1"), numbers, nodata=0, crs=file.crs, transform=file.transform))
    radiance = {"unit": "watt/steradian/square_meter/micrometer", "scale": 0.87602, "offset": -2.38602}
    asset.extra_fields["raster:bands"] = [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 30, **radiance}]


def as_next_zone(item: pystac.Item) -> None:
    """The same scene in the UTM zone to the west."""
    item.properties["proj:epsg"] = 32621
    for asset in item.assets.values():
        with rasterio.open(asset.href) as file:
            place, width, height = calculate_default_transform(
                file.crs, "EPSG:32621", file.width, file.height, *file.bounds, resolution=30
            )
            numbers = np.full((height, width), file.nodata, dtype=file.dtypes[0])
            reproject(
                rasterio.band(file, 1),
                numbers,
                dst_transform=place,
                dst_crs="EPSG:32621",
                resampling=Resampling.nearest,
            )
            where = {"crs": "EPSG:32621", "transform": place, "nodata": file.nodata}
        asset.href = str(_write(_beside(asset, "zone"), numbers, **where))
    item.properties |= {"proj:shape": [height, width], "proj:transform": list(place)[:6]}


def as_planetary(item: pystac.Item) -> None:
    """Sentinel-2 as the Planetary Computer has it: other keys, and only the baseline tells scale and offset."""
    item.assets = {"B08": item.assets["nir"], "SCL": item.assets["scl"]}
    for asset in item.assets.values():
        del asset.extra_fields["raster:bands"]


def as_copernicus(item: pystac.Item) -> None:
    """Sentinel-2 as Copernicus has it: JPEG 2000, keys with the pixel size, the baseline as processing version."""
    item.properties["processing:version"] = item.properties.pop("s2:processing_baseline")
    item.assets = {"B08_10m": item.assets["nir"], "SCL_20m": item.assets["scl"]}
    for asset in item.assets.values():
        with rasterio.open(asset.href) as file:
            numbers, where = file.read(1), {"crs": file.crs, "transform": file.transform}
        lossless = {"driver": "JP2OpenJPEG", "compress": None, "QUALITY": "100", "REVERSIBLE": "YES"}
        asset.href = str(_write(Path(asset.href).with_suffix(".jp2"), numbers, **lossless, **where))
        asset.media_type = pystac.MediaType.JPEG2000


def as_ground_range(item: pystac.Item) -> None:
    """Sentinel-1 GRD: amplitudes, placed by ground control points in longitude and latitude."""
    item.id, item.collection_id = item.id.removesuffix("_rtc"), "sentinel-1-grd"
    asset = item.assets["hh"]
    with rasterio.open(asset.href) as file:
        amplitude = np.clip(np.rint(1000 * np.sqrt(np.clip(file.read(1), 0, None))), 0, 65535).astype("uint16")
        rows, columns = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n, 9) for n in file.shape), indexing="ij"))
        xs, ys = file.transform * (columns, rows)
        lons, lats = transform(file.crs, "EPSG:4326", xs, ys)
    points = [GroundControlPoint(r, c, x, y) for r, c, x, y in zip(rows, columns, lons, lats, strict=True)]
    asset.href = str(_write(_beside(asset, "grd"), amplitude, driver="GTiff", tiled=True, crs="EPSG:4326", gcps=points))
    asset.extra_fields.pop("raster:bands")
    for name in ("proj:epsg", "proj:shape", "proj:transform"):
        item.properties.pop(name)


def _beside(asset: pystac.Asset, mark: str) -> Path:
    path = Path(asset.href)
    return path.with_name(f"{path.stem}_{mark}.tif")


FORMS: tuple[tuple[str, str, Form], ...] = (
    ("usgs-landsat", "1.0.0", as_level_1),  # Landsat 5
    ("usgs-landsat", "1.1.0", as_next_zone),  # Landsat 7
    ("usgs-landsat", "1.0.0", as_painted),
    ("usgs-landsat", "1.1.0", as_painted),  # Landsat 7 with stripes
    ("usgs-landsat", "1.0.0", as_painted),  # Landsat 8
    ("scene-archive", "1.1.0", as_painted),  # Sentinel-1
    ("sentinel-s1-l1c", "1.0.0", as_ground_range),
    ("sentinel-cogs", "1.1.0", as_painted),  # Sentinel-2 before its offset
    ("usgs-landsat", "1.0.0", as_painted),
    ("scene-archive", "1.0.0", as_planetary),  # Sentinel-2 with it
)
"""Of the painted northern items from the oldest on: bucket, version of STAC, form."""


# Publishing


def _record(item: pystac.Item, version: str) -> Json:
    """JSON of an item with all that a real one says; since STAC 1.1 projections and bands are said otherwise."""
    name = next(name for name in REAL if item.collection_id.startswith(name))
    facts, others = REAL[name]
    item.properties |= facts | {"created": "2024-05-01T12:00:00.000000Z"}
    for key in others:
        item.assets.setdefault(key, pystac.Asset(f"https://example.invalid/{item.id}/{key}"))
    record = item.to_dict(include_self_link=False, transform_hrefs=False) | {"stac_version": version, "links": []}
    if version == "1.0.0":
        return record
    if "proj:epsg" in record["properties"]:
        record["properties"]["proj:code"] = f"EPSG:{record['properties'].pop('proj:epsg')}"
    for asset in record["assets"].values():
        for band in asset.pop("raster:bands", []):
            own = ("nodata", "data_type")
            asset |= {key if key in own else f"raster:{key}": value for key, value in band.items()}
    return record


def _make_buckets(agency: S3) -> None:
    client = agency.client()
    for bucket, access in BUCKETS.items():
        client.create_bucket(Bucket=bucket, ACL="private" if access == "users only" else _acl(bucket))
        if access == "requester pays":
            client.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})


def _acl(bucket: str) -> str:
    return "public-read" if BUCKETS[bucket] == "public" else "authenticated-read"


def _put(agency: S3, bucket: str, record: Json) -> Json:
    """Put the files of an item into a bucket; return the item as the agency's API names them."""
    client, assets = agency.client(), dict(record["assets"])
    for key, asset in assets.items():
        path = Path(asset["href"])
        if path.is_file():
            name = f"{record['collection']}/{record['id']}/{path.name}"
            client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes(), ACL=_acl(bucket))
            assets[key] = asset | _address(agency, bucket, name)
    return {**record, "assets": assets}


def _address(agency: S3, bucket: str, name: str) -> Json:
    """Public objects are named by http; USGS names its own server, and the object as an alternate."""
    if BUCKETS[bucket] == "public":
        return {"href": f"{agency.endpoint}/{bucket}/{name}"}
    if bucket == "usgs-landsat":
        alternate = {"s3": {"href": f"s3://{bucket}/{name}", "storage:requester_pays": True}}
        return {"href": f"https://landsatlook.usgs.gov/data/{name}", "alternate": alternate}
    return {"href": f"s3://{bucket}/{name}"}
