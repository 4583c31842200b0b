"""A whole run from a STAC API and buckets into a store in a bucket gives what a run on disk gives, and no secret."""

import os
import subprocess
import sys
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import BufferReader
from storing import contents

from calfin_cloud.cli import main
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.pipeline.settings import VARIANTS
from calfin_cloud.scenes import search_scenes
from calfin_cloud.storage import read_fronts, read_masks

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.timeout(600),  # the first test waits for two whole runs
]
PERIOD = "1984/2030"
ONCE = VARIANTS["once"]
"""Each picture is shown to the network once, at a third of the price; on its way from a bucket nothing differs."""
TABLES = ("fronts", "rejected", "polygons")


class Run(NamedTuple):
    """A store, and all that was said while it was made."""

    store: str
    said: str


@pytest.fixture(scope="module")
def bucket(s3) -> str:
    """Where results go: a bucket of the user."""
    s3.client().create_bucket(Bucket="calfin-results")
    return "s3://calfin-results"


def map_call(api, cloud, store, *more):
    where = ["--catalog", api.url, "--domains", str(cloud.local.with_name("domains.geojson")), "--store", store]
    return ["map", *where, "--period", PERIOD, "--batch-size", "4", "--variant", "once", *more]


@pytest.fixture(scope="module")
def remote(api, cloud, bucket) -> Run:
    """A run of the command line with a worker of its own, whose credentials come from the environment."""
    call = map_call(api, cloud, f"{bucket}/deep/store", "--cluster", "local", "--workers", "1", "--verbose")
    done = subprocess.run(
        [sys.executable, "-m", "calfin_cloud.cli", *call], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Run(f"{bucket}/deep/store", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def local(cloud, tmp_path_factory) -> str:
    """A run without Dask on the files of this disk."""
    store = str(tmp_path_factory.mktemp("local") / "store")
    counts = map_here(cloud.local, cloud, store)
    assert counts["found"] == len(cloud.north_ids)
    return store


def map_here(catalog, cloud, store):
    return map_fronts([cloud.north], partial(search_scenes, catalog, period=PERIOD), store, batch_size=4, settings=ONCE)


def listing(s3) -> dict[str, Any]:
    """ETag and time of every object of the results."""
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket="calfin-results")
    return {entry["Key"]: (entry["ETag"], entry["LastModified"]) for page in pages for entry in page["Contents"]}


def pages_of(parquet: bytes) -> bytes:
    """Bytes of a file of Parquet without its footer, which names the items and so their addresses."""
    return parquet[: -8 - int.from_bytes(parquet[-8:-4], "little")]


def test_tables_and_pictures_are_byte_for_byte_those_of_a_run_on_disk(cloud, remote, local):
    # Addresses of items differ, masks are compared by value, and a run in Python writes no documents.
    folders = (*TABLES, "domains", "pictures", "store.json")
    there, here = (
        {k: v for k, v in contents(store).items() if k.startswith(folders)} for store in (remote.store, local)
    )
    assert {path.partition("/")[0] for path in there} == set(folders)
    assert there.keys() == here.keys()
    for path, data in there.items():
        if path.startswith("fronts/"):
            assert pages_of(data) == pages_of(here[path])
            assert pq.read_table(BufferReader(data)).equals(
                pq.read_table(BufferReader(here[path])), check_metadata=True
            )
        else:
            assert data == here[path], path


def test_masks_are_those_of_a_run_on_disk(cloud, remote, local):
    there, here = (read_masks(store, cloud.north.name).load() for store in (remote.store, local))
    assert list(there["scene_id"].values) == list(here["scene_id"].values)
    np.testing.assert_array_equal(there, here)


def test_scenes_of_every_mission_have_fronts(cloud, remote):
    fronts = read_fronts(remote.store)
    assert sorted(set(fronts["scene_id"])) == cloud.north_ids
    assert (fronts["state"] != "failed").all()
    found = fronts[fronts["state"] == "front"]
    assert set(found["collection"]) >= {"landsat-c2-l1", "landsat-c2-l2", "sentinel-2-l2a", "sentinel-1-rtc"}


def test_a_second_run_writes_nothing(s3, api, cloud, remote):
    before = listing(s3)
    counts = map_here(api.url, cloud, remote.store)
    assert counts["known"] == counts["found"] == len(cloud.north_ids)
    assert "changed" not in counts
    assert listing(s3) == before


def test_status_counts_what_the_search_has_found(cloud, remote, capsys):
    assert main(["status", remote.store]) == 0
    said = capsys.readouterr().out
    assert f"{len(cloud.north_ids)}\tscenes" in said
    assert "0\tpending" in said


def test_retracing_in_the_bucket_changes_no_table_and_writes_the_report_again(remote, capsys):
    before = {path: data for path, data in contents(remote.store).items() if path.startswith(TABLES)}
    assert main(["retrace", remote.store, "--cluster", "none"]) == 0
    after = contents(remote.store)
    assert {path: data for path, data in after.items() if path.startswith(TABLES)} == before
    assert f"calfin report {remote.store}" in capsys.readouterr().out


def test_a_scene_whose_object_was_gone_fails_is_told_and_comes_with_a_retry(api, cloud, bucket, remote, capsys):
    store, client = f"{bucket}/retried", cloud.agency.client()
    (key,) = [
        entry["Key"]
        for entry in client.list_objects_v2(Bucket="scene-archive", Prefix="sentinel-2-l2a/")["Contents"]
        if entry["Key"].endswith("_nir.tif")
    ]
    body = client.get_object(Bucket="scene-archive", Key=key)["Body"].read()
    client.delete_object(Bucket="scene-archive", Key=key)
    call = map_call(api, cloud, store, "--cluster", "none", "--collections", "sentinel-2-l2a")
    assert main(call) == 1
    capsys.readouterr()
    assert main(["status", store]) == 0
    told = capsys.readouterr()
    assert "1\tfailed\tunreadable" in told.out
    assert f"s3://scene-archive/{key}" in told.err
    client.put_object(Bucket="scene-archive", Key=key, Body=body, ACL="authenticated-read")
    assert main(["retry", store, "--cluster", "none"]) == 0
    again, whole = read_fronts(store), read_fronts(remote.store)
    same = whole[whole["scene_id"].isin(again["scene_id"])]
    assert len(again.drop_duplicates("key")) == 3
    assert again.equals(same.reset_index(drop=True))


def test_no_secret_is_in_any_object_or_in_what_was_said(s3, remote, capsys):
    assert main(["status", remote.store, "--json"]) == 0
    said = remote.said + capsys.readouterr().out
    assert "scenes" in said
    assert len(contents(remote.store)) > 20
    for secret in (s3.key, s3.secret):
        assert secret not in said
        for path, data in contents(remote.store).items():
            assert secret.encode() not in data, path


def test_a_wrong_key_ends_a_verb_with_its_reason_and_without_the_key(s3, remote):
    wrong = "wrongKEY0wrongKEY0"
    done = subprocess.run(
        [sys.executable, "-m", "calfin_cloud.cli", "status", remote.store],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"AWS_SECRET_ACCESS_KEY": wrong},
    )
    assert done.returncode == 2
    assert "the object store refuses" in done.stderr
    assert "403" in done.stderr
    assert "check its keys" in done.stderr
    assert "Traceback" not in done.stderr
    for secret in (s3.key, s3.secret, wrong):
        assert secret not in done.stdout + done.stderr
