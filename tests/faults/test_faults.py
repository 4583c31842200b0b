"""Whatever goes wrong while scenes are mapped: the next runs end with the fronts of a run in which nothing did."""

import random
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from servers.proxy import ANSWERS, Plan

from calfin_cloud import clusters
from calfin_cloud.cli.ends import may_pass
from calfin_cloud.clusters import connect
from calfin_cloud.domains import read_domains
from calfin_cloud.imagery import files, retries
from calfin_cloud.pipeline import VARIANTS, map_fronts, retrace_fronts
from calfin_cloud.scenes import reading, stream_scenes
from calfin_cloud.storage import read_fronts
from faults import harms, kills, matrix
from faults.harms import http
from faults.stage import Row
from faults.world import VARIANT, difference, tables

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
KINDS = (*ANSWERS, "reset", "late", "cut")
SEED = 7


@pytest.fixture(scope="module", autouse=True)
def brief_pauses():
    """A tenth of the pauses between attempts, and of the patience with silence: there are as many attempts as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "FIRST_PAUSE_S", 0.05)
        patch.setitem(files.GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.05)
        patch.setitem(files.GDAL_SETTINGS, "GDAL_HTTP_LOW_SPEED_TIME", 2)
        patch.setattr(reading, "TIMEOUT_S", (10, 10))
        patch.setattr(reading, "RETRY", reading.RETRY.new(backoff_factor=0.05, backoff_jitter=0.05))
        yield


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with matrix.staged(tmp_path_factory.mktemp("faults"), SEED, n_scenes=6) as stage:
        yield stage


def endured(stage, harm) -> Row:
    """What became of the fronts, which must be sound; the seed is in the message if they are not."""
    row = matrix.endure(stage, harm, Row())
    assert matrix.is_sound(row), f"seed {stage.seed}: {row}"
    return row


def test_all_faults_of_http_at_once_leave_the_fronts_of_an_undisturbed_run(stage):
    row = endured(replace(stage, seed=1), http(*KINDS, rate=0.35, rounds=4))
    assert set(row.injected) == set(KINDS)
    assert row.states.keys() <= {"front", "no_front", "unreadable", "unreachable"}


def test_a_slow_and_a_silent_server_leave_the_fronts_of_an_undisturbed_run(stage):
    row = endured(replace(stage, seed=2), http("slow", "hang", rate=0.3, most=6, hang_s=1.0))
    assert set(row.injected) == {"slow", "hang"}


def test_a_catalogue_in_trouble_ends_the_run_and_the_next_one_goes_on(stage):
    row = endured(replace(stage, seed=3), http(*KINDS, rate=0.05, rounds=3, paths=harms.CATALOG))
    assert row.injected


@pytest.mark.parametrize(
    ("seed", "harm"),
    [
        (4, kills.restarts(2, away_s=(0.2, 0.8))),
        (5, harms.duplicate_items),
        (6, harms.changed_items),
        (7, harms.skewed_clocks),
        (8, harms.large_files_refused),
        pytest.param(10, harms.paused_writers, marks=pytest.mark.slow),
        pytest.param(11, harms.two_writers, marks=pytest.mark.slow),
        pytest.param(12, harms.presigned_items, marks=pytest.mark.slow),
        pytest.param(13, harms.compacted_while_read, marks=pytest.mark.slow),
        pytest.param(14, harms.verdicts_across_recompute, marks=pytest.mark.slow),
        pytest.param(15, harms.two_updaters, marks=pytest.mark.slow),
    ],
    ids=[
        *("server restarted", "duplicate items", "changed items", "clock skew", "file too large"),
        *("writer paused", "two writers", "presigned items", "compaction", "verdicts", "two updaters"),
    ],
)
def test_the_fronts_are_those_of_an_undisturbed_run_after(stage, seed, harm):
    row = endured(replace(stage, seed=seed), harm)
    assert row.injected
    assert row.hit


def test_bits_flipped_below_tls_leave_the_fronts_of_an_undisturbed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "DEADLINE_S", 8.0)  # where the bit is in a length, both sides wait for more
    with matrix.staged_on_wire(tmp_path, SEED, n_scenes=3) as stage:
        assert endured(stage, harms.flipped_wire(0.2)).injected.total() >= 3


def test_worker_driver_and_scheduler_killed_in_turn_leave_the_fronts_of_an_undisturbed_run(stage, monkeypatch):
    monkeypatch.setattr(clusters, "CALLED_S", 8.0)
    row = endured(replace(stage, seed=9), kills.killed_in_turn)
    assert row.injected["SIGKILL"] == 3
    assert set(row.ended) == {3}  # the scheduler was lost, and the run said so


def test_faults_of_an_object_store_leave_the_fronts_of_an_undisturbed_run(s3, tmp_path):
    row, seeds = Row(), iter(range(SEED, SEED + 10))
    with matrix.staged_in_s3(tmp_path, SEED, s3, n_scenes=3) as stage:
        # How many come, and of which kinds, the name of the bucket decides, which is another in each run.
        while row.injected.total() < 10 or len(row.injected) < 3:
            matrix.endure(
                replace(stage, seed=next(seeds)), http("503", "reset", "late", "cut", rate=0.05, paths=""), row
            )
            assert matrix.is_sound(row), row


@dataclass(frozen=True)
class Silence(Plan):
    """No answer from the moment on when something is asked for first."""

    first: str = ""
    begun: list[str] = field(default_factory=list)

    def fault_of(self, request, nth):
        if not self.begun and self.first not in request.path:
            return "", random.Random(0)
        self.begun.append(request.path)
        return super().fault_of(request, nth)


def ended_by_silence(stage, run, first: str, *, most: int = 30, **plan) -> None:
    """Run while a store falls silent for some time, which must end the run, and let the next one try again."""
    stage.proxy.suffer(Silence(("503",), 1.0, SEED, most=most, first=first, **plan))
    with pytest.raises(OSError, match="Service Unavailable") as caught:
        run()
    stage.proxy.suffer(None)
    assert may_pass(caught.value)


def test_a_store_that_falls_silent_ends_a_retrace_or_a_run_and_fails_no_scene(s3, tmp_path):
    """Scenes whose masks could not be read, or whose picture not written, were stored as failed, without a front."""
    with matrix.staged_in_s3(tmp_path, SEED, s3, n_scenes=3) as stage:
        whole, store = tables(stage.world.undisturbed), f"{stage.stores}/store"
        again = partial(retrace_fronts, stage.world.undisturbed, everything=True)
        ended_by_silence(stage, again, "/masks/c/", methods=("GET", "HEAD"), paths=r"/(masks/|store\.json)")
        assert tables(stage.world.undisturbed) == whole
        ended_by_silence(stage, again, "/.try.part", most=10**6)  # what is tried before a change begins
        assert again()["failed"] == 0
        domains = read_domains(stage.world.folder / "domains.geojson")
        find = partial(stream_scenes, f"{stage.world.url}/catalog.json", period="1984/..")
        run = partial(map_fronts, domains, find, store, settings=VARIANTS[VARIANT], batch_size=stage.world.batch_size)
        ended_by_silence(stage, run, "/pictures/", paths=r"/(pictures/|store\.json)")
        assert run()["failed"] == 0
        assert tables(store) == tables(stage.world.undisturbed) == whole


def test_a_store_that_falls_silent_to_a_worker_ends_the_run_too(s3, tmp_path, capfd):
    """Each scene was tried alone, minutes of them, and those whose turn came before the store was back had failed."""
    with matrix.staged_in_s3(tmp_path, SEED, s3, n_scenes=3) as stage, connect("local", n_workers=1) as client:
        domains = read_domains(stage.world.folder / "domains.geojson")
        find = partial(stream_scenes, f"{stage.world.url}/catalog.json", period="1984/..")
        store, settings = f"{stage.stores}/store", VARIANTS[VARIANT]
        run = partial(map_fronts, domains, find, store, settings=settings, batch_size=4, client=client)
        ended_by_silence(stage, run, "/pictures/", paths=r"/(pictures/|store\.json)")
        assert "Traceback" not in capfd.readouterr().err
        assert run()["failed"] == 0
        assert tables(store) == tables(stage.world.undisturbed)


def test_a_comparison_finds_what_is_lost_doubled_or_changed(stage, tmp_path):
    """The measure itself: a store that lacks a batch, or has other fronts, does not pass."""
    import shutil  # noqa: PLC0415

    store = tmp_path / "store"
    shutil.copytree(stage.world.undisturbed, store)
    assert difference(stage.world.undisturbed, str(store), finished=True) == ([], [], [])
    first = sorted((store / "fronts").iterdir())[0]
    keys = set(read_fronts(stage.world.undisturbed)["key"])
    first.unlink()
    lost = difference(stage.world.undisturbed, str(store), finished=True).lost
    assert 0 < len(lost) < len(keys)
    assert matrix.unlike(tables(stage.world.undisturbed), tables(str(store)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_faults_leave_the_fronts_of_an_undisturbed_run(tmp_path):
    rows = dict(matrix.run_all(tmp_path, seed=1))
    assert {name for name, row in rows.items() if not matrix.is_sound(row)} == set(), rows
    assert sum(row.injected.total() for row in rows.values()) >= 1000
    assert all(row.injected for row in rows.values())
