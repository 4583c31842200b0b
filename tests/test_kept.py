"""Scenes that fail when they are mapped again: they keep the fronts that they have, and the next call tries again."""

import re
import resource
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faults.world import paint_world
from servers.files import serve_folder
from servers.proxy import FaultProxy, Plan, listening
from storing import chunks_in, contents

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import read_domains
from calfin_cloud.imagery import retries
from calfin_cloud.pipeline import map_fronts, recompute_changed, retrace_fronts, retry_failed
from calfin_cloud.pipeline.settings import VARIANTS
from calfin_cloud.results import lineage_of
from calfin_cloud.scenes import search_scenes

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 4
ONCE = VARIANTS["once"]
OTHER_MODEL = replace(ONCE, inference=replace(ONCE.inference, transposed=True))
WITH_ICEBERGS = replace(ONCE, features=("icebergs",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=3)


@pytest.fixture(scope="module")
def server(world):
    """Proxy before the server of the scenes, which may be out of reach."""
    with serve_folder(world) as server, listening(FaultProxy(server.url)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def domains(world):
    return read_domains(world / "domains.geojson")


@pytest.fixture(scope="module")
def find(server):
    return partial(search_scenes, f"{server.url}/catalog.json", period="1984/2030")


@pytest.fixture(autouse=True)
def soon(server, monkeypatch):
    """Give up soon on a server that is busy, and let it be in reach again after each test."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    yield
    server.suffer(None)


def out_of_reach(server, scenes=""):
    server.suffer(Plan(("503",), 1.0, 1, paths=rf"{scenes}.*\.tif$"))


@pytest.fixture(scope="module")
def undisturbed(find, domains, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    map_fronts(domains, find, store, batch_size=2, settings=ONCE)
    return store


@pytest.fixture
def store(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "store").as_posix()


@pytest.fixture
def call(server, world, store):
    """Words of a call that maps with other settings than those of the store."""
    call = ["map", "--catalog", f"{server.url}/catalog.json", "--domains", str(world / "domains.geojson")]
    call += ["--period", "1984/2030", "--store", store, "--cluster", "none", "--variant", "once"]
    return [*call, "--max-cloud", "0.5"]


def mapped(find, domains, tmp_path, settings):
    map_fronts(domains, find, tmp_path / "direct", batch_size=2, settings=settings)
    return str(tmp_path / "direct")


def test_a_model_that_cannot_see_the_scenes_again_takes_no_front(server, find, domains, store, tmp_path, caplog):
    fronts, chunks = storage.read_fronts(store), chunks_in(store)
    out_of_reach(server)
    counts = recompute_changed(store, domains, find, settings=OTHER_MODEL)
    assert (counts["kept"], counts["failed"]) == (N_SCENES, 0)
    assert "the old fronts of 2 scenes stay" in caplog.text
    assert storage.read_fronts(store).equals(fronts)
    assert chunks_in(store) == chunks
    server.suffer(None)
    assert recompute_changed(store, domains, find, settings=OTHER_MODEL)["kept"] == 0
    assert contents(store) == contents(mapped(find, domains, tmp_path, OTHER_MODEL))


def test_one_scene_out_of_reach_is_told_and_mapped_by_the_next_call_also_after_compaction(
    server, find, domains, call, tmp_path, capsys
):
    store = call[call.index("--store") + 1]
    before = storage.read_fronts(store)
    scene = before["scene_id"][1]
    out_of_reach(server, re.escape(scene))
    assert main([*call, "--recompute"]) == 1
    told = capsys.readouterr()
    assert "1 scene could not be mapped again: the old fronts stay" in told.err
    assert "1 kept" in told.out
    after = storage.read_fronts(store)
    assert after[after["scene_id"] == scene].equals(before[before["scene_id"] == scene])
    made_by = [lineage_of(store, scene_id)["made_by"]["settings"] for scene_id in (scene, before["scene_id"][0])]
    assert made_by[0].startswith("unknown, since the scene could not be mapped again")
    assert made_by[1]["max_cloud"] == 0.5
    assert main(["status", store]) == 0
    assert "1\tbehind\tof these, could not be mapped or traced again" in capsys.readouterr().out
    server.suffer(None)
    storage.compact_store(store)
    retrace_fronts(store, everything=True)
    assert main(call) == 0
    assert "1 scene changed since the last run: --recompute maps them again" in capsys.readouterr().err
    assert main([*call, "--recompute"]) == 0
    assert "1 scene had changed" in capsys.readouterr().err
    assert storage.count_scenes(store)["behind"] == 0
    direct = mapped(find, domains, tmp_path, replace(ONCE, max_cloud=0.5))
    storage.compact_store(direct)
    assert contents(store) == contents(direct)


def test_a_changed_scene_out_of_reach_keeps_its_item_too(server, find, domains, store, undisturbed):
    items = find(domains[0])
    for asset in items[1].assets.values():
        asset.extra_fields["file:checksum"] = "1220aa"
    out_of_reach(server)
    assert recompute_changed(store, domains, lambda _: items) == {"front": 0, "no_front": 0, "failed": 0, "kept": 1}
    assert contents(store) == contents(undisturbed)
    assert map_fronts(domains, lambda _: items, store, settings=ONCE)["changed"] == 1
    server.suffer(None)
    assert recompute_changed(store, domains, lambda _: items).total() == 1
    assert "changed" not in map_fronts(domains, lambda _: items, store, settings=ONCE)
    assert storage.read_fronts(store).equals(storage.read_fronts(undisturbed))


def test_features_that_are_wanted_or_tried_again_take_no_front_either(server, find, domains, store, tmp_path):
    fronts = storage.read_fronts(store)
    out_of_reach(server)
    assert recompute_changed(store, domains, find, settings=WITH_ICEBERGS)["kept"] == N_SCENES
    assert storage.read_fronts(store).equals(fronts)
    assert set(storage.read_features(store, "icebergs")["state"]) == {"not_seen"}
    server.suffer(None)
    recompute_changed(store, domains, find, settings=WITH_ICEBERGS)
    whole = contents(mapped(find, domains, tmp_path, WITH_ICEBERGS))
    assert contents(store) == whole
    shutil.rmtree(Path(store) / "bands")
    retrace_fronts(store, everything=True)  # without the bands no feature can be measured
    before = contents(store)
    out_of_reach(server)
    assert retry_failed(store)["kept"] > 0
    assert contents(store) == before
    server.suffer(None)
    assert retry_failed(store)["kept"] == 0
    assert contents(store) == whole


@pytest.mark.parametrize("verb", ["retrace", "map"])
def test_a_disk_that_takes_no_picture_ends_the_run_and_takes_no_front(verb, find, domains, store, undisturbed):
    """Pictures are larger than tables: all scenes were stored as failed."""
    if verb == "map":
        shutil.rmtree(store)
    run = partial(retrace_fronts, store, everything=True)
    if verb == "map":
        run = partial(map_fronts, domains, find, store, batch_size=2, settings=ONCE)
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*\.png"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert not set(storage.read_fronts(store)["state"]) & {"failed"}
    run()
    assert contents(store) == contents(undisturbed)
