"""Network tasks run on workers that say GPU and all others elsewhere; a batch that is too large for them is halved."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from distributed import Client, Nanny, Scheduler, SpecCluster
from faults.world import difference

from calfin_cloud.domains import read_domains
from calfin_cloud.network import load_network, predict_tiles
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError

NETWORK_TASKS = ("predict_pictures", "load")
OTHER_TASKS = ("look", "first_pictures", "second_pictures", "lay_windows", "finish")


def workers_saying(*words):
    """A cluster of one worker a word, each in a process of its own."""
    options = {"nthreads": 1, "host": "127.0.0.1"}
    says = [options | ({"resources": {word: 1}} if word else {}) for word in words]
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster({n: {"cls": Nanny, "options": o} for n, o in enumerate(says)}, scheduler=scheduler)


def places_of_tasks(world, store, client) -> tuple[set[str], set[str]]:
    """Workers that ran network tasks, and workers that read, looked for candidates or traced, in a run into `store`."""
    find = partial(search_scenes, world.folder / "catalog.json", period="1984/2030")
    client.get_task_stream()  # from now on they are noted
    map_fronts(read_domains(world.folder / "domains.geojson"), find, store, client=client, batch_size=4)
    ran = [(name_of(task["key"]), task["worker"]) for task in client.get_task_stream()]
    for word in (*NETWORK_TASKS, *OTHER_TASKS):
        assert any(word in name for name, _ in ran), word
    network, others = (
        {w for n, w in ran if any(word in n for word in words)} for words in (NETWORK_TASKS, OTHER_TASKS)
    )
    return network, others


def name_of(key) -> str:
    return key[0] if isinstance(key, tuple) else key


@pytest.mark.slow  # minutes on two cores; tests/test_pipeline.py has a smaller one
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_all_network_tasks_and_no_others_run_on_the_worker_that_says_gpu(world, tmp_path):
    """The experiment on dask#7036: annotations put about a third of the tasks there, persisting step by step all."""
    with workers_saying("GPU", "CPU") as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        gpu, cpu = ({a for a, info in workers.items() if word in info["resources"]} for word in ("GPU", "CPU"))
        assert places_of_tasks(world, str(tmp_path / "store"), client) == (gpu, cpu)
    assert not any(difference(world.undisturbed, str(tmp_path / "store"), finished=True))


def short_of_memory(network, n_tiles: int, error: Exception):
    """A network whose device holds `n_tiles` at most."""
    seen: list[int] = []

    def predict_on_batch(tiles):
        seen.append(len(tiles))
        if len(tiles) > n_tiles:
            raise error
        return network.predict_on_batch(tiles)

    return SimpleNamespace(input_shape=network.input_shape, predict_on_batch=predict_on_batch, seen=seen)


class XlaRuntimeError(RuntimeError):
    """What JAX raises, which is not installed here."""


ERRORS = [
    tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,224,224,64]"),
    XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 GiB."),
    MemoryError("Unable to allocate 1.5 GiB"),
]


@pytest.fixture(scope="module")
def tiles():
    return np.random.default_rng(0).uniform(-1, 1, (11, 224, 224, 3)).astype("float32")


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("n_tiles", [4, 1])
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(tiles, n_tiles, error):
    network = load_network("calfin-small-2")
    short = short_of_memory(network, n_tiles, error)
    masks = predict_tiles(short, tiles)
    assert np.abs(masks - predict_tiles(network, tiles)).max() < 1e-5  # a step of a stored mask is 0.004
    assert short.seen[0] == 8
    assert min(short.seen) == n_tiles


def test_a_tile_that_does_not_fit_into_memory_is_a_scene_s_error_that_says_so(tiles):
    short = short_of_memory(load_network("calfin-small-2"), 0, ERRORS[0])
    with pytest.raises(SceneError, match="not even one tile") as told:
        predict_tiles(short, tiles)
    assert told.value.reason == "out_of_memory"


def test_any_other_error_of_the_network_is_raised_as_it_is(tiles):
    short = short_of_memory(load_network("calfin-small-2"), 0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        predict_tiles(short, tiles)
    assert short.seen == [8]
