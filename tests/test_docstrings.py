"""Every public name says what it takes, gives and refuses, and its example runs."""

import doctest
import inspect
import os
import re
import sys
import warnings
from functools import partial

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import LineString

import calfin_cloud as cc
from calfin_cloud import sensors
from calfin_cloud.datasets import Sample
from calfin_cloud.sample import paint_scene

SLOW = ("calfin_network", "load_network", "write_store_report")  # Keras takes seconds, and so does a second report
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def scene():
    """One painted scene, (band, y, x) float32: signal, and no clouds."""
    signal = paint_scene(np.random.default_rng(3), (256, 256), kind="optical", pixel_m=30.0).signal.astype(np.float32)
    return np.stack([signal, np.zeros_like(signal)])


def sample():
    """A labelled scene: ice to the left of a straight front."""
    ice = np.zeros((256, 256), np.uint8)
    ice[:, :128] = 1
    front = np.zeros(ice.shape, bool)
    front[:, 127] = True
    image = np.where(ice == 1, 200, 20).astype(np.float32)
    return Sample("step", "Painted", "optical", image, front, ice)


def step():
    """Probabilities of front and ice: a sure edge along column 128, ice to its left."""
    columns = np.broadcast_to(np.arange(256.0), (256, 256))
    return np.exp(-(((columns - 128) / 1.2) ** 2)), (columns < 128).astype(float)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder where examples run: `real`, the sample that comes with the package, and `fronts`, its store."""
    folder = tmp_path_factory.mktemp("examples")
    cc.write_real_sample(folder / "real")
    domains = cc.read_domains(folder / "real" / "domains.geojson")
    find = partial(cc.stream_scenes, folder / "real" / "catalog.json", period="2021")
    before = os.getcwd()
    os.chdir(folder)  # the catalogue is known by its path
    try:
        assert cc.map_fronts(domains, find, "fronts")["front"] == 1
        yield folder
    finally:
        os.chdir(before)
        sensors.table._own.clear()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in sorted(cc.__all__)]
)
def test_the_example_of_a_public_name_runs(name, place):
    found = getattr(cc, name)
    known = {"cc": cc, "np": np, "gpd": gpd, "LineString": LineString}
    known |= {"scene": scene(), "sample": sample(), "step": step()}
    names = vars(sys.modules[found.__module__]) | known
    tests = [t for t in doctest.DocTestFinder(recurse=False).find(found, name, globs=names) if t.examples]
    assert tests, f"{name} has no example"
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        failures = doctest.DocTestRunner(optionflags=OPTIONS).run(tests[0], out=told.append).failed
    assert failures == 0, "".join(told)


@pytest.mark.parametrize("name", sorted(cc.__all__))
def test_a_public_name_describes_all_it_takes_and_gives(name):
    found = getattr(cc, name)
    text = inspect.getdoc(found) or ""
    heads = re.findall(r"^(\S.*)\n {4}\S", text, re.MULTILINE)
    described = {part.strip() for head in heads for part in head.split(",")}
    assert set(inspect.signature(found).parameters) - described == set()
    gives = inspect.isfunction(found) and inspect.signature(found).return_annotation not in (None, "None")
    assert not gives or "\nReturns\n-------\n" in text


@pytest.mark.parametrize("name", sorted(n for n in cc.__all__ if inspect.isfunction(getattr(cc, n))))
def test_a_public_function_that_can_raise_says_what(name):
    found = getattr(cc, name)
    if re.search(r"^\s+raise (ValueError|OSError|TypeError)", inspect.getsource(found), re.MULTILINE):
        assert "\nRaises\n------\n" in (inspect.getdoc(found) or "")
