"""Icebergs, melange and plumes against their painted truth, by sensor and size: `python tests/benchmarks/features.py`.

With `--choose` the windows and the rate of the CFAR are compared, on other scenes; with `--cost` the core-milliseconds
that features add to a scene of 600 px are measured.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry import LineString

from calfin_cloud.domains import box_grid
from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features import (
    Bands,
    CfarSettings,
    Sea,
    find_icebergs,
    measure_features,
    measure_melange,
    measure_plume,
    outlines,
    sea_of,
)
from calfin_cloud.sample.catalog import CENTRE, SIDE_M
from calfin_cloud.sample.drawing import draw_glacier, draw_look
from calfin_cloud.sample.seascape import SyntheticSea, paint_sea
from calfin_cloud.storage import open_store, read_bands, write_bands

SENSORS = {"Sentinel-2, 10 m": ("optical", 10), "Landsat, 30 m": ("optical", 30)}
SENSORS |= {"Sentinel-1, 20 m": ("sar", 20), "Sentinel-1, 40 m": ("sar", 40)}
SIZES_M = (0, 60, 120, 240, 1e9)
ZENITH_DEG = 55.0


@dataclass
class Scene:
    """A painted scene, its sea as the truth has it, and its bands as features take them."""

    painted: SyntheticSea
    sea: Sea
    bands: Bands


def main() -> None:
    """Measure and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scenes", type=int, default=16)
    options.add_argument("--sensor", choices=list(SENSORS), help="this one only")
    options.add_argument("--choose", action="store_true")
    options.add_argument("--cost", action="store_true")
    call = options.parse_args()
    if call.cost:
        return cost()
    if call.choose:
        return choose(call.scenes)
    for name in [call.sensor] if call.sensor else list(SENSORS):
        kind, pixel_m = SENSORS[name]
        scenes = [paint(kind, pixel_m, seed) for seed in range(call.scenes)]
        show_icebergs(name, scenes)
        if kind == "optical":
            show_melange(name, scenes)
            show_plumes(name, scenes)
    return None


def paint(kind: str, pixel_m: float, seed: int) -> Scene:
    """Paint a scene of a kind on a grid of its own."""
    rng = np.random.default_rng(seed)
    glacier = replace(draw_glacier(rng, CENTRE, rng.uniform(1500, 2500)), bend=rng.uniform(0, 0.5))
    look = draw_look(rng, kind, glacier.half_width_m)
    grid = grid_of(pixel_m)
    x, y = np.meshgrid(grid.coordinates["x"].values, grid.coordinates["y"].values)
    painted = paint_sea(glacier, look, x, y, rng, extent_m=SIDE_M)
    ocean, front = outlines(painted.sea, grid.transform), LineString(painted.scene.front)
    sea = sea_of(ocean, [front], painted.sea.shape, grid.transform, pixel_m=pixel_m)
    values = {n: 10 ** (v / 10) if kind == "sar" else v for n, v in painted.bands.items()}
    return Scene(painted, sea, Bands(kind, values, at_surface=True))


def grid_of(pixel_m: float) -> GeoBox:
    """Grid of the painted glacier's surroundings."""
    half = SIDE_M / 2
    return box_grid((CENTRE[0] - half, CENTRE[1] - half, CENTRE[0] + half, CENTRE[1] + half), 3413, pixel_m)


# Icebergs


