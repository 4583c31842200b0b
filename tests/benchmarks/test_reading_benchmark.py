"""Scenes a second from a server 50 ms away, with and without reading ahead; bytes fetched over bytes needed; core time.

`pytest tests/benchmarks/test_reading_benchmark.py --benchmark-only --benchmark-columns=mean,rounds -rP`
"""

import time
from functools import partial

import dask
import distributed
import psutil
import pytest
from affine import Affine
from distributed import Client
from odc.geo.geobox import GeoBox
from servers.files import serve_folder
from servers.rasters import LEFT, TOP, UTM, compute, make_item
from test_reading import bytes_needed, large_scene, served  # noqa: F401 (a fixture)

from calfin_cloud.clusters import local
from calfin_cloud.domains import Domain, read_domains
from calfin_cloud.imagery import read_each, reader, stack_scenes
from calfin_cloud.pipeline import map_fronts, scene
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes

N_SCENES, LATENCY_S = 24, 0.05


@pytest.fixture(scope="module")
def distant(tmp_path_factory):
    """Painted scenes on a server whose every answer takes 50 ms, and their domain."""
    folder = tmp_path_factory.mktemp("distant")
    write_sample(folder, scenes=N_SCENES)
    (domain,) = read_domains(folder / "domains.geojson")
    with pytest.MonkeyPatch.context() as patch, serve_folder(folder) as server:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        items = search_scenes(f"{server.url}/catalog.json", domain, "1984/..")
        server.latency_s = LATENCY_S
        yield items, domain


def stay():
    """Take the place of `distributed.secede`."""
    reader.distributed.secede = lambda: None


def leave():
    reader.distributed.secede = distributed.worker.secede


@pytest.fixture(scope="module")
def workers():
    with local(2) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def memory_mb(client):
    return max(client.run(lambda: psutil.Process().memory_info().rss).values()) / 2**20


@pytest.mark.parametrize("ahead", [False, True], ids=["one after the other", "read ahead"])
@pytest.mark.parametrize("where", ["here", "workers"])
def test_scenes_from_a_distant_server(benchmark, distant, request, tmp_path, where, ahead):
    items, domain = distant
    client = request.getfixturevalue("workers") if where == "workers" else None
    if client:
        client.run(leave if ahead else stay)
    elif not ahead:
        request.getfixturevalue("monkeypatch").setattr(scene, "read_each", partial(read_each, at_once=1))
    map_fronts([domain], lambda _: items[:2], str(tmp_path / "warm"), client=client)  # imports, weights
    run = partial(map_fronts, [domain], lambda _: items, str(tmp_path / "store"), client=client, batch_size=8)
    counts = benchmark.pedantic(run, rounds=1)
    assert counts["failed"] == 0
    benchmark.extra_info["scenes_a_second"] = round(N_SCENES / benchmark.stats.stats.mean, 2)
    if client:
        benchmark.extra_info["worker_memory_mb"] = round(memory_mb(client))
    print(where, "read ahead" if ahead else "one after the other", benchmark.extra_info)


@pytest.mark.parametrize("ahead", [False, True], ids=["one after the other", "read ahead"])
def test_reading_alone_on_a_worker(benchmark, distant, workers, ahead):
    items, domain = distant
    workers.run(leave if ahead else stay)
    scenes = stack_scenes(items, domain)
    seen = benchmark.pedantic(lambda: workers.compute(scenes.notnull().sum()).result(), rounds=1)
    assert int(seen) > 0
    benchmark.extra_info["scenes_a_second"] = round(N_SCENES / benchmark.stats.stats.mean, 2)
    print("reading alone", "read ahead" if ahead else "one after the other", benchmark.extra_info)


@pytest.mark.parametrize("side", [100, 400, 1000])
def test_bytes_of_a_domain(benchmark, large_scene, side):  # noqa: F811
    grid = GeoBox((side, side), Affine(10, 0, LEFT + 15050, 0, -10, TOP - 15050), UTM)
    with pytest.MonkeyPatch.context() as patch, serve_folder(large_scene) as server:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        item = served(server, "signal.tif", qa_pixel=f"{server.url}/quality.tif")
        benchmark.pedantic(lambda: compute(stack_scenes([item], Domain("part", grid))), rounds=1)
    for name in ("signal.tif", "quality.tif"):
        ratio = server.n_bytes[name] / bytes_needed(large_scene / name, grid)
        benchmark.extra_info[f"bytes fetched / needed, {name}"] = round(ratio, 3)
        assert ratio <= 1.5
    print(side, "px", benchmark.extra_info)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("pixel_m", [10, 30], ids=["as it is", "from an overview"])
@pytest.mark.parametrize("how", ["one by one", "stacked"])
def test_core_time_of_a_scene_of_600_px_from_a_local_cog(benchmark, large_scene, pixel_m, how):  # noqa: F811
    domain = Domain("part", GeoBox((600, 600), Affine(pixel_m, 0, LEFT + 5000, 0, -pixel_m, TOP - 5000), UTM))
    item = make_item(large_scene, {"nir08": large_scene / "signal.tif", "qa_pixel": large_scene / "quality.tif"})
    stack = stack_scenes([item], domain)
    benchmark(lambda: list(read_each(stack.data)) if how == "one by one" else compute(stack))


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("n", [1, 32, 128])
def test_core_time_of_the_graph_of_a_stack(benchmark, n):
    domain = Domain("part", GeoBox((600, 600), Affine(10, 0, LEFT, 0, -10, TOP), UTM))
    items = [make_item("/data", {"nir08": f"/data/{i}.tif", "qa_pixel": f"/data/{i}-qa.tif"}) for i in range(n)]
    stack = benchmark(lambda: stack_scenes(items, domain))
    benchmark.extra_info["tasks a scene"] = len(dict(dask.optimize(stack.data)[0].dask)) / n
    benchmark.extra_info["ms a scene"] = round(benchmark.stats.stats.mean / n * 1000, 3)
    print(n, benchmark.extra_info)
