"""Figures as journals print them: their size, what they show, and the numbers in them."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from shapely.geometry import LineString, Point, Polygon, box

from calfin_cloud.cli import main
from calfin_cloud.figures.paper import WIDTHS_MM, coverage_map, product_scatter, region_curves, retreat_map, save_figure
from calfin_cloud.products import product_of
from calfin_cloud.results import Lines, measure_series, paper_figures
from calfin_cloud.results.figuring import glacier_changes, paired_positions
from calfin_cloud.timeseries import length_scale

AT = (-300_000.0, -2_000_000.0)
SCALE = length_scale("EPSG:3413", Point(AT))


def fronts_of(glaciers, *, late=0, out=0.0):
    """Fronts of six years: `glaciers` says how many metres a year each retreats."""
    rows = [
        {
            "glacier_id": name,
            "Date": f"{2010 + year}-03-{1 + late:02d}",
            "geometry": LineString([(x := AT[0] + 5000 + out - rate * year, y := AT[1] + 9000 * k), (x, y + 3000)]),
        }
        for k, (name, rate) in enumerate(glaciers.items())
        for year in range(6)
    ]
    return product_of(gpd.GeoDataFrame(rows, crs="EPSG:3413"))


def lines_of(glaciers):
    upstream, reach = AT[0] - 20_000, AT[0] + 4000
    lows = {name: AT[1] + 9000 * k for k, name in enumerate(glaciers)}
    return Lines(ice={name: box(upstream, low, reach, low + 3000) for name, low in lows.items()})


GLACIERS = {"a": 100.0, "b": -30.0, "c": 400.0}


def test_figures_are_as_wide_as_a_column_and_come_as_vectors_and_as_a_picture(tmp_path):
    drawn = paper_figures(fronts_of(GLACIERS), lines_of(GLACIERS), against=fronts_of(GLACIERS, late=9))
    assert list(drawn) == ["retreat_map", "coverage", "regions", "products"]
    for name, figure in drawn.items():
        pdf, png = save_figure(figure, tmp_path, name)
        assert pdf.read_bytes().startswith(b"%PDF")
        assert b"/Subtype /Type3" not in pdf.read_bytes()  # text stays text that one can edit
        with Image.open(png) as picture:
            assert picture.width == pytest.approx(WIDTHS_MM["single"] / 25.4 * 300, abs=2)
    wide = paper_figures(fronts_of(GLACIERS), lines_of(GLACIERS), width="double")
    assert {round(figure.get_figwidth() * 25.4) for figure in wide.values()} == {177}


def test_the_map_has_a_dot_a_glacier_with_its_change_and_the_regions_their_sum():
    series = measure_series(fronts_of(GLACIERS), lines_of(GLACIERS))
    changes = glacier_changes(series).set_index("glacier_id")
    assert changes["change_m"].to_numpy() == pytest.approx(np.array([-500, 150, -2000]) / SCALE, rel=0.005)
    figure = paper_figures(fronts_of(GLACIERS), lines_of(GLACIERS), series=series)["retreat_map"]
    dots = max(figure.axes[0].collections, key=lambda found: found.get_zorder())
    assert len(dots.get_offsets()) == 3
    assert sorted(dots.get_array()) == pytest.approx(sorted(changes["change_m"] / 1000))
    regions = paper_figures(fronts_of(GLACIERS), lines_of(GLACIERS), series=series)["regions"]
    total = changes["area_change_m2"].sum() / 1e6
    assert f"{total:+.2f} ± 0.".replace("-", "−") in regions.axes[-1].get_title(loc="right")
    assert regions.axes[-1].get_xlabel() == "bands: ± 2 sigma, numbers: ± 1 sigma"


@pytest.mark.parametrize("years", [1, 4, 5, 40])
def test_regions_of_any_number_of_years_have_some_dates_marked_and_no_warning(years):
    months = pd.date_range("2010-08-01", periods=12 * years, freq="MS", tz="UTC")
    table = pd.DataFrame({"region": "all", "month": months, "n": 3, "area_change_m2": -1e6, "area_sigma_m2": 1e5})
    figure = region_curves(table)
    figure.canvas.draw()
    low, high = figure.axes[-1].get_xlim()
    assert 3 <= sum(low <= tick <= high for tick in figure.axes[-1].get_xticks()) <= 9


@pytest.mark.parametrize("width", ["single", "double"])
def test_words_at_the_edge_of_a_low_figure_are_not_cut_off(width):
    figure = paper_figures(fronts_of({"a": 100.0}), lines_of({"a": 100.0}), width=width)["regions"]
    FigureCanvasAgg(figure).draw()
    label, page = figure._supylabel.get_window_extent(), figure.bbox
    assert page.x0 <= label.x0 < label.x1 <= page.x1
    assert page.y0 <= label.y0 < label.y1 <= page.y1


def test_the_map_hides_no_glacier_of_a_continent_and_says_whose_dates_its_changes_have():
    angles = np.linspace(0, 2 * np.pi, 24)
    around = pd.DataFrame({"x": 1.9e6 * np.cos(angles), "y": 1.9e6 * np.sin(angles), "change_m": 5.0})
    figure = retreat_map(around.assign(area_change_m2=1e6), "EPSG:3031", span="2009 to 2021")
    FigureCanvasAgg(figure).draw()
    legend, (axes, bar) = figure.legends[0].get_window_extent(), figure.axes
    assert not legend.overlaps(axes.get_window_extent())
    assert not legend.overlaps(bar.get_tightbbox())
    assert axes.get_legend() is None
    assert bar.get_xlabel() == "change of the front from its first date to its last,\n2009 to 2021 [km]"


def test_two_products_say_what_is_taken_off_which_and_long_names_have_room():
    pairs = pd.DataFrame({"glacier_id": "a", "a_m": [-50.0, 0, 50], "b_m": [-10.0, 40, 90]})
    long = "Fronts of a product with a very long name by many authors (2024), version 2"
    figure = product_scatter(pairs, (long, long))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert "mean of y − x: +40 m" in axes.texts[0].get_text()
    for label in (axes.xaxis.label, axes.yaxis.label):
        assert label.get_text().endswith("position less the glacier's mean [km]")
        extent, page = label.get_window_extent(), figure.bbox
        assert page.x0 <= extent.x0 < extent.x1 <= page.x1
        assert page.y0 <= extent.y0 < extent.y1 <= page.y1


def test_products_are_paired_in_the_same_boxes_whatever_they_call_the_glaciers():
    series = measure_series(fronts_of(GLACIERS), lines_of(GLACIERS))
    others = fronts_of({f"other {k}": rate for k, rate in enumerate(GLACIERS.values())}, late=9, out=70.0)
    pairs = paired_positions(series, others, lines_of(GLACIERS), days=30)
    assert len(pairs) == 18
    assert (pairs["b_m"] - pairs["a_m"]).to_numpy() == pytest.approx(np.full(18, 70 / SCALE), rel=0.005)
    assert paired_positions(series, others, lines_of(GLACIERS), days=3).empty
    with pytest.raises(ValueError, match="--days"):
        paper_figures(fronts_of(GLACIERS), lines_of(GLACIERS), against=others, days=3, series=series)


def test_products_are_paired_in_bent_boxes_as_bent_as_they_are():
    angles, across = np.radians([80, 70, 60, 50, 40]), np.linspace(6000, 10_000, 41)
    around = {a: np.column_stack([across * np.cos(a), across * np.sin(a)]) + AT for a in angles}
    dates = [f"{2010 + year}-06-01" for year in range(len(angles))]
    fronts = gpd.GeoDataFrame(
        {"glacier_id": "a", "Date": dates}, geometry=list(map(LineString, around.values())), crs=3413
    )
    turned = np.linspace(-np.pi / 3, np.pi, 300)
    ring = {r: np.column_stack([r * np.cos(turned), r * np.sin(turned)]) + AT for r in (6000, 8000, 10_000)}
    is_ice = turned < np.radians(50)
    ice = Polygon(np.concatenate([ring[10_000][is_ice], ring[6000][is_ice][::-1]]))
    lines = Lines(centerlines={"a": {"center": LineString(ring[8000])}}, ice={"a": ice})
    series = measure_series(product_of(fronts), lines)
    pairs = paired_positions(series, product_of(fronts.assign(glacier_id="other")), lines, days=1)
    assert series.gates["centerline"].iloc[0].startswith("LINESTRING")
    assert pairs["b_m"].to_numpy() == pytest.approx(pairs["a_m"].to_numpy(), abs=10)


def test_figures_of_glaciers_with_a_single_front_are_refused():
    once = fronts_of(GLACIERS).drop_duplicates("glacier_id")
    with pytest.raises(ValueError, match="got 3 fronts, but no glacier has two in its box"):
        paper_figures(once, lines_of(GLACIERS))


def test_two_fronts_tell_a_change_without_an_error_and_small_areas_have_a_dot_of_their_size():
    fronts = fronts_of({"a": 100.0})
    drawn = paper_figures(fronts[fronts["datetime"].dt.year < 2012], lines_of({"a": 100.0}))
    assert drawn["regions"].axes[0].get_title(loc="right") == "all (glaciers: 1): −0.3 km²"
    sizes = [text.get_text() for text in drawn["retreat_map"].legends[0].get_texts()]
    assert sizes == ["0.01", "0.1"]


def test_coverage_shows_years_without_a_front_as_empty():
    counts = pd.DataFrame({"glacier_id": ["a", "a", "b"], "year": [2010, 2013, 2010], "fronts": [2, 1, 1]})
    axes = coverage_map(counts, {"a": "NW", "b": "SE"}).axes[0]
    grid = axes.collections[0].get_array()
    assert grid.shape == (2, 4)
    assert np.ma.getmaskarray(grid).tolist() == [[False, True, True, False], [False, True, True, True]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["NW (1)", "SE (1)"]


def test_coverage_names_few_glaciers_where_no_region_is_known_and_counts_many():
    few = pd.DataFrame({"glacier_id": ["a", "b"], "year": [2010, 2011], "fronts": [1, 2]})
    many = pd.DataFrame({"glacier_id": [str(n) for n in range(30)], "year": 2010, "fronts": 1})
    for counts, names in ((few, ["b", "a"]), (many, ["no region (30)"])):
        axes = coverage_map(counts, {}).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == names


def test_figures_of_real_glaciers_come_from_the_command_line(shared, tmp_path, capsys):
    data = shared / "data"
    basins = str(data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp")
    termini = str(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    told = ["figures", termini, "--ice", basins, "--regions", basins, "--out", str(tmp_path), "--glaciers", "3", "106"]
    assert main(told) == 0
    assert len(capsys.readouterr().out.split()) == 6
    assert {path.stem for path in tmp_path.glob("*.png")} == {"retreat_map", "coverage", "regions"}
    with pytest.raises(ValueError, match="single or double"):
        coverage_map(pd.DataFrame({"glacier_id": ["a"], "year": [2010], "fronts": [1]}), {}, width="wide")
