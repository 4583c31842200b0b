"""Fronts at known places, in boxes of any size: Harald Moltke Bræ (Landsat 8) and Uummannaq (Sentinel-1, ten glaciers).

    python tests/benchmarks/places.py --data ../shared/data --out /tmp/places [--figures docs] [--variant once]

Maps every box once, keeps the masks, and traces them with and without termini and maps of ice and ocean. Prints the
mean distance of every box and glacier, what is drawn and found within 300 m, beside persistence, and how many fronts
their half-widths hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from shapely.geometry import MultiLineString

from calfin_cloud.domains import Domain, box_grid, domains_from_termini
from calfin_cloud.fronts import (
    DEFAULT,
    Calibration,
    Trace,
    georeference,
    pixels_of,
    place_of,
    trace_placed,
    uncertainty_of,
)
from calfin_cloud.metrics import lengths_within, line_distances, shares_of
from calfin_cloud.pipeline import MapSettings, map_fronts
from calfin_cloud.pipeline.settings import VARIANTS, calibration_of
from calfin_cloud.scenes import images_of, items_from_images
from calfin_cloud.storage import (
    is_store,
    read_candidates,
    read_places,
    read_scene_grey,
    read_scene_masks,
    read_store_domains,
)
from calfin_cloud.surroundings import with_maps

HARALD, HARALD_DATE = 75, date(2021, 9, 27)
UUMMANNAQ, UUMMANNAQ_DATE = tuple(range(7, 17)), date(2014, 10, 31)
MARGINS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
WITHIN_M = 300.0
MAX_NODATA = 0.9  # the larger boxes reach beyond the rasters


class Scene(NamedTuple):
    """One stored scene of a domain, and the lines that it is measured against."""

    box: str
    domain: Domain
    masks: Any
    boxes: Any
    grey: Any
    references: list[Any]


def main() -> None:
    """Map, trace, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stores, which a second run reuses")
    parser.add_argument("--figures", type=Path, help="folder for sheets of all boxes and glaciers")
    parser.add_argument("--variant", default="default", choices=sorted(VARIANTS), help="settings to map with")
    parser.add_argument("--network", help="name or path of weights, in place of those of the variant")
    options = parser.parse_args()
    settings = VARIANTS[options.variant]
    options.settings = replace(settings, max_nodata=MAX_NODATA, network=options.network or settings.network)
    termini = gpd.read_parquet(options.data / "measures_termini_greenland/derived_termini_3413.parquet")
    termini["SourceDate"] = pd.to_datetime(termini["SourceDate"])
    ice = gpd.read_file(options.data / "greenland_basins_icemask/gimp_icemask_simplified.gpkg")
    ocean = gpd.read_parquet(options.data / "osm_coast_greenland/osm_coast_greenland_3413.parquet")
    on_map = partial(_with_maps, ice=ice, ocean=ocean)
    harald = list(_harald(options, termini))
    report_harald(harald, on_map)
    uummannaq = list(_uummannaq(options, termini))
    report_uummannaq(uummannaq, on_map)
    places = {"Harald Moltke": (harald, HARALD_DATE), "Uummannaq": (uummannaq, UUMMANNAQ_DATE)}
    if calibration := calibration_of(options.settings.network):
        report_widths(places, calibration)
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        guided = [(s, _trace(s, HARALD_DATE)) for s in harald]
        draw_sheet(guided, options.figures / "places_harald_moltke.png")
        guided = [(s, _trace(s, UUMMANNAQ_DATE)) for s in uummannaq if s.box == "0.75"]
        draw_sheet(guided, options.figures / "places_uummannaq.png")


def report_harald(scenes: list[Scene], on_map: Callable[[Scene], Scene]) -> None:
    """Print a row a box: the mean distance in m with termini of 2013 and before, of each single year, and without."""
    years = sorted({t.date.year for t in scenes[0].domain.termini if t.date})
    rows = {}
    for scene in scenes:
        bare = scene._replace(domain=replace(scene.domain, termini=()))
        row = {"termini": _mean(scene, _trace(scene, HARALD_DATE))}
        for year in years:
            known = tuple(t for t in scene.domain.termini if t.date and t.date.year == year)
            one = scene._replace(domain=replace(scene.domain, termini=known))
            row[f"{year} only"] = _mean(one, _trace(one, HARALD_DATE))
        row["maps"] = _mean(bare, _trace(on_map(bare), HARALD_DATE))
        row["nothing"] = _mean(bare, _trace(bare, HARALD_DATE))
        row["persistence"] = _mean_of(_nearest_line(scene, HARALD_DATE), scene)
        rows[scene.box] = row
    table = pd.DataFrame(rows).T
    table.loc["median"], table.loc["worst"] = table.median(), table.max()
    print(
        "\nHarald Moltke Bræ, Landsat 8, 2021-09-27: mean distance in m by box\n", table.round(0).to_string(na_rep="-")
    )


