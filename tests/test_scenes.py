"""A search finds the same in an API, a static catalogue and a file: sorted, unique, touching the domain."""

import itertools
import json
import socket
from datetime import UTC, date, datetime, timedelta

import fsspec
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from servers.files import serve_folder
from servers.stac_api import serve_api
from shapely.geometry import mapping

from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, write_domains
from calfin_cloud.scenes import (
    CATALOGS,
    catalogs,
    images_of,
    items_from_images,
    period_bounds,
    reading,
    search_scenes,
)
from calfin_cloud.sensors import CATALOG_FIELD


@pytest.fixture
def domain() -> Domain:
    return Domain("here", GeoBox((100, 100), Affine(100, 0, -300_000, 0, -100, -2_000_000), "EPSG:3413"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def make_item(id_, day, where=None, *, collection="landsat-c2-l2", cloud=None, **changes):
    """STAC item as a dictionary; `where` is a footprint in longitude and latitude."""
    where = shapely.box(-60, 70, -50, 74) if where is None else where
    properties = {"datetime": f"{day}T12:00:00Z"} | ({} if cloud is None else {"eo:cloud_cover": cloud})
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": id_, "collection": collection,
        "geometry": mapping(where), "bbox": list(where.bounds), "properties": properties, "links": [],
        "assets": {"nir08": {"href": f"./{id_}.tif"}},
    } | changes  # fmt: skip


ELSEWHERE = shapely.box(10, 40, 12, 42)
ITEMS = [
    make_item("late", "2020-09-30"),
    make_item("early", "2019-06-01"),
    make_item("same-day-b", "2020-07-01"),
    make_item("same-day-a", "2020-07-01"),
    make_item("cloudy", "2020-07-02", cloud=80.0),
    make_item("clear", "2020-07-03", cloud=20.0),
    make_item("elsewhere", "2020-07-04", ELSEWHERE),
    make_item("radar", "2020-07-05", collection="sentinel-1-grd"),
    make_item("late", "2020-10-01", collection="sentinel-1-grd"),
]


def write_collection(folder, items=ITEMS):
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def write_catalog(folder, items=ITEMS):
    """Static catalogue with a sub-catalogue, relative links, one file an item."""
    links = []
    (folder / "sub").mkdir()
    for n, item in enumerate(items):
        (folder / "sub" / f"{n}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{n}.json", "type": "application/geo+json"})
    top = [{"rel": "child", "href": "./sub/catalog.json", "type": "application/json"}]
    for path, id_, its_links in ((folder / "sub", "sub", links), (folder, "top", top)):
        content = {"type": "Catalog", "id": id_, "description": "-", "stac_version": "1.0.0", "links": its_links}
        (path / "catalog.json").write_text(json.dumps(content))
    return folder / "catalog.json"


@pytest.fixture(params=["file", "catalog", "served file", "served catalog", "api", "api by GET"])
def catalog(request, tmp_path):
    """The same items behind each kind of catalogue."""
    if "api" in request.param:
        with serve_api(ITEMS, page_size=2, method="GET" if "GET" in request.param else "POST") as api:
            yield api.url
        return
    path = (write_collection if "file" in request.param else write_catalog)(tmp_path)
    if "served" not in request.param:
        yield path
        return
    with serve_folder(tmp_path) as server:
        yield f"{server.url}/{path.name}"


def ids(items):
    return [item.id for item in items]


