"""Network tasks run on workers that say GPU and all others elsewhere."""

from functools import partial
from pathlib import Path

import pytest
from distributed import Client, Nanny, Scheduler, SpecCluster
from faults.world import difference

from calfin_cloud.domains import read_domains
from calfin_cloud.pipeline import VARIANTS, map_fronts
from calfin_cloud.scenes import search_scenes

NETWORK_TASKS = ("predict_pictures", "load")
OTHER_TASKS = ("look", "first_pictures", "second_pictures", "lay_windows", "finish")


def workers_saying(*words):
    """A cluster of one worker a word, each in a process of its own."""
    options = {"nthreads": 1, "host": "127.0.0.1"}
    pretend = {"preload": [str(Path(__file__).parents[1] / "pretend_gpu.py")]}
    says = [options | ({"resources": {word: 1}} if word else {}) | (pretend if word == "GPU" else {}) for word in words]
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster({n: {"cls": Nanny, "options": o} for n, o in enumerate(says)}, scheduler=scheduler)


def places_of_tasks(world, store, client) -> tuple[set[str], set[str]]:
    """Workers that ran network tasks, and workers that read, looked for candidates or traced, in a run into `store`."""
    find = partial(search_scenes, world.folder / "catalog.json", period="1984/2030")
    client.get_task_stream()  # from now on they are noted
    domains, once = read_domains(world.folder / "domains.geojson"), VARIANTS["once"]  # as the world was mapped
    map_fronts(domains, find, store, client=client, batch_size=4, settings=once)
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
