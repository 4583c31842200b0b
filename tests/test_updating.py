"""Stores brought up to date: changed items, models, settings and boundaries, failed scenes; and two runs at once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faults.world import paint_world
from storing import WAIT_S, change_chunks, chunks_in, contents, new_store

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import box_grid, read_domains
from calfin_cloud.fronts import DEFAULT, calibration_beside
from calfin_cloud.network import engine_of, network_id, weights_path
from calfin_cloud.pipeline import check_wanted, map_fronts, recompute_changed, retrace_fronts, retry_failed
from calfin_cloud.pipeline.settings import VARIANTS
from calfin_cloud.results import export_store
from calfin_cloud.scenes import search_scenes

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 5
ONCE = VARIANTS["once"]
"""Each picture is shown to the network once, at a third of the price."""
OTHER_MODEL = replace(ONCE, inference=replace(ONCE.inference, transposed=True))
OTHER_TRACE = replace(ONCE, trace=replace(DEFAULT, vertex=replace(DEFAULT.vertex, smooth_px=15.0)))
NO_FRONTS = replace(ONCE, trace=replace(DEFAULT, candidate=replace(DEFAULT.candidate, min_confidence=0.999)))
ONLY_CLEAR = replace(ONCE, max_cloud=-1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder of a painted glacier with five scenes on a coarse grid, so that a scene takes a third of a second."""
    return paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=3)


@pytest.fixture(scope="module")
def domains(world):
    return read_domains(world / "domains.geojson")


@pytest.fixture(scope="module")
def find(world):
    return partial(search_scenes, world / "catalog.json", period="1984/2030")


def mapped(find, domains, store, *, settings=ONCE, **more):
    map_fronts(domains, find, str(store), batch_size=2, settings=settings, **more)
    return str(store)


@pytest.fixture(scope="module")
def undisturbed(find, domains, tmp_path_factory):
    return mapped(find, domains, tmp_path_factory.mktemp("undisturbed") / "store")


@pytest.fixture(scope="module")
def other_model(find, domains, tmp_path_factory):
    """Store made with other settings of the network from the beginning."""
    return mapped(find, domains, tmp_path_factory.mktemp("other") / "store", settings=OTHER_MODEL)


@pytest.fixture
def store(undisturbed, tmp_path):
    """Copy of the undisturbed store, to change."""
    return shutil.copytree(undisturbed, tmp_path / "store").as_posix()


class StoppedError(Exception):
    """What ends a run in its midst."""


def stop(_):
    raise StoppedError


@contextmanager
def mapped_in(store):
    """Set of the scenes whose masks change while it lasts, and of the shards that are written at all."""

    def moments():
        return {path: path.stat().st_mtime_ns for path in Path(store).glob("masks/*/masks/c/*/0/0/0")}

    chunks, written = chunks_in(store), moments()
    again: set[object] = set()
    yield again
    again.update(place for place, data in chunks_in(store).items() if chunks.get(place) != data)
    if not again:
        again.update(path for path, moment in moments().items() if written.get(path) != moment)


