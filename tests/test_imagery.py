"""Scenes come out on the domain's grid, exactly, and a scene that cannot be read says so and disturbs no other."""

import pickle
from datetime import UTC, datetime
from functools import partial

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.warp import transform
from servers.rasters import HERE, LEFT, PIXEL, SIDE, TOP, UTM, compute, make_item, ramp, write_tif

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import scene_fractions, stack_scenes
from calfin_cloud.scenes import items_from_images
from calfin_cloud.schema import SceneError, check_scenes


@pytest.fixture
def domain() -> Domain:
    return HERE


def test_stack_keeps_the_contract_and_opens_nothing_until_computed(tmp_path, domain):
    items = [make_item(tmp_path, {"nir08": tmp_path / "not-there-yet.tif"}) for _ in range(3)]
    scenes = check_scenes(stack_scenes(items, domain))
    assert scenes.shape == (3, 2, SIDE, SIDE)
    assert scenes.chunks == ((1, 1, 1), (2,), (SIDE,), (SIDE,))
    assert list(scenes["scene_id"].values) == [item.id for item in items]
    assert scenes["time"].values[0] == np.datetime64(items[0].datetime.replace(tzinfo=None), "ns")
    assert scenes.rio.crs.to_epsg() == 32622
    assert scenes.rio.transform() == domain.grid.transform
    np.testing.assert_array_equal(scenes["x"], LEFT + PIXEL * (np.arange(SIDE) + 0.5))
    np.testing.assert_array_equal(scenes["y"], TOP - PIXEL * (np.arange(SIDE) + 0.5))
    write_tif(tmp_path / "not-there-yet.tif", ramp())
    np.testing.assert_array_equal(compute(scenes)[1, 0], ramp())


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (5, 7), (-20, 33), (-60, -60)])
def test_pixels_on_a_coinciding_grid_are_copied_exactly(tmp_path, domain, rows, columns):
    values = ramp((160, 150))
    path = write_tif(tmp_path / "a.tif", values, left=LEFT - columns * PIXEL, top=TOP + rows * PIXEL)
    got = compute(stack_scenes([make_item(tmp_path, {"nir08": path})], domain))[0, 0]
    frame = np.full((SIDE + 400, SIDE + 400), np.nan)
    frame[200 : 200 + 160, 200 : 200 + 150] = values
    np.testing.assert_array_equal(got, frame[200 + rows :][:SIDE, 200 + columns :][:, :SIDE])


def test_half_a_pixel_off_is_the_mean_of_four(tmp_path, domain):
    values = np.random.default_rng(0).integers(1, 60000, (SIDE + 1, SIDE + 1), dtype="uint16")
    path = write_tif(tmp_path / "a.tif", values, left=LEFT - PIXEL / 2, top=TOP + PIXEL / 2)
    got = compute(stack_scenes([make_item(tmp_path, {"nir08": path})], domain))[0, 0]
    v = values.astype(float)
    mean = (v[1:, 1:] + v[:-1, 1:] + v[1:, :-1] + v[:-1, :-1]) / 4
    np.testing.assert_allclose(got, mean, rtol=1e-5)


def test_pixels_lie_right_in_another_projection(tmp_path):
    rows, columns = np.mgrid[:400, :400] + 0.5
    polar = GeoBox((150, 150), Affine(30, 0, -305_500, 0, -30, -1_931_000), "EPSG:3413")
    xs, ys = np.meshgrid(polar.coordinates["x"].values, polar.coordinates["y"].values)
    east, north = (np.reshape(v, xs.shape) for v in transform("EPSG:3413", UTM, xs.ravel(), ys.ravel()))
    left, top = east.mean() - 6000, north.mean() + 6000
    items = [
        make_item(
            tmp_path,
            {"image": write_tif(tmp_path / f"{n}.tif", v.astype("float32"), left=left, top=top)},
            collection="images",
        )
        for n, v in enumerate((columns, rows))
    ]
    column, row = compute(stack_scenes(items, Domain("polar", polar)))[:, 0].values
    np.testing.assert_allclose(column, (east - left) / PIXEL, atol=0.005)
    np.testing.assert_allclose(row, (top - north) / PIXEL, atol=0.005)


