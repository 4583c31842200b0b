"""Metrics against hand-computed cases, a plain loop, and the original's numbers."""

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation
from shapely.geometry import LineString, MultiLineString

from calfin_cloud.fronts import draw_line
from calfin_cloud.metrics import (
    bootstrap_interval,
    equidistant_distance,
    front_iou,
    ice_iou,
    line_distances,
    pixel_distances,
    points_along,
    score_scene,
    soft_ice_iou,
    summarise,
)

masks = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 14)), min_size=1, max_size=20, unique=True)


def mask_of(points, shape=(12, 15)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(np.array(points).T)] = True
    return mask


def loop_distances(front, reference):
    """Both-way nearest distances, one pixel after the other."""
    a, b = np.argwhere(front).astype(float), np.argwhere(reference).astype(float)
    forth = [min(float(np.hypot(*(p - g))) for g in b) for p in a]
    back = [min(float(np.hypot(*(p - g))) for p in a) for g in b]
    return np.array(forth + back)


def test_distances_of_pixels_are_the_original_s(shared):
    parity = np.load(shared / "parity" / "post_256.npz")
    front = draw_line(parity["front"].T, parity["gt"].shape)
    np.testing.assert_allclose(
        np.sort(pixel_distances(front, parity["gt"] > 0)), np.sort(parity["distances"]), atol=1e-6
    )


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_distances_of_pixels_equal_a_plain_loop(front, reference):
    front, reference = mask_of(front), mask_of(reference)
    np.testing.assert_allclose(pixel_distances(front, reference), loop_distances(front, reference))


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_distance_is_symmetric_and_zero_only_between_equals(front, reference):
    front, reference = mask_of(front), mask_of(reference)
    forth, back = pixel_distances(front, reference), pixel_distances(reference, front)
    np.testing.assert_allclose(np.sort(forth), np.sort(back))
    assert (forth.sum() == 0) == np.array_equal(front, reference)


def test_front_moved_by_three_rows_is_three_pixels_away():
    front = np.zeros((20, 20), dtype=bool)
    front[5] = True
    assert set(pixel_distances(front, np.roll(front, 3, axis=0))) == {3.0}


def test_missing_piece_of_the_reference_is_charged_to_the_front():
    reference = np.zeros((20, 40), dtype=bool)
    reference[5, :10] = True
    reference[5, 30:] = True
    one_piece = reference.copy()
    one_piece[:, 20:] = False
    distances = pixel_distances(one_piece, reference)
    assert len(distances) == 10 + 20
    assert distances.sum() == sum(range(21, 31))
    assert pixel_distances(reference, reference).sum() == 0


def test_scene_without_a_front_has_no_distance():
    with pytest.raises(ValueError, match="must each have a pixel"):
        pixel_distances(np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool))
    with pytest.raises(ValueError, match="one shape"):
        pixel_distances(np.ones((4, 4), dtype=bool), np.ones((4, 5), dtype=bool))


@given(st.floats(1, 500), st.floats(-1000, 1000))
@settings(deadline=None)
def test_parallel_lines_are_as_far_apart_as_they_were_moved(shift_m, x):
    front = LineString([(x, 0), (x, 3000)])
    moved = shapely.transform(front, lambda c: c + [shift_m, 0])  # noqa: RUF005
    np.testing.assert_allclose(line_distances(front, moved), shift_m, rtol=1e-9, atol=1e-6)


def test_several_fronts_are_measured_against_all_pieces_of_the_reference():
    reference = MultiLineString([[(0, 0), (100, 0)], [(500, 0), (600, 0)]])
    fronts = MultiLineString([[(0, 20), (100, 20)], [(500, 20), (600, 20)]])
    np.testing.assert_allclose(line_distances(fronts, reference), 20)
    assert line_distances(fronts.geoms[0], reference).max() == pytest.approx(np.hypot(500, 20))


def test_points_along_a_line_hold_both_ends_and_leave_no_wider_gap():
    points = shapely.get_coordinates(points_along(LineString([(0, 0), (95, 0)]), 10))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [95, 0]
    assert np.diff(points[:, 0]).max() <= 10


def test_line_without_length_is_refused():
    with pytest.raises(ValueError, match="some length"):
        points_along(LineString([(1, 1), (1, 1)]), 10)


def test_equidistant_distance_compares_points_of_equal_index_in_either_direction():
    front, reference = LineString([(0, 0), (100, 0)]), LineString([(0, 30), (100, 30)])
    assert equidistant_distance(front, reference) == pytest.approx(30)
    assert equidistant_distance(front, reference.reverse()) == pytest.approx(30)
    longer = LineString([(0, 0), (200, 0)])
    assert equidistant_distance(front, longer) == pytest.approx(50)  # |200 f - 100 f| over f in 0..1