def compare(scene: Scene, settings: CfarSettings | None = None) -> dict[str, object]:
    """Compare the icebergs of a scene with the true ones in the open sea."""
    found = find_icebergs(scene.bands, scene.sea, zenith_deg=ZENITH_DEG, settings=settings)
    parts = np.array(list(found["geometry"].geoms) if found["geometry"] else [], dtype=object)
    true = np.array([berg.polygon for berg in scene.painted.seascape.icebergs], dtype=object)
    frame = shapely.box(*grid_of(100).boundingbox.bbox)
    true = true[shapely.within(true, frame)] if len(true) else true
    other = [floe.polygon for floe in scene.painted.seascape.floes]
    pairs = shapely.STRtree(true).query(parts, predicate="intersects") if len(true) else np.empty((2, 0), int)
    alone = np.bincount(pairs[0], minlength=len(parts))[pairs[0]] == 1
    alone &= np.bincount(pairs[1], minlength=len(true))[pairs[1]] == 1
    on_floe = shapely.STRtree(other).query(parts, predicate="intersects")[0] if other else []
    on_melange = [i for i, part in enumerate(parts) if ice_at(part, scene) > 0]
    return {
        "length": np.sqrt(shapely.area(true)),
        "hit": np.isin(np.arange(len(true)), pairs[1]),
        "found_length": np.sqrt(shapely.area(parts)),
        "is_true": np.isin(np.arange(len(parts)), pairs[0]),
        "is_ice": np.isin(np.arange(len(parts)), [*on_floe, *on_melange]),
        "matched": (shapely.area(true)[pairs[1][alone]], shapely.area(parts)[pairs[0][alone]]),
        "sea_km2": found["sea_area_m2"] / 1e6,
        "area": (shapely.area(true).sum(), shapely.area(parts).sum()),
    }


def ice_at(part: shapely.Polygon, scene: Scene) -> float:
    """Share of painted ice at a point within a part."""
    column, row = ~scene.sea.transform * part.representative_point().coords[0]
    return float(scene.painted.ice[int(row), int(column)])


def show_icebergs(name: str, scenes: list[Scene]) -> None:
    """Print recall and precision by size, the error of areas, and false alarms."""
    rows = [compare(scene) for scene in scenes]
    columns = ("length", "hit", "found_length", "is_true", "is_ice")
    joined = {k: np.concatenate([row[k] for row in rows]) for k in columns}
    true, got = (np.concatenate([row["matched"][i] for row in rows]) for i in (0, 1))
    print(f"\n{name}: icebergs; {len(scenes)} scenes, {sum(row['sea_km2'] for row in rows):.0f} km2 of sea")
    print(f"{'side, m':>12}{'true':>7}{'recall':>8}{'found':>7}{'precision':>10}{'area, median error':>20}")
    for low, high in pairwise(SIZES_M):
        at = (joined["length"] >= low) & (joined["length"] < high)
        mine = (joined["found_length"] >= low) & (joined["found_length"] < high)
        size = (np.sqrt(true) >= low) & (np.sqrt(true) < high)
        error = np.median(got[size] / true[size] - 1) if size.any() else np.nan
        label = f"{low:.0f}-{high:.0f}" if high < 1e9 else f">{low:.0f}"
        print(
            f"{label:>12}{at.sum():7d}{mean(joined['hit'][at]):8.2f}{mine.sum():7d}{mean(joined['is_true'][mine]):10.2f}"
            f"{error:20.0%}"
        )
    nothing = (~joined["is_true"] & ~joined["is_ice"]).sum()
    ice = (~joined["is_true"] & joined["is_ice"]).sum()
    area = 100 / sum(row["sea_km2"] for row in rows)
    totals = [sum(row["area"][i] for row in rows) for i in (0, 1)]
    print(f"false alarms a 100 km2: {nothing * area:.1f} on water, {ice * area:.1f} on floes and melange")
    print(f"total area found / true: {totals[1] / totals[0]:.2f}")


