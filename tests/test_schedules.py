"""A schedule without a person: relative periods, failures tried again, shards and their merger, frozen catalogues."""

import json
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import copy_sample
from prometheus_client import CollectorRegistry, generate_latest
from servers.processes import Processes, free_ports, listens
from storing import DOMAIN, NOON, PLACES, contents, new_store, write, write_masks

from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.exporter import StoreMetrics
from calfin_cloud.pipeline import MapSettings, made_by, retry_failed
from calfin_cloud.scenes import absolute_period, describe_catalog, freeze_scenes, period_bounds, search_scenes
from calfin_cloud.schema import front_key
from calfin_cloud.storage import (
    add_scenes,
    compact_store,
    count_scenes,
    due_keys,
    hold_lease,
    is_store,
    keep_domain,
    merge_stores,
    note_tries,
    of_shard,
    open_store,
    read_features,
    read_fronts,
    read_masks,
    read_places,
    shard_places,
)

NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    copy_sample(folder, 2, 3)
    return folder


@pytest.fixture(scope="module")
def broken(painted, tmp_path_factory) -> str:
    """A store of two scenes, one of which lost its file; and the catalogue that still names it."""
    files = sorted(painted.rglob("*.tif"))
    whole = files[0].read_bytes()
    files[0].write_bytes(b"cut")
    store = str(tmp_path_factory.mktemp("stores") / "store")
    assert main(call(painted, store, "--fail-above", "0.5")) == 0  # one of two is not above the share
    files[0].write_bytes(whole)
    assert [row["state"] for row in count_scenes(store)["reasons"]].count("failed") == 1
    return store


def call(painted, store, *more):
    words = ["map", "--catalog", f"{painted}/catalog.json", "--domains", f"{painted}/domains.geojson"]
    return [*words, "--period", "1984/2030", "--store", store, "--cluster", "none", *more]


# --- periods ----------------------------------------------------------------------------------------------------------


def test_a_relative_period_begins_whole_days_before_now_or_before_the_newest_scene():
    start, end = period_bounds(absolute_period("last-30-days"))
    assert end is None
    assert timedelta(days=30) <= datetime.now(UTC) - start < timedelta(days=31)
    assert absolute_period("newest-10-days", lambda: NOW) == "2026-11-18/.."
    assert absolute_period("2019-06/2019-09") == "2019-06/2019-09"


def test_a_period_before_the_newest_scene_of_a_store_that_has_none_is_refused():
    with pytest.raises(ValueError, match="newest scene of a store, which has none"):
        absolute_period("newest-10-days")


def test_a_run_from_the_newest_scene_on_searches_no_older_ones(painted, broken, capsys):
    assert main([word if word != "1984/2030" else "newest-1-days" for word in call(painted, broken)]) == 0
    assert "1 found, 1 known, 0 front, 0 no_front, 0 failed; nothing new" in capsys.readouterr().out


@pytest.mark.parametrize("period", ["last-99999-days", "newest-1-days"])
def test_the_doctor_takes_a_relative_period_as_a_run_does(period, painted, broken, capsys):
    assert main(["doctor", *[word if word != "1984/2030" else period for word in call(painted, broken)[1:]]]) == 0
    assert "scenes of Synthetic-Glacier" in capsys.readouterr().out


# --- failed scenes ----------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_a_scene_is_tried_again_three_times_at_most_and_ever_further_apart(tmp_path_factory, gaps):
    store, now, tried = str(tmp_path_factory.mktemp("tries")), NOW, []
    for days in gaps:
        now += timedelta(days=days)
        if due := due_keys(store, ["a"], now):
            note_tries(store, due, ["a"], now, lambda: None)
            tried.append(now)
    assert 1 <= len(tried) <= 3
    waited = [after - before for before, after in pairwise(tried)]
    assert all(wait >= least for wait, least in zip(waited, (timedelta(days=5), timedelta(days=25)), strict=False))


def test_a_scene_that_no_longer_fails_is_forgotten(tmp_path):
    note_tries(str(tmp_path), ["a", "b"], ["a", "b"], NOW, lambda: None)
    note_tries(str(tmp_path), [], ["b"], NOW, lambda: None)
    assert set(json.loads((tmp_path / "tries.json").read_text())["tries"]) == {"b"}