def test_finer_scene_is_averaged_and_not_picked(tmp_path, domain):
    stripes = np.where(np.arange(3 * SIDE) % 3 == 0, 900, 0).astype("float32")
    path = write_tif(tmp_path / "a.tif", np.tile(stripes, (3 * SIDE, 1)), pixel=PIXEL / 3)
    item = make_item(tmp_path, {"image": path}, collection="images")
    got = compute(stack_scenes([item], domain))[0, 0].values
    np.testing.assert_allclose(got[2:-2, 2:-2], 300, rtol=0.15)


def test_real_scene_lies_where_its_pixels_lie(shared):
    path = shared / "data" / "harald_moltke" / "derived_basemap_cog.tif"
    items = items_from_images([path], ["2021-09-27"])
    with rasterio.open(path) as file:
        grid = GeoBox((300, 400), file.transform * Affine.translation(100, 50), "EPSG:32620")
        source = file.read(1)[50:350, 100:500]
    scene = compute(stack_scenes(items, Domain("harald-moltke", grid)))[0]
    np.testing.assert_array_equal(scene.sel(band="signal"), source)
    assert scene.sel(band="cloud").isnull().all()


def test_real_radar_scene_keeps_its_missing_pixels(shared):
    path = shared / "data" / "sentinel1_uummannaq_20141031" / "S1A_IW_quicklook_HH_20141031_3413_100m_sealevel.tif"
    items = items_from_images([path], platform="sentinel-1a")
    assert items[0].datetime == datetime(2014, 10, 31, tzinfo=UTC)
    with rasterio.open(path) as file:
        grid = GeoBox((900, 700), file.transform, "EPSG:3413")
        source = file.read(1)[:900, :700]
    scene = compute(stack_scenes(items, Domain("uummannaq", grid)))[0]
    expected = np.where(source == 0, np.nan, source.astype("float32"))
    assert 0.01 < np.isnan(expected).mean() < 0.99
    np.testing.assert_array_equal(scene.sel(band="signal"), expected)
    assert scene_fractions(scene.values)["nodata_fraction"] == np.isnan(expected).mean()


def test_real_landsat_item_gives_reflectance_and_cloud(shared):
    folder = shared / "data" / "stac_items" / "stactools-landsat" / "tests" / "data-files" / "assets"
    name = "LC08_L2SP_005009_20150710_20200908_02_T2"
    item = make_item(
        folder,
        {"SR_B5.TIF": folder / f"{name}_SR_B5.TIF", "QA_PIXEL.TIF": folder / f"{name}_QA_PIXEL.TIF"},
        collection="landsat-c2l2-sr",
    )
    with rasterio.open(folder / f"{name}_SR_B5.TIF") as band, rasterio.open(folder / f"{name}_QA_PIXEL.TIF") as qa:
        # The real file's pixels are not quite square, so it is read on a grid of its own at the nearest square size.
        grid = GeoBox((400, 400), Affine(516, 0, band.bounds.left + 2e4, 0, -516, band.bounds.top - 2e4), "EPSG:32624")
        scene = compute(stack_scenes([item], Domain("ice-sheet", grid)))[0]
        columns, rows = (np.floor(v).astype(int) for v in ~band.transform * np.meshgrid(scene["x"], scene["y"]))
        numbers, bits = band.read(1)[rows, columns].astype(float), qa.read(1)[rows, columns]
    expected_cloud = np.where(bits & 1, np.nan, (bits & 0b1100) > 0)
    np.testing.assert_array_equal(scene.sel(band="cloud"), expected_cloud)
    inside = np.isfinite(scene.sel(band="signal").values) & (numbers > 0)
    near = np.abs(scene.sel(band="signal").values - (numbers * 2.75e-5 - 0.2))[inside]
    assert np.median(near) < 0.02
    fractions = scene_fractions(scene.values)
    assert fractions["cloud_fraction"] == pytest.approx(np.nanmean(expected_cloud))
    assert 0.1 < fractions["cloud_fraction"] < 0.9


def test_missing_numbers_do_not_bleed_into_their_neighbours(tmp_path, domain):
    values = np.full((SIDE + 1, SIDE + 1), 20000, dtype="uint16")
    values[:, :40] = 0
    path = write_tif(tmp_path / "a.tif", values, left=LEFT - PIXEL / 2, top=TOP + PIXEL / 2)
    got = compute(stack_scenes([make_item(tmp_path, {"nir08": path})], domain))[0, 0].values
    assert np.isnan(got[:, :39]).all()
    assert set(got[np.isfinite(got)]) == {20000}  # column 39, between the two, is either missing or whole


