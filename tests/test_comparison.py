"""Pairs of fronts: intervals that know which pairs share a line, few pairs, and what a product has where and when."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from shapely.geometry import LineString

from calfin_cloud.cli import main
from calfin_cloud.figures.comparison import _draw_distances
from calfin_cloud.figures.coverage import coverage_png
from calfin_cloud.products import product_of, read_product
from calfin_cloud.results import compare_products, summarise_pairs, write_comparison
from calfin_cloud.results.comparison import count_fronts


def pairs_of(distances, *, keys_b, glaciers="g", sensor_a="LC08"):
    n = len(distances)
    table = {"key_a": [f"a{i}" for i in range(n)], "key_b": keys_b, "glacier_id": glaciers, "season": "winter"}
    table |= {"datetime_a": pd.Timestamp("2020-02-01", tz="UTC"), "datetime_b": pd.Timestamp("2020-02-01", tz="UTC")}
    table |= {"sensor_a": sensor_a, "sensor_b": "SEN1", "author_a": "", "author_b": "", "days": 0.0}
    values = dict.fromkeys(("distance_m", "common_m", "hd95_m", "advance_m"), np.asarray(distances, dtype=float))
    return pd.DataFrame(table | values)


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def whole(summary):
    return summary[summary["by"] == "all"].iloc[0]


def test_nine_pairs_with_three_lines_are_as_sure_as_three():
    distances = np.repeat([60.0, 90, 120], 3) + np.tile([-2.0, 0, 2], 3)
    shared = whole(summarise_pairs(pairs_of(distances, keys_b=np.repeat(["x", "y", "z"], 3))))
    alone = whole(summarise_pairs(pairs_of(distances, keys_b=[f"b{i}" for i in range(9)])))
    assert (shared["pairs"], shared["lines"], alone["lines"]) == (9, 3, 9)
    assert shared["distance_m"] == alone["distance_m"] == pytest.approx(90)
    spread = [row["distance_m_high"] - row["distance_m_low"] for row in (shared, alone)]
    assert spread[0] == pytest.approx(60)  # three lines may all be the same one
    assert spread[1] < 0.65 * spread[0]


def test_glaciers_are_drawn_before_their_lines():
    distances = np.repeat([50.0, 150], 20)
    keys = [f"b{i}" for i in range(40)]
    one = whole(summarise_pairs(pairs_of(distances, keys_b=keys)))
    two = whole(summarise_pairs(pairs_of(distances, keys_b=keys, glaciers=np.repeat(["g", "h"], 20))))
    assert one["distance_m_high"] - one["distance_m_low"] < 40
    assert (two["distance_m_low"], two["distance_m_high"]) == (50, 150)


@pytest.mark.parametrize("distances", [[80.0], [np.nan], [np.nan, 70.0], [80.0, 80.0]])
def test_one_pair_or_none_side_by_side_is_drawn_and_summed_up(distances, tmp_path):
    pairs = pairs_of(distances, keys_b=[f"b{i}" for i in range(len(distances))])
    summary = whole(write_comparison(pairs, tmp_path, title="few"))
    assert summary["pairs"] == len(distances)
    assert size_of(tmp_path / "comparison.png")[0] > 500


def test_the_axis_of_distances_has_plain_numbers_and_the_median_of_the_summary():
    axes = Figure().subplots()
    distances = np.array([47.0, 62, 83, 120, 180])
    _draw_distances(axes, distances)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["50", "100", "200"]
    summary = whole(summarise_pairs(pairs_of(distances, keys_b=list("vwxyz"))))
    assert f"{summary['common_median_m']:.0f} m" in axes.get_legend().get_texts()[0].get_text()


def test_a_satellite_that_nobody_told_is_called_unknown():
    summary = summarise_pairs(pairs_of([50.0, 60], keys_b=["b", "c"], sensor_a=""))
    assert summary[summary["by"] == "sensor"]["group"].tolist() == ["unknown - SEN1"]
    assert summary[summary["by"] == "authors"].empty


def test_fronts_of_one_day_are_counted_as_drawn_twice_and_seasons_are_turned_in_the_south():
    dates = pd.DatetimeIndex(["2020-01-05T10:00", "2020-01-05T15:00", "2020-07-01", "2021-07-01"], tz="UTC")
    fronts = gpd.GeoDataFrame(
        {"key": list("abcd"), "glacier_id": "g", "datetime": dates, "author": "A"},
        geometry=[LineString([(0, y), (500, y)]) for y in (-1_300_000, -1_300_010, -1_300_020, -1_300_030)], crs=3413,
    )  # fmt: skip
    counts = count_fronts(fronts).set_index(["year", "season"])
    assert counts["fronts"].to_dict() == {(2020, "summer"): 1, (2020, "winter"): 2, (2021, "summer"): 1}
    assert counts["duplicates"].sum() == 1
    south = count_fronts(fronts.set_crs(3031, allow_override=True)).set_index(["year", "season"])
    assert south.loc[(2020, "summer"), "fronts"] == 2
    north, south = counts.reset_index(), south.reset_index()
    assert south["months"].tolist() == ["DJF", "JJA", "JJA"]
    assert coverage_png(south) == coverage_png(north)  # by time, whatever the season is called


def test_the_comparison_of_harald_moltke_rests_on_three_drawn_lines(shared, tmp_path):
    data = shared / "data"
    mapped = data / "harald_moltke" / "derived_fronts_2019-2021.parquet"
    drawn = data / "measures_termini_greenland" / "derived_termini_3413.parquet"
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    arguments = ["--by-place", "--days", "30", "--ice", str(basins), "--out", str(tmp_path)]
    assert main(["compare", str(mapped), str(drawn), *arguments]) == 0
    summary = whole(pd.read_csv(tmp_path / "summary.csv"))
    assert (summary["pairs"], summary["lines"], summary["glaciers"]) == (9, 3, 1)
    assert summary["distance_m"] == pytest.approx(84.9, abs=0.5)
    counts = pd.read_csv(tmp_path / "counts-b.csv")
    assert counts["fronts"].sum() == 2499
    assert size_of(tmp_path / "coverage-b.png")[1] > 500


def product_at(*rows, author=""):
    """Fronts of 2 km along y: glacier, date, map y of the southern end, and map x where it is not 0."""
    lines = [LineString([(x, y - 2e6), (x, y - 1.998e6)]) for _, _, y, x in ((*row, 0)[:4] for row in rows)]
    table = {"glacier_id": [row[0] for row in rows], "datetime": [row[1] for row in rows], "Author": author}
    return product_of(gpd.GeoDataFrame(table, geometry=lines, crs=3413))


@pytest.mark.parametrize(
    ("others", "days"),
    [
        ([("1", "2020-01-04", 0), ("2", "2020-01-02", 6500)], [-3]),  # a neighbour's front is nearer in time
        ([("1", "2020-01-04", 0), ("2", "2020-01-02", 100, 4000)], [-3]),  # the neighbour lies across the fjord
        ([("1", "2016-01-04", 0), ("2", "2020-01-02", 100, 1500)], []),  # its own front is of another year
        ([("2", "2020-01-02", 6500)], []),  # it is not among the others
        ([("", "2020-01-04", 0), ("", "2020-01-02", 6500)], [-3]),  # none has a number
    ],
)
def test_by_place_a_front_is_paired_with_its_own_glacier(others, days):
    pairs = compare_products(product_at(("A", "2020-01-01", 0)), product_at(*others), by_place=True)
    assert pairs["days"].tolist() == days
    assert (pairs["distance_m"] == 0).all()


def test_by_place_a_front_is_held_against_the_part_of_a_long_coast_that_lies_around_it():
    coast = LineString([(100, y) for y in range(-3_000_000, -1_000_000, 10_000)])
    coasts = product_of(gpd.GeoDataFrame({"Date": ["2020-01-02"]}, geometry=[coast], crs=3413))
    (pair,) = compare_products(product_at(("A", "2020-01-01", 0)), coasts, by_place=True).itertuples()
    assert 90 < pair.common_m < 110
    assert 1000 < pair.distance_m < 3000 < pair.hd95_m < 5000


@pytest.mark.parametrize("by_place", [True, False])
def test_each_pair_of_authors_is_compared_once(by_place):
    tables = [product_at(("1", f"2020-01-0{day}", 0), author=name) for name, day in (("A", 1), ("B", 4), ("C", 3))]
    pairs = compare_products(pd.concat(tables), by_place=by_place)
    assert (pairs["author_a"] + pairs["author_b"]).tolist() == ["AC", "AB", "BC"]


def test_real_fronts_are_paired_by_place_with_their_own_glaciers(shared):
    fronts = read_product(shared / "data" / "measures_termini_greenland" / "derived_termini_3413.parquet")
    some = fronts.iloc[::70]
    pairs = compare_products(some, fronts[~fronts["key"].isin(some["key"])], days=400, by_place=True)
    glacier = fronts.drop_duplicates("key").set_index("key")["glacier_id"]
    assert len(pairs) > 20
    apart = pairs[pairs["key_b"].map(glacier) != pairs["glacier_id"]]
    assert set(apart["glacier_id"]) <= {"156", "230"}  # of these MEaSUREs has a line that lies at a neighbour


def test_products_without_a_pair_have_an_empty_summary():
    nothing = compare_products(product_at(("A", "2020-01-01", 0)).iloc[:0])
    assert summarise_pairs(nothing).empty


def test_lengths_in_feet_are_no_metres():
    fronts = product_at(("A", "2020-01-01", 0))
    with pytest.raises(ValueError, match=r"in metres, got .* in US survey foot: give --crs EPSG:3413"):
        compare_products(fronts.to_crs(2225), fronts)


def test_one_number_for_two_places_is_no_glacier():
    north = product_at(("1", "2020-01-01", 0))
    with pytest.raises(ValueError, match=r"glacier '1' lies 300 km apart .* --by-place"):
        compare_products(north, product_at(("1", "2020-01-02", 302_000)))


def test_by_place_a_coast_comes_second():
    coast = LineString([(100, y) for y in range(-2_060_000, -1_920_000, 10_000)])
    coasts = product_of(gpd.GeoDataFrame({"Date": ["2020-01-02"]}, geometry=[coast], crs=3413))
    with pytest.raises(ValueError, match=r"is 130 km long, .* give it second"):
        compare_products(coasts, product_at(("A", "2020-01-01", 0)), by_place=True)
