"""Bits flip in files at rest: every kind of file of a store says so, by name, and nothing wrong is ever read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from storing import DOMAIN, LINE, NOON, WATER, item, new_store, polygon_rows, rejected_rows, rows, write_masks

from calfin_cloud import storage
from calfin_cloud.storage import files

KEYS = ["Store/a", "Store/b"]


def fill(store):
    """Make a store with a file of each kind; return how each is read."""
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    ramp = np.linspace(0, 1, 16_000).reshape(2, 80, 100)
    boxes, grey = np.array([[0, 80, 10, 90]]), np.arange(8000, dtype="uint16").astype("uint8").reshape(80, 100)
    write_masks(store, "Store", 1, ramp, candidates=boxes, grey=grey)
    tables = storage.Tables(rows("a", "b", line=LINE), rejected_rows("b"), polygon_rows("a", polygon=WATER))
    storage.write_batch(store, tables, {key: item(key) for key in KEYS}, recipe={"masks": "m", "fronts": "f"})
    png = io.BytesIO()
    Image.fromarray(grey).save(png, "png")
    storage.write_picture(store, "Store", "b", png.getvalue())


READERS = {
    "store.json": storage.read_store,
    "domains/*.geojson": storage.read_store_domains,
    "masks/Store/masks/c/0/0/0/0": lambda store: storage.read_scene_masks(store, "Store", 1),
    "masks/Store/candidates/c/0/0/0": lambda store: storage.read_candidates(store, "Store", 1),
    "masks/Store/grey/c/0/0/0": lambda store: storage.read_scene_grey(store, "Store", 1),
    "masks/Store/scene_id/c/0": lambda store: storage.read_places(store, "Store"),
    "fronts/*.parquet": lambda store: (storage.read_fronts(store), storage.read_batches(store)),
    "rejected/*.parquet": storage.read_rejected,
    "polygons/*.parquet": storage.read_polygons,
    "items/*.json.gz": lambda store: storage.read_items(store, storage.read_batches(store)[0]),
    "pictures/Store/*.png": lambda store: np.asarray(Image.open(io.BytesIO(storage.read_picture(store, "Store", "b")))),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Store in which nothing is damaged yet; tests mend what they break."""
    store = str(tmp_path_factory.mktemp("sound") / "store")
    fill(store)
    return store


def same(one, other):
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return one.equals(other) if hasattr(one, "equals") else one == other


def flipped(data, at):
    """`data` with one bit flipped; `at` from 0 to 1 says which."""
    bit = min(int(at * len(data) * 8), len(data) * 8 - 1)
    broken = bytearray(data)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


@pytest.mark.parametrize("kind", READERS)
@given(st.floats(0, 1))
@settings(max_examples=40)
def test_a_flipped_bit_is_an_error_that_names_the_file_or_changes_nothing(sound, kind, at):
    read, (path,) = READERS[kind], Path(sound).glob(kind)
    data, whole = path.read_bytes(), read(sound)
    path.write_bytes(flipped(data, at))
    try:
        got, told = read(sound), ""
    except ValueError as error:
        got, told = whole, str(error)
    finally:
        path.write_bytes(data)
    assert same(got, whole), "a wrong value was read"
    if told:
        assert str(path.relative_to(sound)).partition("/c/")[0] in told or "missing" in told
        assert "delete" in told or "restore" in told


@pytest.mark.parametrize("kind", [k for k in READERS if not k.startswith(("fronts", "pictures"))])
def test_a_bit_in_the_middle_of_a_file_never_passes(sound, kind):
    """The headers of parquet and of pictures have bits that say nothing; the other files have none."""
    read, (path,) = READERS[kind], Path(sound).glob(kind)
    data = path.read_bytes()
    path.write_bytes(flipped(data, 0.5))
    try:
        with pytest.raises(storage.DamagedFileError, match="is damaged"):
            read(sound)
    finally:
        path.write_bytes(data)


