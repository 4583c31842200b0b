"""A seed in; the scenes of one synthetic glacier out, as COGs in a static STAC catalogue, with their true fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.io import MemoryFile
from shapely.geometry import LineString, mapping

from calfin_cloud.domains import Domain, box_grid, write_domains
from calfin_cloud.sample.drawing import Glacier, Kind, Look, draw_glacier, draw_look
from calfin_cloud.sample.painting import SyntheticScene, paint, to_map, with_clouds
from calfin_cloud.sample.seascape import SyntheticSea, paint_sea
from calfin_cloud.sample.textures import Floats, Points
from calfin_cloud.sample.truth import sea_truth
from calfin_cloud.termini import DAYS_A_YEAR
from calfin_cloud.whole_files import whole_file

CENTRE = (-279_990.0, -1_800_000.0)
SIDE_M = 12_000.0
"""Where the sample's domain lies, EPSG:3413: some bay of north-west Greenland, within UTM zone 22."""

LANDSAT_OFFSET, LANDSAT_SCALE = -0.2, 2.75e-5
S2_OFFSET_SINCE = datetime(2022, 1, 25, tzinfo=UTC)

MOST_SCENES = 2000
"""Each mission shows the glacier once a day at most, and in its season: the days run out at some 3000 scenes."""


@dataclass(frozen=True)
class _Mission:
    """A satellite of the sample: its collection and grid, and the first and last day it is painted on."""

    platform: str
    collection: str
    epsg: int
    resolution_m: float
    first: str
    last: str
    is_cloudy: bool = False
    slc_off: bool = False

    @property
    def kind(self) -> Kind:
        return "sar" if self.collection == "sentinel-1-rtc" else "optical"


_L, _S1, _S2 = "landsat-c2-l2", "sentinel-1-rtc", "sentinel-2-l2a"
MISSIONS = (
    _Mission("landsat-8", _L, 32622, 30, "2013-05-01", "2023-09-30"),
    _Mission("SENTINEL-1A", _S1, 3413, 40, "2015-01-01", "2023-12-31"),
    _Mission("sentinel-2a", _S2, 32622, 20, "2016-05-01", "2023-09-30", is_cloudy=True),
    _Mission("landsat-7", _L, 32622, 30, "2004-05-01", "2020-09-30", slc_off=True),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "1998-09-30"),
    _Mission("landsat-7", _L, 32622, 30, "1999-08-01", "2003-05-30"),
    _Mission("landsat-5", _L, 32622, 30, "1999-05-01", "2011-09-30"),
    _Mission("sentinel-2a", _S2, 32622, 20, "2016-05-01", "2023-09-30"),
    _Mission("landsat-8", _L, 32622, 30, "2013-05-01", "2023-09-30"),
    _Mission("SENTINEL-1A", _S1, 3413, 40, "2015-01-01", "2023-12-31"),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "1998-09-30"),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "2011-09-30"),
)
"""Scenes take these in turn, again from the start after the twelfth."""


