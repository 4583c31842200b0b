import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calfin_cloud.preprocess import (
    eight_bit_channels,
    lift_shadows,
    normalise,
    resize_channels,
    to_eight_bit,
)
from calfin_cloud.schema import SceneError


@pytest.fixture(scope="module")
def parity(shared):
    with np.load(shared / "parity" / "pre_parity.npz") as stored:
        return dict(stored)


def scene(shape=(90, 80), seed=3):
    return np.random.default_rng(seed).gamma(3, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize(("channel", "name"), [(1, "clahe"), (2, "shadow_highlight")])
def test_channels_agree_with_calfin_to_one_grey_level(parity, channel, name):
    channels = eight_bit_channels(parity["gray"])
    np.testing.assert_array_equal(channels[..., 0], parity["gray"])
    assert np.abs(channels[..., channel] - parity[name].astype(int)).max() <= 1


def test_resized_stack_agrees_with_calfin_to_one_grey_level(parity):
    resized = resize_channels(eight_bit_channels(parity["gray"]))
    assert resized.dtype == np.float32
    assert np.abs(resized - parity["stack256"]).max() <= 1


@settings(max_examples=25)
@given(gain=st.floats(1e-3, 1e4), offset=st.floats(-1e3, 1e3))
def test_unit_of_the_signal_does_not_matter(gain, offset):
    signal = scene().astype(np.float64)
    levels = to_eight_bit(signal).astype(int)
    assert np.abs(to_eight_bit(gain * signal + offset).astype(int) - levels).max() <= 1


@pytest.mark.parametrize("signal", [scene(), scene() * 30000, 10 * np.log10(scene() + 1e-3), np.round(scene() * 100)])
def test_reflectance_counts_decibel_and_eight_bits_fill_the_grey_scale(signal):
    levels = to_eight_bit(signal)
    assert levels.dtype == np.uint8
    assert (levels.min(), levels.max()) == (1, 255)


def test_missing_pixels_become_zero_and_valid_ones_never_do():
    signal = scene()
    signal[:20] = np.nan
    levels = to_eight_bit(signal)
    assert not levels[:20].any()
    assert levels[20:].all()


def test_one_saturated_pixel_does_not_darken_the_scene():
    signal = scene((200, 200))
    bright = signal.copy()
    bright[0, 0] = 1e6
    assert np.abs(to_eight_bit(signal).astype(int) - to_eight_bit(bright))[1:].max() <= 1


def test_a_few_pixels_in_a_flat_scene_are_kept():
    signal = np.full((100, 100), 7.0)
    signal[4, 4:8] = 9.0
    assert np.unique(to_eight_bit(signal)).tolist() == [1, 255]


def test_a_flat_scene_says_so():
    with pytest.raises(SceneError, match="have the value 5") as error:
        to_eight_bit(np.full((70, 70), 5.0))
    assert error.value.reason == "flat"


def test_a_scene_without_data_says_so():
    with pytest.raises(SceneError) as error:
        to_eight_bit(np.full((70, 70), np.nan))
    assert error.value.reason == "nodata"


def test_more_than_one_band_is_refused():
    with pytest.raises(ValueError, match=r"one band \(y, x\)"):
        to_eight_bit(np.zeros((3, 70, 70)))


def test_input_has_three_channels_of_grey_levels_and_normalises_to_one():
    channels = eight_bit_channels(to_eight_bit(scene()))
    assert channels.shape == (90, 80, 3)
    assert channels.dtype == np.uint8
    assert channels.min() < 50
    assert channels.max() > 200
    np.testing.assert_allclose(normalise(np.array([0, 127.5, 255], np.float32)), [-1, 0, 1])


def test_shadows_are_lifted_and_bright_ice_stays():
    grey = np.full((120, 120), 40, np.uint8)
    grey[:, 60:] = 230
    lifted = lift_shadows(grey)
    assert (lifted[:, :40] > 45).all()
    assert np.abs(lifted[:, 100:].astype(int) - 230).max() <= 1
