"""What stackstac cannot take from an item is put right, and its stack has the pixels that the files have."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
import stackstac
from distributed import Client, LocalCluster
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from servers.files import serve_folder
from servers.rasters import HERE, LEFT, PIXEL, SIDE, TOP, compute, make_item, ramp, write_tif

from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.imagery import read_each, retries, stack_scenes
from calfin_cloud.imagery.stack import item_on_grid, source_of
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError


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
def test_scenes_read_one_by_one_are_the_chunks_of_the_stack(sample, epsg, resolution):
    items, domain = sample
    assert {item.properties["proj:epsg"] for item in items} == {3413, 32622}
    there = on_grid(domain, epsg, resolution)
    scenes = stack_scenes(items, there)
    stack = compute(scenes)
    assert np.isfinite(stack).mean() > 0.3
    np.testing.assert_array_equal(stack, np.stack(list(read_each(scenes.data))))


def test_pixels_are_those_that_stackstac_reads_by_itself(sample):
    items, domain = sample
    landsat = [item for item in items if item.collection_id == "landsat-c2-l2"]
    ours = compute(stack_scenes(landsat, domain)).values
    how = {"epsg": domain.grid.crs.epsg, "bounds": tuple(domain.grid.boundingbox.bbox), "resolution": 30.0}
    how |= {"snap_bounds": False, "rescale": False, "sortby_date": False, "properties": False, "band_coords": False}
    with ThreadPoolExecutor(1) as thread:  # in which GDAL keeps the options that stackstac's own reader sets and leaves
        theirs = [
            thread.submit(compute, stackstac.stack(landsat, assets=[name], **more, **how)).result().values[:, 0]
            for name, more in {"nir08": {"resampling": Resampling.bilinear}, "qa_pixel": {"fill_value": 1}}.items()
        ]
    numbers, bits = theirs[0], theirs[1].astype(int)
    both = np.isfinite(ours[:, 0]) & np.isfinite(numbers)
    assert (np.isfinite(ours[:, 0]) == np.isfinite(numbers)).mean() > 0.995
    # stackstac lets GDAL guess how much it shrinks, and warps through a VRT.
    off = np.abs(ours[:, 0] - (numbers * 2.75e-5 - 0.2))[both]
    assert np.median(off) < 0.002
    assert np.percentile(off, 99) < 0.04
    known = np.isfinite(ours[:, 1])
    assert known.mean() > 0.5
    assert (ours[:, 1][known] == ((bits & 0b1100) > 0)[known]).mean() > 0.995


@pytest.mark.filterwarnings("ignore")  # of Matplotlib
def test_a_user_takes_scenes_and_draws_them_and_only_these_are_read(tmp_path):
    with serve_folder(tmp_path) as server:
        names = [write_tif(tmp_path / f"{year}.tif", ramp() + year).name for year in (2019, 2020, 2021)]
        dates = [datetime(int(name[:4]), 6, 1, tzinfo=UTC) for name in names]
        items = [
            make_item(f"{server.url}/c.json", {"nir08": f"{server.url}/{name}"}, date=date)
            for name, date in zip(names, dates, strict=True)
        ]
        scenes = stack_scenes(iter(items), HERE)  # as `stream_scenes` gives them
        picture = scenes.sel(band="signal").isel(time=1).plot()
        np.testing.assert_array_equal(picture.get_array().reshape(SIDE, SIDE), ramp() + 2020)
        assert float(scenes.sel(time="2021", band="signal").max()) == ramp().max() + 2021
        assert set(server.requests) == {"2020.tif", "2021.tif"}


# What is put right


BESIDE = [LEFT + 1e6, TOP - 1e6, LEFT + 1.1e6, TOP - 0.9e6]
ODD = {
    "nothing of a projection": {},
    "proj:code in place of proj:epsg": {"proj:code": "EPSG:32622", "proj:bbox": BESIDE},
    "no EPSG code": {"proj:epsg": None},
    "a box elsewhere": {"proj:epsg": 32622, "proj:bbox": BESIDE},
    "a box in degrees": {"proj:epsg": 32622, "proj:bbox": [-53.0, 71.0, -52.0, 72.0]},
    "a transform elsewhere": {"proj:epsg": 32622, "proj:shape": [9, 9], "proj:transform": [1, 0, 0, 0, -1, 0]},
    "an unknown CRS": {"proj:epsg": 999_999, "proj:bbox": [0, 0, 1, 1]},
}
"""What items say of where they lie, beside what stackstac needs to hear."""


@pytest.mark.parametrize("said", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize("by", ["item", "asset"])
def test_the_file_says_where_a_scene_lies_whatever_its_item_says(tmp_path, said, by):
    item = make_item(tmp_path, {"nir08": write_tif(tmp_path / "a.tif", ramp())})
    (item.properties if by == "item" else item.assets["nir08"].extra_fields).update(said)
    np.testing.assert_array_equal(compute(stack_scenes([item], HERE))[0, 0], ramp())


@pytest.mark.parametrize("bbox", [None, [0.0, 0.0, 1.0, 1.0]])
def test_a_scene_without_a_box_or_with_a_wrong_one_is_read(tmp_path, bbox):
    item = make_item(tmp_path, {"nir08": write_tif(tmp_path / "a.tif", ramp())})
    item.bbox = bbox
    np.testing.assert_array_equal(compute(stack_scenes([item], HERE))[0, 0], ramp())


def test_an_asset_said_to_have_several_bands_is_read_if_it_has_one(tmp_path):
    item = make_item(tmp_path, {"nir08": write_tif(tmp_path / "a.tif", ramp())})
    item.assets["nir08"].extra_fields["raster:bands"] = [{"nodata": 0}, {"nodata": 0}]
    np.testing.assert_array_equal(compute(stack_scenes([item], HERE))[0, 0], ramp())


@pytest.mark.parametrize("year", [1, 1677, 2263, 9999])
def test_a_date_that_stackstac_does_not_take_is_kept(tmp_path, year):
    path = write_tif(tmp_path / "a.tif", ramp())
    items = [make_item(tmp_path, {"nir08": path}) for _ in range(2)]
    items[0].datetime = items[0].datetime.replace(year=year)
    scenes = stack_scenes(items, HERE)
    assert scenes["time"].values[0] == np.datetime64(items[0].datetime.replace(tzinfo=None))
    np.testing.assert_array_equal(compute(scenes)[:, 0], [ramp(), ramp()])


def test_the_item_itself_stays_as_it_is(tmp_path):
    item = make_item(tmp_path, {"nir08": tmp_path / "a.tif"})
    before = item.to_dict()
    copy = item_on_grid(item, source_of(item), HERE.grid)
    assert copy["properties"]["proj:bbox"] == [LEFT, TOP - SIDE * PIXEL, LEFT + SIDE * PIXEL, TOP]
    assert item.to_dict() == before


@pytest.mark.parametrize("name", ["dateline", "pole"])
def test_scene_at_the_antimeridian_or_the_pole_is_read(tmp_path, name):
    epsg, left, top = {"dateline": (32601, 300_000.0, 8_000_000.0), "pole": (3413, -1440.0, 1440.0)}[name]
    path = write_tif(tmp_path / "a.tif", ramp(), left=left, top=top, crs=f"EPSG:{epsg}")
    grid = GeoBox((96, 96), HERE.grid.transform, HERE.grid.crs)
    grid = GeoBox(grid.shape, type(grid.transform)(30, 0, left, 0, -30, top), f"EPSG:{epsg}")
    item = make_item(tmp_path, {"nir08": path})
    np.testing.assert_array_equal(compute(stack_scenes([item], Domain(name, grid)))[0, 0], ramp())


# What goes wrong


def test_broken_scenes_fail_alone_and_only_when_they_are_read(tmp_path):
    good = [write_tif(tmp_path / f"{n}.tif", ramp() + n) for n in (0, 1)]
    items = [
        make_item(tmp_path, {"nir08": good[0]}),
        make_item(tmp_path, {"nir08": tmp_path / "nothing.tif"}),
        make_item(tmp_path, {"red": good[0]}),
        make_item("https://stac.example.org", {"nir08": good[0]}),
        make_item(tmp_path, {"nir08": good[1]}),
    ]
    scenes = stack_scenes(items, HERE)
    for n, values in ((0, ramp()), (4, ramp() + 1)):
        np.testing.assert_array_equal(compute(scenes[n])[0], values)
    for n, reason in ((1, "unreadable"), (2, "no_band"), (3, "refused_address")):
        with pytest.raises(SceneError) as caught:
            compute(scenes[n])
        assert caught.value.reason == reason
    reasons = [of.reason if isinstance(of, SceneError) else None for of in read_each(scenes.data)]
    assert reasons == [
        None,
        "unreadable",
        "no_band",
        "refused_address",
        None,
    ]  # in order, and no one takes another with it


def test_worker_of_one_thread_waits_for_several_scenes_at_once(tmp_path):
    n = 3 * retries.READING_THREADS
    write_tif(tmp_path / "a.tif", ramp())
    with (
        serve_folder(tmp_path) as server,
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        server.latency_s = 0.1
        files = [{"nir08": f"{server.url}/a.tif?n={i}", "qa_pixel": f"{server.url}/a.tif?q={i}"} for i in range(n)]
        items = [make_item(f"{server.url}/c.json", assets) for assets in files]
        scenes = client.compute(stack_scenes(items, HERE)).result()
    np.testing.assert_array_equal(scenes[-1, 0], ramp())
    assert 4 <= server.most_at_once <= retries.READING_THREADS