def write_sample(folder: str | Path, *, scenes: int = 12, seed: int = 0, features: bool = False) -> Path:
    """Write scenes of a synthetic glacier whose front moves, as a static STAC catalogue; return its path.

    Beside `catalog.json`, its collections, items and COGs (Landsat, Sentinel-2, Sentinel-1, each on its own grid) lie
    `domains.geojson` with the domain and `truth.parquet` with the true fronts (`scene_id, datetime, glacier_id,
    geometry`, EPSG:3413). The same seed writes the same bytes.

    Parameters
    ----------
    folder
        Is made where it is not there.
    scenes
        How many. Of four or more, one in twelve is cloudy (25 to 45 % of the domain) and one has SLC-off stripes;
        the others have less than 10 % cloud.
    seed
        Another seed is another glacier.
    features
        Add icebergs, floes, melange and plumes to the sea, in all bands that features need, and write their truth
        too: `truth_icebergs.parquet` (a row an iceberg), `truth_melange.parquet` and `truth_plumes.parquet` (a row a
        scene).

    Returns
    -------
    Path
        The catalogue, for `search_scenes` or `calfin map --catalog`.

    Raises
    ------
    ValueError
        `scenes` is not 1 to 2000.

    Examples
    --------
    >>> catalog = cc.write_sample("synthetic", scenes=1)
    >>> cc.read_domains("synthetic/domains.geojson")[0].name
    'Synthetic-Glacier'
    """
    if not 1 <= scenes <= MOST_SCENES:
        raise ValueError(f"a sample has 1 to {MOST_SCENES} scenes, got {scenes}: write several, with other seeds")
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    glacier = replace(draw_glacier(rng, CENTRE, rng.uniform(1500, 2000)), bend=rng.uniform(0, 0.5))
    domain = _sample_domain(glacier)
    items, truth, seas = [], [], {}
    for mission, moment in _schedule(rng, scenes):
        item, front, sea = _write_scene(folder, glacier, domain, mission, moment, rng, features=features)
        items.append(item)
        truth.append((item.id, moment, domain.glacier_id, front))
        seas[item.id] = sea
    table = gpd.GeoDataFrame(truth, columns=["scene_id", "datetime", "glacier_id", "geometry"], crs=domain.crs)
    with whole_file(folder / "truth.parquet") as unfinished:
        table.sort_values(["datetime", "scene_id"], ignore_index=True).to_parquet(unfinished)
    write_domains([domain], folder / "domains.geojson")
    if features:
        known = {name: sea for name, sea in seas.items() if sea is not None}
        sides = {item.id: float(item.properties["gsd"]) for item in items}
        for name, rows in sea_truth(known, domain, sides).items():
            with whole_file(folder / f"truth_{name}.parquet") as unfinished:
                rows.to_parquet(unfinished)
    return _write_catalog(folder, items)


def _sample_domain(glacier: Glacier) -> Domain:
    half = SIDE_M / 2
    grid = box_grid((CENTRE[0] - half, CENTRE[1] - half, CENTRE[0] + half, CENTRE[1] + half), 3413, 30.0)
    s = np.arange(-2 * half, 2 * half, 100.0)
    line = LineString(to_map(glacier, s, np.zeros_like(s))).intersection(shapely.box(*grid.boundingbox.bbox))
    return Domain("Synthetic-Glacier", grid, "synthetic", centerline=max(shapely.get_parts(line), key=shapely.length))


def _schedule(rng: np.random.Generator, n_scenes: int) -> list[tuple[_Mission, datetime]]:
    """Missions in turn, each at a random time from May to September (radar: all year), no day twice."""
    plan: dict[str, tuple[_Mission, datetime]] = {}
    while len(plan) < n_scenes:
        mission = MISSIONS[len(plan) % len(MISSIONS)]
        if n_scenes < 4:
            mission = replace(mission, is_cloudy=False, slc_off=False)
        first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (mission.first, mission.last))
        days = int(rng.integers(0, (last - first).days))
        moment = first + timedelta(days=days, hours=14, seconds=int(rng.integers(0, 7200)))
        if mission.kind == "sar" or 5 <= moment.month <= 9:
            plan.setdefault(f"{moment:%Y%m%d}", (mission, moment))
    return list(plan.values())


def _look_at(glacier: Glacier, domain: Domain, mission: _Mission, moment: datetime, rng: np.random.Generator) -> Look:
    """Front and conditions of one day. The sea stays darker than the ice, so that a person sees each front."""
    w = glacier.half_width_m
    look = draw_look(rng, mission.kind, w)
    years = (moment - datetime(1985, 1, 1, tzinfo=UTC)).days / DAYS_A_YEAR
    cycles = 0.3 * np.sin(years * 2 * np.pi / 11) + 0.08 * np.sin(2 * np.pi * years)
    darker = look.ice - 6 if mission.kind == "sar" else 0.6 * look.ice
    look = replace(
        look,
        position_m=w * (0.6 - 1.2 * years / 39 + cycles),
        sea_ice=min(look.sea_ice, darker),
        water=min(look.water, darker),
        melange_m=min(look.melange_m, 2 * w),
        slc_off=mission.slc_off,
    )
    cover = rng.uniform(0.25, 0.45) if mission.is_cloudy else rng.choice([0.0, rng.uniform(0.02, 0.07)])
    return with_clouds(look, *_map_points(domain.grid), cover) if mission.kind == "optical" and cover else look