def test_trouble_fails_a_run_once_when_it_is_new_and_the_next_run_tries_again(painted, tmp_path, capsys):
    """The weekly run: week one meets a damaged file, week two tries it again and is content, week three has peace."""
    damaged = sorted(painted.rglob("*.tif"))[0]
    whole, store = damaged.read_bytes(), str(tmp_path / "store")
    damaged.write_bytes(b"cut")
    assert main(call(painted, store, "--retry")) == 1
    assert main(call(painted, store, "--retry")) == 0  # the same trouble is no news
    assert "1 failed scene tried again, 1 failed" in capsys.readouterr().err
    damaged.write_bytes(whole)
    assert main(call(painted, store, "--retry")) == 0
    assert "0 failed scenes tried again" in capsys.readouterr().err  # not due before five days are over
    assert count_scenes(store)["states"]["failed"] == 1
    assert retry_failed(store)["failed"] == 0  # by hand it is tried at once


def test_a_failed_scene_that_its_catalogue_lists_anew_is_tried_with_its_new_address(painted, tmp_path, capsys):
    """It was tried three times at the address of before, and then given up, whatever the catalogue said by then."""
    scenes, store = tmp_path / "scenes", str(tmp_path / "store")
    shutil.copytree(painted, scenes)
    file = sorted(scenes.rglob("*.tif"))[0]
    file.rename(file.with_name("elsewhere.tif"))
    assert main(call(scenes, store, "--retry")) == 1
    assert main(call(scenes, store, "--retry")) == 0
    assert main(call(scenes, store, "--retry")) == 0
    assert "0 failed scenes tried again" in capsys.readouterr().err  # not due for five days
    (item,) = file.parent.glob("*.json")
    item.write_text(item.read_text().replace(file.name, "elsewhere.tif"))
    assert main(call(scenes, store, "--retry")) == 0
    assert "1 failed scene tried again, 0 failed" in capsys.readouterr().err
    assert count_scenes(store)["states"]["failed"] == 0
    assert main(call(scenes, store)) == 0
    assert "changed since" not in capsys.readouterr().err  # the store has kept the new item


def test_a_share_of_failures_that_the_schedule_allows_ends_with_0(broken):
    assert count_scenes(broken)["states"]["failed"] == 1  # see the fixture, which ended with 0


# --- shards -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sets(st.from_regex(r"[abc][abc-]{0,7}", fullmatch=True), max_size=20), st.integers(1, 9))
def test_every_glacier_is_in_one_shard_whatever_others_there_are(names, n):
    domains = [Domain(name, box_grid((0, 0, 3e3, 3e3), 3413, 30.0)) for name in sorted(names)]
    shards = [[d.name for d in of_shard(domains, "s", k, n)[0]] for k in range(1, n + 1)]
    assert sorted(name for shard in shards for name in shard) == sorted(names)
    for domain in domains:
        (alone,) = (k for k in range(1, n + 1) if of_shard([domain], "s", k, n)[0])
        assert domain.name in shards[alone - 1]


def test_shards_are_mapped_side_by_side_and_merged_into_one_store(painted, tmp_path, capsys):
    store = str(tmp_path / "store")
    (domain,) = read_domains(painted / "domains.geojson")
    for k in (1, 2):
        with hold_lease(f"{store}/shards/9-of-9", "map"):  # another run
            assert main(call(painted, store, "--features", "icebergs", "--shard", f"{k}/2")) == 0
    assert "has no domain" in capsys.readouterr().err
    (shard,) = shard_places(store)
    assert main(["merge", store]) == 0
    assert main(["merge", store]) == 0  # merged already
    assert "0 new domains of 1 shards" in capsys.readouterr().out
    assert count_scenes(store)["wrong"] == []
    assert read_fronts(store).equals(read_fronts(shard))
    assert read_features(store, "icebergs").equals(read_features(shard, "icebergs"))
    assert len(read_features(store, "icebergs")) == 2
    assert read_masks(store, domain.name).equals(read_masks(shard, domain.name))
    assert main(call(painted, store, "--features", "icebergs")) == 0  # and goes on as any store
    assert "2 found, 2 known" in capsys.readouterr().out


def shard_of(store, *scenes, number=1):
    """A shard with these scenes of one domain, all with masks of 0.5."""
    shard = f"{store}/shards/{number}-of-2"
    open_store(shard, crs=DOMAIN.crs, made_by={})
    keep_domain(shard, DOMAIN)
    for scene in scenes:
        add_scenes(shard, DOMAIN, {scene: NOON})
        write_masks(shard, "Store", read_places(shard, "Store")[scene], np.full((2, 80, 100), 0.5))
        write(shard, scene)
    return shard