def mean(values: np.ndarray) -> float:
    """Mean, NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def choose(n: int) -> None:
    """Compare settings of the CFAR on scenes that the tables do not use."""
    scenes = [paint("sar", pixel, 1000 + seed) for pixel in (20, 40) for seed in range(n)]
    print("    P_FA  guard, m  ring, m  recall > 60 m  precision     F1  water/100 km2")
    for rate, guard, ring in product((1e-2, 1e-3, 1e-4, 1e-5, 1e-6), (200, 400, 600), (300, 600)):
        rows = [compare(s, CfarSettings(rate, guard, ring)) for s in scenes]
        hit, length, is_true, is_ice = (
            np.concatenate([r[k] for r in rows]) for k in ("hit", "length", "is_true", "is_ice")
        )
        recall, precision = hit[length >= 60].mean(), is_true.mean()
        water = 100 * (~is_true & ~is_ice).sum() / sum(r["sea_km2"] for r in rows)
        f1 = 2 * recall * precision / (recall + precision)
        print(f"{rate:8.0e}{guard:10d}{ring:9d}{recall:15.2f}{precision:11.2f}{f1:7.3f}{water:15.1f}")


# Melange and plumes


def show_melange(name: str, scenes: list[Scene]) -> None:
    """Print how well the extent of melange is found, and whether it is told to touch the front."""
    found = [measure_melange(s.bands, s.sea, zenith_deg=ZENITH_DEG) for s in scenes]
    true = np.array([s.painted.seascape.melange_m for s in scenes])
    extent = np.array([f["extent_m"] for f in found])
    touches = np.array([f["touches_front"] for f in found])
    has = true > 0
    error = extent[has] - true[has]
    print(f"{name}: melange at the front: told in {touches[has].sum()} of {has.sum()} scenes that have it,", end=" ")
    print(f"in {touches[~has].sum()} of {(~has).sum()} that have not;", end=" ")
    print(f"extent off by {np.median(error):.0f} m (median), {np.abs(error).max():.0f} m (most)")


def show_plumes(name: str, scenes: list[Scene]) -> None:
    """Print how well plumes are found, their area and turbidity."""
    counts, areas, medians = defaultdict(int), [], []
    for scene in scenes:
        try:
            found = measure_plume(scene.bands, scene.sea, zenith_deg=ZENITH_DEG)
        except NotSeenError as error:
            counts[error.reason] += 1
            continue
        plume = scene.painted.plume & scene.sea.open
        has = plume.sum() * scene.sea.pixel_area_m2 > 5e4
        counts[f"{'plume' if has else 'none'}, told {found['source'] or 'none'}"] += 1
        if has and found["source"]:
            areas.append(found["area_m2"] / (plume.sum() * scene.sea.pixel_area_m2) - 1)
            medians.append(found["relative_turbidity_median_fnu"] / np.median(scene.painted.turbidity[plume]) - 1)
    if not areas:
        return print(f"{name}: plumes {dict(counts)}")
    told = f"area {np.median(areas):+.0%} ({min(areas):+.0%} to {max(areas):+.0%})"
    print(f"{name}: plumes {dict(counts)}; {told}, turbidity {np.median(medians):+.0%} (median of scenes)")
    return None


# Cost


def cost(repeat: int = 10) -> None:
    """Print the core-milliseconds of each part for scenes of 600 px; reading the further bands is not in it."""
    for name, kind in (("optical", "optical"), ("radar", "sar")):
        scene, grid = paint(kind, 20, 1), grid_of(20)
        spent: dict[str, float] = defaultdict(float)
        with tempfile.TemporaryDirectory() as folder:
            open_store(f"{folder}/store", crs="EPSG:3413", made_by={})
            for n in range(repeat + 1):
                if n == 1:
                    spent.clear()  # what is imported and filled once
                run(scene, kind, grid, f"{folder}/store", spent)
        print(f"{name}, {grid.shape[0]} x {grid.shape[1]} px; core-ms a scene")
        for part, seconds in spent.items():
            print(f"{part:12}{seconds / repeat * 1000:8.1f}")
        print(f"{'all':12}{sum(spent.values()) / repeat * 1000:8.1f}")


def run(scene: Scene, kind: str, grid: GeoBox, store: str, spent: dict[str, float]) -> None:
    """Take a scene through all that features add, adding to the core-seconds of each part."""

    def timed(name, step, *arguments, **more):
        began = time.process_time()
        step(*arguments, **more)
        spent[name] += time.process_time() - began

    kept = {n: ("dB" if kind == "sar" else "reflectance", v) for n, v in scene.painted.bands.items()}
    kept["cloud"] = ("cloud", np.zeros(grid.shape, np.float32))
    ocean, front = outlines(scene.painted.sea, grid.transform), LineString(scene.painted.scene.front)
    timed("keep bands", write_bands, store, "Painted", "a", kept, grid, {})
    timed("read bands", read_bands, store, "Painted", "a")
    timed("sea", sea_of, ocean, [front], scene.sea.open.shape, grid.transform, pixel_m=20)
    for feature in ("icebergs",) if kind == "sar" else ("icebergs", "melange", "plumes"):
        timed(feature, measure_features, [feature], scene.bands, scene.sea, zenith_deg=ZENITH_DEG)


if __name__ == "__main__":
    main()