def test_nothing_changed_touches_nothing(find, domains, store):
    before = {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")}
    assert sum(recompute_changed(store, domains, find).values()) == 0
    assert {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")} == before


def test_other_settings_of_the_network_map_all_again_to_the_store_they_would_have_made(
    find, domains, store, other_model
):
    with pytest.raises(ValueError, match="--recompute"):
        mapped(find, domains, store, settings=OTHER_MODEL)
    assert sum(recompute_changed(store, domains, find, settings=OTHER_MODEL).values()) == N_SCENES
    assert contents(store) == contents(other_model)


def test_a_recompute_that_was_stopped_is_told_and_goes_on_where_it_was(find, domains, store, other_model):
    with pytest.raises(StoppedError):
        recompute_changed(store, domains, find, settings=OTHER_MODEL, on_batch=stop)
    for verb in (
        lambda: mapped(find, domains, store, settings=OTHER_MODEL),
        lambda: retry_failed(store),
        lambda: retrace_fronts(store),
        lambda: storage.compact_store(store),
    ):
        with pytest.raises(ValueError, match=r"`calfin map --recompute` .* was stopped before its end: run it again"):
            verb()
    with mapped_in(store) as again:
        recompute_changed(store, domains, find, settings=OTHER_MODEL)
    assert 0 < len(again) < N_SCENES
    assert contents(store) == contents(other_model)


def test_other_settings_of_the_tracing_ask_no_network(find, domains, store, undisturbed, tmp_path):
    with mapped_in(store) as again:
        assert sum(recompute_changed(store, domains, find, settings=OTHER_TRACE).values()) == N_SCENES
    assert not again
    retraced = shutil.copytree(undisturbed, tmp_path / "retraced").as_posix()
    retrace_fronts(retraced, settings=OTHER_TRACE)
    assert contents(store) == contents(retraced)
    assert not storage.read_fronts(store).equals(storage.read_fronts(undisturbed))


def test_another_calibration_is_told_and_states_half_widths_without_the_network(find, domains, tmp_path):
    for path in weights_path("calfin-small-2").parent.glob("calfin-small-2[.-]*"):  # with those that spare Keras
        shutil.copy(path, tmp_path / path.name.replace("calfin-small-2", "own"))
    weights = tmp_path / "own.weights.h5"
    assert engine_of(weights) == "openvino"
    settings = replace(ONCE, network=str(weights))
    store = mapped(find, domains, tmp_path / "store", settings=settings)
    uncalibrated = storage.read_fronts(store).query("state == 'front'")
    made = json.loads(calibration_beside(weights_path("calfin-efficient")).read_text())
    calibration_beside(weights).write_text(json.dumps(made | {"network": network_id(weights)}))
    with pytest.raises(ValueError, match=r"calibration.*--recompute"):
        mapped(find, domains, store, settings=settings)
    with pytest.raises(ValueError, match=r"calibration.*--recompute"):
        retry_failed(store)
    other = calibration_beside(weights)
    fitting, wrong = other.read_text(), json.dumps(made)
    other.write_text(wrong)
    with pytest.raises(ValueError, match="must be made for own@"):  # before the network has run for anything
        mapped(find, domains, tmp_path / "wrong", settings=settings)
    assert not (tmp_path / "wrong").exists()
    other.write_text(fitting)
    with mapped_in(store) as again:
        assert sum(recompute_changed(store, domains, find, settings=settings).values()) == N_SCENES
    assert not again
    calibrated = storage.read_fronts(store).query("state == 'front'")
    assert uncalibrated["half95_m"].isna().all()
    assert calibrated["half95_m"].gt(0).all()
    assert list(calibrated.geometry) == list(uncalibrated.geometry)
    assert contents(store) == contents(Path(mapped(find, domains, tmp_path / "direct", settings=settings)))


@pytest.mark.parametrize("settings", [NO_FRONTS, replace(OTHER_MODEL, trace=NO_FRONTS.trace)], ids=["trace", "map"])
def test_scenes_that_lose_all_fronts_lose_their_polygons_too(find, domains, store, tmp_path, settings):
    assert len(storage.read_polygons(store))
    recompute_changed(store, domains, find, settings=settings)
    assert len(storage.read_polygons(store)) == 0
    assert contents(store) == contents(Path(mapped(find, domains, tmp_path / "direct", settings=settings)))


def test_a_glacier_whose_number_was_wrong_has_the_right_one_in_all_rows_after_a_retrace(domains, store):
    corrected = [replace(domain, glacier_id="42") for domain in domains]
    assert sum(retrace_fronts(store, corrected).values()) == N_SCENES
    assert set(storage.read_fronts(store)["glacier_id"]) == {"42"}
    assert set(storage.read_polygons(store)["glacier_id"]) == {"42"}
    assert sum(retrace_fronts(store, corrected).values()) == 0


def test_another_boundary_retraces_its_domain(find, domains, store):
    drawn = replace(domains[0], fjord_boundary=domains[0].polygon.buffer(-100))
    with mapped_in(store) as again:
        assert sum(recompute_changed(store, [drawn], find).values()) == N_SCENES
    assert not again
    assert storage.read_store_domains(store) == [drawn]
    assert sum(recompute_changed(store, [drawn], find).values()) == 0


def test_a_changed_item_is_counted_by_a_run_and_mapped_by_the_next_with_recompute(find, domains, store, undisturbed):
    items = find(domains[0])
    for asset in items[1].assets.values():
        asset.extra_fields["file:checksum"] = "1220aa"
    items[2].links = []
    counts = map_fronts(domains, lambda _: items, store, settings=ONCE)
    assert (counts["known"], counts["changed"]) == (N_SCENES, 1)
    assert sum(recompute_changed(store, domains, lambda _: items).values()) == 1
    assert storage.read_fronts(store).equals(storage.read_fronts(undisturbed))  # the pixels are the same
    assert "changed" not in map_fronts(domains, lambda _: items, store, settings=ONCE)


def test_the_file_of_a_domain_that_was_deleted_is_told_and_mapping_writes_it_anew(find, domains, store, undisturbed):
    (path,) = Path(store).glob("domains/*.geojson")
    path.unlink()
    lost = rf"has fronts of {domains[0].name} but no domains/{domains[0].name}\.geojson: run `calfin map` with it"
    for verb in (
        partial(retrace_fronts, store, everything=True),
        partial(retrace_fronts, store, domains),
        partial(recompute_changed, store, domains, find),
        partial(export_store, store, Path(store).parent / "out", ["gpkg"], author="A"),
    ):
        with pytest.raises(ValueError, match=lost):
            verb()
    (wrong,) = storage.count_scenes(store)["wrong"]
    assert re.search(lost, wrong)
    moved = replace(domains[0], grid=box_grid(domains[0].grid.boundingbox.bbox, 3413, 120.0))
    with pytest.raises(ValueError, match="another grid"):
        mapped(find, [moved], store)
    mapped(find, domains, store)
    assert contents(store) == contents(undisturbed)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda d: replace(d, glacier_id="7"),
            "another boundary, centreline, glacier id or known termini of the domain",
        ),
        (
            lambda d: replace(d, grid=box_grid(d.grid.boundingbox.bbox, 3413, 120.0)),
            "has another grid in .*: rename it",
        ),
    ],
)
def test_a_domain_that_was_changed_is_told_also_where_no_scene_is_new(change, told, find, domains, store):
    before = contents(store)
    changed = [change(domain) for domain in domains]
    with pytest.raises(ValueError, match=told):
        map_fronts(changed, find, store, settings=ONCE)
    with pytest.raises(ValueError, match=told):  # `calfin map` and `calfin plan` ask this before workers start
        check_wanted(changed, ONCE, store)
    assert contents(store) == before


