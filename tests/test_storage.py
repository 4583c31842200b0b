import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import LineString, MultiPolygon, box

from calfin_cloud import storage
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.schema import FRONT_SCHEMA, POLYGON_SCHEMA, REJECTED_SCHEMA

DOMAIN = Domain("Store", box_grid((0, 0, 3000, 2400), 3413, 30.0), "9")
LINE = LineString([(0, 0), (300, 400)])
NOON = np.datetime64("2020-07-01T12:00:00", "us")


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "store")
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    return uri


def rows(*scenes, line=None):
    """Fronts table with one row for each scene id, with or without a line."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "front": 0 if line else -1,
            "glacier_id": "9",
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "platform": "landsat-8",
            "collection": "landsat-c2-l2",
            "state": "front" if line else "no_front",
            "reason": "" if line else "cloudy",
            "detail": "",
            "quality_flag": 10,
            "length_m": line.length if line else np.nan,
            "confidence": np.nan,
            "sigma_m": np.nan,
            "half95_m": np.nan,
            "vertex_sigma_m": [[0.5, 1.5] if line else []] * len(scenes),
            "score": np.nan,
            "score_reasons": "",
            "isolation": "",
            "cloud_fraction": np.nan,
            "nodata_fraction": 0.0,
            "slc_off_fraction": 0.0,
            "resolution_m": 30.0,
            "model": "a@1",
            "code": "0",
        }
    )
    return gpd.GeoDataFrame(table, geometry=[line] * len(scenes), crs=DOMAIN.crs)


def rejected_rows(*scenes, candidate=0, line=LINE):
    """Table with one rejected candidate for each scene id; with the right columns even for none."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "candidate": candidate,
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "filter": "edge size",
            "reason": "edge_too_short",
            "value": 12,
            "limit": 32,
            "detail": "12 px of edge, at least 32 is needed",
        }
    )
    return gpd.GeoDataFrame(table, geometry=[line] * len(scenes), crs=DOMAIN.crs)