def _map_points(grid: GeoBox) -> tuple[Points, Points]:
    """EPSG:3413 coordinates of the grid's pixel centres, each (y, x)."""
    x, y = np.meshgrid(grid.coordinates["x"].values, grid.coordinates["y"].values)
    if grid.crs == 3413:
        return x, y
    x, y = Transformer.from_crs(str(grid.crs), 3413, always_xy=True).transform(x, y)
    return x, y


def _scene_grid(domain: Domain, mission: _Mission) -> GeoBox:
    """Grid of the satellite around the domain and 900 m beyond; Landsat's pixels have their centres on its lines."""
    box = domain.polygon.buffer(900, join_style="mitre")
    bounds = gpd.GeoSeries([shapely.segmentize(box, 500)], crs=domain.crs).to_crs(mission.epsg).total_bounds
    grid = box_grid(bounds, mission.epsg, mission.resolution_m)
    return grid.translate_pix(0.5, 0.5) if mission.collection == _L else grid


def _write_scene(
    folder: Path,
    glacier: Glacier,
    domain: Domain,
    mission: _Mission,
    moment: datetime,
    rng: np.random.Generator,
    *,
    features: bool,
) -> tuple[pystac.Item, LineString, SyntheticSea | None]:
    """Paint and write one scene; return its item, its front, and its sea where features are painted."""
    grid = _scene_grid(domain, mission)
    look = _look_at(glacier, domain, mission, moment, rng)
    points = _map_points(grid)
    sea = paint_sea(glacier, look, *points, rng, extent_m=SIDE_M) if features else None
    scene = sea.scene if sea else paint(glacier, look, *points, rng)
    item = _item(mission, moment, grid)
    if mission.kind == "optical":
        item.properties["eo:cloud_cover"] = round(100 * float(scene.cloud.mean()), 2)
    place = folder / mission.collection / item.id
    place.mkdir(parents=True, exist_ok=True)
    further = {} if sea is None else {k: v for k, v in sea.bands.items() if k not in ("nir", "co")}
    for key, (values, nodata, band) in _layers(mission, moment, scene, further).items():
        name = f"{item.id}_{key}.tif"
        _write_cog(place / name, values, nodata, grid)
        roles = ["data"] if band else ["cloud", "data"]
        bands = {"raster:bands": [{"nodata": nodata, "data_type": str(values.dtype), **band}]}
        item.add_asset(key, pystac.Asset(f"./{name}", media_type=pystac.MediaType.COG, roles=roles, extra_fields=bands))
    return item, LineString(scene.front), sea


def _layers(
    mission: _Mission, moment: datetime, scene: SyntheticScene, further: Mapping[str, Floats]
) -> dict[str, tuple[NDArray[Any], float, dict[str, float]]]:
    """Asset key to numbers as the agency writes them, their nodata, and their scale and offset."""
    missing = np.isnan(scene.signal)
    if mission.kind == "sar":
        powers = {"hh": scene.signal, **{{"cross": "hv"}[name]: of for name, of in further.items()}}
        about = {"spatial_resolution": mission.resolution_m}
        return {
            k: (np.where(missing, -32768, 10 ** (v / 10)).astype(np.float32), -32768, about) for k, v in powers.items()
        }
    is_landsat = mission.collection == _L
    offset = LANDSAT_OFFSET if is_landsat else -0.1 if moment >= S2_OFFSET_SINCE else 0.0
    scale = LANDSAT_SCALE if is_landsat else 1e-4
    numbers, *more = (
        np.where(missing, 0, np.rint((v - offset) / scale)).astype(np.uint16) for v in (scene.signal, *further.values())
    )
    # Fill, cloud, snow or ice, water: bit patterns of QA_PIXEL, classes of SCL
    fill, cloud, frozen, water = (1, 22280, 30048, 21952) if is_landsat else (0, 9, 11, 6)
    quality = np.select([missing, scene.cloud, scene.ice], [fill, cloud, frozen], water)
    bands = {"scale": scale, "offset": offset, "spatial_resolution": mission.resolution_m}
    visible = {name: (of, 0.0, bands) for name, of in zip(further, more, strict=True)}
    if is_landsat:
        return {"nir08": (numbers, 0, bands), "qa_pixel": (quality.astype(np.uint16), 1, {}), **visible}
    return {"nir": (numbers, 0, bands), "scl": (quality.astype(np.uint8), 0, {}), **visible}


