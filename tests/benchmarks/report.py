"""What the report of a large store costs, to write and to open: `python tests/benchmarks/report.py --termini FILE`.

The store is made up of real lines: the termini of MEaSUREs (`--termini`, lines with Glacier_ID and SourceDate), moved
with the season between their dates, 10,000 of them on 290 domains; those beyond the glaciers of the file are copies
beside them. Pictures are noise with ice and water in it. The page is opened in Chromium from disk, without a network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from rasterio.features import rasterize
from shapely.affinity import translate
from shapely.geometry import LineString, MultiPolygon
from shapely.geometry.base import BaseGeometry

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.browser import browser, requested

from calfin_cloud import storage
from calfin_cloud.domains import Domain, domains_from_termini
from calfin_cloud.land import read_land
from calfin_cloud.results import write_report
from calfin_cloud.schema import FRONT_SCHEMA, NO_FRONT, POLYGON_SCHEMA

DOMAINS, FRONTS = 290, 10_000
PICTURES = 7  # a domain: 2,030 in all, more than a report takes unless told otherwise
SEASON_M = 180.0
CRS = "EPSG:3413"
SATELLITES = ("landsat-5", "landsat-7", "landsat-8", "sentinel-1a", "sentinel-2a")
SCENE = "LC08_L2SP_016008_{:%Y%m%d}_{:04}_T1"  # ids and numbers are as long as real ones
MODEL = "calfin-efficient@a14aaa41c80e+calfin-small-2@426ceb2929b6"


def make_store(store: str, termini: gpd.GeoDataFrame, *, n_domains: int, n_fronts: int) -> None:
    """Write a store of real lines on made-up dates through the functions that a run writes with."""
    storage.open_store(store, crs=CRS, made_by={"model": "made-up", "code": "0", "settings": {}})
    domains = domains_from_termini(termini, resolution_m=30.0, margin=0.6, crs=CRS)
    lines = {str(g): part for g, part in termini.groupby("Glacier_ID")}
    ice = shapely.union_all(read_land((-700_000, -3_400_000, 900_000, -600_000), CRS)["land"])  # stands for it
    rng = np.random.default_rng(0)
    for number in range(n_domains):
        like = domains[number % len(domains)]
        east = 20_000.0 * (number // len(domains))
        domain = like if not east else moved(like, east)
        count = n_fronts // n_domains + (number < n_fronts % n_domains)
        fronts = made_fronts(domain, lines[like.glacier_id], ice, count, east, rng)
        write_domain(store, domain, fronts, ice.intersection(domain.polygon), rng)


def moved(domain: Domain, east: float) -> Domain:
    """Copy of a domain to the east of it."""
    grid = domain.grid.translate_pix(east / domain.resolution_m, 0)
    return Domain(f"{domain.name}-copy", grid, f"{domain.glacier_id}c")


def made_fronts(
    domain: Domain, lines: gpd.GeoDataFrame, ice: BaseGeometry, count: int, east: float, rng: np.random.Generator
) -> list[tuple[pd.Timestamp, LineString]]:
    """Dated lines of a glacier: each real one, moved seaward and back with the season."""
    dates = pd.to_datetime(lines["SourceDate"], utc=True)
    middle = shapely.box(*lines.total_bounds).centroid
    near = ice.intersection(middle.buffer(8000)).centroid
    seaward = np.array([middle.x - near.x, middle.y - near.y]) if not near.is_empty else np.array([1.0, 0.0])
    seaward = seaward / max(np.hypot(*seaward), 1.0)
    made = []
    for when in pd.date_range(dates.min(), dates.max(), periods=count):
        line = lines.geometry.iloc[int(np.abs((dates - when).dt.days.to_numpy()).argmin())]
        line = max(shapely.get_parts(line), key=lambda part: part.length)
        move = SEASON_M * np.cos((when.dayofyear - 120) / 365 * 2 * np.pi) + rng.normal(0, 30)
        made.append((when.floor("s"), translate(line, *(seaward * move + (east, 0.0)))))
    return made


def write_domain(
    store: str,
    domain: Domain,
    fronts: list[tuple[pd.Timestamp, LineString]],
    ice: BaseGeometry,
    rng: np.random.Generator,
) -> None:
    """Write a batch of one domain, with the pictures of its last scenes."""
    storage.keep_domain(store, domain)
    unknown = ("guide_distance_m", "slc_off_fraction")
    shares = ("confidence", "least_confidence", "score", "cloud_fraction", "nodata_fraction")
    rows = [
        {
            **NO_FRONT,
            **dict.fromkeys(unknown, np.nan),
            "key": f"{domain.name}/{SCENE.format(when, n)}",
            "domain": domain.name,
            "scene_id": SCENE.format(when, n),
            "front": 0,
            "glacier_id": domain.glacier_id,
            "datetime": when,
            "platform": SATELLITES[n % len(SATELLITES)],
            "collection": "landsat-c2-l2",
            "state": "front",
            "reason": "",
            "detail": "",
            "quality_flag": 10,
            "length_m": line.length,
            "sigma_m": float(rng.uniform(30, 90)),
            "half95_m": float(rng.uniform(90, 300)),
            "vertex_sigma_m": [],
            **{name: float(rng.uniform(0.4, 1)) for name in shares},
            "score_reasons": "",
            "isolation": "scene",
            "resolution_m": 30.0,
            "model": MODEL,
            "code": "0.2.0 openvino",
            "geometry": line,
        }
        for n, (when, line) in enumerate(fronts)
    ]
    rows[0] |= {"state": "no_front", "reason": "cloudy", "detail": "31 % of it", **NO_FRONT}
    names = [*FRONT_SCHEMA.names, "geometry"]
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs=CRS)[names]
    rejected = made_rejected(table)
    polygons = made_polygon(table, domain, ice)
    scenes = {row["scene_id"]: np.datetime64(row["datetime"].tz_localize(None)) for row in rows}
    places = storage.add_scenes(store, domain, scenes)
    ground = rng.normal(0, 1, (domain.shape[0] // 6 + 2, domain.shape[1] // 6 + 2)).astype("float32")
    ground = cv2.resize(ground, domain.shape[::-1], interpolation=cv2.INTER_CUBIC)
    land = rasterize([(ice, 1)], out_shape=domain.shape, transform=domain.grid.transform) if not ice.is_empty else 0
    empty = np.full((2, *domain.shape), np.nan, dtype="float32")
    for row in rows[-PICTURES:]:
        grain = rng.normal(0, 9, domain.shape)
        grey = np.clip(60 + 110 * land + 22 * ground + grain, 1, 255).astype(np.uint8)
        scene = storage.encode_scene(empty, grey=grey)
        storage.write_scenes(store, domain.name, {places[row["scene_id"]]: scene})
    storage.write_batch(
        store,
        storage.Tables(table, rejected, polygons),
        {key: {"id": key} for key in table["key"]},
        recipe={"masks": "a"},
    )


def made_rejected(fronts: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """One rejected candidate for every third scene: its front, moved aside."""
    taken = fronts[fronts["state"] == "front"].iloc[::3]
    return gpd.GeoDataFrame(
        {
            **{c: taken[c] for c in ("key", "domain", "scene_id")},
            "candidate": 0,
            "datetime": taken["datetime"],
            "filter": "length",
            "reason": "edge_too_short",
            "value": 12.0,
            "limit": 32.0,
            "detail": "12 px of edge",
        },
        geometry=taken.geometry.translate(0, 900).to_numpy(),
        crs=CRS,
    ).reset_index(drop=True)


def made_polygon(fronts: gpd.GeoDataFrame, domain: Domain, ice: BaseGeometry) -> gpd.GeoDataFrame:
    """Ice of the domain on its last scene, which tells where the sea lies."""
    parts = [p for p in shapely.get_parts(ice) if p.geom_type == "Polygon"]
    last = fronts.iloc[-1]
    row = {c: last[c] for c in ("key", "domain", "scene_id", "glacier_id", "datetime", "platform")}
    row |= {"kind": "ice", "fjord": "scene", "reason": "" if parts else "no_ice", "detail": ""}
    row |= {"area_m2": ice.area if parts else np.nan, "geometry": MultiPolygon(parts) if parts else None}
    table = gpd.GeoDataFrame([row], geometry="geometry", crs=CRS)
    return table[[*POLYGON_SCHEMA.names, "geometry"]]


def open_page(page: Path, folder: Path) -> dict[str, float]:
    """Open the page and a glacier in it; times in s, bytes as the browser read them."""
    with browser(folder, width=1400, height=900) as opened:
        began = time.perf_counter()
        opened.get(page.as_uri())
        drawn = (
            "const done = arguments[0]; atlas.map.map.once('rendercomplete', () => done(performance.now()));"
            "atlas.map.map.render()"
        )
        shown = opened.execute_async_script(drawn)
        wall = time.perf_counter() - began
        read = sum(Path(unquote(urlparse(name).path)).stat().st_size for name in requested(opened) if "file:" in name)
        timed = (
            "const done = arguments[0], t = performance.now(); atlas.openGlacier(atlas.received.about.glaciers[100])"
            ".then(() => atlas.map.map.once('rendercomplete', () => done(performance.now() - t)))"
        )
        glacier = opened.execute_async_script(timed)
        log = opened.get_log("browser")
    return {
        "first view (s)": shown / 1e3,
        "with the browser (s)": wall,
        "read (MB)": read / 1e6,
        "glacier (s)": glacier / 1e3,
        "messages": len(log),
    }


def size_of(folder: Path) -> float:
    """Size of all files below a folder in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Make the store, write the report, open it, print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--termini", required=True, help="lines with Glacier_ID and SourceDate")
    parser.add_argument("--folder", type=Path, help="keep store and report here (default: a temporary folder)")
    parser.add_argument("--domains", type=int, default=DOMAINS)
    parser.add_argument("--fronts", type=int, default=FRONTS)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    store, report = str(folder / "store"), folder / "report"
    if not (folder / "store").exists():
        path = options.termini
        termini = gpd.read_parquet(path) if path.endswith("parquet") else gpd.read_file(path)
        make_store(store, termini.to_crs(CRS), n_domains=options.domains, n_fronts=options.fronts)
    began = time.perf_counter()
    page = write_report(store, report, title="Calving fronts of Greenland")
    figures = {"written (s)": time.perf_counter() - began, "report (MB)": size_of(report)}
    figures["pictures (MB)"] = size_of(report / "pictures")
    print(json.dumps({k: round(v, 2) for k, v in (figures | open_page(page, folder)).items()}))


if __name__ == "__main__":
    main()