def test_failed_scenes_of_a_domain_whose_file_is_gone_are_not_tried_without_it(store):
    fail_first(store, storage.read_batches(store)[0])
    next(Path(store).glob("domains/*.geojson")).unlink()
    with pytest.raises(ValueError, match="run `calfin map` with it"):
        retry_failed(store)


@pytest.mark.parametrize("lost", ["", "scene_id"])
@pytest.mark.parametrize("verb", ["retrace", "recompute", "retry"])
def test_a_store_whose_masks_are_lost_is_told_and_stays_free_for_other_verbs(lost, verb, find, domains, store):
    fail_first(store, storage.read_batches(store)[0])
    shutil.rmtree(Path(store) / "masks" / domains[0].name / lost)
    before = contents(store)
    change = {
        "retrace": partial(retrace_fronts, everything=True),
        "recompute": partial(recompute_changed, domains=domains, find_scenes=find, settings=OTHER_TRACE),
        "retry": retry_failed,
    }[verb]
    with pytest.raises(storage.DamagedFileError, match=r"mapped scenes have no place in it.*restore it from a copy"):
        change(store)
    assert contents(store) == before
    storage.check_finished(store)


def test_scenes_that_no_longer_reach_the_network_lose_their_masks(find, domains, store):
    counts = recompute_changed(store, domains, find, settings=replace(ONLY_CLEAR, max_nodata=-1.0))
    assert counts["no_front"] == N_SCENES
    assert not chunks_in(store)
    assert retrace_fronts(store, everything=True)["no_front"] == N_SCENES


def test_everything_goes_on_working_after_compaction(find, domains, store, other_model, tmp_path):
    assert storage.compact_store(store) == (3, 1)
    before = contents(store)
    assert mapped(find, domains, store) == store
    assert sum(retry_failed(store).values()) == 0
    retrace_fronts(store, everything=True)
    assert contents(store) == before
    recompute_changed(store, domains, find, settings=OTHER_MODEL)
    other = shutil.copytree(other_model, tmp_path / "other").as_posix()
    storage.compact_store(other)
    assert contents(store) == contents(other)


