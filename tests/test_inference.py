import keras
import numpy as np
import pytest
import xarray as xr

from calfin_cloud import fronts, inference
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.fronts import trace_fronts
from calfin_cloud.inference import (
    INPUT_SIZE,
    InferenceSettings,
    find_candidates,
    masks_of,
    overview_of,
    predict_masks,
    predict_overviews,
    predict_scene,
    prepare_scene,
    prepare_scenes,
)
from calfin_cloud.network import build_network, save_weights
from calfin_cloud.schema import MOST_BOXES


@pytest.fixture(scope="module")
def brightness_network(tmp_path_factory) -> str:
    """A network of one 1x1 convolution: the brighter a pixel, the surer it is a front; ice is the lower right half."""
    inputs = keras.Input((224, 224, 3))
    layer = keras.layers.Conv2D(2, 1, activation="sigmoid")
    model = keras.Model(inputs, layer(inputs))
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0, 0] = [20, 4]  # the raw channel alone
    layer.set_weights([kernel, np.array([-8, 2], "float32")])
    path = tmp_path_factory.mktemp("network") / "brightness.keras"
    model.save(path)
    return str(path)


def scene_with_a_bright_line(side=1000, row=600, width=9) -> np.ndarray:
    """Scene (band, y, x): grey ice below a bright line, dark sea above it."""
    signal = np.full((side, side), 0.1, "float32")
    signal[row:] = 0.3
    signal[row - width // 2 : row + width // 2 + 1, 100:900] = 1.0
    return np.stack([signal, np.zeros_like(signal)])


def test_masks_have_the_shape_of_the_scene_whatever_its_size(brightness_network):
    for shape in ((64, 64), (300, 201), (97, 412)):
        rng = np.random.default_rng(0)
        channels = prepare_scene(rng.uniform(0, 1, (2, *shape)).astype("float32"), 30.0)
        assert channels.shape == (*shape, 4)
        masks, _ = predict_scene(channels, network=brightness_network)
        assert masks.shape == (2, *shape)
        assert ((masks >= 0) & (masks <= 1)).all()


@pytest.mark.parametrize("row", [200, 600, 777])
def test_a_front_keeps_its_place_to_less_than_half_a_network_pixel(brightness_network, row):
    channels = prepare_scene(scene_with_a_bright_line(row=row), 30.0)
    (front, _), _ = predict_scene(channels, network=brightness_network)
    ice = np.repeat(np.where(np.arange(1000) > row, 1.0, 0.0)[:, None], 1000, axis=1)
    (line,) = (f.line for f in trace_fronts(front, ice).fronts)
    middle = line[(line[:, 0] > 300) & (line[:, 0] < 700)]
    assert len(middle) > 300
    assert abs(middle[:, 1].mean() - row) < 0.5 * 1000 / INPUT_SIZE


def test_missing_data_is_missing_in_the_masks_but_narrow_stripes_are_looked_across(brightness_network):
    scene = scene_with_a_bright_line()
    scene[:, :, :200] = np.nan  # a collar of 6 km
    scene[:, 10::33] = np.nan
    scene[:, 11::33] = np.nan
    masks, _ = predict_scene(prepare_scene(scene, 30.0), network=brightness_network)
    assert np.isnan(masks[:, :, :190]).all()
    assert np.isfinite(masks[:, :, 210:]).all()


@pytest.fixture
def blind_on_the_right(tmp_path, monkeypatch) -> None:
    """A verifier of all networks that sees a front wherever it looks, but not in the right half of a tile."""
    inputs = keras.Input((224, 224, 3))
    place = np.where(np.arange(224) < 112, 1.0, 0.0)[None, None, :, None]
    masks = keras.layers.Conv2D(2, 1, activation="sigmoid", kernel_initializer="zeros")(inputs)
    path = tmp_path / "verifier.keras"
    keras.Model(inputs, masks * keras.ops.convert_to_tensor(place, "float32")).save(path)
    monkeypatch.setattr(inference.networks, "verifier_of", lambda network: None if network == str(path) else str(path))


@pytest.mark.usefixtures("blind_on_the_right")
def test_in_optical_scenes_a_front_counts_only_near_what_the_verifier_sees(brightness_network):
    scene = scene_with_a_bright_line(side=256, row=200)
    scene[0, 196:205] = 1.0
    alone, verified, by_radar = (
        overview_of(prepare_scene(scene, 30.0, kind)[None], network=brightness_network)[0]
        for kind in ("unknown", "optical", "sar")
    )
    np.testing.assert_array_equal(by_radar, alone)
    np.testing.assert_array_equal(verified[..., 1], alone[..., 1])
    assert alone[200, :, 0].min() > 0.9
    np.testing.assert_array_equal(verified[:, :140, 0], alone[:, :140, 0])
    assert (verified[200, 170:, 0] == 0).all()


@pytest.mark.usefixtures("blind_on_the_right")
@pytest.mark.parametrize(("side", "is_verified"), [(128, True), (129, False)])
def test_a_picture_that_is_magnified_twice_goes_to_the_verifier_whatever_its_sensor(
    brightness_network, side, is_verified
):
    scene = scene_with_a_bright_line(side=side, row=100)
    scene[0, 98:103] = 1.0
    light, radar = (
        overview_of(prepare_scene(scene, 100.0, kind)[None], network=brightness_network)[0]
        for kind in ("optical", "sar")
    )
    assert radar[200, :80, 0].min() > 0.9
    assert (radar[200, 170:, 0].max() == 0) == is_verified
    assert (light == radar).all() == is_verified


def test_beside_rock_a_front_counts_less_but_in_optical_scenes_the_verifier_alone_says_so(tmp_path):
    inputs = keras.Input((224, 224, 3))
    bright = keras.layers.Conv2D(3, 1, activation="sigmoid")
    path = tmp_path / "rocky.keras"
    model = keras.Model(inputs, bright(inputs))
    kernel = np.zeros((1, 1, 3, 3), "float32")
    kernel[0, 0, 0, 0] = 20
    bright.set_weights([kernel, np.array([-8, 4, 4], "float32")])  # all is ice, and all of it rock
    model.save(path)
    scene = scene_with_a_bright_line(side=256, row=200)
    scene[0, 196:205] = 1.0
    light, radar, unknown = (
        overview_of(prepare_scene(scene, 30.0, kind)[None], network=str(path))[0]
        for kind in ("optical", "sar", "unknown")
    )
    assert light.shape == (256, 256, 2)
    assert light[200, :, 0].min() > 0.9
    assert radar[..., 0].max() == unknown[..., 0].max() == 0
    np.testing.assert_array_equal(radar[..., 1], light[..., 1])


def test_a_front_fades_as_the_land_around_it_becomes_rock():
    ice, rock = np.ones((60, 300), "float32"), np.tile(np.linspace(0, 1, 300, dtype="float32"), (60, 1))
    ice[:30] = 0  # the sea counts for neither
    believed = inference.beside_glaciers(ice, rock)[30]
    assert (believed[:50] == 1).all()
    assert (believed[200:] == 0).all()
    assert (np.diff(believed) <= 1e-6).all()
    assert believed[120] == pytest.approx(0.5, abs=0.02)


def test_what_a_verifier_sees_reaches_fifteen_pixels_and_counts_in_full_from_a_tenth():
    seen = np.zeros((64, 64), "float32")
    seen[30, 20], seen[30, 50] = 0.9, 0.05
    believed = inference.agreement(seen)
    assert (believed[15:46, 5:36] == 1).all()
    assert (believed[15:46, 36:64] == 0.5).all()
    assert believed.sum() == 31 * 31 + 31 * 28 / 2


def test_lazy_scenes_tell_the_network_which_kind_of_sensor_saw_them():
    values = np.stack([scene_with_a_bright_line(side=100, row=60)] * 3)
    scenes = lazy_scenes(values)
    assert set(np.unique(prepare_scenes(scenes)[..., 3])) == {inference.UNKNOWN}
    told = prepare_scenes(scenes.assign_coords(sensor_kind=("time", ["optical", "sar", "unknown"])))
    seen = told[..., 3].max(("y", "x")).values.tolist()
    assert seen == [inference.OPTICAL, inference.SAR, inference.UNKNOWN]


def lazy_scenes(values: np.ndarray) -> xr.DataArray:
    """Scenes (time, band, y, x) as `stack_scenes` gives them, one a chunk."""
    n, _, rows, columns = values.shape
    x, y = (np.arange(side) * 30.0 for side in (columns, rows))
    ids = [f"s{i}" for i in range(n)]
    named = {"scene_id": ("time", ids), "platform": ("time", ["p"] * n), "collection": ("time", ["c"] * n)}
    coords = {"band": ["signal", "cloud"], "x": x, "y": y, **named}
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords).chunk({"time": 1})


