"""A store: what made it, its domains and pictures, and the masks of its scenes; on disk and on a real S3 server."""

import base64
import errno
import json
import os
import random
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from servers.proxy import flipped
from storing import DOMAIN, NOON, PLACES, chunks_in, contents, new_store, paths_in, write, write_masks
from zarr.abc.store import SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from calfin_cloud import storage
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.schema import LEVELS
from calfin_cloud.storage import changes, files, leases, shards, zarr_places
from calfin_cloud.storage.places import _late
from calfin_cloud.storage.zarr_places import zarr_place

WEDNESDAY = datetime(2026, 11, 25, tzinfo=UTC)

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
    write_masks(store, "Store", places["b"], masks)
    read = storage.read_scene_masks(store, "Store", places["b"])
    np.testing.assert_array_equal(np.isnan(read), np.isnan(masks))
    np.testing.assert_allclose(read, masks, atol=0.5 / LEVELS + 1e-6)
    assert np.isnan(storage.read_scene_masks(store, "Store", places["a"])).all()


def test_xarray_opens_the_masks_georeferenced_one_scene_a_chunk(store):
    places = storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    write_masks(store, "Store", places["b"], np.full((2, 80, 100), 0.5))
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
    write_masks(store, "Store", 1, masks, candidates=np.full((8, 4), 7))
    write_masks(store, "Store", 1, masks, candidates=candidates)
    np.testing.assert_array_equal(storage.read_candidates(store, "Store", 1), candidates)
    assert storage.read_candidates(store, "Store", 0).shape == (0, 4)
    write_masks(store, "Store", 1, masks)
    assert storage.read_candidates(store, "Store", 1).shape == (0, 4)


@pytest.mark.parametrize("candidates", [np.zeros((9, 4), int), np.zeros(4, int), np.full((1, 4), -1)])
def test_candidates_that_do_not_fit_are_refused(store, candidates):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    with pytest.raises(ValueError, match="candidates must be at most 8 rows"):
        write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5), candidates=candidates)


