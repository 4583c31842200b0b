"""What is done with arrays on pixels is what well-known libraries do, in less time."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.signal import find_peaks, savgol_filter
from skimage.filters import apply_hysteresis_threshold

from calfin_cloud.fronts.ice_contrast import ice_step, step_at
from calfin_cloud.fronts.isolation import count_peaks
from calfin_cloud.resampling import border_distance, burn, gaussian_gradient, gaussian_mean, smooth_line, touched_parts


def a_shape(rng, side):
    """A polygon with a hole and vertices at no round numbers, in pixels; parts of it may lie beyond the image."""
    middle, radius = rng.uniform(0, side, 2), rng.uniform(5, side / 2)
    whole = shapely.Point(middle).buffer(radius)
    return whole.difference(shapely.Point(middle + 0.3 * radius).buffer(radius / 3))


@pytest.mark.parametrize("seed", range(20))
def test_a_polygon_takes_the_pixels_that_gdal_gives_it(seed):
    rng = np.random.default_rng(seed)
    shape, polygon = tuple(rng.integers(20, 90, 2)), a_shape(rng, 80)
    np.testing.assert_array_equal(burn([polygon], [1], shape), rasterize([(polygon, 1)], out_shape=shape))


def test_polygons_that_overlap_add_up_and_parts_count_once():
    rng = np.random.default_rng(1)
    polygons = [a_shape(rng, 60), shapely.MultiPolygon([shapely.box(1, 1, 9, 9), shapely.box(20, 20, 31, 29)])]
    alone = [rasterize([(polygon, 1)], out_shape=(60, 50)).astype(int) for polygon in polygons]
    np.testing.assert_array_equal(burn(polygons, [2, 5], (60, 50)), 2 * alone[0] + 5 * alone[1])


def test_polygons_that_touch_share_the_pixels_between_them_also_where_centres_lie_on_their_border():
    left, right = shapely.box(0, 0, 3.5, 8.5), shapely.box(3.5, 0, 8, 8.5)
    assert set(np.unique(burn([left, right], [1, 2], (8, 8)))) == {1, 2}


def test_no_polygon_takes_no_pixel():
    assert not burn([], [], (4, 5)).any()


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_the_border_of_an_image_counts_as_outside(share):
    mask = np.random.default_rng(2).random((40, 60)) < share
    np.testing.assert_allclose(border_distance(mask), distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.8, 3.0, 7.03])
def test_images_are_seen_through_a_gaussian_as_with_scipy(sigma):
    image = np.random.default_rng(4).random((50, 41))
    np.testing.assert_allclose(gaussian_mean(image, sigma), gaussian_filter(image, sigma), atol=1e-12)
    slopes = [gaussian_filter(image, sigma, order=order) for order in ((1, 0), (0, 1))]
    np.testing.assert_allclose(gaussian_gradient(image, sigma, border=cv2.BORDER_REFLECT), slopes, atol=1e-12)


def test_parts_with_a_strong_pixel_are_those_of_a_hysteresis_threshold():
    edge = np.random.default_rng(3).random((70, 50))
    np.testing.assert_array_equal(touched_parts(edge > 0.4, edge > 0.97), apply_hysteresis_threshold(edge, 0.4, 0.97))


def test_smoothing_leaves_cubics_as_they_are_and_a_closed_line_goes_round():
    cubic = np.linspace(-1, 1, 30)[:, None] ** [1, 3]
    np.testing.assert_allclose(smooth_line(cubic, 9), cubic, atol=1e-12)
    ring = np.random.default_rng(5).random((40, 2))
    turned = np.roll(smooth_line(np.roll(ring, 7, axis=0), 9, is_closed=True), -7, axis=0)
    np.testing.assert_allclose(smooth_line(ring, 9, is_closed=True), turned, atol=1e-12)


@pytest.mark.parametrize("window", [4, 5, 8, 9, 31, 40])
def test_a_smoothed_line_is_that_of_scipy(window):
    line = np.cumsum(np.random.default_rng(6).normal(size=(40, 2)), axis=0)
    round_ = savgol_filter(line, window, 3, axis=0, mode="wrap")
    np.testing.assert_allclose(smooth_line(line, window, is_closed=True), round_, atol=1e-10)
    if window % 2:
        np.testing.assert_allclose(smooth_line(line, window), savgol_filter(line, window, 3, axis=0), atol=1e-10)


@given(st.lists(st.integers(0, 5) | st.floats(0, 9), min_size=2, max_size=60), st.integers(1, 20))
def test_peaks_are_counted_as_scipy_finds_them(values, apart):
    assert count_peaks(np.array(values, dtype=float), apart) == len(find_peaks(np.array(values), distance=apart)[0])


def test_a_line_of_fewer_vertices_than_the_window_stays_as_it_is():
    line = np.random.default_rng(5).random((8, 2))
    np.testing.assert_array_equal(smooth_line(line, 9), line)
    np.testing.assert_array_equal(smooth_line(line, 3), line)


@pytest.mark.parametrize("middle", [(2.0, 3.0), (150.0, 260.0), (298.0, 299.0)])
def test_an_ice_step_measured_where_points_lie_is_that_of_the_whole_mask(middle):
    rng = np.random.default_rng(4)
    ice, points = rng.random((300, 300)).astype(np.float32), middle + rng.uniform(-2, 2, (9, 2))
    part = ice_step(ice, 4.0, around=points)
    assert part.gradient.size < ice_step(ice, 4.0).gradient.size
    np.testing.assert_allclose(step_at(part, points), step_at(ice_step(ice, 4.0), points), rtol=1e-12)