def report_uummannaq(scenes: list[Scene], on_map: Callable[[Scene], Scene]) -> None:
    """Print a row a box and way of tracing: fronts found, distances, precision, recall and F, each glacier."""
    rows = []
    for box in dict.fromkeys(scene.box for scene in scenes):
        of_box = [scene for scene in scenes if scene.box == box]
        bare = [scene._replace(domain=replace(scene.domain, termini=())) for scene in of_box]
        for name, traced in (
            ("termini", [(s, _line(s, _trace(s, UUMMANNAQ_DATE))) for s in of_box]),
            ("maps", [(s, _line(s, _trace(on_map(s), UUMMANNAQ_DATE))) for s in bare]),
            ("nothing", [(s, _line(s, _trace(s, UUMMANNAQ_DATE))) for s in bare]),
            ("persistence", [(s, _nearest_line(s, UUMMANNAQ_DATE)) for s in of_box]),
        ):
            rows.append({"box": box, "known": name} | _summary(traced))
    print("\nUummannaq, Sentinel-1, 2014-10-31, termini of 2009: within 300 m, and mean distance in m by glacier")
    print(pd.DataFrame(rows).round(2).to_string(index=False, na_rep="-"))


def report_widths(places: dict[str, tuple[list[Scene], date]], calibration: Calibration) -> None:
    """Print how many fronts of all boxes the stated half-widths hold, and the medians of width and distance in m."""
    rows = []
    for place, (scenes, when) in places.items():
        for scene in scenes:
            bare = scene._replace(domain=replace(scene.domain, termini=()))
            for known, shown in (("termini", scene), ("nothing", bare)):
                rows += [
                    {"place": place, "known": known} | row for row in _widths(shown, _trace(shown, when), calibration)
                ]
    table = pd.DataFrame(rows)
    table["in 68 %"], table["in 95 %"] = table["m"] <= table["sigma"], table["m"] <= table["half95"]
    of = table.groupby(["place", "known"])
    held = of[["in 68 %", "in 95 %"]].mean().join(of[["m", "sigma"]].median()).join(of.size().rename("fronts"))
    print("\nShare of fronts inside their half-widths, medians in m\n", held.round(2).to_string())


def _widths(scene: Scene, trace: Trace, calibration: Calibration) -> Iterator[dict[str, float]]:
    """Yield distance and half-widths in m of each front."""
    for front in trace.fronts:
        others = [other.line for other in trace.fronts if other is not front]
        sure = uncertainty_of(
            front.line,
            *scene.masks,
            calibration,
            others=others,
            traced_by=front.traced_by,
            covered=front.covered,
        )
        line, pixel_m = georeference(front.line, scene.domain.grid.transform), scene.domain.ground_m
        yield {"m": _mean_of(line, scene), "sigma": sure.sigma_px * pixel_m, "half95": sure.half95_px * pixel_m}


