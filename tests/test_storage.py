"""A store: what made it, its domains and pictures, and the masks of its scenes; on disk and on a real S3 server."""

import base64
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from storing import DOMAIN, NOON, PLACES, contents, new_store, paths_in

from calfin_cloud import storage
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.schema import LEVELS
from calfin_cloud.storage import files

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "store")
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    return uri


def arrays_of(store):
    """Zarr group of the masks, to change."""
    return zarr.open_group(storage.masks_url(store, "Store"), mode="r+", use_consolidated=False)


@given(arrays("float32", (2, 80, 100), elements=st.sampled_from([0, 0.1, 0.33, 0.5, 1, np.nan]), fill=st.just(0.25)))
@settings(max_examples=10)
def test_masks_come_back_within_half_a_step_and_missing_stays_missing(tmp_path_factory, masks):
    store = str(tmp_path_factory.mktemp("s") / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={})
    places = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    storage.write_masks(store, "Store", places["b"], masks)
    read = storage.read_scene_masks(store, "Store", places["b"])
    np.testing.assert_array_equal(np.isnan(read), np.isnan(masks))
    np.testing.assert_allclose(read, masks, atol=0.5 / LEVELS + 1e-6)
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


def test_a_store_on_disk_may_be_named_by_a_file_address(tmp_path):
    uri = (tmp_path / "store").as_uri()
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    assert storage.add_scenes(uri, DOMAIN, {"a": NOON}) == {"a": 0}
    assert storage.read_places(str(tmp_path / "store"), DOMAIN.name) == {"a": 0}


def test_an_interrupted_lengthening_of_the_axis_is_mended(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    group = arrays_of(store)
    group["masks"].resize((3, 2, 80, 100))  # killed before time and scene_id grew
    assert storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON}) == {"a": 0, "b": 1}
    assert xr.open_zarr(store + "/masks/Store")["masks"].sizes["time"] == 2


@given(arrays("int32", st.tuples(st.integers(0, 8), st.just(4)), elements=st.integers(0, 4000)))
@settings(max_examples=10)
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
    group = arrays_of(store)
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


def test_a_store_made_with_another_model_is_not_mixed(store):
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    with pytest.raises(ValueError, match=r"made differently.*model"):
        storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})


def test_a_folder_with_other_files_does_not_become_a_store(tmp_path):
    (tmp_path / "thesis.doc").write_text("ten years of work")
    with pytest.raises(ValueError, match="not empty"):
        storage.open_store(str(tmp_path), crs=DOMAIN.crs, made_by={})


def test_a_scene_id_never_leaves_the_folder_of_pictures(store, tmp_path):
    storage.write_picture(store, "Store", "../../x/..", PNG)
    assert storage.read_picture(store, "Store", "../../x/..") == PNG
    assert len(list((tmp_path / "store/pictures/Store").iterdir())) == 1
    assert storage.read_picture(store, "Store", "y") is None


def test_an_empty_store_reads_as_an_empty_table(store):
    table = storage.read_fronts(store)
    assert len(table) == 0
    assert table.crs.to_epsg() == 3413


@pytest.mark.parametrize("kind", PLACES)
def test_a_store_on_disk_and_on_s3_takes_and_gives_the_same(kind, request):
    store = new_store(kind, request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, DOMAIN)
    assert storage.read_store_domains(store) == [DOMAIN]
    places = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    masks, grey = np.full((2, 80, 100), 0.5), np.full((80, 100), 7, "uint8")
    storage.write_masks(store, "Store", places["b"], masks, candidates=np.array([[0, 80, 10, 90]]), grey=grey)
    np.testing.assert_allclose(storage.read_scene_masks(store, "Store", places["b"]), masks)
    assert (storage.read_scene_grey(store, "Store", places["b"]) == grey).all()
    assert storage.read_candidates(store, "Store", places["b"]).tolist() == [[0, 80, 10, 90]]
    assert storage.read_scene_grey(store, "Store", places["a"]) is None
    storage.write_picture(store, "Store", "b", PNG)
    assert storage.read_picture(store, "Store", "b") == PNG
    assert xr.open_zarr(storage.masks_url(store, "Store"))["masks"].sizes["time"] == 2
    before = contents(store)
    storage.write_masks(store, "Store", places["b"], masks, candidates=np.array([[0, 80, 10, 90]]), grey=grey)
    storage.keep_domain(store, DOMAIN)
    assert contents(store) == before