def test_every_kind_of_catalogue_gives_the_same_sorted_unique_items(catalog, domain):
    found = search_scenes(catalog, domain, "2019/2020")
    assert ids(found) == ["early", "same-day-a", "same-day-b", "cloudy", "clear", "radar", "late"]
    assert found[-1].datetime.day == 30  # of two items with one id the earlier one
    assert {item.extra_fields[CATALOG_FIELD] for item in found} == {str(catalog)}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"period": "2020-07"}, ["same-day-a", "same-day-b", "cloudy", "clear", "radar"]),
        ({"period": "2020-07-02"}, ["cloudy"]),
        ({"period": "2020-07-05/.."}, ["radar", "late"]),
        ({"period": "../2019"}, ["early"]),
        ({"period": "2020-07-02T12:00:00Z/2020-07-03T11:59:59Z"}, ["cloudy"]),
        ({"period": "2021"}, []),
        ({"max_cloud": 20}, ["early", "same-day-a", "same-day-b", "clear", "radar", "late"]),
        ({"collections": ["sentinel-1-grd"]}, ["radar", "late"]),
        ({"collections": "sentinel-1-grd"}, ["radar", "late"]),
    ],
)
def test_filters_mean_the_same_for_every_kind_of_catalogue(catalog, domain, filters, expected):
    assert ids(search_scenes(catalog, domain, **{"period": "..", **filters})) == expected


@pytest.mark.parametrize("percent", ["20", -1, 101, float("nan")])
def test_what_is_no_percentage_of_cloud_is_refused_before_it_leaves_out_scenes(domain, percent):
    with pytest.raises(ValueError, match="max_cloud is in percent, a number from 0 to 100, got"):
        search_scenes("catalog.json", domain, "2019", max_cloud=percent)


def test_relative_addresses_are_resolved_against_the_item(tmp_path, domain):
    found = search_scenes(write_catalog(tmp_path), domain, "2019")
    assert found[0].assets["nir08"].href == str(tmp_path / "sub" / "early.tif")
    with serve_folder(tmp_path) as server:
        found = search_scenes(f"{server.url}/catalog.json", domain, "2019")
        assert found[0].assets["nir08"].href == f"{server.url}/sub/early.tif"
        write_collection(tmp_path)
        found = search_scenes(f"{server.url}/items.json", domain, "2019")
        assert found[0].assets["nir08"].href == f"{server.url}/early.tif"


def test_addresses_from_the_root_of_a_server_are_its_own_and_no_files_of_this_machine(tmp_path, domain):
    item = make_item("rooted", "2020-01-01", assets={"nir08": {"href": "/data/a.tif"}})
    (tmp_path / "sub").mkdir()
    (tmp_path / "item.json").write_text(json.dumps(item))
    root = {"type": "Catalog", "id": "top", "description": "-", "stac_version": "1.0.0"}
    root["links"] = [{"rel": "item", "href": "/item.json"}]
    (tmp_path / "sub" / "catalog.json").write_text(json.dumps(root))
    with serve_folder(tmp_path) as server:
        (found,) = search_scenes(f"{server.url}/sub/catalog.json", domain, "2020")
        assert found.assets["nir08"].href == f"{server.url}/data/a.tif"
    write_collection(tmp_path, [item])
    (found,) = search_scenes(tmp_path / "items.json", domain, "2020")
    assert found.assets["nir08"].href == "/data/a.tif"


def test_static_catalogue_in_an_object_store_is_followed_by_its_relative_links(tmp_path, domain, s3):
    s3.client().create_bucket(Bucket="catalogue")
    for path in write_catalog(tmp_path).parent.rglob("*.json"):
        s3.client().upload_file(str(path), "catalogue", f"deep/{path.relative_to(tmp_path)}")
    found = search_scenes("s3://catalogue/deep/catalog.json", domain, "2019")
    assert [item.assets["nir08"].href for item in found] == ["s3://catalogue/deep/sub/early.tif"]


def test_items_come_without_the_assets_that_no_sensor_reads_unless_they_have_no_others(tmp_path, domain):
    other, read = {"href": "./other.tif"}, {"href": "./read.tif"}
    items = [
        make_item("landsat", "2020-01-01", assets={"thumbnail": other, "nir08": read, "qa_pixel": read, "red": read}),
        make_item("unheard-of", "2020-01-02", assets={"visual": other}),
    ]
    landsat, unheard_of = search_scenes(write_collection(tmp_path, items), domain, "2020")
    assert list(landsat.assets) == ["nir08", "qa_pixel", "red"]  # red where features are wanted
    assert list(unheard_of.assets) == ["visual"]