def polygon_rows(*scenes, kind="ocean", polygon=None):
    """Table with one row for each scene id, with a polygon or the reason why there is none."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "glacier_id": "9",
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "platform": "landsat-8",
            "kind": kind,
            "fjord": "scene",
            "reason": "" if polygon else "no_ocean",
            "detail": "",
            "area_m2": polygon.area if polygon else np.nan,
        }
    )
    return gpd.GeoDataFrame(table, geometry=[polygon] * len(scenes), crs=DOMAIN.crs)


@given(arrays("float32", (2, 80, 100), elements=st.sampled_from([0, 0.1, 0.33, 0.5, 1, np.nan]), fill=st.just(0.25)))
@settings(max_examples=10, deadline=None)
def test_masks_come_back_within_half_a_step_and_missing_stays_missing(tmp_path_factory, masks):
    store = str(tmp_path_factory.mktemp("s") / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={})
    places = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    storage.write_masks(store, "Store", places["b"], masks)
    read = storage.read_scene_masks(store, "Store", places["b"])
    np.testing.assert_array_equal(np.isnan(read), np.isnan(masks))
    np.testing.assert_allclose(read, masks, atol=0.5 / storage.LEVELS + 1e-6)
    assert np.isnan(storage.read_scene_masks(store, "Store", places["a"])).all()


def test_xarray_opens_the_masks_georeferenced_one_scene_a_chunk(store):
    places = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    storage.write_masks(store, "Store", places["b"], np.full((2, 80, 100), 0.5))
    masks = xr.open_zarr(store + "/masks/Store")["masks"]
    assert masks.sel(mask="ice")[1].values == pytest.approx(np.full((80, 100), 0.5))
    assert masks["scene_id"].values.tolist() == ["a", "b"]
    assert masks["time"].values[0] == NOON
    assert masks.chunks[0] == (1, 1)
    assert masks.rio.crs.to_epsg() == 3413
    assert masks.rio.transform().to_gdal() == pytest.approx(DOMAIN.grid.transform.to_gdal())


def test_scenes_keep_their_places_when_others_come(store):
    first = storage.add_scenes(store, DOMAIN, {"b": NOON, "c": NOON})
    second = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    assert first == {"b": 0, "c": 1}
    assert second == {"b": 0, "c": 1, "a": 2}


def test_an_interrupted_lengthening_of_the_axis_is_mended(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    group = zarr.open_group(storage.masks_url(store, "Store"), mode="r+", use_consolidated=False)
    group["masks"].resize((3, 2, 80, 100))  # killed before time and scene_id grew
    assert storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON}) == {"a": 0, "b": 1}
    assert xr.open_zarr(store + "/masks/Store")["masks"].sizes["time"] == 2


@given(arrays("int32", st.tuples(st.integers(0, 8), st.just(4)), elements=st.integers(0, 4000)))
@settings(max_examples=10, deadline=None)
def test_candidates_come_back_and_a_second_write_leaves_nothing_of_the_first(tmp_path_factory, candidates):
    store = str(tmp_path_factory.mktemp("s") / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={})
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    masks = np.full((2, 80, 100), 0.5)
    storage.write_masks(store, "Store", 1, masks, candidates=np.full((8, 4), 7))
    storage.write_masks(store, "Store", 1, masks, candidates=candidates)
    np.testing.assert_array_equal(storage.read_candidates(store, "Store", 1), candidates)
    assert storage.read_candidates(store, "Store", 0).shape == (0, 4)
    storage.write_masks(store, "Store", 1, masks)
    assert storage.read_candidates(store, "Store", 1).shape == (0, 4)


@pytest.mark.parametrize("candidates", [np.zeros((9, 4), int), np.zeros(4, int), np.full((1, 4), -1)])
def test_candidates_that_do_not_fit_are_refused(store, candidates):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    with pytest.raises(ValueError, match="candidates must be at most 8 rows"):
        storage.write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5), candidates=candidates)


def test_a_store_that_kept_no_candidates_reads_as_none_and_grows_on(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    group = zarr.open_group(storage.masks_url(store, "Store"), mode="r+", use_consolidated=False)
    del group["candidates"]
    assert storage.read_candidates(store, "Store", 0).shape == (0, 4)
    storage.add_scenes(store, DOMAIN, {"b": NOON})
    storage.write_masks(store, "Store", 1, np.full((2, 80, 100), 0.5), candidates=np.array([[0, 80, 10, 90]]))
    assert storage.read_candidates(store, "Store", 0).shape == (0, 4)
    assert storage.read_candidates(store, "Store", 1).tolist() == [[0, 80, 10, 90]]
    opened = xr.open_zarr(store + "/masks/Store")["candidates"]
    assert opened.chunks == ((1, 1), (8,), (4,))
    assert opened.dims == ("time", "candidate", "edge")


def test_a_domain_with_another_grid_is_refused(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    moved = Domain("Store", box_grid((30, 0, 3030, 2400), 3413, 30.0))
    with pytest.raises(ValueError, match="another grid"):
        storage.add_scenes(store, moved, {"b": NOON})


def test_geopandas_reads_the_folder_of_fronts_even_where_a_batch_has_none(store):
    storage.write_fronts(store, rows("a", "b"))
    storage.write_fronts(store, rows("c", line=LINE))
    table = gpd.read_parquet(store + "/fronts")
    assert sorted(table["scene_id"]) == ["a", "b", "c"]
    assert table.crs.to_epsg() == 3413
    ours = storage.read_fronts(store)
    assert ours.loc[ours["scene_id"] == "c", "geometry"].item() == LINE
    assert ours["geometry"].isna().sum() == 2
    assert list(ours.columns) == [*FRONT_SCHEMA.names, "geometry"]
    assert storage.finished_keys(store) == {"Store/a", "Store/b", "Store/c"}


def test_writing_a_batch_twice_is_writing_it_once(store, tmp_path):
    storage.write_fronts(store, rows("a", "b"))
    before = {p.name: p.read_bytes() for p in (tmp_path / "store/fronts").iterdir()}
    storage.write_fronts(store, rows("a", "b"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "store/fronts").iterdir()} == before
    assert len(before) == 1


def test_the_three_tables_of_a_batch_share_its_name(store, tmp_path):
    fronts, water = rows("a", "b", line=LINE), MultiPolygon([box(0, 0, 30, 60)])
    keys = list(fronts["key"])
    storage.write_rejected(store, rejected_rows("b"), keys=keys)
    storage.write_polygons(store, polygon_rows("a", polygon=water), keys=keys)
    storage.write_fronts(store, fronts)
    folders = [tmp_path / "store" / name for name in ("fronts", "rejected", "polygons")]
    assert len({tuple(p.name for p in folder.iterdir()) for folder in folders}) == 1
    (candidate,), (polygon,) = storage.read_rejected(store).geometry, storage.read_polygons(store).geometry
    assert candidate == LINE
    assert polygon == water
    before = [p.read_bytes() for folder in folders for p in folder.iterdir()]
    storage.write_rejected(store, rejected_rows("b"), keys=keys)
    storage.write_polygons(store, polygon_rows("a", polygon=water), keys=keys)
    assert [p.read_bytes() for folder in folders for p in folder.iterdir()] == before


@pytest.mark.parametrize(
    ("folder", "write", "make", "schema"),
    [
        ("rejected", storage.write_rejected, rejected_rows, REJECTED_SCHEMA),
        ("polygons", storage.write_polygons, polygon_rows, POLYGON_SCHEMA),
    ],
)
def test_an_empty_table_has_a_file_of_the_same_types(store, folder, write, make, schema):
    paths = [write(store, make(*scenes), keys=["Store/a", "Store/b"]) for scenes in ((), ("a",))]
    empty, full = write(store, make(), keys=["Store/a"]), write(store, make("b"), keys=["Store/b"])
    assert paths[0] == paths[1]
    assert pq.read_schema(empty).equals(pq.read_schema(full))
    assert [pq.read_schema(empty).field(f.name).type for f in schema] == schema.types
    assert len(pq.read_table(empty)) == 0
    together = gpd.read_parquet(f"{store}/{folder}")
    assert together.crs.to_epsg() == 3413
    assert len(together) == 2


def test_tables_of_a_killed_run_count_only_once_their_fronts_are_written(store):
    storage.write_rejected(store, rejected_rows("a"), keys=["Store/a", "Store/b"])
    storage.write_polygons(store, polygon_rows("a"), keys=["Store/a", "Store/b"])
    assert storage.finished_keys(store) == set()
    assert len(storage.read_rejected(store)) == len(storage.read_polygons(store)) == 0
    storage.write_rejected(store, rejected_rows("a"), keys=["Store/a"])  # resumed with smaller batches
    storage.write_fronts(store, rows("a"))
    storage.write_fronts(store, rows("b"))
    assert storage.read_rejected(store)["key"].tolist() == ["Store/a"]
    storage.write_polygons(store, polygon_rows("b"), keys=["Store/b"])
    assert storage.read_polygons(store)["key"].tolist() == ["Store/b"]


def test_a_store_made_before_there_were_rejected_candidates_reads_as_having_none(store):
    storage.write_fronts(store, rows("a"))
    for table, schema in (
        (storage.read_rejected(store), REJECTED_SCHEMA),
        (storage.read_polygons(store), POLYGON_SCHEMA),
    ):
        assert len(table) == 0
        assert list(table.columns) == [*schema.names, "geometry"]
        assert table.crs.to_epsg() == 3413


def test_rows_of_scenes_outside_the_batch_are_not_written(store):
    with pytest.raises(ValueError, match=r"rows of others \['Store/b'\]"):
        storage.write_rejected(store, rejected_rows("a", "b"), keys=["Store/a"])
    with pytest.raises(ValueError, match=r"one domain.*'Other', 'Store'"):
        storage.write_polygons(store, polygon_rows("a"), keys=["Store/a", "Other/a"])


def test_half_a_file_left_by_a_killed_run_is_in_no_readers_way(store, tmp_path):
    path = storage.write_fronts(store, rows("a"))
    folder, name = path.rsplit("/", 1)
    (tmp_path / "store/fronts" / f".{name}.part").write_bytes(b"PAR1 half")
    assert len(gpd.read_parquet(folder)) == 1
    assert storage.finished_keys(store) == {"Store/a"}


def test_a_store_made_with_another_model_is_not_mixed(store):
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    with pytest.raises(ValueError, match=r"made differently.*model"):
        storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})


def test_a_folder_with_other_files_does_not_become_a_store(tmp_path):
    (tmp_path / "thesis.doc").write_text("ten years of work")
    with pytest.raises(ValueError, match="not empty"):
        storage.open_store(str(tmp_path), crs=DOMAIN.crs, made_by={})


def test_rows_that_break_the_contract_are_not_written(store):
    broken = rows("a").assign(state="front")
    with pytest.raises(ValueError, match="state and geometry disagree"):
        storage.write_fronts(store, broken)
    with pytest.raises(ValueError, match="unknown states or reasons"):
        storage.write_fronts(store, rows("a").assign(reason="bored"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rejected_rows("a").assign(reason=""), "unknown reasons"),
        (rejected_rows("a").assign(filter=""), "a filter"),
        (rejected_rows("a", line=None), "must have a line"),
        (rejected_rows("a", "a"), "a number of their own"),
        (rejected_rows("a").drop(columns="limit"), "must have the columns"),
    ],
)
def test_rejected_candidates_that_break_the_contract_are_not_written(store, table, message):
    with pytest.raises(ValueError, match=message):
        storage.write_rejected(store, table, keys=["Store/a"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (polygon_rows("a", kind="land"), "unknown kinds"),
        (polygon_rows("a").assign(reason="bored"), "unknown kinds or reasons"),
        (polygon_rows("a").assign(reason=""), "None with a reason"),
        (polygon_rows("a", polygon=MultiPolygon([box(0, 0, 1, 1)])).assign(reason="no_ocean"), "None with a reason"),
        (polygon_rows("a", polygon=box(0, 0, 1, 1)), "one MultiPolygon"),
        (polygon_rows("a", "a"), "one MultiPolygon a kind"),
    ],
)
def test_polygons_that_break_the_contract_are_not_written(store, table, message):
    with pytest.raises(ValueError, match=message):
        storage.write_polygons(store, table, keys=["Store/a"])


def test_a_scene_id_never_leaves_the_folder_of_pictures(store, tmp_path):
    storage.write_picture(store, "Store", "../../x/..", b"png")
    assert storage.read_picture(store, "Store", "../../x/..") == b"png"
    assert len(list((tmp_path / "store/pictures/Store").iterdir())) == 1
    assert storage.read_picture(store, "Store", "y") is None


def test_an_empty_store_reads_as_an_empty_table(store):
    table = storage.read_fronts(store)
    assert len(table) == 0
    assert table.crs.to_epsg() == 3413