@pytest.mark.parametrize("kind", PLACES)
def test_a_file_is_made_once_and_written_whole(kind, request):
    fs, root = files.open_place(new_store(kind, request))
    assert files.create_whole(fs, f"{root}/once", b"first")
    assert not files.create_whole(fs, f"{root}/once", b"second")
    assert bytes(fs.cat_file(f"{root}/once")) == b"first"
    files.write_whole(fs, f"{root}/once", b"third")
    assert bytes(fs.cat_file(f"{root}/once")) == b"third"
    files.delete_files(fs, [f"{root}/once", f"{root}/once"])
    assert files.list_files(fs, root, "") == []


def test_a_body_that_is_damaged_on_its_way_is_refused_by_the_server(request):
    fs, root = files.open_place(new_store("s3", request))
    with pytest.raises(OSError):  # noqa: PT011 - the server says no more than that it is invalid
        fs.pipe_file(f"{root}/x", b"not this", ContentMD5=base64.b64encode(bytes(16)).decode())
    assert not fs.exists(f"{root}/x")


def test_a_full_disk_leaves_the_old_file_and_nothing_half(tmp_path, monkeypatch):
    fs, root = files.open_place(str(tmp_path))
    files.write_whole(fs, f"{root}/x", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(fs, f"{root}/x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.parametrize("place", [-1, 2])
def test_a_place_outside_the_axis_is_refused(store, place):
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    with pytest.raises(ValueError, match="has 2 places"):
        storage.write_masks(store, "Store", place, np.full((2, 80, 100), 0.5))


def test_masks_that_do_not_fill_their_chunk_are_refused(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    with pytest.raises(ValueError, match="be one chunk"):
        storage.write_masks(store, "Store", 0, np.full((2, 80, 99), 0.5))
    with pytest.raises(ValueError, match="be one chunk"):
        storage.write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5), grey=np.zeros((79, 100), "uint8"))
    assert np.isnan(storage.read_scene_masks(store, "Store", 0)).all()


def test_a_scene_whose_masks_are_cleared_is_as_if_never_mapped(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    before = contents(store)
    storage.write_masks(store, "Store", 1, np.full((2, 80, 100), 0.5), grey=np.ones((80, 100), "uint8"))
    assert contents(store) != before
    storage.clear_masks(store, "Store", 1)
    assert contents(store) == before


@pytest.mark.parametrize("lost", [(2,), (1, 2), (0,), (0, 2)])
def test_places_whose_ids_were_not_written_are_taken_again_in_the_same_order(store, lost):
    scenes = dict.fromkeys(("a", "b", "c"), NOON)
    whole = storage.add_scenes(store, DOMAIN, scenes)
    before = contents(store)
    group = arrays_of(store)
    for place in lost:
        group["scene_id"][place] = ""
    assert set(storage.read_places(store, "Store")) == {s for s, place in whole.items() if place not in lost}
    assert storage.add_scenes(store, DOMAIN, scenes) == whole
    assert contents(store) == before


def test_a_domain_keeps_its_grid_for_ever(store):
    storage.keep_domain(store, DOMAIN)
    moved = Domain("Store", box_grid((30, 0, 3030, 2400), 3413, 30.0), "9")
    with pytest.raises(ValueError, match="another grid"):
        storage.keep_domain(store, moved, replace=True)
    drawn = replace(DOMAIN, fjord_boundary=DOMAIN.polygon.buffer(-100))
    with pytest.raises(ValueError, match="another boundary"):
        storage.keep_domain(store, drawn)
    storage.keep_domain(store, drawn, replace=True)
    assert storage.read_store_domains(store) == [drawn]


def test_a_change_that_was_stopped_is_told_to_all_but_the_same_verb(store):
    storage.begin_change(store, "retrace", model="b@2")
    with pytest.raises(ValueError, match="`calfin retrace` was stopped"):
        storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})
    with pytest.raises(ValueError, match="`calfin retrace` was stopped"):
        storage.begin_change(store, "map --recompute")
    storage.begin_change(store, "retrace", model="b@2")
    storage.end_change(store)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})
    assert storage.read_store(store) == {"crs": DOMAIN.crs, "model": "b@2"}


def test_a_store_of_another_model_is_told_the_way_out_and_one_of_another_crs_is_not(store):
    with pytest.raises(ValueError, match="--recompute"):
        storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})
    with pytest.raises(ValueError, match=r"crs.*; choose another store$"):
        storage.open_store(store, crs="EPSG:3031", made_by={"model": "a@1"})


def test_a_place_without_a_store_is_told(tmp_path):
    assert not storage.is_store(str(tmp_path))
    with pytest.raises(ValueError, match=r"no store\.json"):
        storage.read_store(str(tmp_path))
    assert paths_in(str(tmp_path)) == []
