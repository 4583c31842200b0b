"""Painted scenes on a coarse grid, and the store of a run that nothing disturbed."""

import gc
from pathlib import Path

import pytest
from faults.world import World, calfin, paint_world, states

N_SCENES = 9


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Nine painted scenes, a batch each, so that runs can be caught in the middle; mapped once without Dask."""
    folder = paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=11)
    world = World(Path(folder), str(folder), str(tmp_path_factory.mktemp("stores") / "undisturbed"), 1)
    assert calfin(*world.map_call(world.undisturbed)) == 0, states(world.undisturbed)
    return world


@pytest.fixture(autouse=True)
def collected():
    """Collect what the clients of clusters leave open while the warnings of the test are still filtered."""
    yield
    gc.collect()