def test_single_item_and_relative_path_are_catalogues_too(tmp_path, domain, monkeypatch):
    (tmp_path / "item.json").write_text(json.dumps(ITEMS[0]))
    monkeypatch.chdir(tmp_path)
    found = search_scenes("item.json", domain, "2020")
    assert ids(found) == ["late"]
    assert found[0].assets["nir08"].href == str(tmp_path / "late.tif")
    assert ids(search_scenes((tmp_path / "item.json").as_uri(), domain, "2020")) == ["late"]


def test_item_without_geometry_is_placed_by_its_box_and_without_both_is_kept(tmp_path, domain):
    nowhere = {"geometry": None}
    items = [
        make_item("box-here", "2020-01-01", **nowhere, bbox=[-60, 70, -50, 74]),
        make_item("box-3d-here", "2020-01-02", **nowhere, bbox=[-60, 70, 0, -50, 74, 100]),
        make_item("box-elsewhere", "2020-01-03", **nowhere, bbox=[10, 40, 12, 42]),
        make_item("box-over-antimeridian", "2020-01-04", **nowhere, bbox=[170, 60, -50, 80]),
        make_item("garbled-geometry-box-here", "2020-01-04", geometry={"type": "Polygon", "coordinates": [[1, 2]]}),
        make_item("garbled-geometry-box-elsewhere", "2020-01-04", ELSEWHERE, geometry={"type": "Star"}),
        make_item("empty-geometry-box-here", "2020-01-04", geometry={"type": "Polygon", "coordinates": []}),
        {key: v for key, v in make_item("unknown", "2020-01-05", **nowhere).items() if key != "bbox"},
        make_item("unknown-box-of-nulls", "2020-01-06", **nowhere, bbox=[None] * 4),
        make_item("words-box-elsewhere", "2020-01-07", **nowhere, bbox=["10", "40", "12", "42"]),
    ]
    found = search_scenes(write_collection(tmp_path, items), domain, "2020")
    kept = ["box-over-antimeridian", "empty-geometry-box-here", "garbled-geometry-box-here"]
    assert ids(found) == ["box-here", "box-3d-here", *kept, "unknown", "unknown-box-of-nulls"]


def test_item_that_covers_only_a_corner_counts_and_its_box_alone_does_not(tmp_path, domain):
    left, bottom, right, top = domain.area_lonlat.bounds
    diagonal = shapely.Polygon([(left - 5, top + 5), (left - 5, bottom - 5), (right + 5, bottom - 5)])
    corner = shapely.box(left - 1, bottom - 1, left + 0.05, top + 1)
    beside = shapely.Polygon([(left - 9, top + 9), (left - 9, bottom - 1), (left - 1, top + 9)])
    items = [make_item(n, "2020-01-01", w) for n, w in (("a", diagonal), ("b", corner), ("c", beside))]
    assert ids(search_scenes(write_collection(tmp_path, items), domain, "2020")) == ["a", "b"]


def test_domain_on_the_antimeridian_finds_items_of_either_side(tmp_path):
    ross = Domain("ross", GeoBox((200, 200), Affine(1000, 0, -100_000, 0, -1000, -1_200_000), "EPSG:3031"))
    cut = shapely.MultiPolygon([shapely.box(178, -80, 180, -76), shapely.box(-180, -80, -178, -76)])
    items = [
        make_item("east", "2020-01-01", shapely.box(174, -80, 179, -76)),
        make_item("west", "2020-01-02", shapely.box(-179, -80, -174, -76)),
        make_item("across", "2020-01-03", shapely.box(178, -80, 183, -76)),
        make_item("cut", "2020-01-04", cut),
        make_item("other-side", "2020-01-05", shapely.box(-10, -80, 10, -76)),
    ]  # fmt: skip
    expected = ["east", "west", "across", "cut"]
    assert ids(search_scenes(write_collection(tmp_path, items), ross, "2020")) == expected
    with serve_api(items) as api:
        assert set(ids(search_scenes(api.url, ross, "2020"))) >= {"east", "west", "cut"}
        area = shapely.geometry.shape(api.searches[0]["intersects"])
    assert area.bounds[0] >= -180
    assert area.bounds[2] <= 180
    assert area.area < 120