def test_a_damaged_mask_takes_no_front_and_a_retry_heals_it(store, undisturbed, capsys, caplog):
    def damage(chunks):
        chunks[1] = chunks[1][:-1] + b"x"
        del chunks[3]

    change_chunks(store, damage)
    fronts = storage.read_fronts(store)
    assert main(["retrace", store, "--all", "--cluster", "none"]) == 1
    assert "2 scenes could not be traced again: the old fronts stay" in capsys.readouterr().err
    assert "is damaged" in caplog.text
    assert storage.read_fronts(store).equals(fronts)
    assert storage.count_scenes(store)["behind"] == 2
    counts = retry_failed(store)
    assert (counts["kept"], counts["failed"], sum(counts.values())) == (0, 0, 2)
    assert contents(store) == contents(undisturbed)


def test_a_retrace_of_a_store_made_with_a_variant_keeps_its_settings(find, domains, tmp_path):
    variant = replace(ONCE, trace=replace(DEFAULT, line=replace(DEFAULT.line, edge_threshold=0.6)))
    store = mapped(find, domains, tmp_path / "store", settings=variant)
    before = contents(store)
    assert sum(retrace_fronts(store).values()) == 0
    assert sum(retrace_fronts(store, everything=True).values()) == N_SCENES
    assert contents(store) == before


@pytest.mark.parametrize("verb", ["retrace", "recompute"])
def test_a_domain_with_another_grid_is_refused_before_anything_is_changed(verb, find, domains, store):
    before = contents(store)
    moved = replace(domains[0], grid=box_grid(domains[0].grid.boundingbox.bbox, 3413, 120.0))
    change = retrace_fronts if verb == "retrace" else partial(recompute_changed, find_scenes=find)
    with pytest.raises(ValueError, match="another grid"):
        change(store, [moved], settings=OTHER_TRACE)
    assert contents(store) == before
    assert sum(retrace_fronts(store).values()) == 0


def test_a_retrace_that_was_stopped_continues_with_the_batches_that_are_left(store):
    with pytest.raises(StoppedError):
        retrace_fronts(store, settings=OTHER_TRACE, on_batch=stop)
    assert 0 < sum(retrace_fronts(store).values()) < N_SCENES  # the store says with which settings
    assert sum(retrace_fronts(store, settings=OTHER_TRACE).values()) == 0


def test_a_retrace_that_was_stopped_can_be_taken_back(store, domains, tmp_path, capsys):
    before = contents(store)
    inside = replace(domains[0], fjord_boundary=domains[0].polygon.buffer(-600))
    with pytest.raises(StoppedError):
        retrace_fronts(store, [inside], settings=OTHER_TRACE, on_batch=stop)
    assert main(["status", store]) == 0
    told = capsys.readouterr().out
    assert f"process {os.getpid()}, since 20" in told
    assert f"`calfin retrace {store} --back`" in told
    with pytest.raises(ValueError, match=r"`calfin retrace` .* was stopped before its end"):
        storage.check_finished(store)
    assert main(["retrace", store, "--back", "--cluster", "none"]) == 0
    assert contents(store) == before
    assert main(["retrace", store, "--back", "--cluster", "none"]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["retrace", "recompute", "retry"])
def test_a_store_that_takes_no_file_in_a_folder_is_left_as_it_was(verb, find, domains, store, tmp_path):
    first = next(iter(storage.read_batches(store)))
    shutil.rmtree(tmp_path / "store/pictures")
    (tmp_path / "store/pictures").write_text("in the way")
    if verb == "retry":
        fail_first(store, first)
    before = contents(store)
    change = {
        "retrace": partial(retrace_fronts, settings=OTHER_TRACE),
        "recompute": partial(recompute_changed, domains=domains, find_scenes=find, settings=OTHER_TRACE),
        "retry": retry_failed,
    }[verb]
    with pytest.raises(OSError, match="pictures takes no file"):
        change(store)
    assert contents(store) == before


def fail_first(store, stored):
    """Let the scenes of a batch have failed."""
    tables = storage.read_tables(store, stored)
    fronts = tables.fronts.assign(state="failed", reason="unreadable", front=-1, geometry=None)
    tables = storage.Tables(fronts.drop_duplicates("key"), tables.rejected[:0], tables.polygons[:0])
    items = storage.read_items(store, stored)
    storage.write_batch(store, tables, items, recipe=stored.recipe, before=stored)


