"""Odd ids, dates, addresses and half stores: nothing is lost or overwritten, and a sentence tells what is wrong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from storing import DOMAIN, LINE, NOON, item, paths_in, polygon_rows, rejected_rows, rows, write
from test_storage import PNG

from calfin_cloud import storage

LONG = ("x" * 300, "é" * 90, "冰" * 250, "a\nb", "../..", "a/b", "?*\\", " ")


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "store")
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(uri, DOMAIN)
    return uri


def test_line_breaks_in_ids_make_no_two_batches_one(store):
    write(store, "a", "b\nStore/c", mark="one")
    write(store, "a\nStore/b", "c", mark="two")
    assert storage.read_fronts(store)["detail"].value_counts().to_dict() == {"one": 2, "two": 2}
    assert len(storage.finished_keys(store)) == 4


@pytest.mark.parametrize("scene", LONG)
def test_a_scene_of_any_id_has_a_place_a_row_and_a_picture(store, scene):
    other = scene + "x"
    places = storage.add_scenes(store, DOMAIN, {scene: NOON, other: NOON})
    storage.write_masks(store, "Store", places[other], np.full((2, 80, 100), 0.5))
    write(store, scene, other, line=LINE)
    storage.write_picture(store, "Store", scene, PNG)
    assert set(storage.read_fronts(store)["scene_id"]) == {scene, other}
    assert storage.read_places(store, "Store") == places
    assert storage.read_picture(store, "Store", scene) == PNG
    assert storage.read_picture(store, "Store", other) is None
    assert all(len(Path(path).name.encode()) <= 255 for path in paths_in(store))
    assert storage.count_scenes(store)["wrong"] == []


def test_a_scene_without_an_id_is_told(store):
    with pytest.raises(ValueError, match="empty id"):
        storage.add_scenes(store, DOMAIN, {"": NOON})


def test_what_is_no_text_in_a_catalogue_becomes_text(store):
    fronts = rows("a", "b").assign(collection=pd.Series([5, None], dtype=object), platform=[["L8"], "L9"])
    tables = storage.Tables(fronts, rejected_rows("a"), polygon_rows("a"))
    storage.write_batch(store, tables, {key: item(key) for key in fronts["key"]}, recipe={})
    read = storage.read_fronts(store)
    assert read["collection"].tolist() == ["5", None]
    assert read["platform"].tolist() == ["['L8']", "L9"]


@pytest.mark.parametrize("year", ["0001", "1600", "1700", "2300", "9999"])
def test_an_odd_date_is_kept_and_disturbs_no_other_scene(store, year):
    moment = np.datetime64(f"{year}-06-01T12:00:00", "us")
    storage.add_scenes(store, DOMAIN, {"odd": moment, "plain": NOON})
    fronts = rows("odd", "plain")
    fronts["datetime"] = pd.Series([moment, NOON]).astype("datetime64[us]").dt.tz_localize("UTC")
    tables = storage.Tables(fronts, rejected_rows(), polygon_rows())
    storage.write_batch(store, tables, {key: item(key) for key in fronts["key"]}, recipe={})
    read = storage.read_fronts(store).set_index("scene_id")["datetime"]
    assert read["odd"].to_pydatetime().year == int(year)
    odd, plain = storage.read_masks(store, "Store")["time"].values
    assert plain == NOON
    assert np.isnat(odd) == (year in ("0001", "1600", "2300", "9999"))
    write(store, "later")
    assert len(storage.read_all_tables(store).fronts) == 3
    assert storage.count_scenes(store)["states"]["no_front"] == 3


@pytest.mark.parametrize(
    "address", ["local:///tmp/x", "simplecache::s3://b/x", "memory://x", "https://a/x", "", " ", "/", "zip://a::b"]
)
def test_an_address_where_no_store_can_be_is_refused_before_anything_is_made(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (storage.is_store, storage.read_store, storage.read_fronts, storage.tidy, storage.lease_holder):
        with pytest.raises(ValueError, match="a store must be a folder or an address that begins with"):
            call(address)
    with (
        pytest.raises(ValueError, match="a store must be a folder"),
        storage.hold_lease(address, "map"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_store_below_the_home_folder_is_whole_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with storage.hold_lease("~/store", "map"):
        storage.open_store("~/store", crs=DOMAIN.crs, made_by={})
        storage.keep_domain("~/store", DOMAIN)
        storage.add_scenes("~/store", DOMAIN, {"a": NOON})
        write("~/store", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert storage.count_scenes(str(tmp_path / "store"))["wrong"] == []
    assert storage.read_masks("~/store", "Store").sizes["time"] == 1


@pytest.mark.parametrize("lost", ["scene_id/c/0", "scene_id", ""])
def test_places_that_are_lost_are_not_given_away_again(store, lost):
    storage.add_scenes(store, DOMAIN, {"a": NOON})
    storage.write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5))
    write(store, "a")
    path = Path(store) / "masks/Store" / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    before = paths_in(store)
    with pytest.raises(storage.DamagedFileError, match=r"1 mapped scenes have no place in it, such as Store/a\)"):
        storage.add_scenes(store, DOMAIN, {"b": NOON})
    assert [path for path in paths_in(store) if "zarr.json" not in path] == [p for p in before if "zarr.json" not in p]


def test_a_store_that_wants_credentials_says_so(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for call in (storage.read_store, storage.is_store):
        with pytest.raises(ValueError, match="s3://calfin-none/x: Unable to locate credentials; set AWS_ACCESS_KEY_ID"):
            call("s3://calfin-none/x")