def test_item_of_an_interval_takes_its_start(tmp_path, domain):
    interval = {"datetime": None, "start_datetime": "2020-05-01T00:00:00Z", "end_datetime": "2020-05-03T00:00:00Z"}
    items = [make_item("mosaic", "2020-01-01", properties=interval)]
    assert search_scenes(write_collection(tmp_path, items), domain, "2020")[0].datetime == datetime(
        2020, 5, 1, tzinfo=UTC
    )


def test_busy_api_is_asked_again(domain, monkeypatch):
    with serve_api(ITEMS, n_busy=2) as api:
        assert len(search_scenes(api.url, domain, "2019/2020")) == 7
        assert len(api.searches) == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_api_that_leads_back_to_a_page_is_told_instead_of_read_for_hours(domain, method):
    with serve_api(ITEMS, page_size=2, method=method, loops=True) as api:
        with pytest.raises(ValueError, match="leads back to a page that it has given"):
            search_scenes(api.url, domain, "2019/2020")
        assert len(api.searches) == 2


def test_api_is_searched_with_the_collections_of_its_name(domain, monkeypatch):
    items = [make_item("a", "2020-01-01"), make_item("b", "2020-01-01", collection="naip")]
    with serve_api(items) as api:
        named = type(CATALOGS["usgs"])(api.url, ("landsat-c2-l2",))
        monkeypatch.setitem(CATALOGS, "usgs", named)
        assert ids(search_scenes("usgs", domain, "2020")) == ["a"]


def test_every_text_that_lists_the_public_catalogues_names_all_of_them(domain, tmp_path, capsys):
    with pytest.raises(ValueError, match="or the name of a public catalogue") as refused:
        search_scenes(str(tmp_path / "none.json"), domain, "2020")
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    for text in (str(refused.value), " ".join(capsys.readouterr().out.split())):
        assert ", ".join(CATALOGS) in text


def test_public_catalogues_are_https_addresses_with_collections():
    assert {"earth-search", "planetary-computer", "usgs"} <= set(CATALOGS)
    assert all(entry.url.startswith("https://") and entry.collections for entry in CATALOGS.values())


def test_item_cannot_claim_another_catalogue(tmp_path, domain):
    items = [make_item("sly", "2020-01-01", **{CATALOG_FIELD: "/etc"})]
    write_collection(tmp_path, items)
    with serve_folder(tmp_path) as server:
        found = search_scenes(f"{server.url}/items.json", domain, "2020")
        assert found[0].extra_fields[CATALOG_FIELD] == f"{server.url}/items.json"


def test_static_catalogue_is_not_followed_to_another_place(tmp_path, domain):
    (tmp_path / "secret.json").write_text(json.dumps(ITEMS[0]))
    root = {"type": "Catalog", "id": "top", "description": "-", "stac_version": "1.0.0"}
    root["links"] = [{"rel": "item", "href": f"file://{tmp_path}/secret.json"}]
    served = tmp_path / "served"
    served.mkdir()
    (served / "catalog.json").write_text(json.dumps(root))
    with serve_folder(served) as server, pytest.raises(ValueError, match="not where it is itself"):
        search_scenes(f"{server.url}/catalog.json", domain, "2020")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the catalogue"),
        ("not json", "cannot read the catalogue"),
        ("[]", "JSON list"),
        ('{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "x"}]}', "cannot read the catalogue"),
        ('{"hello": 1}', "cannot read the catalogue"),
    ],
)
def test_unreadable_catalogue_is_named_with_what_was_expected(tmp_path, domain, content, words):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        search_scenes(path, domain, "2020")
    assert str(path) in str(caught.value)
    assert "expected a STAC API" in str(caught.value)


