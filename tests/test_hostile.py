"""Odd ids, dates, addresses and half stores: nothing is lost or overwritten, and a sentence tells what is wrong."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from storing import DOMAIN, LINE, NOON, item, paths_in, polygon_rows, rejected_rows, rows, write, write_masks
from test_storage import PNG

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, best_crs, box_grid, domains_from_termini, domains_json, read_domains
from calfin_cloud.pipeline import MapSettings
from calfin_cloud.pipeline.scene import look_at_scene
from calfin_cloud.pipeline.tables import scene_rows, tables_of
from calfin_cloud.scenes import period_bounds, search_scenes
from calfin_cloud.sensors import acquired

LONG = ("x" * 300, "é" * 90, "冰" * 250, "a\nb", "../..", "a/b", "?*\\", " ")


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "store")
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(uri, DOMAIN)
    return uri


def test_a_scene_of_one_grey_level_is_left_out_and_keeps_its_shares_of_cloud_and_nodata():
    scene = np.zeros((2, 100, 100), np.float32)
    scene[0, :20] = np.nan
    scene[1, :, :10] = 1
    seen = look_at_scene(scene, resolution_m=30.0, slc_off_possible=False, settings=MapSettings())
    (row,) = tables_of(scene_rows([item("s")], DOMAIN, MapSettings()), [seen.facts], DOMAIN).fronts.to_dict("records")
    assert (row["state"], row["reason"], seen.channels) == ("no_front", "flat", None)
    assert (row["cloud_fraction"], row["nodata_fraction"]) == (pytest.approx(0.1), pytest.approx(0.2))


def test_line_breaks_in_ids_make_no_two_batches_one(store):
    write(store, "a", "b\nStore/c", mark="one")
    write(store, "a\nStore/b", "c", mark="two")
    assert storage.read_fronts(store)["detail"].value_counts().to_dict() == {"one": 2, "two": 2}
    assert len(storage.finished_keys(store)) == 4


@pytest.mark.parametrize("scene", LONG)
def test_a_scene_of_any_id_has_a_place_a_row_and_a_picture(store, scene):
    other = scene + "x"
    places = storage.add_scenes(store, DOMAIN, {scene: NOON, other: NOON})
    write_masks(store, "Store", places[other], np.full((2, 80, 100), 0.5))
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
    "address",
    [
        *("local:///tmp/x", "simplecache::s3://b/x", "memory://x", "https://a/x", "", " ", "/", "zip://a::b"),
        *("s3://", "gs:///", "file:///"),
    ],
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
    write_masks(store, "Store", 0, np.full((2, 80, 100), 0.5))
    write(store, "a")
    path = Path(store) / "masks/Store" / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    before = paths_in(store)
    with pytest.raises(storage.DamagedFileError, match=r"1 mapped scenes have no place in it, such as Store/a\)"):
        storage.add_scenes(store, DOMAIN, {"b": NOON})
    assert [path for path in paths_in(store) if "zarr.json" not in path] == [p for p in before if "zarr.json" not in p]


def test_a_store_that_wants_credentials_says_so():
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL")
    environment = {name: value for name, value in os.environ.items() if name not in keys}
    nowhere = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nowhere")
    call = [sys.executable, "-m", "calfin_cloud.cli", "status", "s3://calfin-none/x"]
    more = nowhere | {"AWS_EC2_METADATA_DISABLED": "true"}
    ended = subprocess.run(call, env=environment | more, capture_output=True, text=True, check=False)
    assert "s3://calfin-none/x: Unable to locate credentials; set AWS_ACCESS_KEY_ID" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2


# --- catalogues -------------------------------------------------------------------------------------------------------

ODD_VALUES = (None, 5, -1.5, True, "", "x", [], ["x"], {}, {"x": 5}, "\ud800", "0001-01-01T00:00:00+14:00", "9999-13")
FIELDS = ("type", "id", "geometry", "bbox", "properties", "links", "assets", "collection", "stac_version")
DEEPER = (
    ("properties", "datetime"),
    ("properties", "platform"),
    ("properties", "updated"),
    ("properties", "proj:epsg"),
)
DEEPER += (("properties", "eo:cloud_cover"), ("properties", "instruments"), ("assets", "nir08"), ("links", "0"))


def plain_item(scene):
    """A Landsat item of a catalogue, all over the globe."""
    corners = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    return item(scene) | {
        "type": "Feature", "stac_version": "1.0.0", "collection": "landsat-c2-l2",
        "geometry": {"type": "Polygon", "coordinates": [corners]}, "bbox": [-180, -90, 180, 90],
        "assets": {"nir08": {"href": "./a.tif"}},
    }  # fmt: skip


def odd_items():
    """Items with one odd value each, by what was changed; those whose id is not it keep one that tells."""
    for n, (path, value) in enumerate(itertools.product([(f,) for f in FIELDS] + list(DEEPER), ODD_VALUES)):
        odd = plain_item(f"odd-{n}")
        place = odd
        for name in path[:-1]:
            place = place[name]
        if isinstance(place, list):
            place.append(value)
        else:
            place[path[-1]] = value
        yield odd
    for field in FIELDS[:-1]:
        odd = plain_item(f"without-{field}")
        del odd[field]
        yield odd
    yield from (None, 5, "x", [], {})


def test_odd_items_of_a_catalogue_are_found_or_left_out_by_name_and_the_good_ones_are_all_there(tmp_path, caplog):
    odd = list(odd_items())
    path = tmp_path / "items.json"
    features = [plain_item("first"), *odd, plain_item("last")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = {scene.id: scene for scene in search_scenes(path, DOMAIN, "0001/9999")}
    told = [record.message for record in caplog.records if record.message.startswith("left out the item")]
    assert {"first", "last"} <= found.keys()
    named = {n for n, about in enumerate(odd) if isinstance(about, dict) and isinstance(about.get("id"), str)}
    lost = [odd[n]["id"] for n in named if odd[n]["id"] and odd[n]["id"] not in found and "\ud800" not in odd[n]["id"]]
    assert all(any(repr(name) in words for words in told) for name in lost)
    assert len(told) + len(found) >= len(odd) - 5, "each is one or the other, but for ids that are there twice"
    assert len(found) > 100
    for scene in found.values():  # whatever passes becomes a row, or fails alone
        item = scene.to_dict(transform_hrefs=False)
        assert storage.item_digest(storage.unsigned_item(item))
        fronts = tables_of(scene_rows([item], DOMAIN, MapSettings()), [ValueError("odd")], DOMAIN)
        assert fronts.fronts["state"].tolist() == ["failed"]


@pytest.mark.parametrize("date", ["0001-01-01", "1899-12-31", "2150-01-01", "9999-12-31"])
def test_a_scene_with_a_date_that_no_report_or_series_can_tell_is_left_out_by_name(tmp_path, caplog, date):
    path, dates = tmp_path / "items.json", {"odd": date, "future": "2100-07-01", "first": "1972-07-23"}
    items = [plain_item(name) for name in dates]
    for made, day in zip(items, dates.values(), strict=True):
        made["properties"]["datetime"] = f"{day}T12:00:00Z"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert [scene.id for scene in search_scenes(path, DOMAIN, "0001/9999")] == ["first", "future"]
    assert f"left out the item 'odd': ValueError its date {date}" in caplog.text
    caplog.clear()
    assert len(search_scenes(path, DOMAIN, "1972/2100")) == 2
    assert caplog.text == "", "of a scene that nobody asked for"


def test_tables_take_the_rows_of_all_odd_items(tmp_path, store):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(odd_items())}))
    scenes = search_scenes(path, DOMAIN, "0001/9999")
    items = {f"Store/{scene.id}": scene.to_dict(transform_hrefs=False) for scene in scenes}
    tables = tables_of(
        scene_rows(list(items.values()), DOMAIN, MapSettings()), [ValueError("odd")] * len(scenes), DOMAIN
    )
    moments = {scene.id: np.datetime64(acquired(scene).tz_localize(None)) for scene in scenes}
    assert len(storage.add_scenes(store, DOMAIN, moments)) == len(scenes)
    storage.write_batch(store, tables, items, recipe={})
    assert storage.count_scenes(store)["states"]["failed"] == len(scenes)


@pytest.mark.parametrize("period", ["9999-12", "9999", "0001-01/0001-02", "2019/9999-12", "9999-12-31"])
def test_the_ends_of_the_calendar_are_periods(period):
    start, end = period_bounds(period)
    assert start < end


@pytest.mark.parametrize("period", ["9999-12-31T23:00:00-14:00", "0001-01-01T00:00:00+14:00", "10000"])
def test_what_lies_beyond_the_calendar_is_told(period):
    with pytest.raises(ValueError, match="write years, months, days or ISO times"):
        period_bounds(period)


# --- domains ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", [Polygon(), MultiPolygon(), box(9e6, 9e6, 9.1e6, 9.1e6), box(-50, 60, -49, 61)])
def test_a_fjord_boundary_that_is_empty_or_elsewhere_is_refused(boundary):
    grid = box_grid((100_000, 0, 103_000, 2400), 3413, 30.0)
    with pytest.raises(ValueError, match="its fjord boundary is empty or lies outside its box"):
        Domain("a", grid, fjord_boundary=boundary)


ODD_PROPERTIES = (
    None,
    5,
    -1.5,
    True,
    "",
    "x",
    [],
    ["x"],
    {},
    "POLYGON ((0 0",
    "nan",
    1e300,
    "EPSG:999999",
    [1, 2, 3, 4],
)
PROPERTIES = ("name", "glacier_id", "crs", "resolution_m", "bounds", "fjord_boundary", "fjord_source", "centerline")


def test_a_domain_file_with_an_odd_value_is_read_or_told(tmp_path):
    plain = json.loads(domains_json([DOMAIN]))
    path, told, traces = tmp_path / "domains.geojson", [], []
    changes = [("properties", name, value) for name in (*PROPERTIES, "termini", "ice") for value in ODD_PROPERTIES]
    changes += [(None, "geometry", value) for value in (None, {"type": "Point", "coordinates": [0, 0]})]
    for within, name, value in changes:
        odd = deepcopy(plain)
        (feature,) = odd["features"]
        (feature[within] if within else feature)[name] = value
        path.write_text(json.dumps(odd))
        try:
            read_domains(path)
        except ValueError as error:
            told.append(str(error))
        except Exception as error:
            traces.append((name, value, repr(error)))
    assert traces == []
    assert len(told) > 30
    assert all(len(words) > 20 for words in told)


@pytest.mark.parametrize("crs", [2926, 2264])
def test_a_grid_in_feet_is_refused(crs):
    with pytest.raises(ValueError, match=r"units of US survey foot, and a grid must be in metres"):
        Domain("a", box_grid((0, 0, 30_000, 24_000), crs, 100.0))


@pytest.mark.parametrize(
    ("west", "east", "crs"), [(179.6, -179.2, 32601), (179.4, -179.8, 32660), (-10.3, -10.1, 32629)]
)
def test_the_zone_at_the_antimeridian_is_one_of_its_two(west, east, crs):
    ends = gpd.GeoSeries([LineString([(west, -45), (west, -45.1)]), LineString([(east, -45), (east, -45.1)])], crs=4326)
    assert best_crs(ends) == f"EPSG:{crs + 100}"


@pytest.mark.parametrize("names", [["Same", "Same"], ["A (north)", "A (north)"], ["..", "/x/"], ["é" * 200, None]])
def test_termini_of_odd_or_equal_names_make_domains_of_different_names(names):
    lines = [LineString([(0, y), (3000, y)]) for y in (0, 100_000)]
    termini = gpd.GeoDataFrame({"glacier_id": ["1", "2"], "name": names}, geometry=lines, crs=3413)
    made = domains_from_termini(termini)
    assert len({domain.name for domain in made}) == 2
    assert [domain.glacier_id for domain in made] == ["1", "2"]


def test_a_name_of_a_domain_fits_into_that_of_a_file():
    with pytest.raises(ValueError, match="1 to 200 bytes of letters"):
        Domain("é" * 150, DOMAIN.grid)


def test_a_scene_of_a_long_id_is_exported(tmp_path, store):
    scene = "x" * 240
    storage.add_scenes(store, DOMAIN, {scene: NOON})
    write(store, scene, line=LINE)
    assert main(["export", store, "--out", str(tmp_path / "out"), "--format", "stac"]) == 0
    (described,) = [path for path in tmp_path.glob("out/**/*.json") if "xxx" in path.name]
    assert json.loads(described.read_text())["properties"]["calfin:scene_id"] == scene