def test_nodata_is_what_the_file_says_if_its_numbers_can_hold_that(tmp_path, domain):
    values = ramp(dtype="int16")
    values[3, 4] = -9999
    path = write_tif(tmp_path / "a.tif", values, nodata=-9999)
    item = make_item(tmp_path, {"image": path}, collection="images")
    got = compute(stack_scenes([item], domain))[0, 0].values
    assert np.argwhere(np.isnan(got)).tolist() == [[3, 4]]
    odd = write_tif(tmp_path / "odd.tif", ramp(), nodata=65535)
    odd.write_bytes(odd.read_bytes().replace(b"65535\0", b"-9999\0"))
    item = make_item(tmp_path, {"image": odd}, collection="images")
    np.testing.assert_array_equal(compute(stack_scenes([item], domain))[0, 0], ramp())


def test_quality_is_taken_from_the_nearest_pixel_and_never_mixed(tmp_path, domain):
    bits = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 0b1000, 0).astype("uint16")
    signal = write_tif(tmp_path / "a.tif", ramp())
    quality = write_tif(tmp_path / "q.tif", bits, left=LEFT + 7, top=TOP + 7)
    item = make_item(tmp_path, {"nir08": signal, "qa_pixel": quality})
    cloud = compute(stack_scenes([item], domain))[0, 1].values
    np.testing.assert_array_equal(cloud[1:, 1:], (bits > 0)[1:, 1:])


@pytest.mark.parametrize(("collection", "factor"), [("sentinel-1-grd", 20), ("sentinel-1-rtc", 10)])
def test_radar_comes_in_decibels_and_what_has_no_logarithm_is_missing(tmp_path, domain, collection, factor):
    values = np.full((SIDE, SIDE), 0.25, dtype="float32")
    values[0, :3] = 0, -1, np.nan
    path = write_tif(tmp_path / "a.tif", values)
    item = make_item(tmp_path, {"vv": path}, collection=collection, platform="sentinel-1a")
    scenes = stack_scenes([item], domain)
    got = compute(scenes)[0, 0].values
    assert np.isnan(got[0, :3]).all()
    np.testing.assert_allclose(got[1:], factor * np.log10(0.25), rtol=1e-6)
    assert list(scenes["sensor_kind"].values) == ["sar"]


def test_scene_with_control_points_instead_of_a_grid_is_placed_by_them(tmp_path, domain):
    values = np.random.default_rng(1).integers(1, 500, (300, 300), dtype="uint16")
    corners = [(row, column) for row in (0, 150, 300) for column in (0, 150, 300)]
    points = []
    for row, column in corners:
        (lon,), (lat,) = transform(UTM, 4326, [LEFT - 3000 + column * PIXEL], [TOP + 3000 - row * PIXEL])
        points.append(GroundControlPoint(row, column, lon, lat, 0.0))
    path = write_tif(tmp_path / "a.tif", values, crs="EPSG:4326", transform=None, gcps=points)
    item = make_item(tmp_path, {"hh": path}, collection="sentinel-1-grd", platform="sentinel-1a")
    got = compute(stack_scenes([item], domain))[0, 0].values
    expected = 20 * np.log10(values[100 : 100 + SIDE, 100 : 100 + SIDE])
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99


def test_scene_beside_the_domain_is_all_missing_and_no_error(tmp_path, domain):
    paths = [
        write_tif(tmp_path / "near.tif", ramp(), left=LEFT + 50_000),
        write_tif(tmp_path / "far.tif", ramp(), left=0, top=-1_000_000, crs="EPSG:3031"),
    ]
    scenes = compute(stack_scenes([make_item(tmp_path, {"nir08": p}) for p in paths], domain))
    assert scenes.isnull().all()
    assert scene_fractions(scenes[0].values)["nodata_fraction"] == 1


def test_scenes_of_different_sensors_share_one_stack(tmp_path, domain):
    path = write_tif(tmp_path / "a.tif", np.full((SIDE, SIDE), 100, dtype="uint16"))
    items = [
        make_item(tmp_path, {"B4": path}, platform="landsat-7"),
        make_item(tmp_path, {"nir": path}, collection="sentinel-2-l2a", platform="sentinel-2a"),
        make_item(tmp_path, {"hh": path}, collection="sentinel-1-grd", platform="sentinel-1a"),
        make_item(tmp_path, {"image": path}, collection="images", platform="unknown"),
    ]
    got = compute(stack_scenes(items, domain))[:, 0, 5, 5].values
    np.testing.assert_allclose(got, [100, 0.01, 40, 100], rtol=1e-6)