def test_catalogue_that_is_not_served_is_named(tmp_path, domain):
    with serve_folder(tmp_path) as server, pytest.raises(ValueError, match=r"nothing\.json.*404"):
        search_scenes(f"{server.url}/nothing.json", domain, "2020")


@pytest.mark.parametrize(("number", "tries"), [(socket.EAI_NONAME, 3), (socket.EAI_AGAIN, 6)])
def test_a_host_that_nobody_knows_is_told_at_once_and_one_that_may_be_known_later_is_asked_for_as_before(
    domain, monkeypatch, number, tries
):
    asked = []

    def unknown(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(number, "no address")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(reading, "RETRY", reading.RETRY.new(backoff_factor=0, backoff_jitter=0))
    with pytest.raises(reading.CatalogUnreachableError, match="check its address"):
        search_scenes("https://mistyped.invalid/stac", domain, "2020")
    assert asked == ["mistyped.invalid"] * tries


@pytest.fixture
def search_call(tmp_path, domain, monkeypatch):
    """Run `calfin search` on an address, with a single repeat of what a server refuses; return its exit code."""
    monkeypatch.setattr(reading, "RETRY", reading.RETRY.new(total=1, backoff_factor=0, backoff_jitter=0))
    path = str(tmp_path / "domains.geojson")
    write_domains([domain], path)
    return lambda url: main(["search", "--catalog", url, "--domains", path, "--period", "2020"])


@pytest.mark.parametrize(("status", "code"), [(429, 3), (500, 3), (503, 3), (400, 2), (403, 2), (404, 2)])
def test_a_catalogue_that_stays_busy_ends_the_call_with_3_and_one_that_refuses_it_with_2(
    search_call, capsys, status, code
):
    with serve_api(ITEMS, n_busy=99, busy=status) as api:
        assert search_call(api.url) == code
    said = capsys.readouterr().err
    assert f"cannot read the catalogue {api.url}" in said
    assert str(status) in said
    assert ("make the same call again later" in said) == (code == 3)


def test_a_catalogue_whose_server_is_gone_ends_the_call_with_3(search_call, capsys):
    with serve_api(ITEMS) as api:
        pass
    assert search_call(api.url) == 3
    assert "Connection refused" in capsys.readouterr().err


def test_a_catalogue_in_a_bucket_whose_server_is_gone_ends_the_call_with_3(search_call, monkeypatch):
    with serve_api(ITEMS) as api:
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL", api.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # one of an earlier test knows a server that is there
    assert search_call("s3://bucket/catalog.json") == 3
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_catalogue_whose_answers_always_break_off_ends_the_call_with_3(search_call, tmp_path):
    write_collection(tmp_path)
    with serve_folder(tmp_path) as server:
        assert search_call(f"{server.url}/cut/items.json") == 3


def test_broken_link_of_a_static_catalogue_is_an_error_and_no_item_is_lost_in_silence(tmp_path, domain):
    path = write_catalog(tmp_path)
    (tmp_path / "sub" / "3.json").unlink()
    with pytest.raises(ValueError, match=r"3\.json"):
        search_scenes(path, domain, "2020")


def test_unknown_collection_is_told_with_those_that_are_there(catalog, domain):
    with pytest.raises(ValueError, match=r"no collection \['landsat'\].*landsat-c2-l2.*sentinel-1-grd"):
        search_scenes(catalog, domain, "2020", collections=["landsat", "landsat-c2-l2"])


@pytest.mark.parametrize(
    "period",
    [
        "",
        "2020-13",
        "2020-02-30",
        "yesterday",
        "2020/2021/2022",
        "2021/2020",
        "20",
        "2020-1",
        "2020-06-01T25:00",
        "0000",
    ],
)
def test_bad_period_is_a_value_error_that_shows_it(period):
    with pytest.raises(ValueError, match="period"):
        period_bounds(period)


days = st.dates(min_value=date(1972, 1, 1), max_value=date(2100, 12, 31))


@given(days, days)
def test_period_of_two_days_is_both_days_whole(a, b):
    first, last = sorted((a, b))
    start, end = period_bounds(f"{first}/{last}")
    assert start == datetime(first.year, first.month, first.day, tzinfo=UTC)
    assert end + timedelta(microseconds=1) == datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    assert period_bounds(f"{first}/..") == (start, None)
    assert period_bounds(f"../{last}") == (None, end)


@given(days)
def test_day_lies_in_its_month_and_the_month_in_its_year(day):
    spans = [period_bounds(text) for text in (f"{day}", f"{day:%Y-%m}", f"{day:%Y}")]
    for (inner_start, inner_end), (outer_start, outer_end) in itertools.pairwise(spans):
        assert outer_start <= inner_start < inner_end <= outer_end
    assert spans[2][0].month == 1
    assert (spans[1][1] + timedelta(microseconds=1)).day == 1
    assert (spans[2][1] + timedelta(microseconds=1)).timetuple()[1:3] == (1, 1)


@given(st.text(alphabet="0123456789-/.TZ: ", max_size=25))
def test_any_text_is_a_period_or_a_value_error(text):
    try:
        start, end = period_bounds(text)
    except ValueError:
        return
    assert start is None or end is None or start <= end


@given(st.datetimes(min_value=datetime(1972, 1, 1), max_value=datetime(2100, 1, 1)))
def test_bounds_write_back_as_the_same_period(moment):
    start, _ = period_bounds(moment.isoformat() + "Z")
    assert start == moment.replace(tzinfo=UTC)
    assert period_bounds(f"{start.isoformat()}/..")[0] == start


def test_zone_of_an_instant_counts():
    assert period_bounds("2020-06-01T02:00:00+02:00")[0] == datetime(2020, 6, 1, tzinfo=UTC)


def write_image(path, **changes):
    profile = {"driver": "GTiff", "height": 70, "width": 80, "count": 1, "dtype": "uint8", "crs": "EPSG:3413"}
    profile |= {"transform": from_origin(-300_000, -2_000_000, 100, 100), **changes}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.ones((profile["count"], 70, 80), "uint8"))
    return path