def test_a_merger_that_was_stopped_takes_what_its_shard_has_become_since(tmp_path):
    store = str(tmp_path / "store")
    shard = shard_of(store, "a", "b")
    merge_stores(store, [shard])
    Path(f"{store}/domains/Store.geojson").unlink()  # written last: the call was stopped before
    assert count_scenes(store)["wrong"] == [
        f"{store} has only a part of Store, which a shard of it has: run `calfin merge {store}` again to the end"
    ]
    add_scenes(shard, DOMAIN, {"c": NOON})
    write_masks(shard, "Store", 2, np.full((2, 80, 100), 0.5))
    write(shard, "c")
    compact_store(shard)
    merge_stores(store, [shard])
    assert count_scenes(store)["wrong"] == []
    assert read_places(store, "Store") == {"a": 0, "b": 1, "c": 2}
    assert read_masks(store, "Store").equals(read_masks(shard, "Store"))
    assert read_fronts(store)["key"].tolist() == ["Store/a", "Store/b", "Store/c"]


def test_a_merger_that_would_leave_out_scenes_of_a_shard_or_lose_some_of_the_store_is_refused(tmp_path):
    store = str(tmp_path / "store")
    shard = shard_of(store, "a")
    merge_stores(store, [shard])
    shard_of(store, "b")  # the shard goes on
    before = contents(store)
    with pytest.raises(ValueError, match=r"1 scenes of Store that .* lacks, such as Store/b.*without --shard"):
        merge_stores(store, [shard])
    assert contents(store) == before
    add_scenes(store, DOMAIN, {"b": NOON, "c": NOON})
    write(store, "b")
    write(store, "c")
    assert merge_stores(store, [shard]) == []  # the store may go on alone
    Path(f"{store}/domains/Store.geojson").unlink()
    before = contents(store)
    with pytest.raises(ValueError, match=r"1 scenes of Store that .* lacks, such as Store/c.*run `calfin map`"):
        merge_stores(store, [shard])
    assert contents(store) == before


def test_a_merged_store_goes_on_counting_the_tries_of_its_shards(painted, tmp_path):
    store = str(tmp_path / "store")
    (domain,) = read_domains(painted / "domains.geojson")
    shard, failed = f"{store}/shards/1-of-2", [front_key(domain.name, scene) for scene in ("a", "b")]
    open_store(shard, crs=domain.crs, made_by=made_by(MapSettings()))
    keep_domain(shard, domain)
    note_tries(shard, failed[:1], failed, NOW, lambda: None)
    merge_stores(store, [shard])
    assert due_keys(store, failed, NOW + timedelta(days=4)) == failed[1:]
    assert due_keys(store, failed, NOW + timedelta(days=5)) == failed
    note_tries(store, [], failed[1:], NOW, lambda: None)  # one no longer fails
    merge_stores(store, [shard])
    counted = json.loads(Path(f"{store}/tries.json").read_text())["tries"]
    assert counted == {}  # what was merged long ago is not counted again


def test_a_merger_without_shards_or_of_a_domain_in_two_shards_is_refused(painted, tmp_path):
    store = str(tmp_path / "store")
    with pytest.raises(ValueError, match="has no shards"):
        merge_stores(store, [])
    (domain,) = read_domains(painted / "domains.geojson")
    shards = [f"{store}/shards/{k}-of-2" for k in (1, 2)]
    for shard in shards:
        open_store(shard, crs=domain.crs, made_by=made_by(MapSettings()))
        keep_domain(shard, domain)
    with pytest.raises(ValueError, match=r"several of the shards .*1-of-2.*2-of-2.*delete the others"):
        merge_stores(store, shards)
    assert not is_store(store)


def test_a_shard_with_a_damaged_table_is_not_merged(tmp_path):
    store = str(tmp_path / "store")
    shard = shard_of(store, "a")
    (path,) = Path(f"{shard}/fronts").glob("*.parquet")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        merge_stores(store, [shard])
    assert not is_store(store)


@pytest.mark.parametrize("kind", PLACES)
def test_shards_are_found_below_a_store_whatever_its_name(kind, request):
    store = new_store(kind, request) + " [a]# *?"
    assert shard_places(store) == []
    shards = [shard_of(store, "a", number=number) for number in (1, 2)]
    assert shard_places(store) == shards


# --- a frozen catalogue -----------------------------------------------------------------------------------------------


