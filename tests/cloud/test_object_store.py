"""Scenes in buckets are read as those on disk, by whoever may; a refusal is told and never becomes missing data."""

import multiprocessing
import pickle
import re
import urllib.request
from concurrent.futures import ProcessPoolExecutor

import botocore.exceptions
import numpy as np
import pytest
from distributed.protocol import serialize

from calfin_cloud.cli import main
from calfin_cloud.domains import read_domains, write_domains
from calfin_cloud.imagery import stack_scenes
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import item_of

PERIOD = "1984/2030"
pytestmark = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")  # odc-geo
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def find(api, cloud):
    """Items of the northern domain, as published, of some bucket or of all."""
    found = search_scenes(api.url, cloud.north, PERIOD)

    def of(bucket=""):
        return [item for item in found if any(f"/{bucket}/" in address for address in addresses(item))]

    return of


def addresses(item):
    """Addresses of all assets, those in buckets too."""
    alternate = [
        asset.extra_fields.get("alternate", {}).get("s3", {}).get("href", "") for asset in item.assets.values()
    ]
    return [asset.href + "/" for asset in item.assets.values()] + alternate


def read(items, domain):
    return stack_scenes(items, domain).compute(scheduler="synchronous")


@pytest.fixture
def new_process():
    """A worker that is started with the environment of its first task: GDAL keeps what it has learnt of buckets."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def read_record(record, domain):
    return read([item_of(record)], domain)


@pytest.mark.parametrize("side", ["north", "south"])
def test_every_scene_has_the_same_pixels_from_its_bucket_as_from_disk(api, cloud, side):
    domain = getattr(cloud, side)
    remote = search_scenes(api.url, domain, PERIOD)
    local = {item.id: item for item in search_scenes(cloud.local, domain, PERIOD)}
    assert len(remote) == (11 if side == "north" else 3)
    there = read(remote, domain)
    here = read([local[item.id] for item in remote], domain)
    np.testing.assert_array_equal(there, here)
    assert (np.isfinite(there.sel(band="signal")).mean(("y", "x")) > 0.7).all()


def test_reflectance_and_clouds_are_those_that_were_painted(cloud, find):
    scenes = read(find(), cloud.north)
    optical = scenes[(scenes["sensor_kind"] == "optical") & (scenes["collection"] != "landsat-c2-l1")]
    signal = optical.sel(band="signal")
    assert -0.05 < float(signal.min()) < 0.1  # overviews of a COG are cubic, and overshoot
    assert 0.5 < float(signal.max()) < 1.05
    assert np.isfinite(optical.sel(band="cloud")).any(("y", "x")).all()
    radar = scenes[scenes["sensor_kind"] == "sar"].sel(band="signal").mean(("y", "x"))
    assert (radar.sel(time=radar["collection"] == "sentinel-1-rtc") < 0).all()
    decibel_of_1000 = 60
    others = radar.sel(time=radar["collection"] == "sentinel-1-grd") - decibel_of_1000
    assert -25 < float(others.min()) < 0


def test_the_owners_of_scenes_make_their_readers_pay_and_these_say_that_they_do(s3, cloud, find):
    (item, *_) = find("usgs-landsat")
    bucket, _, key = item.assets["nir08"].extra_fields["alternate"]["s3"]["href"].removeprefix("s3://").partition("/")
    with pytest.raises(botocore.exceptions.ClientError, match="403"):
        s3.client().head_object(Bucket=bucket, Key=key)
    assert s3.client().head_object(Bucket=bucket, Key=key, RequestPayer="requester")["ContentLength"] > 10_000
    assert np.isfinite(read([item], cloud.north).sel(band="signal")).any()


def test_public_scenes_need_no_key(cloud, find, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    items = find("sentinel-cogs")
    assert all(asset.href.startswith("http://127.0.0.1:") for asset in (items[0].assets["nir"], items[0].assets["scl"]))
    assert np.isfinite(read(items, cloud.north).sel(band="signal")).any()


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_key_fails_with_its_reason_and_gives_no_missing_pixels(s3, cloud, find, monkeypatch, new_process, key):
    words = {"AWS_SECRET_ACCESS_KEY": "SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID": "InvalidAccessKeyId"}[key]
    wrong = "wrongKEY0wrongKEY0wrongKEY0"
    monkeypatch.setenv(key, wrong)
    for bucket in ("usgs-landsat", "scene-archive", "sentinel-s1-l1c"):
        (item, *_) = find(bucket)
        with pytest.raises(SceneError, match=words) as caught:
            new_process.submit(read_record, item.to_dict(transform_hrefs=False), cloud.north).result()
        assert caught.value.reason == "unreadable"
        assert item.id in str(caught.value)
        for secret in (s3.key, s3.secret, wrong):
            assert secret not in str(caught.value)


def test_without_any_key_the_payer_is_asked_for_one(cloud, find, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    with pytest.raises(SceneError, match="set AWS credentials"):
        read(find("usgs-landsat")[:1], cloud.north)


def test_who_signs_nothing_is_refused_where_scenes_are_not_public(cloud, find, monkeypatch):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with pytest.raises(SceneError, match="AccessDenied"):
        read(find("scene-archive")[:1], cloud.north)


def test_an_object_that_is_gone_is_told_and_disturbs_no_other_scene(cloud, find):
    item, other, *_ = find("usgs-landsat")
    asset = item.assets["nir08"].extra_fields["alternate"]["s3"]
    asset["href"] = asset["href"].replace("nir08", "nothing")
    scenes = stack_scenes([item, other], cloud.north)
    with pytest.raises(SceneError, match="NoSuchKey"):
        scenes[0].compute(scheduler="synchronous")
    assert np.isfinite(scenes[1].compute(scheduler="synchronous")).any()


def test_no_secret_is_in_a_graph_as_it_goes_to_the_workers(s3, cloud, find):
    scenes = stack_scenes(find(), cloud.north)
    graph = dict(scenes.__dask_graph__())
    header, frames = serialize(graph)
    sent = pickle.dumps(graph) + pickle.dumps(header) + b"".join(bytes(frame) for frame in frames)
    assert b"usgs-landsat" in sent
    for secret in (s3.key, s3.secret):
        assert secret.encode() not in sent


def test_the_public_bucket_is_open_and_the_others_are_not(cloud, find):
    (item, *_) = find("sentinel-cogs")
    with urllib.request.urlopen(item.assets["nir"].href, timeout=120) as answer:
        assert answer.read(2) in (b"II", b"MM")
    private = re.sub(
        r"^s3://", item.assets["nir"].href.split("/sentinel-cogs")[0] + "/", find("scene-archive")[0].assets["hh"].href
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(private, timeout=120)


def test_a_domain_file_is_read_from_a_bucket_by_what_stores_go_by(s3, cloud, tmp_path, monkeypatch):
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):  # what GDAL goes by, which pods do not have
        monkeypatch.delenv(name)
    path = write_domains([cloud.north], tmp_path / "domains.geojson")
    s3.client().create_bucket(Bucket="domains")
    s3.client().put_object(Bucket="domains", Key="greenland.geojson", Body=path.read_bytes())
    assert read_domains("s3://domains/greenland.geojson") == [cloud.north]
    with pytest.raises(ValueError, match=r"domain file s3://domains/none\.geojson: there is no such object"):
        read_domains("s3://domains/none.geojson")


@pytest.mark.usefixtures("dead_s3")
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_domain_file_whose_server_does_not_answer_ends_a_run_that_is_then_tried_again(tmp_path, scheme):
    address = {"s3": "s3://bucket/domains.geojson", "http": "http://127.0.0.1:9/domains.geojson"}[scheme]
    call = ["map", "--catalog", "usgs", "--domains", address, "--period", "2020", "--store", str(tmp_path / "store")]
    assert main(call) == 3
