"""The main job from a catalogue to a store, killed and resumed, on workers and without them."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
import zarr
from dask.utils import key_split
from distributed import Client, Nanny, Scheduler, SpecCluster
from faults.world import paint_world
from storing import WAIT_S

from calfin_cloud.clusters import connect, ended, local
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.fronts import DEFAULT
from calfin_cloud.pipeline import map_fronts, recompute_changed, retrace_fronts
from calfin_cloud.pipeline.settings import VARIANTS, settings_from
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import STATES
from calfin_cloud.storage import read_fronts, read_polygons, read_rejected, read_store, read_store_domains

PRETEND_GPU = str(Path(__file__).with_name("pretend_gpu.py"))

DASKS_OWN = {"array", "from-value", "zeros_like", "finalize-hlgfinalizecompute"}
"""Names that Dask gives to arrays that it is handed, and to the empty array of a new store; they take no time."""

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 5
ONCE = VARIANTS["once"]
"""Each picture is shown to the network once, at a third of the price; the way of a scene is the same."""


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    """Folder of a painted glacier with five scenes on a coarse grid."""
    return paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=3)


def run(painted: Path, store: Path, *, batch_size=2, settings=ONCE, **more):
    find = partial(search_scenes, painted / "catalog.json", period="1984/2030")
    domains = read_domains(painted / "domains.geojson")
    return map_fronts(domains, find, str(store), batch_size=batch_size, settings=settings, **more)


@pytest.fixture(scope="module")
def undisturbed(painted, tmp_path_factory) -> Path:
    """Store of a run without Dask that nothing disturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    counts = run(painted, store)
    assert counts["found"] == N_SCENES
    return store


