"""A plan against what a run then does: scenes, fetched, tasks, seconds, money."""

import json
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pystac
import pytest
from faults.world import paint_world
from hypothesis import given
from hypothesis import strategies as st
from servers.files import serve_folder
from servers.proxy import FaultProxy, listening
from storing import DOMAIN, LINE, NOON, new_store, write

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.clusters import connect
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.imagery import stack_scenes
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.pipeline.settings import VARIANTS, made_by
from calfin_cloud.planning import Prices, plan_run, plans, probing
from calfin_cloud.planning.choosing import list_scenes, spread
from calfin_cloud.planning.estimating import relative_error, work_seconds
from calfin_cloud.planning.fetching import NetworkStatistics, start_counting, stop_counting
from calfin_cloud.planning.probing import Mapped, Probe, Slots
from calfin_cloud.scenes import search_scenes
from calfin_cloud.storage import open_store, read_fronts

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 6
ONCE = VARIANTS["once"]
"""Each picture is shown to the network once, at a third of the price."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A painted glacier of six scenes, one of them cloudy, on a coarse grid, behind a web server."""
    with serve_folder(paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=3)) as server:
        yield server


@pytest.fixture(scope="module")
def domains(site):
    return read_domains(site.folder / "domains.geojson")


@pytest.fixture(scope="module")
def find(site):
    return partial(search_scenes, f"{site.url}/catalog.json", period="1984/2030")


def of_scenes(counts: Counter[str]) -> int:
    """Count what was asked of scenes, without the catalogue."""
    return sum(n for path, n in counts.items() if path.endswith(".tif"))


# --- against a run ----------------------------------------------------------------------------------------------------


def test_what_gdal_counts_is_what_the_server_sent(site, domains, find):
    items = find(domains[0])
    site.requests.clear()
    site.n_bytes.clear()
    start_counting()
    stack_scenes(items, domains[0]).compute(scheduler="synchronous")
    fetched = stop_counting()
    # Ranges that it asks for at once, GDAL counts as one request.
    assert 0.9 * of_scenes(site.requests) <= fetched.requests <= of_scenes(site.requests)
    # GDAL does not count the first 16 bytes that are asked for before it opens a file.
    n_files = sum(path.endswith(".tif") for path in site.requests)
    assert fetched.bytes + 16 * n_files == of_scenes(site.n_bytes)
    stack_scenes(items[:1], domains[0]).compute(scheduler="synchronous")
    assert stop_counting() == NetworkStatistics(0, 0)


def test_a_plan_without_a_cluster_is_what_a_run_does(site, domains, find, tmp_path):
    store = str(tmp_path / "store")
    told = plan_run(domains, find, store=store, sample=2, settings=ONCE)
    assert not Path(store).exists()
    assert (told.found, told.known, told.to_do) == (N_SCENES, 0, N_SCENES)
    assert sum(row["found"] for row in told.scenes) == N_SCENES
    assert told.probed == {"read": N_SCENES, "mapped": 2}
    assert told.tasks == 0
    site.requests.clear()
    site.n_bytes.clear()
    map_fronts(domains, find, store, settings=ONCE)
    assert told.range_s[0] < told.total_s < told.range_s[1]
    # All scenes were read by the probe; how many ranges GDAL asks for at a time differs a little.
    assert told.requests == pytest.approx(of_scenes(site.requests), rel=0.1)
    assert told.bytes_read == pytest.approx(of_scenes(site.n_bytes), rel=0.01)
    fs, root = fsspec.url_to_fs(store)
    written = fs.find(root, detail=True)
    assert told.bytes_written == pytest.approx(sum(about["size"] for about in written.values()), rel=0.3)
    states = read_fronts(store).drop_duplicates("key")["reason"].value_counts()
    assert told.outcomes["cloudy"] == states["cloudy"]
    # What is in the store is known, and then there is nothing to do.
    again = plan_run(domains, find, store=store, sample=2, settings=ONCE)
    assert (again.known, again.to_do, again.work_s, again.bytes_read) == (N_SCENES, 0, 0, 0)
    assert told.store_requests > plans.REQUESTS_A_DOMAIN + plans.REQUESTS_A_BATCH
    assert again.store_requests == 0