def test_images_become_items_with_place_and_date(tmp_path, domain):
    far = write_image(tmp_path / "far.tif", transform=from_origin(500_000, -2_000_000, 100, 100))
    here = write_image(tmp_path / "here.tif")
    items = items_from_images([far, here], ["2021-09-27", "2020-01-01T10:30:00Z"], platform="landsat-8")
    assert ids(items) == ["here", "far"]
    assert items[0].datetime == datetime(2020, 1, 1, 10, 30, tzinfo=UTC)
    assert items[1].datetime == datetime(2021, 9, 27, tzinfo=UTC)
    assert items[0].collection_id == "images"
    assert items[0].properties["platform"] == "landsat-8"
    assert items[0].properties["proj:code"] == "EPSG:3413"
    assert ids(images_of(items, domain)) == ["here"]
    assert shapely.geometry.shape(items[0].geometry).centroid.within(domain.area_lonlat.buffer(0.1))
    assert pystac.Item.from_dict(items[0].to_dict()).bbox == items[0].bbox


@pytest.mark.parametrize(
    ("name", "tags", "expected"),
    [
        ("LC08_L1TP_030003_20210927_20211004_02_T1_B5", {}, (2021, 9, 27)),
        ("Store_LE07_L1TP_2000-03-17_014-009_T1_B4", {}, (2000, 3, 17)),
        ("scene", {"TIFFTAG_DATETIME": "2019:05:06 10:11:12"}, (2019, 5, 6)),
        ("scene_20200102", {"TIFFTAG_DATETIME": "2019:05:06 10:11:12"}, (2020, 1, 2)),
    ],
)
def test_date_of_an_image_is_taken_from_its_name_else_its_tag(tmp_path, name, tags, expected):
    path = write_image(tmp_path / f"{name}.tif")
    with rasterio.open(path, "r+") as file:
        file.update_tags(**tags)
    assert items_from_images([path])[0].datetime == datetime(*expected, tzinfo=UTC)


