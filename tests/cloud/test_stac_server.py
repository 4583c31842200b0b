"""A real STAC API is searched to its last page, by time, place, collection and cloud, wherever on the globe."""

from datetime import UTC, datetime, timedelta

import geopandas as gpd
import pytest
import shapely
from servers.cloud import collection
from shapely.geometry import mapping

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.scenes import search_scenes
from calfin_cloud.sensors import band_of, listed_assets

PERIOD = "1984/2030"
N_MANY = 233
WRONG_WAY = "LC08_L2SP_059120_20210103_02_T2"
AROUND = "LC08_L2SP_060120_20210104_02_T2"


def ids(items):
    return [item.id for item in items]


@pytest.fixture(scope="module")
def many(api, cloud):
    """A collection of items an hour apart, all over the northern domain."""
    footprint = cloud.north.area_lonlat.buffer(0.5)
    first = datetime(2001, 1, 1, tzinfo=UTC)
    items = [
        {
            **{"type": "Feature", "stac_version": "1.0.0", "collection": "many", "links": [], "assets": {}},
            "id": f"many-{n:03}",
            "geometry": mapping(footprint),
            "bbox": list(footprint.bounds),
            "properties": {"datetime": (first + timedelta(hours=n)).isoformat(), "eo:cloud_cover": n},
        }
        for n in range(N_MANY)
    ]
    api.load([collection("many")], items)
    yield [item["id"] for item in items]
    api.drop_items("many")  # other files search the same API


def search(api, domain, period=PERIOD, **more):
    return search_scenes(api.url, domain, period, **more)


def test_all_scenes_of_a_domain_come_sorted_by_time_and_as_they_were_published(api, cloud):
    published = {item["id"]: item for item in cloud.items}
    found = search(api, cloud.north)
    assert sorted(ids(found)) == cloud.north_ids
    assert [item.datetime for item in found] == sorted(item.datetime for item in found)
    for item in found:
        record = published[item.id]
        assert {key: asset.href for key, asset in item.assets.items()} == {
            key: asset["href"] for key, asset in record["assets"].items() if key in listed_assets()
        }
        assert item.properties.items() >= {k: v for k, v in record["properties"].items() if k != "datetime"}.items()


def test_items_of_both_versions_of_stac_tell_their_band_scale_and_quality(api, cloud):
    items = search(api, cloud.north)
    copernicus = [band_of(items.pop(n)) for n, item in enumerate(items) if "SCL_20m" in item.assets]
    found = {(item.collection_id, "proj:code" in item.properties): band_of(item) for item in items}
    assert {name for name, _ in found} == {record["id"] for record in cloud.collections}
    for is_new in (True, False):
        landsat = found["landsat-c2-l2", is_new]
        assert (landsat.asset, landsat.scale, landsat.offset) == ("nir08", 2.75e-5, -0.2)
        assert landsat.quality_asset == "qa_pixel"
    old, new = found["sentinel-2-l2a", True], found["sentinel-2-l2a", False]
    assert (old.asset, old.offset, old.quality_asset) == ("nir", 0.0, "scl")
    assert (new.asset, new.offset, new.quality_asset) == ("B08", -0.1, "SCL")
    assert [(band.asset, band.offset, band.quality_asset) for band in copernicus] == [("B08_10m", -0.1, "SCL_20m")]
    assert found["landsat-c2-l1", False].scale == 1  # its scale leads to radiance


def test_every_page_is_read(api, cloud, many):
    assert ids(search(api, cloud.north, collections=["many"])) == many


@pytest.mark.parametrize(
    ("period", "first", "last"),
    [
        ("2001-01-01T10:00:00Z/2001-01-01T12:00:00Z", 10, 12),  # both ends count
        ("2001-01-01T10:00:01Z/2001-01-01T11:59:59Z", 11, 11),
        ("2001-01-02", 24, 47),
        ("../2001-01-01", 0, 23),
        ("2001-01-10/..", 216, N_MANY - 1),
    ],
)
def test_a_period_counts_both_its_ends(api, cloud, many, period, first, last):
    assert ids(search(api, cloud.north, period, collections=["many"])) == many[first : last + 1]


def test_clouds_are_limited_among_the_items_that_tell_them(api, cloud, many):
    assert ids(search(api, cloud.north, collections=["many"], max_cloud=20)) == many[:21]
    radar = [id_ for id_ in cloud.north_ids if id_.startswith("S1")]
    assert set(ids(search(api, cloud.north, max_cloud=0))) >= set(radar)


def test_a_collection_that_the_api_lacks_is_named_with_those_that_it_has(api, cloud):
    found = search(api, cloud.north, collections=["landsat-c2-l1"])
    assert [item.collection_id for item in found] == ["landsat-c2-l1"]
    with pytest.raises(ValueError, match=r"no collection \['landsat-c2-l3'\].*'landsat-c2-l1', 'landsat-c2-l2'"):
        search(api, cloud.north, collections=["landsat-c2-l1", "landsat-c2-l3"])


def test_a_period_without_scenes_finds_none(api, cloud):
    assert search(api, cloud.north, "1972/1980") == []


def test_a_domain_on_the_antimeridian_finds_footprints_that_are_cut_there_go_on_beyond_or_go_around(api, cloud):
    everywhere = {item["id"] for item in cloud.items} - set(cloud.north_ids)
    assert len(everywhere) == 4
    # For a server a polygon from 179.6 to -179.6 lies everywhere but there; only who reads it himself can tell.
    assert set(ids(search(api, cloud.south))) == everywhere - {WRONG_WAY}
    assert set(ids(search_scenes(cloud.local, cloud.south, PERIOD))) == everywhere


@pytest.mark.parametrize("lon", [-120.0, 0.0, 75.0])
def test_a_footprint_around_the_pole_is_found_at_every_longitude_and_no_other(api, cloud, lon):
    there = Domain("far", box_grid(box_around(lon, -82.5), 3031, 100.0))
    assert ids(search(api, there)) == [AROUND]
    assert ids(search_scenes(cloud.local, there, PERIOD)) == [AROUND]


def test_a_domain_over_the_pole_finds_what_is_around_it(api, cloud):
    pole = Domain("pole", box_grid((-2e5, -1.3e6, 2e5, 2e5), 3031, 1000.0))
    assert len(search(api, pole)) == 4
    small = Domain("pole", box_grid((-1e4, -1e4, 1e4, 1e4), 3031, 100.0))
    assert ids(search(api, small)) == [AROUND]
    north = Domain("pole", box_grid((-1e4, -1e4, 1e4, 1e4), 3413, 100.0))
    assert search(api, north) == []


def box_around(lon, lat):
    """Ten kilometres around a place, EPSG:3031."""
    (point,) = gpd.GeoSeries([shapely.Point(lon, lat)], crs=4326).to_crs(3031)
    return point.buffer(5000).bounds