@pytest.mark.slow
def test_a_plan_of_a_cluster_counts_its_tasks_and_workers(site, domains, find, tmp_path):
    def some(domain):
        return find(domain)[:4]

    with connect("local", n_workers=2) as client:
        told = plan_run(domains, some, client=client, sample=2, batch_size=3, settings=ONCE)
        assert told.slots == {"network": 2, "others": 2, "all": 2, "gpu": 0, "on_one_host": 2}
        before = sum(client.run_on_scheduler(n_finished).values())
        map_fronts(domains, some, str(tmp_path / "store"), client=client, batch_size=3, settings=ONCE)
        n_tasks = sum(client.run_on_scheduler(n_finished).values()) - before
    assert told.tasks == pytest.approx(n_tasks, rel=0.15)
    assert told.bytes_read > 0


def n_finished(dask_scheduler) -> dict[str, int]:
    """Tasks that have come to a result, by the name of what they do."""
    return {name: prefix.state_counts["memory"] for name, prefix in dask_scheduler.task_prefixes.items()}


def test_a_probe_beside_a_store_in_a_bucket_is_deleted_again(s3, site, domains, find):
    client = s3.client()
    client.create_bucket(Bucket="planned")
    told = plan_run(domains, lambda domain: find(domain)[:2], store="s3://planned/store", sample=2, settings=ONCE)
    assert told.files_written > 0
    assert "Contents" not in client.list_objects_v2(Bucket="planned")


def test_a_probe_leaves_no_temporary_folder(domains, find, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plan_run(domains, lambda domain: find(domain)[:2], sample=2, settings=ONCE)
    assert not list(tmp_path.iterdir())


def test_scenes_that_cannot_be_read_are_told_beforehand(site, domains, find, capsys):
    def with_broken(domain):
        first, *others = find(domain)[:3]
        for asset in first.assets.values():
            asset.href = asset.href.replace(".tif", "_gone.tif")
        return [first, *others]

    told = plan_run(domains, with_broken, sample=2, settings=ONCE)
    assert told.outcomes["unreadable"] == 1


def test_a_plan_refuses_what_its_run_would_refuse(site, domains, tmp_path, capsys):
    open_store(str(tmp_path / "store"), crs=domains[0].crs, made_by=made_by(replace(ONCE, max_cloud=0.5)))
    words = ["plan", "--catalog", f"{site.url}/catalog.json", "--domains", str(site.folder / "domains.geojson")]
    words += ["--period", "1984/2030", "--cluster", "none", "--variant", "once", "--store", str(tmp_path / "store")]
    assert main(words) == 2
    assert "was made differently: settings.max_cloud is 0.5 in the store and 0.15 now" in capsys.readouterr().err


def test_the_command_tells_a_plan_in_words_and_as_json(site, capsys):
    words = ["plan", "--catalog", f"{site.url}/catalog.json", "--domains", str(site.folder / "domains.geojson")]
    words += ["--period", "1984/2030", "--cluster", "none", "--sample", "2", "--variant", "once"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to_do"] == N_SCENES
    assert told["cost"] == {}
    assert main([*words, "--price-cpu-hour", "100", "--price-egress-gb", "0.09"]) == 0
    said = capsys.readouterr().out
    for line in (f"scenes: {N_SCENES} found, 0 known, {N_SCENES} to do", "1 cloudy", "minutes: ", "cost: cpu "):
        assert line in said
    # Of the whole process: it was started before anything was planned.
    assert told["total_s"] > told["work_s"] + told["search_s"]
    assert main([*words, "--period", "1950/1951"]) == 0
    assert "probe: none\n" in capsys.readouterr().out, "there is nothing to try"


# --- which scenes are tried -------------------------------------------------------------------------------------------


def scene_of(platform, n):
    return pystac.Item(f"{platform}{n}", None, None, datetime(2020, 1, 1) + timedelta(days=n), {"platform": platform})


counts_by_domain = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 30), max_size=3), min_size=1, max_size=5
)


def world(counts):
    """Domains, and what finds so many scenes of each platform of each domain."""
    grid = box_grid((0, 0, 3000, 3000), 3413, 30.0)
    scenes = {
        f"d{i}": [scene_of(p, n) for p, n_of in platforms.items() for n in range(n_of)]
        for i, platforms in enumerate(counts)
    }
    return [Domain(name, grid) for name in scenes], lambda domain: iter(scenes[domain.name])