@pytest.mark.slow
def test_no_bit_of_a_fronts_file_can_flip_unseen(sound):
    """One bit in every third byte: an error, or the same table and header."""
    read, (path,) = READERS["fronts/*.parquet"], Path(sound).glob("fronts/*.parquet")
    data, whole = path.read_bytes(), read(sound)
    seen, unseen = 0, []
    for at in range(0, len(data), 3):
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        path.write_bytes(broken)
        try:
            if not same(read(sound), whole):
                unseen.append(at)
        except ValueError:
            seen += 1
    path.write_bytes(data)
    assert unseen == []
    assert seen > len(data) / 3 / 4


HARMS = {"gone": None, "half": lambda data: data[: len(data) // 2], "other": lambda _: b"[1]\n", "empty": lambda _: b""}
WHOLE_STORE = (
    storage.read_store,
    storage.read_store_domains,
    storage.read_all_tables,
    storage.count_scenes,
    lambda store: storage.read_masks(store, "Store"),
    lambda store: storage.read_places(store, "Store"),
    lambda store: storage.read_scene_masks(store, "Store", 1),
    lambda store: storage.read_candidates(store, "Store", 1),
    lambda store: storage.read_scene_grey(store, "Store", 1),
    lambda store: storage.read_picture(store, "Store", "b"),
    lambda store: [storage.read_items(store, stored) for stored in storage.read_batches(store)],
    storage.read_reviews,
    storage.lease_holder,
)


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_becomes_of_a_file_every_reader_gives_a_value_or_a_sentence(tmp_path, harm):
    store = str(tmp_path / "store")
    fill(store)
    storage.write_review(store, [{"key": "Store/a", "time": "2026-01-01T00:00:00Z"}])
    traces = []
    for path in sorted(p for p in Path(store).rglob("*") if p.is_file()):
        data = path.read_bytes()
        path.unlink() if HARMS[harm] is None else path.write_bytes(HARMS[harm](data))
        for n, read in enumerate(WHOLE_STORE):
            try:
                read(store)
            except Exception as error:
                if not isinstance(error, ValueError) or len(str(error)) < 20:
                    traces.append((path.name, n, repr(error)))
        path.write_bytes(data)
    assert traces == []


def test_a_group_that_lacks_an_array_is_not_written_to(tmp_path):
    store = str(tmp_path / "store")
    fill(store)
    for name in ("candidates", "grey", "time", "masks"):
        array = tmp_path / "store/masks/Store" / name
        array.rename(tmp_path / "aside")
        with pytest.raises(ValueError, match="is damaged"):
            storage.write_scenes(store, "Store", {1: storage.NOTHING}) if name != "time" else storage.add_scenes(
                store, DOMAIN, {"c": NOON}
            )
        (tmp_path / "aside").rename(array)


def test_a_flipped_bit_is_an_error_on_s3_too(request):
    store = new_store("s3", request)
    fill(store)
    fs, root = files.open_place(store)
    for kind, read in READERS.items():
        (path,) = fs.glob(f"{root}/{kind}")
        data = bytes(fs.cat_file(path))
        fs.pipe_file(path, flipped(data, 0.4))
        with pytest.raises(ValueError, match="is damaged"):
            read(store)
        fs.pipe_file(path, data)


def test_xarray_reads_no_wrong_mask_either(sound):
    (path,) = Path(sound).glob("masks/Store/masks/c/0/0/0/0")
    data = path.read_bytes()
    path.write_bytes(flipped(data, 0.3))
    try:
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(storage.masks_url(sound, "Store"))["masks"][1].compute()
    finally:
        path.write_bytes(data)


def test_a_store_json_that_was_edited_by_hand_is_told(tmp_path):
    store = str(tmp_path / "store")
    fill(store)
    path = tmp_path / "store/store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "b@2"}))
    with pytest.raises(ValueError, match=r"store\.json is damaged \(its checksum is wrong\): restore it"):
        storage.read_store(store)