def test_overlap_of_fronts_is_that_of_lines_three_pixels_wide():
    front = np.zeros((9, 10), dtype=bool)
    front[4] = True
    assert front_iou(front, front) == 1
    assert front_iou(front, np.roll(front, 1, axis=0)) == pytest.approx(20 / 40)
    assert front_iou(front, np.roll(front, 3, axis=0)) == 0


@settings(max_examples=50, deadline=None)
@given(masks, masks, masks)
def test_overlap_of_ice_equals_counted_pixels_where_the_reference_is_known(ice, reference, known):
    ice, reference, known = (mask_of(points) for points in (ice, reference, known))
    both = sum(bool(i and r and k) for i, r, k in zip(ice.flat, reference.flat, known.flat, strict=True))
    either = sum(bool((i or r) and k) for i, r, k in zip(ice.flat, reference.flat, known.flat, strict=True))
    overlap = ice_iou(ice, reference, known)
    assert overlap == pytest.approx(both / either) if either else np.isnan(overlap)


def test_calfin_s_ice_measure_is_the_mean_probability_inside_true_ice_and_blind_to_ocean():
    reference = np.zeros((10, 10), dtype=bool)
    reference[:5] = True
    ice = np.where(reference, 0.9, 0.0)
    assert soft_ice_iou(ice, reference) == pytest.approx(0.9, abs=1e-6)
    flooded = np.where(reference, 0.9, 0.99)
    assert soft_ice_iou(flooded, reference) == pytest.approx(0.9, abs=1e-6)
    assert ice_iou(flooded > 0.5, reference) == pytest.approx(0.5)


def test_scene_without_a_found_front_stays_in_the_table():
    row = score_scene(None, has_reference=True)
    assert (row["found"], row["has_reference"], row["n_points"], row["sum"]) == (0, 1, 0, 0)
    assert np.isnan(row["mean"])


def table_of(all_distances):
    rows = [score_scene(d, has_reference=True) for d in all_distances]
    return pd.DataFrame(rows), {i: d for i, d in enumerate(all_distances) if d is not None}


def test_summary_of_three_scenes_is_what_one_computes_by_hand():
    scenes = [np.array([1.0, 3.0]), np.array([4.0, 4.0, 4.0, 8.0]), None]
    table, distances = table_of(scenes)
    table = pd.concat([table, pd.DataFrame([score_scene(np.zeros(0), has_reference=False)])], ignore_index=True)
    summary = summarise(table, distances)
    assert summary["n_scenes"] == 4
    assert summary["detection_rate"] == pytest.approx(2 / 3)
    assert summary["false_fronts"] == 1
    assert summary["image_mean"] == pytest.approx((2 + 5) / 2)
    assert summary["pooled_mean"] == pytest.approx(24 / 6)
    assert summary["pooled_median"] == 4
    assert summary["hd95"] == pytest.approx((2.9 + 7.4) / 2)
    assert summary["image_mean_low"] <= summary["image_mean"] <= summary["image_mean_high"]


def test_pooled_mean_of_parts_adds_up_to_that_of_the_whole():
    rng = np.random.default_rng(3)
    scenes = [rng.uniform(0, 50, rng.integers(1, 40)) for _ in range(9)]
    table, distances = table_of(scenes)
    sums = [table.iloc[part][["sum", "n_points"]].sum() for part in (slice(0, 4), slice(4, 9))]
    pooled = sum(s["sum"] for s in sums) / sum(s["n_points"] for s in sums)
    assert summarise(table, distances)["pooled_mean"] == pytest.approx(pooled)
    assert pooled == pytest.approx(np.concatenate(scenes).mean())


def test_summary_without_any_found_front_has_a_detection_rate_of_zero_and_no_distance():
    summary = summarise(*table_of([None, None]))
    assert summary["detection_rate"] == 0
    assert np.isnan(summary["image_mean"])
    assert np.isnan(summary["pooled_median"])


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_scenes():
    rng = np.random.default_rng(0)
    few, many = rng.normal(10, 2, 20), rng.normal(10, 2, 2000)
    low, high = bootstrap_interval(few)
    assert low < few.mean() < high
    assert high - low == pytest.approx(4 * few.std() / np.sqrt(20), rel=0.2)
    narrow = np.diff(bootstrap_interval(many))[0]
    assert narrow < (high - low) / 5
    assert bootstrap_interval(few) == bootstrap_interval(few)
    assert np.isnan(bootstrap_interval([1.0])).all()


def test_front_wide_lines_are_dilated_by_a_full_square():
    front = np.zeros((5, 5), dtype=bool)
    front[2, 2] = True
    assert front_iou(front, binary_dilation(front, np.ones((3, 3)))) == pytest.approx(9 / 25)
