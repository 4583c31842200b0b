"""Readers in a loop while a store is mapped, retraced and merged: no error, and only states that there were."""

import asyncio
import threading
import time

import geopandas as gpd
import pytest
import s3fs
from storing import DOMAIN, LINE, NOON, PLACES, new_store, write

from calfin_cloud import storage

SCENES = "abcdefgh"
LATENCY_S = 0.03
TABLES = (storage.read_fronts, storage.read_rejected, storage.read_polygons)


@pytest.fixture(params=PLACES)
def store(request, monkeypatch):
    uri = new_store(request.param, request)
    real = s3fs.S3FileSystem._call_s3

    async def slowly(*words, **more):
        await asyncio.sleep(LATENCY_S)
        return await real(*words, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", slowly)
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(uri, DOMAIN)
    storage.add_scenes(uri, DOMAIN, dict.fromkeys(SCENES, NOON))
    return uri


class Readers:
    """Threads that read a store again and again: `seen` is what each table said, `errors` should be none."""

    def __init__(self, store, reads):
        self.stop, self.errors, self.seen = threading.Event(), [], []
        self.threads = [threading.Thread(target=self._loop, args=(store, read)) for read in reads]

    def _loop(self, store, read):
        while not self.stop.is_set():
            try:
                self.seen.append(read(store))
            except Exception as error:
                self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def state(table):
    return frozenset(zip(table["scene_id"], table["detail"], strict=True))


def together(store):
    """State of the three tables at one moment, which must be the same."""
    (one,) = {state(table) for table in storage.read_all_tables(store)}
    return one


def write_all(store):
    """Map, retrace, merge, retry one scene, retrace and merge again; yield after each commit."""
    with storage.hold_lease(store, "map"):
        for start in range(0, len(SCENES), 2):
            yield write(store, *SCENES[start : start + 2], mark="mapped", line=LINE)
    for mark in ("retraced", "retraced again"):
        with storage.hold_lease(store, "retrace"):
            for stored in storage.tidy(store):
                scenes = [key.removeprefix("Store/") for key in stored.items]
                yield write(store, *scenes, mark=mark, line=LINE, before=stored)
        storage.compact_store(store, scenes_a_file=4)
        yield None


def test_readers_meet_no_error_and_only_states_that_were_committed(store):
    committed = {frozenset()}
    reads = [together, *(lambda s, read=read: state(read(s)) for read in TABLES)]
    with Readers(store, reads) as readers:
        rows = {}
        for stored in write_all(store):
            if stored:
                fronts = storage.read_tables(store, stored).fronts
                rows |= dict(zip(fronts["scene_id"], fronts["detail"], strict=True))
            committed.add(frozenset(rows.items()))
        time.sleep(0.2)
    assert readers.errors == []
    assert set(readers.seen) <= committed
    assert len(set(readers.seen)) >= 4, "they have seen it change"
    everyone = {state(read(store)) for read in TABLES} | {state(gpd.read_parquet(store + "/fronts"))}
    assert everyone == {frozenset(dict.fromkeys(SCENES, "retraced again").items())}
