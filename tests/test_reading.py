"""A scene is read in few bytes and bounded time, whatever its server does; passing trouble is asked away, no other."""

import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from distributed.core import error_message
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.warp import reproject, transform
from scipy.ndimage import gaussian_filter
from servers.files import serve_folder
from servers.rasters import FAILURES, HERE, LEFT, SIDE, TOP, UTM, broken_items, compute, make_item, ramp, write_tif

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import reader, retries, stack_scenes
from calfin_cloud.imagery.files import GDAL_SETTINGS
from calfin_cloud.schema import SceneError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setitem(GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.05)
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def server(tmp_path):
    with serve_folder(tmp_path) as server:
        yield server


def served(server, name, **assets):
    return make_item(f"{server.url}/c.json", {"nir08": f"{server.url}/{name}", **assets})


def failure_of(item, domain=HERE):
    with pytest.raises(SceneError) as caught:
        compute(stack_scenes([item], domain))
    return caught.value


def test_each_broken_scene_names_its_trouble_and_disturbs_no_other(tmp_path, server):
    write_tif(tmp_path / "good.tif", np.random.default_rng(0).integers(1, 60000, (SIDE, SIDE), dtype="uint16"))
    broken = broken_items(tmp_path, server.url)
    assert set(broken) == set(FAILURES)
    names, items = list(broken), [served(server, "good.tif"), *broken.values(), served(server, "good.tif")]
    scenes = stack_scenes(items, HERE)
    for n, name in enumerate(names, start=1):
        reason, words = FAILURES[name]
        with pytest.raises(SceneError, match=words) as caught:
            compute(scenes[n])
        assert caught.value.reason == reason, name
        travelled = pickle.loads(error_message(caught.value)["exception"].data)  # another, if Dask cannot pickle it
        assert isinstance(travelled, SceneError), name
        assert travelled.reason == reason
        assert items[n].id in str(caught.value) or reason == "refused_address"
    with rasterio.open(tmp_path / "good.tif") as file:
        source = file.read(1)
    for n in (0, len(items) - 1):
        np.testing.assert_array_equal(compute(scenes[n])[0], source)


def test_unreadable_quality_band_fails_its_scene(tmp_path):
    signal = write_tif(tmp_path / "a.tif", ramp())
    item = make_item(tmp_path, {"nir08": signal, "qa_pixel": tmp_path / "nothing.tif"})
    assert "nothing.tif" in str(failure_of(item))


def test_server_that_says_busy_twice_is_asked_again(tmp_path, server):
    write_tif(tmp_path / "a.tif", ramp())
    np.testing.assert_array_equal(compute(stack_scenes([served(server, "flaky/a.tif")], HERE))[0, 0], ramp())
    assert server.requests["flaky/a.tif"] > 2


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_", range(4))
def test_trouble_that_passes_at_any_request_of_a_file_costs_no_scene(tmp_path, server, status, request_):
    write_tif(tmp_path / "a.tif", ramp())
    server.answers["a.tif"] = [None] * request_ + [(status, {})]
    np.testing.assert_array_equal(compute(stack_scenes([served(server, "a.tif")], HERE))[0, 0], ramp())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_trouble_that_lasts_is_asked_once(tmp_path, server, status):
    write_tif(tmp_path / "a.tif", ramp())
    server.answers["a.tif"] = [(status, {})] * 20
    error = failure_of(served(server, "a.tif"))
    assert error.reason == "unreadable"
    assert str(status) in str(error)
    assert server.requests["a.tif"] == 1


def test_file_that_is_no_raster_is_not_asked_for_again(tmp_path, server):
    (tmp_path / "a.tif").write_text("<html>log in</html>" * 1000)
    error = failure_of(served(server, "a.tif"))
    assert error.reason == "unreadable"
    assert server.headers[0]["Range"] == "bytes=0-15"
    assert sum(h["Range"] == "bytes=0-15" for h in server.headers) == 1


def test_server_that_stays_busy_is_unreachable_and_not_unreadable(tmp_path, server):
    write_tif(tmp_path / "a.tif", ramp())
    server.answers["a.tif"] = [(503, {})] * 100
    error = failure_of(served(server, "a.tif"))
    assert error.reason == "unreachable"
    assert "503" in str(error)
    assert server.requests["a.tif"] == retries.ATTEMPTS["unreachable"]


