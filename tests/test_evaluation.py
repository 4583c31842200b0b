import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString

from calfin_cloud.evaluation import compare_fronts
from calfin_cloud.products import read_product


def mapped(date="2014-10-31", glacier_id="7", y=0.0) -> gpd.GeoDataFrame:
    """One mapped front of 1 km, with the columns that a comparison reads."""
    row = {"key": "a/s", "scene_id": "s", "state": "front", "glacier_id": glacier_id}
    row |= {"datetime": pd.Timestamp(date, tz="UTC")}
    return gpd.GeoDataFrame([row], geometry=[LineString([(0, y), (1000, y)])], crs=3413)


def drawn(tmp_path, dates, ids=None, ys=None, **columns):
    """A file of hand-drawn fronts of 1 km, read back."""
    ys = ys if ys is not None else [100.0 * (i + 1) for i in range(len(dates))]
    table = pd.DataFrame({"Date": dates, **columns})
    if ids is not None:
        table["Glacier_ID"] = ids
    lines = [LineString([(0, y), (1000, y)]) for y in ys]
    gpd.GeoDataFrame(table, geometry=lines, crs=3413).to_file(tmp_path / "drawn.gpkg")
    return read_product(tmp_path / "drawn.gpkg")


def test_a_front_is_measured_against_the_last_before_and_the_first_after(tmp_path):
    reference = drawn(tmp_path, ["2012-02-01", "2014-02-09", "2015-02-18", "2015-03-01"], [7, 7, 7, 7])
    got = compare_fronts(mapped(), reference)
    assert got["reference_date"].tolist() == ["2014-02-09", "2015-02-18"]
    np.testing.assert_allclose(got["distance_m"], [200, 300])


def test_a_reference_of_the_same_day_is_the_only_one(tmp_path):
    reference = drawn(tmp_path, ["2014-10-30", "2014-10-31", "2014-11-01"], [7, 7, 7])
    assert compare_fronts(mapped(), reference)["reference_date"].tolist() == ["2014-10-31"]


def test_two_pieces_of_a_day_are_one_reference(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31"] * 2, [7, 7], ys=[0.0, 500.0])
    (row,) = compare_fronts(mapped(), reference).itertuples()
    assert row.distance_m == pytest.approx(500 / 3)  # the mapped front lies on one piece; a third of all points misses


def test_other_glaciers_do_not_count_and_without_ids_place_decides(tmp_path):
    assert compare_fronts(mapped(), drawn(tmp_path, ["2014-10-31"], [8])).empty
    far = drawn(tmp_path, ["2014-10-31", "2014-10-31"], ys=[200.0, 90_000.0])
    assert compare_fronts(mapped(), far)["distance_m"].tolist() == pytest.approx([200])


def test_a_reference_with_scene_ids_is_matched_by_them(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31", "2014-10-31"], scene_id=["other", "s"], ys=[10.0, 20.0])
    assert compare_fronts(mapped(), reference)["distance_m"].tolist() == pytest.approx([20])


def test_of_a_scene_with_several_glaciers_only_its_own_is_the_reference(tmp_path):
    both = drawn(tmp_path, ["2014-10-31"] * 2, [7, 8], ys=[50.0, 60_000.0], scene_id=["s", "s"])
    assert compare_fronts(mapped(), both)["distance_m"].tolist() == pytest.approx([50])


def test_a_scene_that_the_reference_does_not_name_is_matched_by_its_date(tmp_path):
    scenes = pd.concat([mapped(), mapped().assign(key="a/t", scene_id="t")])
    reference = drawn(tmp_path, ["2014-10-31"], [7], scene_id=["s"])
    assert compare_fronts(scenes, reference)["key"].tolist() == ["a/s", "a/t"]


def test_a_reference_without_a_date_is_refused(tmp_path):
    gpd.GeoDataFrame({"a": [1]}, geometry=[LineString([(0, 0), (1, 1)])], crs=3413).to_file(tmp_path / "x.gpkg")
    with pytest.raises(ValueError, match="has no date"):
        read_product(tmp_path / "x.gpkg")