def test_a_frozen_catalogue_finds_the_scenes_of_the_one_it_was_made_of(painted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frozen = Path("frozen.parquet")
    words = ["--catalog", f"{painted}/catalog.json", "--domains", f"{painted}/domains.geojson", "--period", "1984/2030"]
    assert main(["search", *words, "--out", str(frozen)]) == 0
    (domain,) = read_domains(painted / "domains.geojson")
    for period in ("1984/2030", "2015", "2030"):
        there, here = (
            [item.to_dict(transform_hrefs=False) for item in search_scenes(catalog, domain, period)]
            for catalog in (painted / "catalog.json", frozen)
        )
        assert [(i["id"], i["properties"]["datetime"]) for i in here] == [
            (i["id"], i["properties"]["datetime"]) for i in there
        ]
        assert [i["assets"] for i in here] == [i["assets"] for i in there]
    elsewhere = Domain("far", box_grid((9e5, -9e5, 9.03e5, -8.97e5), 3413, 30.0))
    assert search_scenes(frozen, elsewhere, "1984/2030") == []


def test_a_frozen_catalogue_that_is_not_there_is_told_when_it_is_asked_for_its_title(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the catalogue .*gone\.parquet"):
        describe_catalog(tmp_path / "gone.parquet")


def test_a_file_that_is_no_frozen_catalogue_is_refused(painted, tmp_path):
    (tmp_path / "odd.parquet").write_bytes(b"PAR1 cut")
    (domain,) = read_domains(painted / "domains.geojson")
    with pytest.raises(ValueError, match="cannot read the catalogue"):
        search_scenes(tmp_path / "odd.parquet", domain, "2020")
    with pytest.raises(ValueError, match=r"ends in \.parquet"):
        freeze_scenes([], tmp_path / "items.json")


# --- seen from outside ------------------------------------------------------------------------------------------------


def told(metrics) -> str:
    """What a scrape is answered."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_a_store_tells_prometheus_its_scenes_who_writes_and_when_it_was_written(broken):
    metrics = StoreMetrics(broken)
    metrics.look()
    said = told(metrics)
    assert "calfin_store_up 1.0" in said
    assert 'calfin_scenes{state="failed"} 1.0' in said
    assert 'calfin_failed_scenes{reason="unreadable"} 1.0' in said
    assert "calfin_lease_since_timestamp_seconds 0.0" in said
    (written,) = (line.split()[1] for line in said.splitlines() if line.startswith("calfin_last_written"))
    assert abs(float(written) - datetime.now(UTC).timestamp()) < 86400
    with hold_lease(broken, "map"):
        assert told(metrics) == said  # a scrape looks at nothing
        metrics.look()
        assert "calfin_lease_since_timestamp_seconds 0.0" not in told(metrics)


def test_a_store_that_no_run_has_made_yet_is_no_alarm_and_one_that_is_gone_is(broken, tmp_path):
    store = tmp_path / "store"
    metrics = StoreMetrics(str(store))
    assert "calfin" not in told(metrics)  # before the first look
    for folder in (tmp_path, store / "shards" / "1-of-2"):
        folder.mkdir(parents=True, exist_ok=True)
        metrics.look()
        assert "calfin_store_up 1.0" in told(metrics)
        assert "calfin_scenes" not in told(metrics)
    shutil.copytree(broken, store, dirs_exist_ok=True)
    metrics.look()
    assert 'calfin_scenes{state="failed"} 1.0' in told(metrics)
    shutil.rmtree(store)
    metrics.look()
    assert "calfin_store_up 0.0" in told(metrics)


@pytest.mark.usefixtures("dead_s3")
def test_an_object_store_that_does_not_answer_is_told_and_ends_no_exporter(caplog):
    metrics = StoreMetrics("s3://bucket/fronts")
    metrics.look()
    assert "calfin_store_up 0.0" in told(metrics)
    assert "EndpointConnectionError" in caplog.text


def test_the_exporter_answers_and_ends_when_told_to(broken, tmp_path):
    (port,) = free_ports(1)
    with Processes(tmp_path, environment=dict(os.environ)) as processes:
        processes.start(sys.executable, "-m", "calfin_cloud.cli", "status", broken, "--serve", str(port))
        processes.wait_for(lambda: listens(port))
        address = f"http://127.0.0.1:{port}/metrics"
        processes.wait_for(lambda: "calfin_scenes{" in requests.get(address, timeout=60).text)