def draw_sheet(traced: list[tuple[Scene, Trace]], path: Path) -> None:
    """Draw the scenes with known termini (blue), references (green), guided (yellow) and free (orange) fronts."""
    columns = min(len(traced), 5 if len(traced) > 8 else 4)
    rows = -(-len(traced) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.0 * columns, 3.15 * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (scene, trace) in zip(axes.ravel(), traced, strict=False):
        axis.imshow(scene.grey, cmap="gray")
        transform = scene.domain.grid.transform
        lines = [(pixels_of(t.line, transform), "deepskyblue", 0.7) for t in scene.domain.termini]
        parts = [part for line in scene.references for part in getattr(line, "geoms", [line])]
        lines += [(pixels_of(part, transform), "lime", 0.9) for part in parts]
        lines += [(f.line, "yellow" if f.traced_by == "guided" else "orange", 1.2) for f in trace.fronts]
        for line, colour, width in lines:
            axis.plot(*line.T, color=colour, linewidth=width)
        axis.set_xlim(-0.5, scene.domain.shape[1] - 0.5)
        axis.set_ylim(scene.domain.shape[0] - 0.5, -0.5)
        mean = _mean(scene, trace)
        axis.set_title(f"{scene.domain.name}: {trace.reason or f'{mean:.0f} m'}", fontsize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=62, pil_kwargs={"optimize": True})
    plt.close(figure)
    print(path, path.stat().st_size // 1024, "kB")


def _harald(options: argparse.Namespace, termini: gpd.GeoDataFrame) -> Iterator[Scene]:
    known = termini[(termini["Glacier_ID"] == HARALD) & (termini["SourceDate"] < "2014")]
    drawn = gpd.read_parquet(options.data / "harald_moltke/derived_fronts_2019-2021.parquet")
    drawn = drawn[pd.to_datetime(drawn["date"]).dt.date == HARALD_DATE]
    image = options.data / "harald_moltke/derived_basemap_cog.tif"
    items = items_from_images([str(image)], [HARALD_DATE.isoformat()], platform="landsat-8")
    boxes = {str(m): domains_from_termini(known, margin=m)[0] for m in MARGINS}
    raster = box_grid((363525, 8493555, 387555, 8520495), "EPSG:32620", 30.0)
    in_utm = domains_from_termini(known, crs="EPSG:32620")[0]
    boxes["whole raster"] = replace(in_utm, grid=raster)
    for box, domain in boxes.items():
        named = replace(domain, name=f"Harald-Moltke-{box.replace(' ', '-')}")
        references = [drawn.geometry.to_crs(domain.crs).union_all()]
        store = options.out / f"harald-{box.replace(' ', '-')}"
        yield from _mapped(store, box, [named], items, {HARALD: references}, options.settings)


def _uummannaq(options: argparse.Namespace, termini: gpd.GeoDataFrame) -> Iterator[Scene]:
    mine = termini[termini["Glacier_ID"].isin(UUMMANNAQ)]
    known, drawn = mine[mine["SourceDate"] < "2010"], mine[mine["SourceDate"].dt.year.isin([2014, 2015])]
    folder = options.data / "sentinel1_uummannaq_20141031"
    image = folder / "S1A_IW_quicklook_HH_20141031_3413_100m_sealevel.tif"
    items = items_from_images([str(image)], [UUMMANNAQ_DATE.isoformat()], platform="SENTINEL-1A")
    references = {n: list(lines.geometry) for n, lines in drawn.groupby("Glacier_ID")}
    for margin in MARGINS:
        domains = domains_from_termini(known, margin=margin, resolution_m=100.0, crs="EPSG:3413")
        store = options.out / f"uummannaq-{margin}"
        yield from _mapped(store, str(margin), domains, items, references, options.settings)


def _mapped(
    store: Path, box: str, domains: list[Domain], items: Any, references: dict[int, list[Any]], settings: MapSettings
) -> Iterator[Scene]:
    """Map domains into a store, unless it is there, and yield what it has."""
    if not is_store(str(store)):
        map_fronts(domains, partial(images_of, items), str(store), settings=settings)
    for domain in read_store_domains(str(store)):
        for place in read_places(str(store), domain.name).values():
            at = (str(store), domain.name, place)
            masks, boxes = read_scene_masks(*at), read_candidates(*at)
            yield Scene(box, domain, masks, boxes, read_scene_grey(*at), references[int(domain.glacier_id)])


def _with_maps(scene: Scene, ice: gpd.GeoDataFrame, ocean: gpd.GeoDataFrame) -> Scene:
    return scene._replace(domain=with_maps([scene.domain], ice=ice, ocean=ocean)[0])


def _trace(scene: Scene, when: date) -> Trace:
    place = place_of(scene.domain, when)
    return trace_placed(*scene.masks, place=place, boxes=scene.boxes, settings=DEFAULT)


def _line(scene: Scene, trace: Trace) -> Any:
    lines = [georeference(front.line, scene.domain.grid.transform) for front in trace.fronts]
    return MultiLineString(lines) if lines else None


def _nearest_line(scene: Scene, when: date) -> Any:
    return min(scene.domain.termini, key=lambda t: abs((t.date - when).days) if t.date else 10**6).line


def _mean(scene: Scene, trace: Trace) -> float:
    return _mean_of(_line(scene, trace), scene)


def _mean_of(line: Any, scene: Scene) -> float:
    """Mean distance in m on the ground to the nearer reference; NaN without a front."""
    if line is None:
        return float("nan")
    return min(_apart(line, reference) for reference in scene.references) / _stretch(scene)


def _stretch(scene: Scene) -> float:
    """Metres of the map to a metre on the ground."""
    return scene.domain.resolution_m / scene.domain.ground_m


def _summary(traced: list[tuple[Scene, Any]]) -> dict[str, float]:
    means = {scene.domain.glacier_id: _mean_of(line, scene) for scene, line in traced}
    found = [mean for mean in means.values() if not np.isnan(mean)]
    lengths = [
        lengths_within(line, min(s.references, key=lambda r: _apart(line, r)), WITHIN_M * _stretch(s))
        for s, line in traced
    ]
    total = {name: sum(of_scene[name] for of_scene in lengths) for name in lengths[0]}
    summary = {"found": len(found), "mean_m": float(np.mean(found)), "worst_m": max(found)}
    by_glacier = {n: round(means[n]) if not np.isnan(means[n]) else "-" for n in sorted(means, key=int)}
    return summary | shares_of(total) | by_glacier


def _apart(line: Any, reference: Any) -> float:
    return 0.0 if line is None else float(line_distances(line, reference).mean())


if __name__ == "__main__":
    mpl.use("Agg")
    main()