@given(counts=counts_by_domain, n=st.integers(1, 20), seed=st.integers(0, 3))
def test_scenes_are_counted_and_tried_at_most_once_and_as_many_as_asked_for(counts, n, seed):
    domains, find_some = world(counts)
    known = {"d0/a0", "d0/a1"}
    rows, pool = list_scenes(domains, find_some, known, n, seed)
    total = sum(sum(platforms.values()) for platforms in counts)
    n_known = min(2, counts[0].get("a", 0))
    assert sum(row["found"] for row in rows) == total
    assert sum(row["known"] for row in rows) == n_known
    assert sum(drawn.stands_for for drawn in pool) == pytest.approx(total - n_known)
    chosen = [(domain.name, item.id) for item, domain in spread(pool, n, seed)]
    assert len(chosen) == len(set(chosen)) == min(n, total - n_known)
    assert not {f"{domain}/{id_}" for domain, id_ in chosen} & known
    again = [
        (domain.name, item.id) for item, domain in spread(list_scenes(domains, find_some, known, n, seed)[1], n, seed)
    ]
    assert again == chosen


@given(counts=counts_by_domain, n=st.integers(2, 20), seed=st.integers(0, 3))
def test_every_domain_is_tried_by_its_number_of_scenes(counts, n, seed):
    domains, find_some = world(counts)
    rows, pool = list_scenes(domains, find_some, set(), n, seed)
    total = sum(row["found"] for row in rows)
    tried = Counter(domain.name for _, domain in spread(pool, n, seed))
    for name in {row["domain"] for row in rows} if total > n else ():
        share = n * sum(row["found"] for row in rows if row["domain"] == name) / total
        assert abs(tried[name] - share) < 1 + 1e-6


# --- what follows from a probe ----------------------------------------------------------------------------------------


def probe_of(*, cloudy=0, read_s=0.5, busy_s=0.5, interval_s=0.1, network_s=2.0, trace_s=1.0, n=8) -> Probe:
    mapped = [Mapped(network_s, trace_s, 1000, 4)] * min(n - cloudy, 3)
    return Probe(
        [read_s] * n, busy_s, interval_s, {"": n - cloudy, "cloudy": cloudy}, NetworkStatistics(8, 800), mapped, 0.0
    )


def test_scenes_without_need_of_the_network_take_no_longer_than_to_be_read():
    assert work_seconds(probe_of(), Slots(), 100)[0] == pytest.approx(100 * 3.5)
    assert work_seconds(probe_of(cloudy=4), Slots(), 100)[0] == pytest.approx(100 * (0.5 + 0.5 * 3))
    assert work_seconds(probe_of(cloudy=8), Slots(), 100)[0] == pytest.approx(100 * 0.5)


def test_workers_with_a_gpu_and_the_others_work_at_the_same_time():
    assert work_seconds(probe_of(), Slots(4, 4, 4), 100)[0] == pytest.approx(100 * 3.5 / 4)
    two_kinds = Slots(network=1, others=4, all=5, gpu=1)
    assert work_seconds(probe_of(), two_kinds, 100)[0] == pytest.approx(100 * 2.0)  # the GPU is what others wait for
    assert work_seconds(probe_of(network_s=0.1), two_kinds, 100)[0] == pytest.approx(100 * 1.5 / 4)


def test_scenes_that_are_read_ahead_cost_no_waiting_unless_they_come_too_slowly():
    waiting = probe_of(read_s=20.0, busy_s=0.1, interval_s=2.0)
    assert work_seconds(waiting, Slots(), 100)[0] == pytest.approx(100 * 3.1)
    assert work_seconds(replace(waiting, interval_s=11.0), Slots(), 100)[0] == pytest.approx(100 * 11)


def test_few_scenes_on_many_workers_take_as_long_as_one():
    assert work_seconds(probe_of(), Slots(64, 64, 64), 2)[0] == pytest.approx(3.5)


def test_the_range_narrows_with_the_probe_and_closes_when_all_were_mapped():
    def error(n_mapped, spread, n_scenes=1000):
        mapped = [Mapped(2.0 + spread * (-1) ** i, 1.0, 1, 1) for i in range(n_mapped)]
        return relative_error(Probe([0.5] * 400, 0.5, 0.1, {"": 400}, NetworkStatistics(0, 0), mapped, 0.0), n_scenes)

    assert error(4, 0.5) > error(16, 0.5) > error(16, 0.1) > 0
    assert error(16, 0.5, n_scenes=16) == 0
    assert relative_error(probe_of(cloudy=8), 1000) == 1  # nothing is known of what the network takes