def contents(store: Path) -> dict[str, str]:
    """Digest of every file of a store but what lies aside; of array chunks the values, since equal ones may differ."""
    paths = [p for p in sorted(store.rglob("*")) if p.is_file() and "/c/" not in str(p)]
    files = [p for p in paths if p.relative_to(store).parts[0] != "replaced"]
    digests = {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (group,) = (store / "masks").glob("*/")
    arrays = zarr.open_group(group, mode="r", use_consolidated=False)
    for name in ("masks", "candidates", "grey"):
        for place, scene in enumerate(arrays[name][:]):
            digests[f"{name} {place}"] = hashlib.sha256(scene.tobytes()).hexdigest()
    return digests


def test_every_scene_ends_in_one_state_and_most_have_a_front(undisturbed):
    fronts = read_fronts(str(undisturbed))
    scenes = fronts.drop_duplicates("key")
    assert len(scenes) == N_SCENES
    assert set(scenes["state"]) <= set(STATES)
    assert (scenes["state"] == "front").sum() >= N_SCENES - 1
    assert (fronts["geometry"].notna() == (fronts["state"] == "front")).all()


def test_fronts_lie_on_the_painted_truth(painted, undisturbed):
    truth = gpd.read_parquet(painted / "truth.parquet").set_index("scene_id").geometry
    fronts = gpd.read_parquet(undisturbed / "fronts").dropna(subset="geometry")
    assert fronts.crs == truth.crs
    # Stripes cost the first network its accuracy; what is tested here is that maps, grids and pixels agree.
    clear = fronts[(fronts["front"] == 0) & (fronts["slc_off_fraction"] == 0)]
    assert len(clear) >= N_SCENES - 2
    for row in clear.itertuples():
        apart = [
            row.geometry.interpolate(f, normalized=True).distance(truth[row.scene_id]) for f in np.linspace(0, 1, 50)
        ]
        assert np.median(apart) < 3 * row.resolution_m, row.scene_id


def test_masks_open_in_xarray_with_a_probability_for_every_scene_that_has_a_front(undisturbed):
    fronts = read_fronts(str(undisturbed))
    masks = xr.open_zarr(undisturbed / "masks" / fronts["domain"].iloc[0])["masks"].load()
    assert masks.dims == ("time", "mask", "y", "x")
    with_front = masks.isel(time=np.isin(masks["scene_id"].values, fronts.loc[fronts["state"] == "front", "scene_id"]))
    assert np.isfinite(with_front.max(("mask", "y", "x"))).all()
    assert float(masks.max()) <= 1


def test_a_second_run_writes_nothing(painted, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    counts = run(painted, undisturbed)
    assert counts["known"] == counts["found"] == N_SCENES
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")} == before


@pytest.mark.slow  # the next one has two
def test_a_store_from_one_worker_equals_that_of_a_plain_loop(painted, undisturbed, tmp_path):
    with connect("local", n_workers=1) as client:
        run(painted, tmp_path / "store", client=client)
    assert contents(tmp_path / "store") == contents(undisturbed)


def test_a_store_from_two_workers_of_a_running_scheduler_equals_that_of_a_plain_loop(painted, undisturbed, tmp_path):
    with ended(local(2)) as cluster, connect(cluster.scheduler_address) as client:
        run(painted, tmp_path / "store", client=client)
    assert contents(tmp_path / "store") == contents(undisturbed)


def test_a_cluster_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="must be one of local, cuda"), connect("moon"):
        pass


def test_a_killed_run_resumes_to_the_same_store_byte_for_byte(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    command = [sys.executable, "-m", "calfin_cloud.cli", "map", "--catalog", str(painted / "catalog.json")]
    command += ["--domains", str(painted / "domains.geojson"), "--period", "1984/2030"]
    command += ["--store", str(store), "--cluster", "none", "--batch-size", "2", "--variant", "once"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_S
    while not list(store.glob("fronts/*.parquet")):
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    n_done = len(read_fronts(str(store)).drop_duplicates("key"))
    assert 0 < n_done < N_SCENES
    counts = run(painted, store)
    assert counts["known"] == n_done
    assert contents(store) == contents(undisturbed)


def test_a_scene_that_cannot_be_read_fails_alone_and_the_command_says_so(painted, undisturbed, tmp_path, capfd):
    broken = tmp_path / "painted"
    shutil.copytree(painted, broken)
    catalog = search_scenes(broken / "catalog.json", read_domains(broken / "domains.geojson")[0], "1984/2030")
    asset = next(a for key, a in catalog[0].assets.items() if key in ("nir08", "nir", "B08", "hh", "vv"))
    asset_path = Path(asset.href.removeprefix("file://"))
    asset_path.write_bytes(b"this is no TIFF")
    from calfin_cloud.cli import main  # noqa: PLC0415 - it sets TensorFlow's log level

    call = ["map", "--catalog", str(broken / "catalog.json"), "--domains", str(broken / "domains.geojson")]
    call += ["--period", "1984/2030", "--store", str(tmp_path / "store"), "--cluster", "none", "--variant", "once"]
    assert main(call) == 1
    assert "1 failed" in capfd.readouterr().out
    fronts = read_fronts(str(tmp_path / "store"))
    (failed,) = fronts[fronts["state"] == "failed"].itertuples()
    assert (failed.scene_id, failed.reason) == (catalog[0].id, "unreadable")
    others = fronts[fronts["scene_id"] != failed.scene_id].reset_index(drop=True)
    whole = read_fronts(str(undisturbed))
    assert others.equals(whole[whole["scene_id"] != failed.scene_id].reset_index(drop=True))
    assert main(["status", str(tmp_path / "store")]) == 0
    counted, failures = capfd.readouterr()
    assert f"{N_SCENES}\tscenes" in counted
    assert failed.key in failures
    # The scene comes back, and a retry makes the store that of a run in which nothing went wrong.
    shutil.copy(Path(asset.href.removeprefix("file://").replace(str(broken), str(painted))), asset_path)
    assert main(["retry", str(tmp_path / "store"), "--cluster", "none"]) == 0
    assert read_fronts(str(tmp_path / "store")).equals(whole)
    assert read_polygons(str(tmp_path / "store")).equals(read_polygons(str(undisturbed)))


def test_domains_of_two_crs_are_not_mixed_in_a_store(tmp_path):
    two = [Domain(n, box_grid((0, 0, 3000, 3000), crs, 30.0)) for n, crs in (("a", 3413), ("b", 32622))]
    with pytest.raises(ValueError, match="share one CRS"):
        map_fronts(two, lambda _: [], str(tmp_path / "store"))


def test_a_store_of_another_network_or_setting_is_refused(painted, undisturbed):
    with pytest.raises(ValueError, match="made differently"):
        run(painted, undisturbed, settings=replace(ONCE, max_cloud=0.5))


def workers_that_ran(client) -> dict[str, set[str]]:
    """Workers by the name of the tasks that ran on them."""
    ran: dict[str, set[str]] = {}
    for task in client.get_task_stream():
        ran.setdefault(key_split(task["key"]), set()).add(task["worker"])
    return ran


def test_all_network_tasks_and_no_others_run_on_the_worker_that_says_gpu(painted, undisturbed, tmp_path):
    """The two-worker experiment on dask#7036: annotations put about a third of the tasks there, persist all of them."""
    options = {"nthreads": 1, "host": "127.0.0.1"}
    workers = {
        "gpu": {"cls": Nanny, "options": options | {"resources": {"GPU": 1}, "preload": [PRETEND_GPU]}},
        "cpu": {"cls": Nanny, "options": options | {"resources": {"CPU": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        infos = client.scheduler_info(n_workers=-1)["workers"]
        gpu, cpu = ({a for a, info in infos.items() if word in info["resources"]} for word in ("GPU", "CPU"))
        client.get_task_stream()  # from now on they are noted
        run(painted, tmp_path / "store", client=client)
        ran = workers_that_ran(client)
    network = {"load", "predict_pictures"}
    steps = {"look", "first_pictures", "second_pictures", "lay_windows", "finish"}
    assert network | steps <= set(ran)
    assert all(ran[name] == gpu for name in network)
    elsewhere = {name for name, where in ran.items() if where != cpu} - network
    assert elsewhere <= DASKS_OWN
    assert contents(tmp_path / "store") == contents(undisturbed)


# --- tracing anew -----------------------------------------------------------------------------------------------------


def test_retracing_with_the_same_settings_changes_no_byte(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    domains = read_domains(painted / "domains.geojson")
    assert sum(retrace_fronts(str(store), domains).values()) == 0
    assert sum(retrace_fronts(str(store), domains, everything=True).values()) == N_SCENES
    assert contents(store) == contents(undisturbed)


def test_retracing_with_other_settings_keeps_every_scene_(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    stubborn = replace(DEFAULT, candidate=replace(DEFAULT.candidate, min_confidence=1.1))
    domains = read_domains(painted / "domains.geojson")
    with connect("local", n_workers=1) as client:
        counts = retrace_fronts(str(store), domains, settings=replace(ONCE, trace=stubborn), client=client)
    assert counts["no_front"] == N_SCENES
    fronts = read_fronts(str(store))
    assert len(fronts.drop_duplicates("key")) == N_SCENES
    rejected = read_rejected(str(store))
    assert (rejected["filter"] == "confidence").any()
    assert (rejected["value"] < rejected["limit"]).all()
    assert read_store(str(store))["settings"]["trace"]["candidate"]["min_confidence"] == 1.1
    with pytest.raises(ValueError, match="made differently"):
        run(painted, store)


def test_a_retrace_that_was_stopped_is_told_and_ended_by_the_next(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)

    class StoppedError(Exception):
        pass

    def stop(_):
        raise StoppedError

    domains = read_domains(painted / "domains.geojson")
    with pytest.raises(StoppedError):
        retrace_fronts(str(store), domains, everything=True, on_batch=stop)
    with pytest.raises(ValueError, match="run it again"):
        run(painted, store)
    retrace_fronts(str(store), domains)
    assert contents(store) == contents(undisturbed)


# --- polygons and rejected candidates ---------------------------------------------------------------------------------


def test_every_scene_with_a_front_has_its_ocean_and_ice_or_the_reason_why_not(painted, undisturbed):
    fronts, polygons = read_fronts(str(undisturbed)), read_polygons(str(undisturbed))
    assert set(polygons["key"]) == set(fronts.loc[fronts["state"] == "front", "key"])
    closed = polygons[polygons["reason"] == ""]
    assert closed["key"].nunique() >= N_SCENES - 2
    (domain,) = read_domains(painted / "domains.geojson")
    for _, pair in closed.groupby("key"):
        ocean, ice = pair.set_index("kind").geometry[["ocean", "ice"]]
        assert ocean.is_valid
        assert ice.is_valid
        assert ocean.intersection(ice).area < domain.resolution_m**2
        assert ocean.union(ice).within(domain.polygon.buffer(1))


def test_a_scene_whose_item_has_changed_is_mapped_again_and_no_other(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    domains = read_domains(painted / "domains.geojson")
    items = search_scenes(painted / "catalog.json", domains[0], "1984/2030")
    assert sum(recompute_changed(str(store), domains, lambda _: items).values()) == 0
    for asset in items[1].assets.values():
        asset.extra_fields["file:checksum"] = "1220aa"
    counts = recompute_changed(str(store), domains, lambda _: items)
    assert sum(counts.values()) == 1
    assert read_fronts(str(store)).equals(read_fronts(str(undisturbed)))  # the pixels are the same
    assert sum(recompute_changed(str(store), domains, lambda _: items).values()) == 0


def test_settings_come_back_from_a_store_as_they_were_saved(undisturbed):
    assert settings_from(read_store(str(undisturbed))["settings"]) == ONCE
    with pytest.raises(ValueError, match="other settings than this version knows"):
        settings_from({"network": "calfin-small"})


def test_a_domain_with_another_boundary_is_refused_until_the_store_is_retraced(painted, undisturbed, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    (domain,) = read_domains(painted / "domains.geojson")
    moved = replace(domain, fjord_boundary=domain.polygon.buffer(-100))
    with pytest.raises(ValueError, match="another boundary"):
        map_fronts([moved], lambda _: [fresh_item(painted, domain)], str(store), settings=ONCE)
    retrace_fronts(str(store), [moved])
    assert read_store_domains(str(store)) == [moved]
    fronts = read_fronts(str(store))
    assert set(fronts.loc[fronts["state"] == "front", "isolation"]) <= {"fjord_boundary"}


def fresh_item(painted, domain):
    """An item that the store has not seen."""
    item = search_scenes(painted / "catalog.json", domain, "1984/2030")[0].clone()
    item.id = "another"
    return item


def test_every_front_of_the_shipped_network_says_how_far_off_it_may_be(undisturbed):
    fronts = read_fronts(str(undisturbed))
    found = fronts[fronts["state"] == "front"]
    assert (found["sigma_m"] > 0).all()
    assert (found["half95_m"] > found["sigma_m"]).all()
    assert found["score"].between(0, 1).all()
    for row in found.itertuples():
        assert len(row.vertex_sigma_m) == len(row.geometry.coords)
        assert min(row.vertex_sigma_m) > 0
    assert (fronts.loc[fronts["state"] != "front", "vertex_sigma_m"].map(len) == 0).all()