@pytest.mark.parametrize("together", [1, 2, 4])
def test_lazy_masks_equal_eager_ones_however_many_scenes_share_a_batch(brightness_network, together):
    side = 400
    domain = Domain("a", box_grid((0, 0, side * 30, side * 30), 3413, 30.0))
    lines = [scene_with_a_bright_line(side, row=row)[:, :, :side] for row in (150, 220, 300)]
    values = np.stack([*lines, 0.3 * scene_with_a_bright_line(side, row=100)])  # the last one has no front
    channels = prepare_scenes(lazy_scenes(values)).chunk(time=together)
    overviews = predict_overviews(channels, network=brightness_network)
    candidates = find_candidates(overviews, domain)
    masks = predict_masks(channels, overviews, candidates, network=brightness_network)
    assert masks.chunks[0] == (together,) * (4 // together)
    eager = [predict_scene(prepare_scene(v, 30.0), network=brightness_network) for v in values]
    np.testing.assert_array_equal(masks.compute(scheduler="synchronous"), np.stack([m for m, _ in eager]))
    boxes = candidates.compute(scheduler="synchronous").values
    for found, (_, expected) in zip(boxes, eager, strict=True):
        np.testing.assert_array_equal(found[found[:, 0] >= 0], expected)
    assert masks["scene_id"].values.tolist() == ["s0", "s1", "s2", "s3"]


def test_windows_of_several_scenes_are_one_batch_of_the_network(brightness_network, monkeypatch):
    batches = []
    predict = inference.networks.predict_pictures
    monkeypatch.setattr(
        inference.networks,
        "predict_pictures",
        lambda pictures, **how: batches.append(len(pictures)) or predict(pictures, **how),
    )
    channels = np.stack([prepare_scene(scene_with_a_bright_line(row=row, width=7), 30.0) for row in (300, 600, 700)])
    overviews = overview_of(channels, network=brightness_network)
    boxes = np.full((3, MOST_BOXES, 4), -1, np.int32)
    boxes[0, :2] = [[280, 320, 100, 250], [280, 320, 600, 750]]
    boxes[2, 0] = [690, 710, 300, 420]
    masks = masks_of(channels, overviews, boxes, network=brightness_network)
    assert batches == [3, 3]  # three first passes, three windows
    untouched = masks_of(channels[1:2], overviews[1:2], boxes[1:2], network=brightness_network)
    np.testing.assert_array_equal(masks[1], untouched[0])


def test_a_picture_shown_whole_has_the_masks_of_its_tiles_where_the_network_sees_no_border(tmp_path):
    """The U-Net sees 11 px around a pixel, so that only a border of that differs."""
    path = tmp_path / "unet.weights.h5"
    keras.utils.set_random_seed(2)
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    channels = prepare_scene(scene_with_a_bright_line(256, 150)[:, :, :256], 30.0)[None]
    in_tiles = overview_of(channels, network=str(path), settings=InferenceSettings(stride=32))
    whole = overview_of(channels, network=str(path), settings=InferenceSettings(stride=None))
    inner = (slice(None), *[slice(44, 212)] * 2)  # tiles end at 32 and 224
    np.testing.assert_allclose(whole[inner], in_tiles[inner], atol=1e-5)
    assert np.ptp(whole[inner]) > 0.01


def test_a_network_of_one_size_is_shown_a_picture_in_its_tiles(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line(256, 150)[:, :, :256], 30.0)[None]
    whole, tiled = (
        overview_of(channels, network=brightness_network, settings=InferenceSettings(stride=s)) for s in (None, 32)
    )
    np.testing.assert_allclose(whole, tiled, atol=1e-6)


def test_one_front_a_window_leaves_the_window_as_it_was_predicted(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line(side=600, row=300)[:, :, :600], 30.0)[None]
    overviews = overview_of(channels, network=brightness_network)
    boxes = np.array([[[290, 310, 250, 350]]], np.int32)
    (masks,) = masks_of(channels, overviews, boxes, network=brightness_network, trace=fronts.CALFIN)
    window = fronts.window_around(boxes[0, 0], (600, 600), fronts.CALFIN.window)
    alone = overview_of(window.cut(channels[0])[None], network=brightness_network)[0]
    np.testing.assert_array_equal(window.cut(np.moveaxis(masks, 0, -1)), alone)  # 256 px, so nothing is resized


def test_a_picture_shown_with_square_pixels_keeps_its_front_in_place(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line()[:, 300:800, 100:900], 30.0)  # 500 x 800 px, front in row 300
    settings = InferenceSettings(square_pixels=True)
    (front, _), _ = predict_scene(channels, network=brightness_network, settings=settings)
    ice = np.repeat(np.where(np.arange(500) > 300, 1.0, 0.0)[:, None], 800, axis=1)
    (line,) = (f.line for f in trace_fronts(front, ice).fronts)
    middle = line[(line[:, 0] > 200) & (line[:, 0] < 600)]
    assert len(middle) > 300
    assert abs(middle[:, 1].mean() - 300) < 0.5 * 800 / INPUT_SIZE
