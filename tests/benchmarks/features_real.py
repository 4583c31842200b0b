"""Features of real scenes as pictures to look at: `python tests/benchmarks/features_real.py ../shared/data docs`.

There is no truth for them: they show where the formulas hold and where they do not.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import rasterio
import shapely
from matplotlib import pyplot as plt
from PIL import Image

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.features import Bands, CfarSettings, Sea, bright_pixels, measure_features, sea_of, sun_zenith_deg
from calfin_cloud.features.icebergs import LEAST_PX
from calfin_cloud.features.sea import labelled
from calfin_cloud.surroundings import with_maps

TOP_OF_ATMOSPHERE = 2e-5, -0.1
"""Scale and offset of Landsat 8 level 1, before the division by the cosine of the solar zenith (USGS)."""

UUMMANNAQ = (-260_000.0, -2_150_000.0, -200_000.0, -2_090_000.0)


def main() -> None:
    """Draw both scenes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    call = options.parse_args()
    mpl.use("Agg")
    harald_moltke(call.data / "harald_moltke", call.out / "features_harald_moltke.png")
    uummannaq(call.data, call.out / "features_uummannaq.png")


def harald_moltke(folder: Path, path: Path) -> None:
    """Draw what the threshold of ice would find in a scene of late September."""
    with rasterio.open(folder / "derived_basemap_cog.tif") as file:
        numbers, transform, shape = file.read(1).astype(np.float32), file.transform, file.shape
        crs, middle = file.crs, file.lnglat()
    fronts = gpd.read_parquet(folder / "derived_fronts_2019-2021.parquet").to_crs(crs)
    front = fronts.geometry.iloc[-1]
    zenith = sun_zenith_deg(datetime(2021, 9, 27, 17, 0, tzinfo=UTC), *middle)
    scale, offset = TOP_OF_ATMOSPHERE
    nir = (scale * numbers + offset) / np.cos(np.radians(zenith))
    west = shapely.box(*rasterio.transform.array_bounds(*shape, transform))
    sea = sea_of(west, [front], shape, transform, pixel_m=30.0)
    told = measure_features(("icebergs", "melange", "plumes"), Bands("optical", {"nir": nir}), sea, zenith_deg=zenith)
    for name, columns in told.items():
        print(f"Harald Moltke, {name}: {columns['state']} {columns['reason']} ({columns['detail']})")
    print(f"reflectance: darkest percent {np.percentile(nir, 1):.2f}, median {np.median(nir):.2f}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 5), layout="constrained")
    axes[0].imshow(nir, cmap="gray", vmin=np.percentile(nir, 1), vmax=np.percentile(nir, 99))
    axes[0].set_title("reflectance at the top of the atmosphere", fontsize=9)
    axes[1].imshow(nir >= 0.12, cmap="gray", vmin=0, vmax=1)
    axes[1].set_title(f"0.12 or more (white); the sun {zenith:.0f} deg from the zenith: refused", fontsize=9)
    _draw(axes, front, transform)
    _save(figure, path)


def uummannaq(data: Path, path: Path) -> None:
    """Draw the bright pixels that the CFAR finds in the sea of a radar quick-look."""
    folder = data / "sentinel1_uummannaq_20141031"
    grid = box_grid(UUMMANNAQ, 3413, 100.0)
    with rasterio.open(folder / "S1A_IW_quicklook_HH_20141031_3413_100m_sealevel.tif") as file:
        window = file.window(*UUMMANNAQ)
        levels = file.read(1, window=window, out_shape=tuple(grid.shape), boundless=True, fill_value=0).astype(
            np.float32
        )
    power = np.where(levels > 0, levels**2, np.nan).astype(np.float32)  # 8-bit amplitude: no calibrated unit
    coast = gpd.read_parquet(data / "osm_coast_greenland" / "osm_coast_greenland_3413.parquet")
    (domain,) = with_maps([Domain("Uummannaq", grid)], ocean=coast)
    fronts = gpd.read_file(folder / "derived_measures_fronts_2014_2015.geojson").to_crs(3413)
    near = fronts[fronts.intersects(domain.polygon)]
    sea = sea_of(domain.ocean, list(near.geometry), domain.shape, grid.transform, pixel_m=100.0)
    bright, _, looks = bright_pixels(power, sea.open, pixel_m=100.0, settings=CfarSettings())
    labels, sizes = labelled(bright)
    objects = int((sizes[1:] >= LEAST_PX).sum())
    area = sea.open.sum() / 100
    print(
        f"Uummannaq: {looks:.1f} looks, {bright.sum() / sea.open.sum():.2%} of {area:.0f} km2 of sea bright,", end=" "
    )
    print(f"{objects} objects of {LEAST_PX} px or more")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for ax in axes:
        ax.imshow(levels, cmap="gray", vmin=0, vmax=np.percentile(levels, 99))
    _overlay(axes[1], sea, np.where(sizes[labels] >= LEAST_PX, bright, False))
    axes[0].set_title("HH amplitude, 100 m, 2014-10-31", fontsize=9)
    axes[1].set_title("sea by the coast map (blue), bright objects (yellow)", fontsize=9)
    for line in near.geometry:
        _draw(axes, line, grid.transform)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    """Save a picture in 256 colours, which makes it small."""
    figure.savefig(path, dpi=80)
    Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def _overlay(ax: plt.Axes, sea: Sea, bright: np.ndarray) -> None:
    colours = np.zeros((*sea.open.shape, 4))
    colours[sea.open] = (0.1, 0.4, 0.9, 0.25)
    colours[bright] = (1, 0.85, 0.1, 1)
    ax.imshow(colours)


def _draw(axes: np.ndarray, line: shapely.Geometry, transform: rasterio.Affine) -> None:
    for ax in axes:
        for part in shapely.get_parts(line):
            x, y = shapely.get_coordinates(part).T
            columns, rows = ~transform * (x, y)
            ax.plot(columns - 0.5, rows - 0.5, color="#ff3366", linewidth=1.2, scalex=False, scaley=False)
        ax.set_xticks([])
        ax.set_yticks([])


if __name__ == "__main__":
    main()