def test_one_date_serves_all_images_and_their_ids_are_unique(tmp_path):
    paths = [write_image(tmp_path / name) for name in ("a/s 1.tif", "b/s 1.tif", "c.tif")]
    items = items_from_images(paths, ["2020-01-01"])
    assert ids(items) == ["a-s-1", "b-s-1", "c"]


@pytest.mark.parametrize(
    ("changes", "dates", "words"),
    [
        ({}, None, "--datetime"),
        ({}, ["2020-01-01"] * 3, "3 dates for 2 images"),
        ({}, ["soon"], "soon"),
        ({"count": 3}, ["2020-01-01"], "got 3 bands"),
        ({"photometric": "palette"}, ["2020-01-01"], "numbers of colours.*-expand gray"),
    ],
)
def test_image_that_cannot_be_placed_or_dated_says_what_to_do(tmp_path, changes, dates, words):
    paths = [write_image(tmp_path / f"{n}.tif", **changes) for n in "ab"]
    with pytest.raises(ValueError, match=words):
        items_from_images(paths, dates)


@pytest.mark.parametrize(
    "day",
    [
        "2021-09-27",
        date(2021, 9, 27),
        datetime(2021, 9, 27),
        pd.Timestamp("2021-09-27T02:00+02:00"),
        [np.datetime64("2021-09-27")],
        pd.DatetimeIndex(["2021-09-27"]),
    ],
)
def test_one_image_and_one_date_of_any_kind_need_no_list(tmp_path, day):
    path = write_image(tmp_path / "a.tif")
    assert items_from_images(path, day)[0].datetime == datetime(2021, 9, 27, tzinfo=UTC)
    assert ids(items_from_images(tmp_path.glob("*.tif"), day)) == ["a"]


def test_an_image_whose_date_is_missing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'NaT' is no date"):
        items_from_images(write_image(tmp_path / "a.tif"), pd.NaT)


def test_image_that_is_none_is_a_value_error(tmp_path):
    (tmp_path / "a.tif").write_text("no image")
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.tif"):
        items_from_images([tmp_path / "a.tif"], ["2020-01-01"])
    with pytest.raises(ValueError, match="must differ"):
        items_from_images([tmp_path / "a.tif", tmp_path / "a.tif"], ["2020-01-01"])


def test_real_items_of_all_versions_are_read(shared, tmp_path):
    folder = shared / "data" / "stac_items"
    alaska = folder / "odc-stac/tests/data/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json"
    item = pystac.Item.from_dict(json.loads(alaska.read_text()))
    x, y = 480_000, 6_720_000
    there = Domain("columbia", GeoBox((500, 500), Affine(30, 0, x - 7500, 0, -30, y + 7500), "EPSG:32606"))
    assert ids(search_scenes(alaska, there, "2019-06")) == [item.id]
    assert search_scenes(alaska, there, "2019-06", max_cloud=0.1) == []
    old = folder / "stactools-landsat/tests/data-files/assets/LC08_L2SP_005009_20150710_20200908_02_T2_SR_stac.json"
    ice = Domain("ice", GeoBox((500, 500), Affine(100, 0, 480_000, 0, -100, 8_050_000), "EPSG:32624"))
    found = search_scenes(old, ice, "2015-07-10")
    assert ids(found) == ["LC08_L2SP_005009_20150710_20200908_02_T2"]
    assert found[0].datetime.tzinfo is not None


@pytest.mark.parametrize(
    "time", ["2020-07-01T12:00:00Z", "2020-07-01T14:00:00+02:00", "2020-07-01T12:00", "20200701T12Z"]
)
def test_a_time_is_read_however_it_is_written(time):
    assert catalogs._datetime({"id": "a", "properties": {"datetime": time}}) == "2020-07-01T12:00:00Z"