def test_a_store_that_kept_no_candidates_reads_as_none_and_grows_on(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    group = arrays_of(store)
    del group["candidates"]
    assert storage.read_candidates(store, "Store", 0).shape == (0, 4)
    storage.add_scenes(store, DOMAIN, {"b": NOON})
    write_masks(store, "Store", 1, np.full((2, 80, 100), 0.5), candidates=np.array([[0, 80, 10, 90]]))
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
    write_masks(store, "Store", places["b"], masks, candidates=np.array([[0, 80, 10, 90]]), grey=grey)
    np.testing.assert_allclose(storage.read_scene_masks(store, "Store", places["b"]), masks)
    assert (storage.read_scene_grey(store, "Store", places["b"]) == grey).all()
    assert storage.read_candidates(store, "Store", places["b"]).tolist() == [[0, 80, 10, 90]]
    assert storage.read_scene_grey(store, "Store", places["a"]) is None
    read_picture = storage.picture_reader(store, "Store")
    fs, root = fsspec.url_to_fs(store)
    layout = fs.cat_file(f"{root}/masks/Store/zarr.json")
    fs.rm_file(f"{root}/masks/Store/zarr.json")
    assert (read_picture(places["b"]) == grey).all(), "the layout is read once for all scenes"
    assert read_picture(places["a"]) is None
    fs.pipe_file(f"{root}/masks/Store/zarr.json", layout)
    storage.write_picture(store, "Store", "b", PNG)
    assert storage.read_picture(store, "Store", "b") == PNG
    assert xr.open_zarr(storage.masks_url(store, "Store"))["masks"].sizes["time"] == 2
    before = contents(store)
    write_masks(store, "Store", places["b"], masks, candidates=np.array([[0, 80, 10, 90]]), grey=grey)
    storage.keep_domain(store, DOMAIN)
    assert contents(store) == before


@contextmanager
def no_file_above(n_bytes):
    """Let the system refuse to write more than so many bytes into one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write_file", [files.create_whole, files.write_whole])
def test_a_file_that_the_disk_does_not_take_leaves_nothing_behind_and_is_named(write_file, tmp_path):
    fs, root = files.open_place(str(tmp_path))
    with no_file_above(10), pytest.raises(OSError, match="x'") as refused:
        write_file(fs, f"{root}/x", bytes(100))
    assert refused.value.filename == f"{root}/x"
    assert list(tmp_path.iterdir()) == []


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


class Conflicting:
    """A bucket whose server refuses some conditional puts, each in favour of a writer who is gone by the next look."""

    protocol = "bucket"

    def __init__(self, n_refused):
        self.n_refused, self.content = n_refused, None

    def pipe_file(self, path, data, mode):
        if self.n_refused:
            self.n_refused -= 1
            raise OSError(errno.EINVAL, None)  # what s3fs makes of codes that it does not know
        self.content = data

    def cat_file(self, path):
        raise FileNotFoundError(path)


def test_a_file_that_a_writer_was_about_to_create_who_is_gone_is_created_at_the_second_try():
    bucket = Conflicting(1)
    assert files.create_whole(bucket, "bucket/once", b"first")
    assert bucket.content == b"first"
    with pytest.raises(OSError, match=str(errno.EINVAL)):
        files.create_whole(Conflicting(2), "bucket/once", b"first")


def test_the_end_of_a_shard_is_read_for_azure_by_its_size_since_its_client_takes_no_negative_range(
    request, monkeypatch
):
    """That client itself is tested by tests/servers/azure_google.sh."""
    address = new_store("s3", request)
    fs, root = files.open_place(address)
    files.write_whole(fs, f"{root}/shard", bytes(range(100)))
    place = zarr_place(address)
    azure, asked, cat = zarr_places._AzureStore(place.fs, path=place.path), [], place.fs._cat_file

    async def noting(path, *, start=None, end=None, **more):
        asked.append(start)
        return await cat(path, start=start, end=end, **more)

    monkeypatch.setattr(place.fs, "_cat_file", noting)
    for n_bytes in (10, 200):
        end = SuffixByteRequest(n_bytes)
        assert sync(azure.get("shard", default_buffer_prototype(), end)).to_bytes() == bytes(range(100))[-n_bytes:]
    assert asked == [90, 0]
    assert sync(azure.get("none", default_buffer_prototype(), end)) is None


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
        write_masks(store, "Store", place, np.full((2, 80, 100), 0.5))


def test_masks_that_do_not_fill_their_chunk_are_refused(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    with pytest.raises(ValueError, match="must have the shape"):
        write_masks(store, "Store", 0, np.full((2, 80, 99), 0.5))
    with pytest.raises(ValueError, match="must have the shape"):
        write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5), grey=np.zeros((79, 100), "uint8"))
    assert np.isnan(storage.read_scene_masks(store, "Store", 0)).all()


def test_a_scene_whose_masks_are_cleared_has_none_and_others_keep_theirs(store):
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5))
    before = contents(store)
    write_masks(store, "Store", 1, np.full((2, 80, 100), 0.5))
    assert contents(store) != before
    storage.write_scenes(store, "Store", {1: storage.NOTHING})
    assert contents(store) == before
    storage.write_scenes(store, "Store", {0: storage.NOTHING})
    assert np.isnan(storage.read_masks(store, "Store")).all()


def test_a_layout_that_was_stopped_at_any_object_is_made_whole_by_the_next_run(store):
    scenes = {"a": NOON, "b": NOON}
    storage.add_scenes(store, DOMAIN, scenes)
    whole = contents(store)
    folder = "masks/Store/"
    names = sorted((path.removeprefix(folder) for path in whole if path.startswith(folder)), key=_late)
    fs, root = files.open_place(store)
    for n_written in range(len(names)):
        files.delete_files(fs, [f"{root}/{folder}{name}" for name in names[n_written:]])
        assert storage.add_scenes(store, DOMAIN, scenes) == {"a": 0, "b": 1}, names[:n_written]
        assert contents(store) == whole


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
    with pytest.raises(ValueError, match=r"`calfin retrace` .* was stopped"):
        storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})
    with pytest.raises(ValueError, match=r"`calfin retrace` .* was stopped"):
        storage.begin_change(store, "map --recompute")
    storage.begin_change(store, "retrace", model="b@2")
    storage.end_change(store)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "b@2"})
    assert storage.read_store(store) == {"crs": DOMAIN.crs, "model": "b@2"}


def test_a_stopped_change_says_who_when_and_the_ways_on_and_back(store):
    storage.keep_domain(store, DOMAIN)
    storage.begin_change(store, "retrace", model="b@2")
    storage.begin_change(store, "retrace", model="c@3")
    before, domains = storage.before_change(store)
    assert before == {"crs": DOMAIN.crs, "model": "a@1"}, "that of the first of several"
    assert domains == [DOMAIN]
    told = storage.told_change(storage.count_scenes(store)["unfinished"], store)
    assert f"process {os.getpid()}, since 20" in told
    assert f"run it again to the end; or back to what it was: `calfin retrace {store} --back`" in told
    storage.end_change(store)
    with pytest.raises(ValueError, match="nothing to go back to"):
        storage.before_change(store)


def test_a_folder_that_takes_no_file_is_told_before_a_change(store):
    shutil.rmtree(Path(store) / "rejected", ignore_errors=True)
    (Path(store) / "rejected").write_text("in the way")
    before = contents(store)
    with pytest.raises(OSError, match="rejected takes no file"):
        storage.check_room(store)
    assert contents(store) == before


def test_what_a_killed_check_of_room_leaves_is_taken_away_by_the_next(store, monkeypatch):
    def be_killed(*_):
        raise SystemExit

    before = contents(store)
    monkeypatch.setattr(os, "replace", be_killed)
    with pytest.raises(SystemExit):
        storage.check_room(store)
    monkeypatch.undo()
    assert contents(store) != before
    storage.check_room(store)
    assert contents(store) == before


def test_a_disk_without_room_is_told_before_a_change(store, monkeypatch):
    batch = write(store, "a")
    monkeypatch.setattr(changes, "RESERVE", 2**60)
    with pytest.raises(OSError, match="MB of free space, and the change needs"):
        storage.check_room(store, [batch])


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


# --- shards -----------------------------------------------------------------------------------------------------------

N_PLACES = 40  # of two shards


def encoded(seed):
    levels = np.random.default_rng(seed).integers(0, LEVELS, (2, 80, 100)).astype("uint8")
    return storage.encode_scene(levels, candidates=np.array([[0, seed, 10, 90]]), grey=levels[0])


def with_places(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("s") / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={})
    storage.add_scenes(store, DOMAIN, {f"{n:02}": NOON for n in range(N_PLACES)})
    return store


@given(st.permutations(list(range(0, N_PLACES, 3))), st.integers(1, 14))
@settings(max_examples=8, deadline=None)
def test_the_same_scenes_make_the_same_shards_however_batches_are_cut_and_ordered(tmp_path_factory, places, size):
    once, in_parts = with_places(tmp_path_factory), with_places(tmp_path_factory)
    storage.write_scenes(once, "Store", {place: encoded(place) for place in places})
    for start in range(0, len(places), size):
        part = places[start : start + size]
        storage.write_scenes(in_parts, "Store", {p: encoded(p + 1) for p in part})  # of an earlier model
        storage.write_scenes(in_parts, "Store", {p: encoded(p) for p in part})
    assert contents(once) == contents(in_parts)
    assert sum("/masks/c/" in path for path in paths_in(once)) == 2


def test_zarr_writes_the_shard_that_we_write(tmp_path_factory):
    ours, theirs = with_places(tmp_path_factory), with_places(tmp_path_factory)
    levels = {n: np.random.default_rng(n).integers(0, LEVELS, (2, 80, 100)).astype("uint8") for n in (0, 7, 31, 33)}
    storage.write_scenes(ours, "Store", {n: storage.encode_scene(of) for n, of in levels.items()})
    array = arrays_of(theirs)["masks"]
    assert (array.shards[0], array.chunks[0]) == (32, 1)
    for n, of in levels.items():
        array[n] = of
        np.testing.assert_array_equal(arrays_of(ours)["masks"][n], of)
    written = {path: data for path, data in contents(theirs).items() if "/masks/c/" in path}
    assert {path: data for path, data in contents(ours).items() if "/masks/c/" in path} == written
    assert chunks_in(ours) == chunks_in(theirs)


def test_batches_that_share_a_shard_are_written_at_once(tmp_path_factory):
    store = with_places(tmp_path_factory)
    files.read_each(lambda n: storage.write_scenes(store, "Store", {n: encoded(n)}), list(range(N_PLACES)))
    assert [storage.read_candidates(store, "Store", n)[0, 1] for n in range(N_PLACES)] == list(range(N_PLACES))


def test_a_bit_that_flips_while_a_shard_is_read_changes_no_scene_that_is_kept(tmp_path_factory, monkeypatch):
    store, draw = with_places(tmp_path_factory), random.Random(1)
    storage.write_scenes(store, "Store", {place: encoded(place) for place in range(8)})
    before = chunks_in(store)
    read = LocalFileSystem.cat_file

    def flip_two_of_three(self, path, *args, **more):
        data = read(self, path, *args, **more)
        return flipped(data, draw) if "/c/0" in path and draw.random() < 0.7 else data

    monkeypatch.setattr(LocalFileSystem, "cat_file", flip_two_of_three)
    for _ in range(4):
        storage.write_scenes(store, "Store", {3: encoded(30)})
    after = chunks_in(store)
    assert {key for key in before if before[key] != after[key]} == {("Store", 3)}


def test_a_bit_that_flips_while_a_layout_is_read_is_not_written_back(tmp_path, monkeypatch):
    """The metadata of Zarr has no checksum: one flipped letter in it stayed for good."""
    disturbed, undisturbed, draw = str(tmp_path / "disturbed"), str(tmp_path / "undisturbed"), random.Random(1)
    read, flips = LocalFileSystem.cat_file, list[str]()

    def flip_some(self, path, *args, **more):
        data = read(self, path, *args, **more)
        if "/disturbed/masks/" not in path or draw.random() > 0.05:
            return data
        flips.append(path)
        return flipped(data, draw)

    monkeypatch.setattr(LocalFileSystem, "cat_file", flip_some)
    for n in range(30):
        for store in (disturbed, undisturbed):
            assert storage.add_scenes(store, DOMAIN, {f"s{n}": NOON})[f"s{n}"] == n
    monkeypatch.undo()
    assert contents(disturbed) == contents(undisturbed)
    assert any(path.endswith("zarr.json") for path in flips)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("store.json", storage.read_store),
        ("domains/Store.geojson", storage.read_store_domains),
        ("tries.json", lambda store: storage.due_keys(store, ["Store/a"], WEDNESDAY)),
    ],
)
def test_a_bit_that_flips_while_a_file_is_read_damages_no_file(name, read, tmp_path, monkeypatch):
    """It was said to be damaged, and the advice was to restore or delete it."""
    store = str(tmp_path / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, DOMAIN)
    storage.note_tries(store, ["Store/a"], ["Store/a"], WEDNESDAY, lambda: None)
    whole, cat_file, left = read(store), LocalFileSystem.cat_file, [1]

    def flip_once(self, path, *args, **more):
        data = cat_file(self, path, *args, **more)
        return flipped(data, random.Random(1)) if path.endswith(name) and left and left.pop() else data

    monkeypatch.setattr(LocalFileSystem, "cat_file", flip_once)
    assert read(store) == whole
    assert not left


def test_a_paused_writer_that_was_followed_replaces_no_shard(tmp_path_factory, monkeypatch):
    store = with_places(tmp_path_factory)
    with storage.hold_lease(store, "map"):
        storage.write_scenes(store, "Store", {0: encoded(0)})
        fs, root = files.open_place(store)
        holder = f"{root}/{leases.HOLDER}"
        about = json.loads(fs.cat_file(holder))
        fs.pipe_file(holder, json.dumps(about | {"token": "another"}).encode())
        before = {path: data for path, data in contents(store).items() if path.startswith("masks/")}
        for scene in (encoded(1), storage.NOTHING):
            with pytest.raises(storage.LeaseLostError):
                storage.write_scenes(store, "Store", {0: scene})
        assert {path: data for path, data in contents(store).items() if path.startswith("masks/")} == before


def test_a_store_made_before_there_were_shards_is_read_and_gone_on_with(tmp_path_factory):
    store = with_places(tmp_path_factory)
    group = arrays_of(store)
    for name in ("masks", "candidates", "grey"):
        old = group[name]
        more = {"fill_value": old.fill_value, "dimension_names": old.metadata.dimension_names}
        more |= {"attributes": dict(old.attrs), "compressors": shards.CODECS, "overwrite": True}
        group.create_array(name, shape=old.shape, chunks=old.chunks, dtype=old.dtype, **more)
    storage.write_scenes(store, "Store", {3: encoded(3), 35: encoded(35)})
    assert sum("/masks/c/" in path for path in paths_in(store)) == 2, "an object a scene"
    assert storage.read_candidates(store, "Store", 35)[0, 1] == 35
    places = storage.add_scenes(store, DOMAIN, {"new": NOON})
    storage.write_scenes(store, "Store", {places["new"]: encoded(5), 3: storage.NOTHING})
    assert storage.read_scene_grey(store, "Store", places["new"]) is not None
    assert np.isnan(storage.read_scene_masks(store, "Store", 3)).all()
    assert storage.read_masks(store, "Store").sizes["time"] == N_PLACES + 1
