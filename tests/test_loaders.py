"""stackstac and odc-stac give the same scenes and the same fronts, and those that odc-stac would read by itself."""

import warnings

import numpy as np
import odc.stac
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from odc.geo.geobox import GeoBox
from servers.files import serve_folder
from servers.rasters import HERE, compute, make_item, ramp, write_tif

from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.imagery import LOADERS, patience, stack_scenes
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError
from calfin_cloud.storage import read_fronts


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Six painted scenes: Landsat, Sentinel-2 and Sentinel-1 in two CRSs, and the domain."""
    folder = tmp_path_factory.mktemp("sample")
    catalog = write_sample(folder, scenes=6)
    (domain,) = read_domains(folder / "domains.geojson")
    return search_scenes(catalog, domain, "1984/.."), domain


def on_grid(domain, epsg, resolution):
    """The domain's place on a grid of another CRS and resolution."""
    with warnings.catch_warnings(action="ignore"):
        box = domain.grid.extent.to_crs(f"EPSG:{epsg}").boundingbox
    x, y = (box.left + box.right) / 2, (box.bottom + box.top) / 2
    return Domain(domain.name, box_grid((x - 4000, y - 4000, x + 4000, y + 4000), epsg, resolution))


@pytest.mark.parametrize(("epsg", "resolution"), [(3413, 30.0), (32622, 30.0), (3413, 75.0), (32621, 20.0)])
def test_both_loaders_give_the_same_pixels(sample, epsg, resolution):
    items, domain = sample
    assert {item.properties["proj:epsg"] for item in items} == {3413, 32622}
    there = on_grid(domain, epsg, resolution)
    one, other = (stack_scenes(items, there, loader=loader) for loader in LOADERS)
    assert list(one["scene_id"].values) == list(other["scene_id"].values)
    assert one.chunks == other.chunks
    one, other = compute(one), compute(other)
    assert np.isfinite(one).mean() > 0.3
    assert one.identical(other)


def test_pixels_are_those_that_odc_stac_reads_by_itself(sample):
    items, domain = sample
    landsat = [item for item in items if item.collection_id == "landsat-c2-l2"]
    ours = compute(stack_scenes(landsat, domain))
    with warnings.catch_warnings(action="ignore"):
        theirs = odc.stac.load(
            landsat, bands=["nir08", "qa_pixel"], geobox=domain.grid, groupby="id",
            resampling={"nir08": "bilinear", "qa_pixel": "nearest"}, fail_on_error=True,
        )  # fmt: skip
    numbers = theirs["nir08"].values.astype("float32")
    reflectance = np.where(numbers > 0, numbers * 2.75e-5 - 0.2, np.nan)
    both = np.isfinite(ours[:, 0].values) & np.isfinite(reflectance)
    assert (np.isfinite(ours[:, 0].values) == np.isfinite(reflectance)).mean() > 0.995
    off = np.abs(ours[:, 0].values - reflectance)[both]
    # odc-stac takes the window's resolution as it finds it, and lets GDAL guess how much it shrinks.
    assert np.median(off) < 0.002
    assert np.percentile(off, 99) < 0.03
    cloud = (theirs["qa_pixel"].values & 0b1100) > 0
    known = np.isfinite(ours[:, 1].values)
    assert (ours[:, 1].values[known] == cloud[known]).mean() > 0.995


@pytest.mark.parametrize("loader", LOADERS)
def test_broken_scene_fails_alone_whatever_the_loader(tmp_path, loader):
    items = [make_item(tmp_path, {"nir08": tmp_path / f"{n}.tif"}) for n in range(3)]
    for n in (0, 2):
        write_tif(tmp_path / f"{n}.tif", ramp() + n)
    scenes = stack_scenes(items, HERE, loader=loader)
    for n in (0, 2):
        np.testing.assert_array_equal(compute(scenes[n])[0], ramp() + n)
    with pytest.raises(SceneError, match=items[1].id):
        compute(scenes[1])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", ["dateline", "pole"])
def test_scene_at_the_antimeridian_or_the_pole_is_read(tmp_path, loader, name):
    epsg, left, top = {"dateline": (32601, 300_000.0, 8_000_000.0), "pole": (3413, -1440.0, 1440.0)}[name]
    path = write_tif(tmp_path / "a.tif", ramp(), left=left, top=top, crs=f"EPSG:{epsg}")
    grid = GeoBox((96, 96), HERE.grid.transform, HERE.grid.crs)
    grid = GeoBox(grid.shape, type(grid.transform)(30, 0, left, 0, -30, top), f"EPSG:{epsg}")
    item = make_item(tmp_path, {"nir08": path})
    np.testing.assert_array_equal(compute(stack_scenes([item], Domain(name, grid), loader=loader))[0, 0], ramp())


@pytest.mark.parametrize("loader", LOADERS)
def test_worker_of_one_thread_waits_for_several_scenes_at_once(tmp_path, loader):
    n = 3 * patience.READING_THREADS
    write_tif(tmp_path / "a.tif", ramp())
    with (
        serve_folder(tmp_path) as server,
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        server.latency_s = 0.1
        items = [make_item(f"{server.url}/c.json", {"nir08": f"{server.url}/a.tif?n={i}"}) for i in range(n)]
        scenes = client.compute(stack_scenes(items, HERE, loader=loader)).result()
    np.testing.assert_array_equal(scenes[-1, 0], ramp())
    assert 4 <= server.most_at_once <= patience.READING_THREADS


def test_both_loaders_give_the_same_fronts(sample, tmp_path):
    items, domain = sample
    wanted = [next(i for i in items if i.collection_id == name) for name in ("landsat-c2-l2", "sentinel-1-rtc")]
    wanted.sort(key=lambda item: item.datetime)
    tables = []
    for loader in LOADERS:
        store = str(tmp_path / loader)
        counts = map_fronts([domain], lambda _: wanted, store, loader=loader)
        assert (counts["found"], counts["failed"]) == (2, 0)
        assert counts["front"] >= 1
        tables.append(read_fronts(store))
    pd.testing.assert_frame_equal(*tables)
