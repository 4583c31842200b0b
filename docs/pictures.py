"""Draw the pictures of the documentation: `python docs/pictures.py --scene CROP.tif --lines FRONTS.parquet`.

A real Landsat 8 crop of Harald Moltke Bræ (`--scene`, with the lines that another network drew) and the synthetic
glacier of `make demo` are mapped, drawn with the figures of the package, and shown in the report in a browser.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from servers.browser import browser

import calfin_cloud as cc
from calfin_cloud.cli import main as calfin
from calfin_cloud.figures.pictures import contact_sheet, scene_png
from calfin_cloud.fronts import pixels_of
from calfin_cloud.storage import read_places, read_scene_grey, read_scene_masks

DATE = "2021-09-27"
SHOWN = 6  # scenes of the synthetic glacier


def main() -> None:
    """Map both glaciers into a folder, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="GeoTIFF of Harald Moltke Bræ")
    parser.add_argument("--lines", required=True, help="fronts of it with dates")
    parser.add_argument("--folder", type=Path, help="keep the stores here (default: a temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    (HERE / "images").mkdir(exist_ok=True)
    map_both(folder, options.scene)
    keep("front.png", front_sheet(str(folder / "hm"), gpd.read_parquet(options.lines)))
    keep("steps.png", steps_sheet(str(folder / "hm"), gpd.read_parquet(options.lines)))
    keep("demo_sheet.png", demo_sheet(str(folder / "store")))
    show_report(folder)


def map_both(folder: Path, scene: str) -> None:
    """Make both stores, where they are not there yet."""
    samples, harald = folder / "scenes", folder / "hm.geojson"
    cc.write_sample(samples, scenes=14)
    where = ["--domains", str(samples / "domains.geojson"), "--period", "1984/2024", "--cluster", "none"]
    calfin(["map", "--catalog", str(samples / "catalog.json"), *where, "--store", str(folder / "store")])
    calfin(["domains", "--glacier", "Harald Moltke", "--out", str(harald)])
    images = ["--images", scene, "--datetime", DATE, "--platform", "landsat-8", "--cluster", "none"]
    calfin(["map", *images, "--domains", str(harald), "--store", str(folder / "hm")])


def front_sheet(store: str, lines: gpd.GeoDataFrame) -> bytes:
    """Draw the scene in km of the map, with its front, the other network's, and the termini known from years before."""
    (domain,) = cc.open_store(store).domains.values()
    row = cc.read_fronts(store).iloc[0]
    grey = read_scene_grey(store, domain.name, read_places(store, domain.name)[row["scene_id"]])
    left, bottom, right, top = (edge / 1000 for edge in domain.grid.boundingbox.bbox)
    figure = Figure(figsize=(7, 6.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grey, cmap="gray", extent=(left, right, bottom, top))
    known = [terminus.line for terminus in domain.termini]
    for what, drawn, style in (
        (f"known termini, {span_of(domain)} (MEaSUREs)", known, {"color": "#e9e3a6", "lw": 0.9, "ls": "--"}),
        ("Loebel et al. (2024)", of_the_day(lines, domain.crs), {"color": "#56b4e9", "lw": 5.5}),
        ("calfin_cloud", [row.geometry], {"color": "#e69f00", "lw": 2.0}),
    ):
        for i, part in enumerate(part for line in drawn for part in shapely.get_parts(line)):
            axes.plot(*(np.array(part.coords)[:, :2].T / 1000), label=what if i == 0 else None, **style)
    axes.set(title=f"Harald Moltke Bræ, Landsat 8, {DATE}", xlabel="easting (km)", ylabel="northing (km)")
    axes.legend(loc="upper right", framealpha=0.75, facecolor="black", labelcolor="white")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=130)
    return written.getvalue()


def span_of(domain: cc.Domain) -> str:
    """First and last year of the known termini of a domain."""
    years = [terminus.date.year for terminus in domain.termini]
    return f"{min(years)} to {max(years)}"


def of_the_day(lines: gpd.GeoDataFrame, crs: object) -> gpd.GeoSeries:
    """Lines that the other network drew of the scene."""
    return lines[lines["date"].astype(str).str.startswith(DATE)].to_crs(crs).geometry


def steps_sheet(store: str, lines: gpd.GeoDataFrame) -> bytes:
    """Show the way of a scene: what the network sees, what it returns, what is traced."""
    (domain,) = cc.open_store(store).domains.values()
    row = cc.read_fronts(store).iloc[0]
    place = read_places(store, domain.name)[row["scene_id"]]
    grey, masks = read_scene_grey(store, domain.name, place), read_scene_masks(store, domain.name, place)
    front, ice = (np.nan_to_num(mask * 255).astype(np.uint8) for mask in masks)
    traced = [pixels_of(row.geometry, domain.grid.transform)]
    known = [pixels_of(part, domain.grid.transform) for t in domain.termini for part in shapely.get_parts(t.line)]
    rejected = [pixels_of(line, domain.grid.transform) for line in cc.read_rejected(store).geometry]
    theirs = of_the_day(lines, domain.crs)
    return contact_sheet(
        [
            ("1. The scene, cut to the domain", scene_png(grey, [])),
            ("2. Probability that it is ice", scene_png(ice, [])),
            ("3. Probability that it is front", scene_png(front, [])),
            (f"4. Known termini, {span_of(domain)}", scene_png(grey, [], reference=known)),
            ("5. The traced front", scene_png(grey, traced, rejected=rejected)),
            (
                "6. The front, and the one of Loebel et al. (2024)",
                scene_png(grey, traced, reference=[pixels_of(g, domain.grid.transform) for g in theirs]),
            ),
        ],
        columns=3,
    )


def demo_sheet(store: str) -> bytes:
    """Show some scenes of the synthetic glacier with their fronts."""
    (domain,) = cc.open_store(store).domains.values()
    places = read_places(store, domain.name)
    fronts = cc.read_fronts(store).query("state == 'front'").sort_values("datetime")
    shown = []
    for row in fronts.iloc[np.linspace(0, len(fronts) - 1, SHOWN).astype(int)].itertuples():
        grey = read_scene_grey(store, domain.name, places[row.scene_id])
        line = pixels_of(row.geometry, domain.grid.transform)
        shown.append((f"{row.datetime:%Y-%m-%d}, {row.platform}", scene_png(grey, [line])))
    return contact_sheet(shown, columns=3)


def show_report(folder: Path) -> None:
    """Take pictures of the report of the synthetic glacier, on a desktop and on a phone."""
    page = cc.write_report(str(folder / "store"), folder / "report", title="A synthetic glacier, 1992 to 2022")
    opened = "atlas.openGlacier(atlas.received.about.glaciers[0]).then(arguments[0])"
    settled = "atlas.map.map.once('rendercomplete', () => arguments[0]()); atlas.map.map.render()"
    for name, width, height, phone in (("report.png", 1400, 880, False), ("phone.png", 390, 844, True)):
        with browser(folder, width=width, height=height, phone=phone) as shown:
            shown.get(page.as_uri())
            for script in (opened, settled):
                shown.execute_async_script(script)
            keep(name, shown.get_screenshot_as_png())


def keep(name: str, png: bytes) -> None:
    """Write a picture with few colours, since it lies in the repository; the rare ones of fronts are among them."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(HERE / "images" / name, optimize=True)


if __name__ == "__main__":
    main()
