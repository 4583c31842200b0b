from datetime import date as day

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.affinity import translate
from shapely.geometry import LineString, Point

from calfin_cloud.domains import Domain, box_grid, length_scale
from calfin_cloud.evaluation import compare_fronts, skill_of, why_unmatched
from calfin_cloud.products import read_product
from calfin_cloud.results import compare_products
from calfin_cloud.termini import Terminus

EQUAL_AREA = 6931  # the map stretches nothing at its pole, so that its metres are those of the ground


def mapped(date="2014-10-31", glacier_id="7", y=0.0) -> gpd.GeoDataFrame:
    """One mapped front of 1 km, with the columns that a comparison reads."""
    row = {"key": "a/s", "scene_id": "s", "state": "front", "glacier_id": glacier_id}
    row |= {"datetime": pd.Timestamp(date, tz="UTC")}
    return gpd.GeoDataFrame([row], geometry=[LineString([(0, y), (1000, y)])], crs=EQUAL_AREA)


def drawn(tmp_path, dates, ids=None, ys=None, **columns):
    """A file of hand-drawn fronts of 1 km, read back."""
    ys = ys if ys is not None else [100.0 * (i + 1) for i in range(len(dates))]
    table = pd.DataFrame({"Date": dates, **columns})
    if ids is not None:
        table["Glacier_ID"] = ids
    lines = [LineString([(0, y), (1000, y)]) for y in ys]
    gpd.GeoDataFrame(table, geometry=lines, crs=EQUAL_AREA).to_file(tmp_path / "drawn.gpkg")
    return read_product(tmp_path / "drawn.gpkg")


def test_a_front_is_measured_against_the_last_before_and_the_first_after(tmp_path):
    reference = drawn(tmp_path, ["2012-02-01", "2014-02-09", "2015-02-18", "2015-03-01"], [7, 7, 7, 7])
    got = compare_fronts(mapped(), reference)
    assert got["reference_date"].tolist() == ["2014-02-09", "2015-02-18"]
    np.testing.assert_allclose(got["distance_m"], [200, 300])


def test_a_reference_of_the_same_day_is_the_only_one(tmp_path):
    reference = drawn(tmp_path, ["2014-10-30", "2014-10-31", "2014-11-01"], [7, 7, 7])
    assert compare_fronts(mapped(), reference)["reference_date"].tolist() == ["2014-10-31"]


def test_a_reference_that_read_product_has_not_made_is_told_in_words(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31"], [7])
    with pytest.raises(ValueError, match=r"tables of `read_product` .* without the columns \['key'"):
        compare_fronts(mapped(), reference[["geometry"]])
    with pytest.raises(ValueError, match="whose dates have no time zone"):
        compare_fronts(mapped(), reference.assign(datetime=reference["datetime"].dt.tz_localize(None)))
    with pytest.raises(ValueError, match="without the columns"):
        compare_products(mapped(), reference)


def test_two_pieces_of_a_day_are_one_reference(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31"] * 2, [7, 7], ys=[0.0, 500.0])
    (row,) = compare_fronts(mapped(), reference).itertuples()
    assert row.distance_m == pytest.approx(500 / 3)  # the mapped front lies on one piece; a third of all points misses


def test_other_glaciers_do_not_count_and_without_ids_place_decides(tmp_path):
    assert compare_fronts(mapped(), drawn(tmp_path, ["2014-10-31"], [8])).empty
    far = drawn(tmp_path, ["2014-10-31", "2014-10-31"], ys=[200.0, 90_000.0])
    assert compare_fronts(mapped(), far)["distance_m"].tolist() == pytest.approx([200])


def test_a_reference_of_other_words_for_glaciers_is_told(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31"], ["eight"])
    assert skill_of(mapped().assign(domain="a"), reference, []).loc["fronts", "scenes"] == 0
    assert "its glacier ids are eight, those of the store 7: use the same" in why_unmatched(mapped(), reference)


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
    gpd.GeoDataFrame({"a": [1]}, geometry=[LineString([(0, 0), (1, 1)])], crs=EQUAL_AREA).to_file(tmp_path / "x.gpkg")
    with pytest.raises(ValueError, match="has no date"):
        read_product(tmp_path / "x.gpkg")


def known(y, glacier_id="7"):
    """A domain whose terminus of 2009 lies at y."""
    grid = box_grid((-2000, -2000, 3000, 3000), EQUAL_AREA, 30.0)
    terminus = Terminus(LineString([(0, y), (1000, y)]), day(2009, 2, 1))
    return Domain("a", grid, glacier_id, termini=(terminus,))


def test_a_front_is_set_beside_the_terminus_that_guided_it(tmp_path):
    fronts = mapped(y=100.0).assign(domain="a")
    got = compare_fronts(fronts, drawn(tmp_path, ["2014-10-31"], [7], ys=[130.0]), domains=[known(-270.0)])
    assert got[["distance_m", "persistence_m"]].to_numpy().tolist() == [pytest.approx([30.0, 400.0])]
    assert np.isnan(compare_fronts(fronts, drawn(tmp_path, ["2014-10-31"], [7]))["persistence_m"]).all()


def test_skill_counts_scenes_without_a_front_and_takes_the_nearer_reference(tmp_path):
    found, missed = mapped(y=0.0).assign(domain="a"), mapped(y=0.0).assign(domain="a", key="a/t", state="no_front")
    missed["geometry"] = None
    fronts = gpd.GeoDataFrame(pd.concat([found, missed], ignore_index=True), crs=EQUAL_AREA)
    reference = drawn(tmp_path, ["2014-02-09", "2015-02-08"], [7, 7], ys=[1000.0, 100.0])
    skill = skill_of(fronts, reference, [known(1200.0)])
    assert skill.loc["fronts", ["scenes", "found", "mean_m", "worst_m"]].tolist() == pytest.approx([2, 1, 100, 100])
    assert skill.loc["fronts", ["precision_150", "recall_150"]].tolist() == pytest.approx([1.0, 0.5])
    assert skill.loc["persistence", ["found", "mean_m", "f_150"]].tolist() == pytest.approx([2, 200, 0])


def test_distances_are_those_on_the_ground_whatever_the_map(tmp_path):
    reference = drawn(tmp_path, ["2014-10-31"], [7], ys=[200.0])
    fronts = mapped(y=0.0).assign(domain="a")
    south = gpd.GeoSeries([Point(-45, 60)], crs=4326).to_crs(3413).iloc[0]  # the map stretches by 3.8 % here
    for table in (fronts, reference):
        moved = [translate(line, south.x, south.y) for line in table.geometry]
        table.set_geometry(gpd.GeoSeries(moved, crs=3413, index=table.index), inplace=True)
    apart = 200 / length_scale(3413, south)
    assert 192 < apart < 193
    assert compare_fronts(fronts, reference)["distance_m"].tolist() == pytest.approx([apart], rel=1e-3)
    assert skill_of(fronts, reference, [])["mean_m"].tolist() == pytest.approx([apart], rel=1e-3)