@pytest.mark.parametrize("seed", range(5))
def test_the_range_holds_nine_times_of_ten(seed):
    rng = np.random.default_rng(seed)
    seconds = rng.gamma(9.0, 1 / 3, 5000)
    needs = rng.random(5000) < 0.6
    truth = 0.3 + (needs * seconds).mean()
    held = 0
    for _ in range(200):
        read = rng.choice(5000, 24, replace=False)
        useful = read[needs[read]]
        mapped = [Mapped(s, 0.0, 1, 1) for s in seconds[useful[:6]]]
        reasons = {"": len(useful), "cloudy": 24 - len(useful)}
        work_s, off_s = work_seconds(
            Probe([0.3] * 24, 0.3, 0.1, reasons, NetworkStatistics(0, 0), mapped, 0.0), Slots(), 5000
        )
        held += abs(work_s / 5000 - truth) <= off_s / 5000
    assert held / 200 > 0.85


def test_each_price_is_paid_for_what_it_is_of(monkeypatch, domains):
    monkeypatch.setattr(plans, "probe_scenes", lambda *_, **__: replace(probe_of(), start_s=10.0))
    monkeypatch.setattr(plans, "slots_of", lambda _: Slots(network=2, others=6, all=8, gpu=2))
    items = [scene_of("x", n) for n in range(1000)]
    for item in items:
        item.to_dict = lambda **_: {}
    cost = plan_run(domains, lambda _: items, prices=Prices(0.05, 2.0, 0.09, 0.4, 0.023)).cost
    hours = plan_run(domains, lambda _: items).total_s / 3600
    assert cost["cpu"] == pytest.approx(0.05 * 6 * hours, rel=0.05)
    assert cost["gpu"] == pytest.approx(2.0 * 2 * hours, rel=0.05)
    plan = plan_run(domains, lambda _: items)
    assert cost["requests"] == pytest.approx(0.4 * (plan.requests + plan.store_requests) / 1000, rel=0.01)
    assert plan.requests == 1000
    assert cost["total"] == pytest.approx(sum(v for k, v in cost.items() if k != "total"), rel=1e-3)


def test_a_probe_of_one_scene_is_refused(domains):
    with pytest.raises(ValueError, match="two scenes or more"):
        plan_run(domains, lambda _: [], sample=1)


def test_a_rehearsal_takes_the_network_and_the_tracing_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert probing.rehearse(ONCE) > 0
    assert not list(tmp_path.iterdir())


def test_a_glacier_and_a_batch_take_as_many_requests_of_a_bucket_as_a_plan_tells(s3, monkeypatch):
    files = fsspec.get_filesystem_class("s3")
    levels = np.random.default_rng(0).integers(0, 250, (2, 80, 100)).astype("uint8")
    scene = storage.encode_scene(levels, candidates=np.array([[0, 80, 10, 90]]), grey=levels[0])
    ids = [f"{n:02}" for n in range(64)]
    with listening(FaultProxy(s3.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        files.clear_instance_cache()
        store = new_store("s3", SimpleNamespace(getfixturevalue=lambda _: s3))
        with storage.hold_lease(store, "map") as check:
            storage.open_store(store, crs=DOMAIN.crs, made_by={})
            before = proxy.asked.total()
            storage.keep_domain(store, DOMAIN)
            places = storage.add_scenes(store, DOMAIN, dict.fromkeys(ids, NOON))
            of_domain, counts = proxy.asked.total() - before, []
            for part in (ids[:32], ids[32:]):
                before = proxy.asked.total()
                storage.write_scenes(store, "Store", dict.fromkeys((places[i] for i in part), scene))
                check()
                write(store, *part, line=LINE)
                counts.append(proxy.asked.total() - before)
    files.clear_instance_cache()
    assert of_domain == pytest.approx(plans.REQUESTS_A_DOMAIN, abs=6)
    assert counts[1] <= counts[0] + 3  # the first has the layout to read, and a sign of life may come in between
    assert counts[1] == pytest.approx(plans.REQUESTS_A_BATCH, abs=6)
    assert (plans.REQUESTS_A_BATCH + 32) / 32 < 3, "with its picture, of a scene"