def test_server_that_says_when_to_come_back_is_not_asked_before(tmp_path, server):
    write_tif(tmp_path / "a.tif", ramp())
    server.answers["a.tif"] = [(429, {"Retry-After": "1"})]
    start = time.monotonic()
    compute(stack_scenes([served(server, "a.tif")], HERE))
    assert time.monotonic() - start > 1


def test_server_that_is_gone_is_unreachable():
    error = failure_of(make_item("http://127.0.0.1:9/c.json", {"nir08": "http://127.0.0.1:9/a.tif"}))
    assert error.reason == "unreachable"


def test_body_that_breaks_off_once_costs_no_scene(tmp_path, server, monkeypatch):
    write_tif(tmp_path / "a.tif", ramp())
    paths = iter(["cut/a.tif", *["a.tif"] * 50])
    locate = reader.locate
    monkeypatch.setattr(reader, "locate", lambda *_, **k: locate(f"{server.url}/{next(paths)}", server.url, **k))
    np.testing.assert_array_equal(compute(stack_scenes([served(server, "a.tif")], HERE))[0, 0], ramp())
    assert server.requests["cut/a.tif"] > 0


def test_pauses_grow_and_differ_from_scene_to_scene(tmp_path, server, monkeypatch):
    pauses = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 1.0)
    server.answers["a.tif"] = [(503, {})] * 100
    failure_of(served(server, "a.tif"))
    failure_of(served(server, "a.tif"))
    first, second = np.reshape(pauses, (2, -1))
    for series in (first, second):
        assert (series >= 0.5 * 2.0 ** np.arange(len(series))).all()
        assert (series <= 1.5 * 2.0 ** np.arange(len(series))).all()
    assert (first != second).all()


def test_scene_that_was_missing_is_read_once_it_is_there(tmp_path, server):
    scenes = stack_scenes([served(server, "late.tif")], HERE)
    with pytest.raises(SceneError, match="404"):
        compute(scenes)
    write_tif(tmp_path / "late.tif", ramp())
    np.testing.assert_array_equal(compute(scenes)[0, 0], ramp())
    write_tif(tmp_path / "late.tif", ramp() + 1)
    np.testing.assert_array_equal(compute(scenes)[0, 0], ramp() + 1)


@pytest.mark.parametrize("layers", [("hang/a.tif", "a.tif"), ("a.tif", "hang/a.tif"), ("hang/a.tif", "hang/a.tif")])
def test_server_that_hangs_costs_at_most_the_deadline_of_the_scene(tmp_path, server, monkeypatch, layers):
    monkeypatch.setattr(retries, "DEADLINE_S", 0.6)
    write_tif(tmp_path / "a.tif", ramp())
    server.hang_s = 30.0
    signal, quality = layers
    error = failure_of(served(server, signal, qa_pixel=f"{server.url}/{quality}"))
    assert error.reason == "unreachable"
    assert "no answer within 0.6 s from http" in str(error) or "timed out" in str(error)


def test_scenes_given_up_leave_no_more_threads_than_may_read_at_once(tmp_path, server, monkeypatch):
    monkeypatch.setattr(retries, "DEADLINE_S", 0.05)
    write_tif(tmp_path / "a.tif", ramp())
    server.hang_s = 0.5
    item = served(server, "hang/a.tif")
    for _ in range(3 * retries.READING_THREADS):
        assert failure_of(item).reason == "unreachable"
        readers = [t for t in threading.enumerate() if t.name.startswith("calfin-reading")]
        assert len(readers) <= retries.READING_THREADS
    monkeypatch.setattr(retries, "DEADLINE_S", 20.0)
    np.testing.assert_array_equal(compute(stack_scenes([served(server, "a.tif")], HERE))[0, 0], ramp())


def big_cog(folder, name, values, *, pixel=10.0, resampling="average", **extra):
    height, width = values.shape
    profile = {"driver": "COG", "count": 1, "dtype": values.dtype, "compress": "deflate", "blocksize": 512}
    where = {"crs": UTM, "transform": Affine(pixel, 0, LEFT, 0, -pixel, TOP)}
    path = folder / name
    more = {"overview_resampling": resampling, **extra}
    with rasterio.open(path, "w", height=height, width=width, **profile, **where, **more) as file:
        file.write(values, 1)
    return path


