"""A domain on a seam of granules: those of one pass are one scene, whose pixels and fronts are those of a whole one."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from faults.world import paint_world
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from servers.rasters import read_one
from shapely.geometry import mapping

from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, read_domains
from calfin_cloud.imagery import read_further
from calfin_cloud.pipeline import VARIANTS, map_fronts, recompute_changed
from calfin_cloud.scenes import join_granules, search_scenes
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import CATALOG_FIELD, GRANULES_FIELD, item_of
from calfin_cloud.storage import item_digest, read_batches, read_fronts, read_items, unsigned_item

PERIOD = "1984/2030"
DAY = datetime(2021, 7, 1, 15, 30, tzinfo=UTC)
BOX = Domain("box", GeoBox.from_bbox((-190_000, -1_900_000, -180_000, -1_890_000), "EPSG:3413", resolution=100))
WEST, SOUTH, EAST, NORTH = BOX.area_lonlat.bounds
MIDDLE = (WEST + EAST) / 2


def granule(id_, west=WEST - 1, east=EAST + 1, *, seconds=0.0, collection="sentinel-2-l2a", assets="nir", **properties):
    """Item from one longitude to another."""
    footprint = shapely.box(west, SOUTH - 1, east, NORTH + 1)
    about = {"platform": "sentinel-2a"} | {name.replace("__", ":"): value for name, value in properties.items()}
    item = pystac.Item(
        id_, mapping(footprint), list(footprint.bounds), DAY + timedelta(seconds=seconds), about, collection=collection
    )
    for key in assets.split():
        item.add_asset(key, pystac.Asset(f"https://data.example.org/{id_}/{key}.tif"))
    return item


def ids(items, domain=BOX):
    return [item.id for item in join_granules(items, domain)]


def halves(**of_the_second):
    return [granule("a", east=MIDDLE), granule("b", **{"west": MIDDLE, "seconds": 15, **of_the_second})]


def test_granules_of_a_pass_that_show_half_of_the_domain_each_are_one_scene():
    (joined,) = join_granules(halves(), BOX)
    assert joined.id == "a+b"
    assert joined.datetime == DAY
    assert [further["id"] for further in joined.extra_fields[GRANULES_FIELD]] == ["b"]


@pytest.mark.parametrize(
    "other",
    [
        {"seconds": 700},
        {"platform": "sentinel-2b"},
        {"collection": "sentinel-2-c1-l2a"},
        {"s2__processing_baseline": "05.11"},
        {"sat__relative_orbit": 7},
        {"assets": "nir scl"},
        {"assets": "red"},
        {"west": EAST - 0.005 * (EAST - WEST)},
    ],
    ids=str,
)
def test_what_another_pass_satellite_or_processing_saw_or_adds_nothing_stays_apart(other):
    assert ids(halves(**other)) == ["a", "b"]


def test_a_scene_that_covers_the_domain_alone_is_joined_to_none():
    assert ids([*halves(), granule("c", seconds=30)]) == ["a", "b", "c"]


def test_of_granules_that_there_are_twice_each_is_taken_once():
    again = [granule("a2", east=MIDDLE, seconds=1), granule("b2", west=MIDDLE, seconds=16)]
    assert ids(sorted([*halves(), *again], key=lambda item: item.datetime)) == ["a+b", "a2+b2"]


def test_files_of_a_user_and_items_without_a_footprint_stay_apart():
    assert ids([granule(id_, east=MIDDLE, collection="images", assets="image") for id_ in "ab"]) == ["a", "b"]
    items = halves()
    items[1].geometry = items[1].bbox = None
    assert ids(items) == ["a", "b"]


def test_granules_are_joined_across_the_antimeridian():
    grid = GeoBox.from_bbox((-6000, -1_206_000, 6000, -1_194_000), "EPSG:3031", resolution=100)
    items = [granule("a"), granule("b", seconds=10)]
    for item, sides in zip(items, [(179, 180), (-180, -179)], strict=True):
        item.geometry = mapping(shapely.box(sides[0], -80, sides[1], -78))
    assert ids(items, Domain("south", grid)) == ["a+b"]


def test_what_other_satellites_see_in_between_joins_no_two_passes_nor_parts_one():
    between = [granule(f"c{n}", platform="landsat-8", seconds=n * 100) for n in range(1, 8)]
    items = [
        granule("a"),
        *between,
        *(granule(i, **of, seconds=701) for i, of in (("d", {"east": MIDDLE}), ("e", {"west": MIDDLE}))),
    ]
    assert ids(items)[-1] == "d+e"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.floats(-0.2, 0.9), st.floats(0.1, 1), st.sampled_from(["sentinel-2a", "landsat-8"])
        ),
        max_size=8,
    )
)
def test_no_granule_is_lost_or_doubled_and_the_second_time_nothing_is_joined(drawn):
    items = [
        granule(f"g{n}", WEST + at * (EAST - WEST), WEST + (at + wide) * (EAST - WEST), seconds=s, platform=platform)
        for n, (s, at, wide, platform) in enumerate(sorted(drawn))
    ]
    joined = list(join_granules(items, BOX))
    assert sorted("+".join(item.id for item in joined).split("+")) == (sorted(i.id for i in items) or [""])
    assert [(item.datetime, item.id) for item in joined] == sorted((item.datetime, item.id) for item in joined)
    assert [item.id for item in join_granules(joined, BOX)] == [item.id for item in joined]


def test_no_granule_names_the_catalogue_that_decides_what_may_be_opened(tmp_path):
    hidden = tmp_path / "hidden.tif"
    (joined,) = join_granules(halves(), BOX)
    (further,) = joined.extra_fields[GRANULES_FIELD]
    further |= {CATALOG_FIELD: str(tmp_path / "catalog.json"), "assets": {"nir": {"href": str(hidden)}}}
    joined.extra_fields[CATALOG_FIELD] = "https://stac.example.org"
    with pytest.raises(SceneError, match="not local"):
        read_one(joined, BOX)


def test_granules_that_a_catalogue_itself_puts_into_an_item_are_dropped(tmp_path):
    item = granule("a").to_dict(transform_hrefs=False) | {GRANULES_FIELD: [granule("b").to_dict(transform_hrefs=False)]}
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    (found,) = search_scenes(tmp_path / "items.json", BOX, PERIOD)
    assert GRANULES_FIELD not in found.extra_fields


def test_signatures_of_granules_are_not_kept_and_what_they_show_decides_the_digest():
    plain, signed, other = (next(iter(join_granules(halves(), BOX))).to_dict(transform_hrefs=False) for _ in range(3))
    signed[GRANULES_FIELD][0]["assets"]["nir"]["href"] += "?X-Amz-Signature=pl4nted"
    other[GRANULES_FIELD][0]["assets"]["nir"]["href"] += ".new"
    assert "pl4nted" not in json.dumps(unsigned_item(signed))
    assert item_digest(signed) == item_digest(plain)
    assert item_digest(other) != item_digest(plain)


# Real files


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A painted glacier; of its scenes of Sentinel-2 there are two granules in place of the whole."""
    folder = paint_world(tmp_path_factory.mktemp("painted"), 8, seed=3)
    whole = search_scenes(folder / "catalog.json", read_domains(folder / "domains.geojson")[0], PERIOD)
    whole = [item for item in whole if item.collection_id == "sentinel-2-l2a"]
    parts = [part for item in whole for part in cut(item, folder, [(0.0, 0.55), (0.45, 1.0)])]
    whole = [copy for item in whole for copy in cut(item, folder, [(0.0, 1.0)])]  # without overviews, as the parts are
    for name, items in (("whole", whole), ("cut", parts), ("first", parts[::2])):
        features = [item.to_dict(transform_hrefs=False) for item in items]
        (folder / f"{name}.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder


def cut(item, folder, shares):
    """Granules of a scene, from one share of its width to another each, each 10 s later than the one before."""
    made = []
    for n, (first, last) in enumerate(shares):
        part = item_of(item.to_dict(transform_hrefs=False))
        part.id, part.datetime = f"{item.id}_{n}of{len(shares)}", item.datetime + timedelta(seconds=10 * n)
        for key, asset in part.assets.items():
            with rasterio.open(asset.href) as file:
                left, right = (round(share * file.width) for share in (first, last))
                window = rasterio.windows.Window(left, 0, right - left, file.height)
                profile = file.profile | {"width": window.width, "transform": file.window_transform(window)}
                box = transform_bounds(file.crs, "EPSG:4326", *file.window_bounds(window))
                values = file.read(window=window)
            path = folder / f"{part.id}_{key}.tif"
            with rasterio.open(path, "w", **profile) as file:
                file.write(values)
            asset.href = str(path)
        part.geometry, part.bbox = mapping(shapely.box(*box)), list(box)
        made.append(part)
    return made


@pytest.fixture(scope="module")
def domain(world):
    (domain,) = read_domains(world / "domains.geojson")
    return domain


def find(world, name, domain):
    return search_scenes(world / f"{name}.json", domain, PERIOD)


def test_pixels_and_clouds_of_joined_granules_are_those_of_the_whole_scene(world, domain):
    wholes, parts = find(world, "whole", domain), find(world, "cut", domain)
    joined = list(join_granules(parts, domain))
    assert len(parts) == 2 * len(wholes) == 2 * len(joined) >= 4
    for whole, one, first in zip(wholes, joined, parts[::2], strict=True):
        expected, got = read_one(whole, domain), read_one(one, domain)
        assert np.isnan(read_one(first, domain)[0]).mean() > 0.3
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        is_equal = (got == expected) | np.isnan(expected)
        assert is_equal.mean() > 0.99  # all but a column on the seam, where a granule has no neighbour to weigh
        assert np.nanmax(np.abs(got - expected)[0]) < 0.1


def test_colours_are_read_of_all_granules(world, domain):
    (item, *_) = (one for one in join_granules(find(world, "cut", domain), domain))
    item.assets["red"] = item.assets["nir"].clone()
    for further in item.extra_fields[GRANULES_FIELD]:
        further["assets"]["red"] = dict(further["assets"]["nir"])
    bands, missing = read_further(item, domain.grid, ["red"])
    assert not missing
    np.testing.assert_array_equal(bands["red"], read_one(item, domain)[0])


def test_a_granule_that_cannot_be_read_fails_its_scene_and_is_named(world, domain):
    (item, *_) = join_granules(find(world, "cut", domain), domain)
    (further,) = item.extra_fields[GRANULES_FIELD]
    further["assets"]["nir"]["href"] = str(world / "nothing.tif")
    with pytest.raises(SceneError, match=further["id"]) as caught:
        read_one(item, domain)
    assert caught.value.reason == "unreadable"


@pytest.fixture(scope="module")
def stores(world, domain, tmp_path_factory):
    """Stores of the whole scenes and of the granules."""
    folder = tmp_path_factory.mktemp("stores")
    for name in ("whole", "cut"):
        map_fronts([domain], partial(find, world, name), folder / name, settings=VARIANTS["once"])
    return folder


def test_fronts_of_granules_are_those_of_the_whole_scenes(stores):
    whole, joined = (read_fronts(stores / name) for name in ("whole", "cut"))
    assert joined["state"].tolist() == whole["state"].tolist()
    assert (joined["state"] == "front").sum() >= 1
    apart = [a.hausdorff_distance(b) for a, b in zip(whole.geometry, joined.geometry, strict=True) if a is not None]
    assert max(apart) < 60  # a pixel


def test_a_second_run_finds_all_known_and_nothing_changed(world, domain, stores):
    counts = map_fronts([domain], partial(find, world, "cut"), stores / "cut", settings=VARIANTS["once"])
    assert (counts["known"], counts["changed"]) == (counts["found"], 0)
    assert not +recompute_changed(str(stores / "cut"), [domain], partial(find, world, "cut"), settings=VARIANTS["once"])


def test_a_granule_that_comes_later_makes_a_scene_of_its_own(world, domain, tmp_path):
    settings = VARIANTS["once"]
    map_fronts([domain], partial(find, world, "first"), tmp_path / "store", settings=settings)
    before = read_fronts(tmp_path / "store")
    counts = map_fronts([domain], partial(find, world, "cut"), tmp_path / "store", settings=settings)
    after = read_fronts(tmp_path / "store")
    assert counts["known"] == 0
    assert set(before["scene_id"]) < set(after["scene_id"])
    assert (after[after["scene_id"].str.contains("+", regex=False)]["state"] == "front").sum() >= 1


def test_what_is_shown_of_a_scene_names_the_files_of_all_its_granules(stores, capsys):
    key = read_fronts(stores / "cut")["key"].iloc[0]
    assert main(["show", str(stores / "cut"), key, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["read"]["files"]
    assert [Path(file["address"]).name.split("_")[-2:] for file in files] == [
        [n, f"{key}.tif"] for n in ("0of2", "1of2") for key in ("nir", "scl")
    ]


def test_the_bar_of_a_run_counts_scenes_and_not_granules(world, domain, tmp_path, capsys):
    call = [
        "map",
        "--catalog",
        str(world / "cut.json"),
        "--domains",
        str(world / "domains.geojson"),
        "--period",
        PERIOD,
    ]
    assert main([*call, "--store", str(tmp_path / "store"), "--variant", "once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["found"] == len(find(world, "whole", domain))


def test_the_preview_of_a_domain_on_a_seam_shows_a_scene(world, domain, tmp_path, capsys):
    middle = domain.area_lonlat.centroid
    call = [
        "domains",
        f"--point={middle.x},{middle.y}",
        "--size-km",
        "10",
        "--name",
        "seam",
        "--out",
        str(tmp_path / "seam.geojson"),
    ]
    call += ["--preview", str(tmp_path / "seam.html"), "--catalog", str(world / "cut.json"), "--period", PERIOD]
    assert main(call) == 0
    assert "0of2+" in (tmp_path / "seam.html").read_text(), capsys.readouterr().err


def test_a_stored_item_has_its_granules_as_they_were(stores):
    records = [item_of(item) for item in stored_items(stores / "cut")]
    assert all(len(record.extra_fields[GRANULES_FIELD]) == 1 for record in records)


def stored_items(store):
    return [item for stored in read_batches(str(store)) for item in read_items(str(store), stored).values()]
