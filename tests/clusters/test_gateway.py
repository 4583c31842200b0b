"""A run on a cluster behind a real Dask Gateway: server, proxy, scheduler and workers are processes of their own."""

import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dask
import nbformat
import pytest
from dask_gateway import Gateway
from faults.world import calfin_process, tables
from servers.gateway import serve_gateway

from calfin_cloud.clusters import connect
from calfin_cloud.domains import read_domains
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.scenes import search_scenes
from calfin_cloud.storage import is_store

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # dask-gateway 2026.3 closes a gateway again when it is collected, after its loop has stopped: those of the tests.
    pytest.mark.filterwarnings("ignore:(?s).*Gateway.__del__:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serve_gateway(tmp_path_factory.mktemp("gateway")) as address:
        yield address


def test_the_command_line_maps_on_two_workers_behind_a_gateway_and_leaves_no_cluster(world, address, tmp_path):
    store = str(tmp_path / "store")
    call = world.map_call(store, "--workers", "2", "--cluster-option", "worker_threads=1", cluster="gateway")
    run = calfin_process(*call, env=os.environ | {"DASK_GATEWAY__ADDRESS": address}, stderr=subprocess.PIPE)
    with Gateway(address) as gateway:
        seen = most_workers(gateway, run)
        _, errors = run.communicate(timeout=600)
        assert run.returncode == 0, errors.decode()
        assert "Exception ignored" not in errors.decode()  # in __del__, a traceback for each gateway
        assert seen == 2
        assert gateway.list_clusters() == []
    assert tables(store) == tables(world.undisturbed)


def most_workers(gateway, run) -> int:
    """Most workers of the cluster that a run starts, asked while it lasts."""
    most = 0
    while run.poll() is None:
        for report in gateway.list_clusters():
            with gateway.connect(report.name) as cluster, cluster.get_client(set_as_default=False) as client:
                while run.poll() is None and client.status == "running":
                    most = max(most, len(client.scheduler_info(n_workers=-1)["workers"]))
                    time.sleep(0.5)
        time.sleep(0.2)
    return most


def test_a_cluster_is_adaptive_between_two_numbers_and_shut_down_when_its_run_fails(address):
    class BrokenError(Exception):
        pass

    def fail_on_a_growing_cluster():
        with connect("gateway", n_workers=(1, 2), address=address) as client:
            waiting = client.map(time.sleep, [2 + n / 1000 for n in range(60)])
            client.wait_for_workers(2, timeout=600)
            client.cancel(waiting)
            raise BrokenError

    with Gateway(address) as gateway:
        with pytest.raises(BrokenError):
            fail_on_a_growing_cluster()
        assert gateway.list_clusters() == []


def test_what_the_server_does_not_offer_is_left_out_with_a_warning_and_what_it_offers_is_taken(address, caplog):
    of_hub = {"gateway.cluster.options": {"image": "hub:1", "worker_threads": 2}}
    with dask.config.set(of_hub), connect("gateway", address=address, moons=2) as client:
        client.wait_for_workers(1, timeout=300)
        assert [w["nthreads"] for w in client.scheduler_info(n_workers=-1)["workers"].values()] == [2]
    (warning,) = (r.getMessage() for r in caplog.records if "the gateway offers" in r.getMessage())
    assert "['image', 'moons']" in warning


def test_memory_is_given_as_a_size_where_the_server_counts_whole_gib(address):
    with connect("gateway", address=address, worker_memory="3GiB") as client:
        client.wait_for_workers(1, timeout=300)
        assert [w["memory_limit"] for w in client.scheduler_info(n_workers=-1)["workers"].values()] == [3 * 2**30]


def loops():
    """Threads of Dask that run a loop."""
    return {thread for thread in threading.enumerate() if thread.name == "IO loop"}


@pytest.mark.parametrize("chosen", [{"worker_threads": 99}, {"broken": True}], ids=["refused", "broken"])
def test_a_cluster_that_does_not_start_ends_the_call_with_its_reason_and_leaves_no_loop(address, chosen):
    """Its loop was closed by the garbage collector, which waits for a lock that its own thread may hold."""
    before = loops()
    with (
        pytest.raises(ValueError, match=r"the gateway started no cluster") as told,
        connect("gateway", address=address, **chosen),
    ):
        pass
    assert loops() <= before
    assert told  # as long as anyone has the error, with all that it refers to


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root to make a mount namespace")
def test_a_store_and_scenes_that_workers_in_another_mount_namespace_do_not_see_are_refused(world, tmp_path):
    """Workers of a hub's gateway have disks of their own: here an empty one where this process has its files."""
    apart = f'mount -t tmpfs none {world.folder} && mount -t tmpfs none {tmp_path / "home"} && exec "$@"'
    (tmp_path / "home").mkdir()
    (tmp_path / "gateway").mkdir()
    with (
        serve_gateway(tmp_path / "gateway", before_worker=("unshare", "--mount", "sh", "-c", apart, "--")) as address,
        connect("gateway", address=address) as client,
    ):
        client.wait_for_workers(1, timeout=300)
        domains = read_domains(world.folder / "domains.geojson")
        find = partial(search_scenes, world.folder / "catalog.json", period="1984/2030")
        with pytest.raises(ValueError, match=r"the store .* is a folder of this machine.*SCRATCH_BUCKET"):
            map_fronts(domains, find, str(tmp_path / "home" / "store"), client=client)
        assert list((tmp_path / "home").iterdir()) == []
        (tmp_path / "shared").mkdir()
        with pytest.raises(ValueError, match=r"scenes such as .* lie on this machine"):
            map_fronts(domains, find, str(tmp_path / "shared" / "store"), client=client)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root to make a mount namespace")
def test_the_notebook_of_wide_runs_maps_on_scratch_storage_with_workers_that_do_not_see_its_folder(s3, tmp_path):
    """As on a hub: the address of a gateway and a bucket in the environment."""
    s3.client().create_bucket(Bucket="scratch")
    notebook = nbformat.read(Path(__file__).parents[2] / "notebooks" / "03_scale_out.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for folder in ("home", "gateway"):
        (tmp_path / folder).mkdir()
    apart = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path / "home"} && exec "$@"', "--")
    with serve_gateway(tmp_path / "gateway", before_worker=apart) as address:
        hub = {"DASK_GATEWAY__ADDRESS": address, "SCRATCH_BUCKET": "s3://scratch/me", "MPLBACKEND": "agg"}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "home", env=os.environ | hub, check=True)
    assert is_store("s3://scratch/me/calfin-demo/wide-store")
    assert os.listdir(tmp_path / "home" / "calfin-demo") == ["wide"]