def test_a_file_that_cannot_be_opened_takes_no_front_and_a_retrace_comes_to_its_end(store, tmp_path, undisturbed):
    n_masks = len(chunks_in(store))
    (chunk,) = (tmp_path / "store/masks").glob("*/masks/c/*/0/0/0")
    chunk.unlink()
    chunk.mkdir()  # reading it is an OSError
    counts = retrace_fronts(store, everything=True)
    assert 1 < n_masks <= N_SCENES
    assert (counts["kept"], sum(counts.values())) == (n_masks, N_SCENES)
    assert "unfinished" not in storage.read_store(store)
    chunk.rmdir()
    assert retry_failed(store)["failed"] == 0
    assert contents(store) == contents(undisturbed)


def test_a_recompute_of_no_store_does_nothing(find, domains, tmp_path):
    assert sum(recompute_changed(str(tmp_path / "store"), domains, find).values()) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_prints_the_scenes_that_it_has_written_and_no_others(world, tmp_path, capsys):
    store = str(tmp_path / "store")
    call = ["map", "--catalog", str(world / "catalog.json"), "--domains", str(world / "domains.geojson")]
    call += ["--period", "1984/2030", "--store", store, "--cluster", "none", "--batch-size", "2", "--variant", "once"]
    assert main(call) == 0
    first = capsys.readouterr().out
    scenes = storage.read_fronts(store)["scene_id"].unique()
    assert all(scene in first for scene in scenes)
    assert f"{N_SCENES} found" in first
    assert main(call) == 0
    again = capsys.readouterr().out
    assert not any(scene in again for scene in scenes)
    assert f"{N_SCENES} known" in again


# --- status ----------------------------------------------------------------------------------------------------------


def test_status_adds_up_and_tells_what_is_pending(find, domains, tmp_path, capsys):
    store = str(tmp_path / "store")
    with pytest.raises(StoppedError):
        mapped(find, domains, store, on_batch=stop)
    assert main(["status", store, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["found"] == N_SCENES
    assert sum(counts["states"].values()) == 2
    assert counts["pending"] == N_SCENES - 2
    assert sum(row["scenes"] for row in counts["reasons"]) == 2
    assert main(["status", store]) == 0
    assert f"{N_SCENES - 2}\tpending" in capsys.readouterr().out
    mapped(find, domains, store)
    assert storage.count_scenes(store)["pending"] == 0


def test_counts_that_do_not_add_up_are_told_and_the_command_fails(store, tmp_path, capsys):
    first = next((tmp_path / "store/fronts").iterdir())
    stored = next(s for s in storage.read_batches(store) if s.name == first.name)
    shutil.rmtree(tmp_path / "store/masks" / stored.domain)
    assert main(["status", store]) == 1
    told = capsys.readouterr().err
    assert told.count("do not add up") == N_SCENES
    assert next(iter(stored.items)) in told


def test_a_scene_in_two_batches_is_told(store, capsys):
    stored = max(storage.read_batches(store), key=lambda s: len(s.items))
    tables, items = storage.read_tables(store, stored), storage.read_items(store, stored)
    key = next(iter(items))
    alone = storage.Tables(*(table[table["key"] == key] for table in tables))
    storage.write_batch(store, alone, {key: items[key]}, recipe=stored.recipe)
    assert main(["status", store]) == 1
    assert f"{key} is in the tables of two batches" in capsys.readouterr().err


# --- two runs at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["disk", pytest.param("s3", marks=pytest.mark.slow)])
def test_of_two_runs_at_once_one_maps_and_the_other_says_so(kind, request, world, undisturbed, capsys):
    store = new_store(kind, request)
    words = ["map", "--catalog", str(world / "catalog.json"), "--domains", str(world / "domains.geojson")]
    words += ["--period", "1984/2030", "--batch-size", "2", "--store", store, "--cluster", "none", "--variant", "once"]
    first = subprocess.Popen(
        [sys.executable, "-m", "calfin_cloud.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + WAIT_S
    while storage.lease_holder(store) is None:
        assert first.poll() is None, "the run ended before another could begin"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)  # so that the first is surely at work while the second tries
    second = main(words)
    os.kill(first.pid, signal.SIGCONT)
    assert second == 3
    assert (
        f"is being written by `calfin map` on {os.uname().nodename} (process {first.pid}) since"
        in capsys.readouterr().err
    )
    assert first.wait(timeout=WAIT_S) == 0
    assert storage.read_fronts(store).equals(storage.read_fronts(undisturbed))
    assert storage.count_scenes(store)["written_by"] is None