def test_scenes_compute_in_other_processes(tmp_path, domain):
    path = write_tif(tmp_path / "a.tif", ramp())
    items = [make_item(tmp_path, {"nir08": path}), make_item(tmp_path, {"red": path})]
    scenes = pickle.loads(pickle.dumps(stack_scenes(items, domain)))
    np.testing.assert_array_equal(compute(scenes[0])[0], ramp())
    with pytest.raises(SceneError) as caught:
        compute(scenes[1])
    assert pickle.loads(pickle.dumps(caught.value)).reason == "no_band"


def test_a_scene_is_one_task_with_what_is_done_to_it_and_has_the_same_name_each_time(tmp_path, domain):
    items = [make_item(tmp_path, {"nir08": tmp_path / "a.tif", "qa_pixel": tmp_path / "q.tif"}) for _ in range(40)]
    first, second = (stack_scenes(items, domain).data for _ in range(2))
    assert first.name == second.name
    assert first.name != stack_scenes(items[:39] + items[:1], domain).data.name
    # What gives a value a scene keeps the dims: Dask gives `drop_axis` a task of its own.
    measured = first.map_blocks(partial(np.nanmean, keepdims=True), chunks=(1, 1, 1, 1), dtype=np.float32)
    graph = dict(dask.optimize(measured)[0].dask)
    assert len(graph) == len(items)
    assert len(pickle.dumps(graph)) < 2000 * len(items)


def test_name_of_a_stack_says_how_its_numbers_are_scaled(tmp_path, domain):
    item = make_item(tmp_path, {"nir08": tmp_path / "a.tif"}, collection="landsat-c2-l2")
    before = stack_scenes([item], domain).data.name
    item.assets["nir08"].extra_fields["raster:bands"] = [{"scale": 2e-5, "offset": -0.1}]
    assert stack_scenes([item], domain).data.name != before


def test_empty_search_is_told_in_words(domain):
    with pytest.raises(ValueError, match="no items"):
        stack_scenes([], domain)


def striped(**marks):
    values = ramp().astype("float32")
    values[10::20] = np.nan
    values[11::20] = np.nan
    values[:, :30] = np.nan
    return values


@pytest.mark.parametrize(
    ("platform", "year", "has_stripes"),
    [("landsat-7", 2010, True), ("landsat-7", 2002, False), ("landsat-8", 2020, False)],
)
def test_stripes_count_as_slc_off_only_where_they_can_be(tmp_path, domain, platform, year, has_stripes):
    path = write_tif(tmp_path / "a.tif", np.nan_to_num(striped()).astype("uint16"))
    item = make_item(tmp_path, {"nir08": path}, platform=platform, date=datetime(year, 7, 1, tzinfo=UTC))
    scene = compute(stack_scenes([item], domain))[0]
    fractions = scene_fractions(scene.values, slc_off_possible=bool(scene.slc_off_possible))
    assert fractions["nodata_fraction"] == pytest.approx(np.isnan(striped()).mean())
    stripes = np.isnan(striped()[:, 30:]).sum() / SIDE**2
    # Where a stripe runs into the wide gap a few of its pixels count with the gap.
    assert fractions["slc_off_fraction"] == pytest.approx(stripes if has_stripes else 0, abs=0.02)
    assert np.isnan(fractions["cloud_fraction"])


@given(hnp.arrays(np.float32, (2, 24, 24), elements=st.sampled_from([0.0, 1.0, np.nan])))
def test_fractions_are_fractions_and_stripes_are_part_of_what_is_missing(scene):
    fractions = scene_fractions(scene, resolution_m=100.0)
    assert 0 <= fractions["slc_off_fraction"] <= fractions["nodata_fraction"] <= 1
    assert fractions["nodata_fraction"] == np.isnan(scene[0]).mean()
    assert np.isnan(fractions["cloud_fraction"]) == np.isnan(scene[1]).all()
    assert scene_fractions(scene, slc_off_possible=False)["slc_off_fraction"] == 0
