"""From fronts to tables and pictures in one call, on real series and on a store."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString, box

from calfin_cloud.cli import main
from calfin_cloud.products import product_of, read_product
from calfin_cloud.results import Lines, compare_products, measure_series, read_lines, summarise_pairs


def fronts_of(glaciers):
    rows = [
        {
            "glacier_id": glacier,
            "Date": f"20{10 + year}-07-01",
            "geometry": LineString([(x - 50.0 * year, 0), (x - 50.0 * year, 500)]),
        }
        for glacier, x in glaciers.items()
        for year in range(5)
    ]
    return product_of(gpd.GeoDataFrame(rows, crs="EPSG:3413"))


def test_a_glacier_that_cannot_be_measured_keeps_its_rows_and_says_why():
    fronts = fronts_of({"known": 1000, "unknown": 90_000})
    series = measure_series(fronts, Lines(ice={"known": box(-9000, -9000, 800, 9000)}))
    by_glacier = series.positions.groupby("glacier_id")["reason"].unique()
    assert by_glacier["known"].tolist() == [""]
    assert by_glacier["unknown"].tolist() == ["no_seaward"]
    assert series.positions["key"].nunique() == len(fronts)


def test_the_rate_of_a_retreat_of_fifty_metres_a_year_is_measured_on_the_ground():
    series = measure_series(fronts_of({"g": 1000}), Lines(ice={"g": box(-9000, -9000, 800, 9000)}))
    scale = 1 / 0.9684  # near the pole the map of 70 degrees north shows lengths too short
    assert series.rates["rate_m_a"].to_numpy() == pytest.approx(np.full(2, -50 * scale), rel=5e-3)


def test_a_front_that_leaves_the_fjord_of_its_glacier_is_flagged():
    fronts = fronts_of({"g": 1000})
    lines = Lines(ice={"g": box(-9000, -9000, 800, 9000)}, fjords={"g": box(0, 0, 960, 500)})
    flags = measure_series(fronts, lines).flags
    assert flags["flag"].tolist() == ["outside_fjord"]
    assert flags["key"].tolist() == [fronts["key"][0]]


def test_fronts_in_longitude_and_latitude_are_refused():
    with pytest.raises(ValueError, match="projected CRS"):
        measure_series(fronts_of({"g": 1000}).to_crs(4326), Lines())


def test_the_series_of_a_real_glacier_retreats_by_two_kilometres_in_the_box_drawn_for_it(shared, tmp_path):
    data = shared / "data"
    folder = data / "harald_moltke"
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    arguments = [
        "--boxes",
        str(folder / "box" / "harald_moltke_brae.shp"),
        "--ice",
        str(basins),
        "--out",
        str(tmp_path),
    ]
    assert main(["timeseries", str(folder / "derived_fronts_2019-2021.parquet"), *arguments]) == 0
    positions = pd.read_csv(tmp_path / "positions.csv", parse_dates=["datetime"])
    in_box = positions[positions["branch"] == "box"].set_index("datetime")["position_m"]
    assert in_box.notna().sum() == 159
    assert in_box["2021-09"].mean() - in_box["2019-03"].mean() == pytest.approx(-1960, abs=100)
    assert (tmp_path / "series-harald_moltke_brae.png").stat().st_size > 10_000
    flagged = gpd.read_parquet(tmp_path / "fronts.parquet")
    assert len(flagged) == 159


def test_nearly_all_greenland_glaciers_get_a_box_of_their_own(shared):
    data = shared / "data"
    fronts = read_product(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    some = fronts[fronts["glacier_id"].isin(sorted(fronts["glacier_id"].unique())[:60])]
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    series = measure_series(some, read_lines(None, some, ice=str(basins)))
    measured = series.positions[series.positions["branch"] == "box"]["position_m"].notna()
    assert measured.mean() > 0.95
    assert len(series.gates) >= 57


def test_pairs_are_nearest_in_time_and_say_by_how_much_one_lies_further_out():
    a = fronts_of({"g": 1000})
    b = a.copy()
    b["geometry"] = b.geometry.translate(xoff=30)
    b["datetime"] += pd.Timedelta(days=3)
    pairs = compare_products(a, b, days=8, lines=Lines(ice={"g": box(-9000, -9000, 800, 9000)}))
    assert len(pairs) == 5
    assert set(pairs["days"]) == {-3}
    scale = 1 / 0.9684
    np.testing.assert_allclose(pairs["common_m"], 30 * scale, rtol=5e-3)
    np.testing.assert_allclose(pairs["advance_m"], -30 * scale, rtol=5e-3)
    assert compare_products(a, b, days=2).empty


def test_authors_of_one_product_are_compared_once_a_pair():
    a = fronts_of({"g": 1000})
    both = pd.concat([a.assign(author="A"), a.assign(author="B", key=a["key"] + "-b")], ignore_index=True)
    pairs = compare_products(both)
    assert pairs[["author_a", "author_b"]].drop_duplicates().to_numpy().tolist() == [["A", "B"]]
    assert len(pairs) == 5
    assert summarise_pairs(pairs).set_index(["by", "group"]).loc[("authors", "A - B"), "distance_m"] == 0


def test_without_ice_the_side_of_the_sea_is_unknown_and_so_is_the_bias():
    a = fronts_of({"g": 1000})
    assert compare_products(a, a.copy())["advance_m"].isna().all()


def test_the_fronts_of_another_network_lie_as_near_to_drawn_ones_as_their_source_says(shared, tmp_path):
    data = shared / "data"
    drawn = str(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    mapped = str(data / "harald_moltke" / "derived_fronts_2019-2021.parquet")
    assert main(["compare", mapped, drawn, "--by-place", "--days", "26", "--out", str(tmp_path)]) == 0
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert set(pairs["key_b"].str.partition("/")[0]) == {"75"}
    assert pairs["distance_m"].between(40, 120).all()
    predicted = str(data / "cobra2023" / "geojson" / "CALFIN.geo.json")
    more = ["--by-place", "--days", "1", "--crs", "EPSG:3413", "--out", str(tmp_path)]
    assert main(["compare", predicted, drawn, *more]) == 0
    (pair,) = pd.read_csv(tmp_path / "pairs.csv").itertuples()
    assert pair.glacier_id == "Nunatakassaap"
    assert pair.common_m == pytest.approx(128, abs=30)