def _write_cog(path: Path, values: NDArray[Any], nodata: float, grid: GeoBox) -> None:
    height, width = values.shape
    profile = {"driver": "COG", "count": 1, "dtype": values.dtype, "nodata": nodata, "width": width, "height": height}
    profile |= {"crs": f"EPSG:{grid.crs.epsg}", "transform": grid.transform, "blocksize": 256, "compress": "deflate"}
    with MemoryFile() as memory, whole_file(path) as unfinished:  # GDAL has errors of its own for a full disk
        with memory.open(**profile) as file:
            file.write(values, 1)
        unfinished.write_bytes(memory.read())


def _item(mission: _Mission, moment: datetime, grid: GeoBox) -> pystac.Item:
    corners = shapely.segmentize(shapely.box(*grid.boundingbox.bbox), 1000)
    footprint = gpd.GeoSeries([corners], crs=mission.epsg).to_crs(4326).iloc[0]
    properties = {
        "platform": mission.platform,
        "instruments": _INSTRUMENTS[mission.platform],
        "gsd": mission.resolution_m,
        "proj:epsg": mission.epsg,
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform)[:6],
    }
    if mission.collection == _S2:
        properties["s2:processing_baseline"] = "04.00" if moment >= S2_OFFSET_SINCE else "02.14"
    return pystac.Item(
        _scene_id(mission, moment), mapping(footprint), list(footprint.bounds), moment, properties,
        collection=mission.collection,
    )  # fmt: skip


_INSTRUMENTS = {
    "landsat-5": ["tm"],
    "landsat-7": ["etm+"],
    "landsat-8": ["oli", "tirs"],
    "SENTINEL-1A": ["c-sar"],
    "sentinel-2a": ["msi"],
}


def _scene_id(mission: _Mission, moment: datetime) -> str:
    """Id as the agency would give it; path, tile and orbit are the painter's."""
    if mission.collection == _L:
        code = {"landsat-5": "LT05", "landsat-7": "LE07", "landsat-8": "LC08"}[mission.platform]
        return f"{code}_L2SP_016008_{moment:%Y%m%d}_02_T1"
    if mission.collection == _S2:
        return f"S2A_MSIL2A_{moment:%Y%m%dT%H%M%S}_R068_T22XDF_{moment + timedelta(hours=9):%Y%m%dT%H%M%S}"
    orbit = 4000 + (moment - datetime(2015, 1, 1, tzinfo=UTC)).days * 14
    end = moment + timedelta(seconds=60)
    return f"S1A_EW_GRDM_1SDH_{moment:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}_{orbit:06d}_{orbit * 9 % 0xFFFFFF:06X}_rtc"


def _write_catalog(folder: Path, items: list[pystac.Item]) -> Path:
    catalog = pystac.Catalog("calfin-sample", "Synthetic scenes of one synthetic glacier, with exactly known fronts")
    for name in sorted({str(item.collection_id) for item in items}):
        members = sorted((i for i in items if i.collection_id == name), key=lambda i: i.id)
        collection = pystac.Collection(
            name, f"Synthetic scenes in the form of {name}", pystac.Extent.from_items(members), license="CC0-1.0"
        )
        catalog.add_child(collection)
        collection.add_items(members)
    catalog.normalize_and_save(str(folder), catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"