def painted(side, rng):
    """Numbers and quality of a scene in which neither is all alike: ice with crevasses, and clouds with edges."""
    ground = gaussian_filter(rng.standard_normal((side, side)), 8)
    numbers = np.clip(15000 + 60000 * ground + rng.normal(0, 300, (side, side)), 1, 65000).astype("uint16")
    clouds = gaussian_filter(rng.standard_normal((side, side)), 3)
    return numbers, np.where(clouds > clouds.std(), 22280, np.where(ground > 0, 30048, 21952)).astype("uint16")


def bytes_needed(path, grid, *, level=None, margin_px=2):
    """Bytes of the header and of the blocks that a window of the grid touches, with the pixels of the kernel."""
    factor = 1 if level is None else 2 ** (level + 1)
    with rasterio.open(path) as file:
        header = min(int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=o)) for o in range(3))
        left, bottom, right, top = grid.boundingbox.bbox
        (first, up), (last, down) = ~file.transform * (left, top), ~file.transform * (right, bottom)
        rows, columns = (
            range(int(max(a / factor - margin_px, 0) // 512), int(min(b / factor + margin_px, n) - 1) // 512 + 1)
            for a, b, n in ((up, down, file.height // factor), (first, last, file.width // factor))
        )
        names = [f"BLOCK_SIZE_{column}_{row}" for row in rows for column in columns]
        return header + sum(int(file.get_tag_item(name, "TIFF", bidx=1, ovr=level)) for name in names)


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    numbers, quality = painted(4096, np.random.default_rng(0))
    big_cog(folder, "signal.tif", numbers, nodata=0)
    big_cog(folder, "quality.tif", quality, nodata=1)
    return folder


@pytest.mark.parametrize("side", [100, 400, 1000])
@pytest.mark.parametrize("corner", [700, 1505])
def test_only_the_bytes_of_the_domain_are_read(large_scene, record_property, side, corner):
    grid = GeoBox((side, side), Affine(10, 0, LEFT + 10 * corner, 0, -10, TOP - 10 * corner), UTM)
    with serve_folder(large_scene) as server:
        item = served(server, "signal.tif", qa_pixel=f"{server.url}/quality.tif")
        scene = compute(stack_scenes([item], Domain("part", grid)))[0]
    with rasterio.open(large_scene / "signal.tif") as file:
        window = ((corner, corner + side), (corner, corner + side))
        np.testing.assert_array_equal(scene[0], file.read(1, window=window))
    for name in ("signal.tif", "quality.tif"):
        ratio = server.n_bytes[name] / bytes_needed(large_scene / name, grid)
        record_property(f"bytes fetched / needed, {name}", round(ratio, 3))
        assert ratio <= 1.5, name


@pytest.mark.parametrize(("pixel_m", "level"), [(10, None), (15, None), (20, 0), (30, 0), (40, 1), (80, 2)])
def test_coarse_domain_reads_the_overview_that_is_as_fine(large_scene, pixel_m, level):
    grid = GeoBox((200, 200), Affine(pixel_m, 0, LEFT + 5000, 0, -pixel_m, TOP - 5000), UTM)
    with serve_folder(large_scene) as server:
        item = served(server, "signal.tif")
        compute(stack_scenes([item], Domain("coarse", grid)))
    # The kernel reaches as far as a pixel of the grid does, which is more of the file's the more it shrinks.
    needed = bytes_needed(large_scene / "signal.tif", grid, level=level, margin_px=4)
    assert server.n_bytes["signal.tif"] <= 1.5 * needed


@pytest.mark.parametrize(("pixel_m", "epsg"), [(20, 32622), (30, 32622), (45, 3413), (80, 3413)])
def test_overview_shows_what_full_resolution_does(tmp_path, monkeypatch, pixel_m, epsg):
    rng = np.random.default_rng(1)
    side = 2048
    # Two levels, as of ice and ocean, along a wavy front; the sub-pixel place of the front is what matters.
    rows, columns = np.mgrid[:side, :side]
    front = 1024 + 200 * np.sin(columns / 150)
    values = (np.where(rows > front, 30000, 5000) + rng.normal(0, 500, (side, side))).astype("uint16")
    path = big_cog(tmp_path, "a.tif", values, nodata=0)
    n = 12_000 // pixel_m
    (x,), (y,) = transform(UTM, f"EPSG:{epsg}", [LEFT + side * 5], [TOP - side * 5])
    grid = GeoBox((n, n), Affine(pixel_m, 0, x - 6000, 0, -pixel_m, y + 6000), f"EPSG:{epsg}")
    stack = stack_scenes([make_item(tmp_path, {"nir08": path})], Domain("d", grid))
    quick = compute(stack)[0, 0].values
    monkeypatch.setattr(reader, "_overview", lambda *_: None)
    full = compute(stack)[0, 0].values
    assert not np.array_equal(quick, full)  # an overview was read
    # Places of the front agree to a tenth of a pixel: a tenth of the step between the two levels.
    assert np.abs(quick - full).mean() < 0.01 * 25000
    grey = [np.clip((image - 5000) / 25000, 0, 1) for image in (quick, full)]
    assert abs(np.mean(grey[0]) - np.mean(grey[1])) * n < 0.1


def test_pixels_that_are_no_squares_are_smoothed_along_their_short_side_alone(tmp_path):
    rows = np.arange(300)
    wave = np.repeat(5000 + 2000 * np.sin(2 * np.pi * rows / 6)[:, None], 900, axis=1).astype("uint16")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "width": 900, "height": 300, "crs": UTM}
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, LEFT, 0, -30, TOP), nodata=0) as file:
        file.write(wave, 1)
    grid = GeoBox((200, 200), Affine(30, 0, LEFT + 900, 0, -30, TOP - 900), UTM)
    scene = compute(stack_scenes([make_item(tmp_path, {"nir08": path})], Domain("d", grid)))[0, 0]
    np.testing.assert_allclose(scene, wave[30:230, :200], atol=2)


def test_classes_of_a_coarse_domain_are_classes_of_the_file(tmp_path):
    bits = np.where(np.random.default_rng(0).random((1024, 1024)) > 0.5, 0b1000, 0b1000000).astype("uint16")
    signal = big_cog(tmp_path, "a.tif", np.full((1024, 1024), 9000, "uint16"), nodata=0)
    quality = big_cog(tmp_path, "q.tif", bits, nodata=1)  # whose overviews are means of bits
    with rasterio.open(quality, overview_level=0) as overview:
        assert not np.isin(overview.read(1), np.unique(bits)).all()
    grid = GeoBox((100, 100), Affine(40, 0, LEFT + 1000, 0, -40, TOP - 1000), UTM)
    cloud = compute(stack_scenes([make_item(tmp_path, {"nir08": signal, "qa_pixel": quality})], Domain("d", grid)))[
        0, 1
    ]
    with rasterio.open(quality) as file:
        columns, rows = (np.floor(v).astype(int) for v in ~file.transform * np.meshgrid(cloud["x"], cloud["y"]))
        np.testing.assert_array_equal(cloud, file.read(1)[rows, columns] == 0b1000)


def test_scene_with_control_points_has_overviews_too(tmp_path):
    side, pixel = 1024, 10.0
    values = (5000 + 1000 * gaussian_filter(np.random.default_rng(0).standard_normal((side, side)), 30) * 100).astype(
        "uint16"
    )
    points = []
    for row in range(0, side + 1, 256):
        for column in range(0, side + 1, 256):
            (lon,), (lat,) = transform(UTM, 4326, [LEFT + column * pixel], [TOP - row * pixel])
            points.append(GroundControlPoint(row, column, lon, lat, 0.0))
    path = write_tif(tmp_path / "a.tif", values, crs="EPSG:4326", transform=None, gcps=points)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    grid = GeoBox((100, 100), Affine(40, 0, LEFT + 2000, 0, -40, TOP - 2000), UTM)
    with rasterio.open(path) as file:
        assert reader._overview(file, grid) == 1
    item = make_item(tmp_path, {"image": path}, collection="images")
    got = compute(stack_scenes([item], Domain("d", grid)))[0, 0].values
    expected = values[200:600, 200:600].reshape(100, 4, 100, 4).mean(axis=(1, 3))
    assert np.abs(got - expected).max() < 0.1 * np.ptp(expected)


def odd_files(folder):
    """Files with overviews whose sides are no multiple of theirs, in each way that a file can say where it lies."""
    values = np.clip(20000 + 60000 * gaussian_filter(np.random.default_rng(3).standard_normal((777, 901)), 6), 1, 65000)
    values = values.astype("uint16")
    where = {"square": Affine(10, 0, LEFT, 0, -10, TOP), "oblong": Affine(9.7, 0, LEFT, 0, -10.3, TOP)}
    where["turned"] = Affine.translation(LEFT + 200, TOP - 900) * Affine.rotation(13) * Affine.scale(10, -10)
    for name, affine in where.items():
        write_tif(folder / f"{name}.tif", values, transform=affine, nodata=0)
    points = [
        GroundControlPoint(row, column, LEFT + 10 * column + 0.004 * row**1.5, TOP - 10 * row, 0.0)
        for row in range(0, 778, 111)
        for column in range(0, 902, 100)
    ]
    with rasterio.open(write_tif(folder / "points.tif", values, transform=None), "r+") as file:
        file.gcps = (points, rasterio.CRS.from_epsg(int(UTM[5:])))
    for name in (*where, "points"):
        path = folder / f"{name}.tif"
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.average)
        # As a COG: what lies behind the pixels, rasterio reads with the lock that the server beside it needs.
        copy(path, folder / "copy.tif", driver="COG")
        (folder / "copy.tif").rename(path)
    profile = {"driver": "JP2OpenJPEG", "count": 1, "dtype": "uint16", "crs": UTM, "transform": where["square"]}
    even = np.pad(values, ((0, 1024 - 777), (0, 1024 - 901)), mode="reflect")  # GDAL wants it so for overviews
    with rasterio.open(folder / "jpeg2000.jp2", "w", height=1024, width=1024, **profile, REVERSIBLE="YES") as file:
        file.write(even, 1)


