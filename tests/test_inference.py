from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calfin_cloud import fronts, inference, network, opinions
from calfin_cloud.fronts import DEFAULT, trace_fronts
from calfin_cloud.inference import (
    Prepared,
    first_pictures,
    predict_scene,
    prepare_scene,
    two_passes,
)
from calfin_cloud.network import CALFIN, ONCE, PICTURE_SIZE, TILES, InferenceSettings, build_network, save_weights
from calfin_cloud.opinions import FRONT, VERIFIED, believed, predict_pictures
from calfin_cloud.schema import MISSING, from_levels, to_levels


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


def scene_with_a_bright_line(side=1000, row=600, width=9, end=900) -> np.ndarray:
    """Scene (band, y, x): grey ice below a bright line, dark sea above it."""
    signal = np.full((side, side), 0.1, "float32")
    signal[row:] = 0.3
    signal[row - width // 2 : row + width // 2 + 1, 100:end] = 1.0
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
    assert abs(middle[:, 1].mean() - row) < 0.5 * 1000 / PICTURE_SIZE


def test_missing_data_is_missing_in_the_masks_but_narrow_stripes_are_looked_across(brightness_network):
    scene = scene_with_a_bright_line()
    scene[:, :, :200] = np.nan  # a collar of 6 km
    scene[:, 10::33] = np.nan
    scene[:, 11::33] = np.nan
    masks, _ = predict_scene(prepare_scene(scene, 30.0), network=brightness_network)
    assert np.isnan(masks[:, :, :190]).all()
    assert np.isfinite(masks[:, :, 210:]).all()


def overview_of(channels: np.ndarray, network: str, settings: InferenceSettings | None = None) -> np.ndarray:
    """First pass of one scene, (256, 256, mask), as far as it is believed."""
    settings = settings or InferenceSettings()
    pictures = first_pictures(Prepared([channels]), settings=settings)
    (seen,) = predict_pictures(*pictures, network=network, settings=settings)
    return believed(seen, channels)


@pytest.fixture
def blind_on_the_right(tmp_path, monkeypatch) -> None:
    """A verifier of all networks that sees a front wherever it looks, but not in the right half of a picture."""
    inputs = keras.Input((PICTURE_SIZE, PICTURE_SIZE, 3))
    place = np.where(np.arange(PICTURE_SIZE) < PICTURE_SIZE // 2, 1.0, 0.0)[None, None, :, None]
    masks = keras.layers.Conv2D(2, 1, activation="sigmoid", kernel_initializer="zeros")(inputs)
    path = tmp_path / "verifier.keras"
    keras.Model(inputs, keras.layers.Multiply()([masks, keras.ops.convert_to_tensor(place, "float32")])).save(path)
    monkeypatch.setattr(opinions.networks, "verifier_of", lambda network: None if network == str(path) else str(path))
    monkeypatch.setattr(opinions, "verifying", lambda settings: InferenceSettings(stride=None, transposed=False))


@pytest.mark.usefixtures("blind_on_the_right")
def test_in_optical_scenes_a_front_counts_only_near_what_the_verifier_sees(brightness_network):
    scene = scene_with_a_bright_line(side=256, row=200)
    scene[0, 196:205] = 1.0
    alone, verified, by_radar = (
        overview_of(prepare_scene(scene, 30.0, kind), brightness_network) for kind in ("unknown", "optical", "sar")
    )
    np.testing.assert_array_equal(by_radar, alone)
    np.testing.assert_array_equal(verified[..., 1], alone[..., 1])
    assert alone[200, :, 0].min() > 0.9
    np.testing.assert_array_equal(verified[:, :140, 0], alone[:, :140, 0])
    assert (verified[200, 170:, 0] == 0).all()


@pytest.mark.usefixtures("blind_on_the_right")
def test_what_the_verifier_does_not_see_in_a_scene_is_no_front_of_its_windows_either(brightness_network):
    scene = scene_with_a_bright_line(side=2048, row=500, end=0)
    scene[0, 470:531, 500:1300] = 1.0
    settings = InferenceSettings(verify_windows=False)
    masks, (box,) = predict_scene(prepare_scene(scene, 30.0, "optical"), network=brightness_network, settings=settings)
    window = fronts.window_around(box, (2048, 2048), DEFAULT.window)
    assert window.shape[1] < 2048
    assert window[3] > 1300
    assert masks[0, 500, 520:1000].min() > 0.9
    assert masks[0, 500, 1200:].max() == 0


@pytest.mark.usefixtures("blind_on_the_right")
@pytest.mark.parametrize(("side", "is_verified"), [(128, True), (129, False)])
def test_a_picture_that_is_magnified_twice_goes_to_the_verifier_whatever_its_sensor(
    brightness_network, side, is_verified
):
    scene = scene_with_a_bright_line(side=side, row=100)
    scene[0, 98:103] = 1.0
    light, radar = (
        overview_of(prepare_scene(scene, 100.0, kind), brightness_network, TILES) for kind in ("optical", "sar")
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
        overview_of(prepare_scene(scene, 30.0, kind), str(path)) for kind in ("optical", "sar", "unknown")
    )
    assert light.shape == (256, 256, 2)
    assert light[200, :, 0].min() > 0.9
    assert radar[..., 0].max() == unknown[..., 0].max() == 0
    np.testing.assert_array_equal(radar[..., 1], light[..., 1])


def test_a_front_fades_as_the_land_around_it_becomes_rock():
    ice, rock = np.ones((60, 300), "float32"), np.tile(np.linspace(0, 1, 300, dtype="float32"), (60, 1))
    ice[:30] = 0  # the sea counts for neither
    believed = opinions.beside_glaciers(ice, rock)[30]
    assert (believed[:50] == 1).all()
    assert (believed[200:] == 0).all()
    assert (np.diff(believed) <= 1e-6).all()
    assert believed[120] == pytest.approx(0.5, abs=0.02)


def test_what_a_verifier_sees_reaches_fifteen_pixels_and_counts_in_full_from_a_tenth():
    seen = np.zeros((64, 64), "float32")
    seen[30, 20], seen[30, 50] = 0.9, 0.05
    believed = opinions.agreement(seen)
    assert (believed[15:46, 5:36] == 1).all()
    assert (believed[15:46, 36:64] == 0.5).all()
    assert believed.sum() == 31 * 31 + 31 * 28 / 2


@pytest.mark.parametrize(("kind", "value"), [("optical", 2), ("sar", 3), ("unknown", 1)])
def test_the_last_channel_says_which_kind_of_sensor_saw_the_scene(kind, value):
    scene = scene_with_a_bright_line(side=100, row=60)
    scene[:, :, :40] = np.nan
    seen = prepare_scene(scene, 30.0, kind)[..., 3]
    assert (seen[:, 45:] == value).all()
    assert (seen[:, :35] == opinions.NOT_SEEN).all()


def scenes_with_lines() -> list[np.ndarray | None]:
    """Channels of three scenes with a front and one without, and one that is left out."""
    lines = [scene_with_a_bright_line(400, row=row, end=230) for row in (150, 220, 300)]
    values = [*lines, 0.3 * scene_with_a_bright_line(400, row=100)]
    channels = [prepare_scene(scene, 30.0) for scene in values]
    return [*channels[:2], None, *channels[2:]]


def here(step, *groups):
    return [step(*of_group) for of_group in zip(*groups, strict=True)]


@pytest.mark.parametrize("together", [1, 2, 5])
def test_masks_are_the_same_however_many_scenes_go_together(brightness_network, together):
    scenes, settings = scenes_with_lines(), InferenceSettings()
    groups = [Prepared(scenes[start : start + together]) for start in range(0, len(scenes), together)]
    network_step = partial(predict_pictures, network=brightness_network, settings=settings)
    laid = two_passes(
        groups, settings=settings, trace=DEFAULT, each=here, predict=lambda groups: [network_step(*g) for g in groups]
    )
    for scene, found in zip(scenes, [of_scene for of_group in laid for of_scene in of_group], strict=True):
        if scene is None:
            assert found is None
            continue
        masks, boxes = predict_scene(scene, network=brightness_network)
        np.testing.assert_array_equal(from_levels(found.masks), masks)
        np.testing.assert_array_equal(found.boxes, boxes)


def test_the_network_sees_each_scene_once_and_each_window_once(brightness_network):
    scenes, settings, seen = scenes_with_lines(), InferenceSettings(), []

    def predict(groups):
        seen.append([len(of_group.pictures) for of_group in groups])
        return [predict_pictures(*g, network=brightness_network, settings=settings) for g in groups]

    laid = two_passes([Prepared(scenes)], settings=settings, trace=DEFAULT, each=here, predict=predict)
    n_boxes = sum(len(of_scene.boxes) for of_scene in laid[0] if of_scene)
    assert seen[0] == [4]
    assert 0 < seen[1][0] <= n_boxes


def test_a_group_of_scenes_that_are_all_left_out_needs_no_network(brightness_network):
    settings = InferenceSettings()
    pictures = first_pictures(Prepared([None, None]), settings=settings)
    assert pictures.pictures.shape == (0, PICTURE_SIZE, PICTURE_SIZE, 3)
    masks = predict_pictures(*pictures, network="a network that does not exist", settings=settings)
    assert masks.shape == (0, PICTURE_SIZE, PICTURE_SIZE, 4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_probabilities_pass_between_steps_to_a_five_hundredth(values):
    probabilities = np.array([*values, np.nan])
    levels = to_levels(probabilities)
    assert levels[-1] == MISSING
    back = from_levels(levels)
    assert np.isnan(back[-1])
    assert np.abs(back[:-1] - probabilities[:-1]).max() <= 0.002 + 1e-6
    np.testing.assert_array_equal(to_levels(back), levels)


def test_a_picture_shown_whole_has_the_masks_of_its_tiles_where_the_network_sees_no_border(tmp_path):
    """The U-Net sees 11 px around a pixel, so that only a border of that differs."""
    path = tmp_path / "unet.weights.h5"
    keras.utils.set_random_seed(2)
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    channels = prepare_scene(scene_with_a_bright_line(256, 150)[:, :, :256], 30.0)
    in_tiles, whole = (overview_of(channels, str(path), InferenceSettings(stride=stride)) for stride in (32, None))
    inner = [slice(44, 212)] * 2  # tiles end at 32 and 224
    np.testing.assert_allclose(whole[*inner], in_tiles[*inner], atol=0.004 + 1e-6)
    assert np.ptp(whole[*inner]) > 0.01


def test_a_network_of_one_size_is_shown_a_picture_in_its_tiles(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line(256, 150)[:, :, :256], 30.0)
    whole, tiled = (overview_of(channels, brightness_network, InferenceSettings(stride=s)) for s in (None, 32))
    np.testing.assert_allclose(whole, tiled, atol=0.004 + 1e-6)


def test_one_front_a_window_leaves_the_window_as_it_was_predicted(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line(side=600, row=300)[:, :, :600], 30.0)
    settings, box = CALFIN, np.array([290, 310, 250, 350], np.int32)
    window = fronts.window_around(box, (600, 600), fronts.CALFIN.window)
    assert window.shape == (256, 256)  # so nothing is resized
    alone = overview_of(window.cut(channels), brightness_network, settings)
    second = inference.SecondPass(
        [overview_of(channels, brightness_network, settings)],
        [None],
        [box[None]],
        [[window]],
        inference.Pictures(np.empty(0), np.empty(0), np.empty(0)),
    )
    seen = predict_pictures(
        *first_pictures(Prepared([window.cut(channels)]), settings=settings),
        network=brightness_network,
        settings=settings,
    )
    (laid,) = inference.lay_windows(Prepared([channels]), second, seen, settings=settings, trace=fronts.CALFIN)
    np.testing.assert_array_equal(window.cut(np.moveaxis(laid.masks, 0, -1)), to_levels(alone))


def test_a_picture_shown_with_square_pixels_keeps_its_front_in_place(brightness_network):
    channels = prepare_scene(scene_with_a_bright_line()[:, 300:800, 100:900], 30.0)  # 500 x 800 px, front in row 300
    settings = InferenceSettings(square_pixels=True)
    (front, _), _ = predict_scene(channels, network=brightness_network, settings=settings)
    ice = np.repeat(np.where(np.arange(500) > 300, 1.0, 0.0)[:, None], 800, axis=1)
    (line,) = (f.line for f in trace_fronts(front, ice).fronts)
    middle = line[(line[:, 0] > 200) & (line[:, 0] < 600)]
    assert len(middle) > 300
    assert abs(middle[:, 1].mean() - 300) < 0.5 * 800 / PICTURE_SIZE


@pytest.fixture
def unet_by_verifier(tmp_path) -> dict[str | None, str]:
    """Weights of one and the same network, with a verifier and without."""
    keras.utils.set_random_seed(5)
    unet = build_network("unet", width=0.25, size=64)
    paths = {verifier: str(tmp_path / f"by-{verifier}.weights.h5") for verifier in ("calfin-small-2", None)}
    for verifier, path in paths.items():
        save_weights(unet, path, width=0.25, verifier=verifier)
    return paths


def test_pictures_of_light_are_shown_whole_once_and_others_upright_and_turned_to_a_network_with_a_verifier(
    unet_by_verifier,
):
    path = unet_by_verifier["calfin-small-2"]
    shown = np.random.default_rng(1).integers(0, 256, (4, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    verify, optical = np.array([True, True, False, False]), np.array([True, False, True, False])

    def by(way: InferenceSettings, view: np.ndarray = shown, weights: str = path) -> np.ndarray:
        return network.predict_pictures(np.ascontiguousarray(view), network=weights, settings=way)

    masks = predict_pictures(shown, verify, optical, network=path, settings=InferenceSettings())
    whole = by(ONCE)
    turned = (whole.astype(float) + by(ONCE, shown[:, ::-1, ::-1])[:, ::-1, ::-1]) / 2
    np.testing.assert_array_equal(masks[optical, ..., :2], whole[optical])
    np.testing.assert_allclose(masks[~optical, ..., :2], turned[~optical], atol=0.5)
    assert (np.abs(masks[~optical, ..., :2] - whole[~optical].astype(int)) > 1).mean() > 0.1
    assert (masks[~verify, ..., VERIFIED] == MISSING).all()
    (of_light,) = by(ONCE, shown[[0]], "calfin-small-2")
    np.testing.assert_array_equal(masks[0, ..., VERIFIED], of_light[..., FRONT])
    (of_transpose,) = by(ONCE, shown[[1]].swapaxes(1, 2))
    np.testing.assert_array_equal(masks[1, ..., VERIFIED], of_transpose[..., FRONT].T)


def test_networks_without_a_verifier_and_older_settings_see_tiles_and_their_transposes(unet_by_verifier):
    shown = np.random.default_rng(1).integers(0, 256, (2, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    verify, optical = np.array([True, True]), np.array([True, False])
    with_verifier, without = unet_by_verifier["calfin-small-2"], unet_by_verifier[None]
    tiles = network.predict_pictures(shown, network=without, settings=TILES)
    masks = predict_pictures(shown, verify, optical, network=without, settings=InferenceSettings())
    np.testing.assert_array_equal(masks[..., :2], tiles)
    assert (masks[..., VERIFIED] == MISSING).all()
    masks = predict_pictures(shown, verify, optical, network=with_verifier, settings=TILES)
    np.testing.assert_array_equal(masks[..., :2], tiles)
    (small,) = network.predict_pictures(shown[1:], network="calfin-small-2", settings=replace(TILES, stride=None))
    np.testing.assert_array_equal(masks[1, ..., VERIFIED], small[..., FRONT])


def test_a_radar_front_that_the_transpose_of_the_scene_does_not_show_is_none_in_its_windows_either(
    brightness_network, monkeypatch
):
    """A network that sees no front in the first columns of a picture: in its transpose none in the first rows."""
    monkeypatch.setattr(opinions.networks, "verifier_of", lambda network: "calfin-small-2")
    plain = opinions.networks.predict_pictures

    def blind_on_the_left(pictures: np.ndarray, **more: Any) -> np.ndarray:
        masks = plain(pictures, **more)
        masks[..., :100, FRONT] = 0
        return masks

    monkeypatch.setattr(opinions.networks, "predict_pictures", blind_on_the_left)
    shown = []

    def count(pictures: np.ndarray, verify: np.ndarray, *more: Any, **names: Any) -> np.ndarray:
        shown.append((len(pictures), int(np.sum(verify))))
        return predict_pictures(pictures, verify, *more, **names)

    monkeypatch.setattr(inference, "predict_pictures", count)
    fronts_at = {}
    for row in (500, 1200):  # of 2048: rows 62 and 150 of a picture
        scene = scene_with_a_bright_line(side=2048, row=row, end=0)
        scene[0, row - 30 : row + 31, 900:1300] = 1.0
        masks, boxes = predict_scene(prepare_scene(scene, 30.0, "sar"), network=brightness_network)
        fronts_at[row] = float(np.nanmax(masks[0, row, 950:1250])), len(boxes)
    assert fronts_at[500] == (0, 0)
    assert fronts_at[1200][0] > 0.4
    assert shown == [(1, 1), (0, 0), (1, 1), (1, 0)]