@pytest.mark.parametrize("name", ["square.tif", "oblong.tif", "turned.tif", "points.tif", "jpeg2000.jp2"])
@pytest.mark.parametrize(("pixel_m", "level"), [(23, 0), (45, 1)])
@pytest.mark.parametrize("is_remote", [True, False])
def test_an_overview_is_read_as_gdal_reads_it(tmp_path, server, name, pixel_m, level, is_remote):
    odd_files(tmp_path)
    grid = GeoBox((90, 80), Affine(pixel_m, 0, LEFT + 3007.5, 0, -pixel_m, TOP - 2011.3), UTM)
    with rasterio.open(tmp_path / name) as file:
        assert reader._overview(file, grid) == level
        sides = file.res
    with rasterio.open(tmp_path / name, overview_level=level) as overview:
        expected = np.full(grid.shape, np.nan, dtype="float32")
        shrunk = zip(("XSCALE", "YSCALE"), np.array(sides) * overview.res[0] / sides[0] / pixel_m, strict=True)
        scale = {} if name == "points.tif" else {axis: min(1.0, by) for axis, by in shrunk}
        where = {"dst_crs": UTM, "dst_transform": grid.transform, "dst_nodata": np.nan}
        band, nodata = rasterio.band(overview, 1), 0
        reproject(band, expected, src_nodata=nodata, resampling=Resampling.bilinear, **where, **scale)
    assert np.isfinite(expected).mean() > 0.3
    item = served(server, name) if is_remote else make_item(tmp_path, {"nir08": tmp_path / name})
    got = compute(stack_scenes([item], Domain("d", grid)))[0, 0].values
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "href", ["s3://bucket/signal.tif", "{url}/bucket/signal.tif?sig=a%2Bb&se=1", "file://{folder}/bucket/signal.tif"]
)
def test_an_overview_is_read_whatever_the_address_is_like(large_scene, tmp_path, monkeypatch, href):
    (tmp_path / "bucket").symlink_to(large_scene)
    grid = GeoBox((200, 200), Affine(40, 0, LEFT + 5000, 0, -40, TOP - 5000), UTM)
    expected = compute(stack_scenes([make_item("/c.json", {"nir08": large_scene / "signal.tif"})], Domain("d", grid)))
    with serve_folder(tmp_path) as server:
        for name in ("AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3"):  # of another server
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_ENDPOINT_URL", "AWS_NO_SIGN_REQUEST"):
            monkeypatch.setenv(name, {"AWS_ENDPOINT_URL": server.url}.get(name, "YES"))
        is_local = href.startswith("file")
        href = href.format(url=server.url, folder=tmp_path)
        item = make_item(tmp_path if is_local else server.url, {"nir08": href})
        got = compute(stack_scenes([item], Domain("d", grid)))
        assert bool(server.requests["bucket/signal.tif"]) is not is_local
        assert server.n_bytes["bucket/signal.tif"] < (large_scene / "signal.tif").stat().st_size / 4
    np.testing.assert_array_equal(got[0], expected[0])
