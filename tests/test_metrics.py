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
    common_distances,
    compare_paired,
    equidistant_distance,
    front_iou,
    ice_iou,
    is_false,
    lengths_within,
    line_distances,
    pixel_distances,
    points_along,
    score_scene,
    shares_of,
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


@settings(max_examples=50)
@given(masks, masks)
def test_distances_of_pixels_equal_a_plain_loop(front, reference):
    front, reference = mask_of(front), mask_of(reference)
    np.testing.assert_allclose(pixel_distances(front, reference), loop_distances(front, reference))


@settings(max_examples=50)
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
def test_parallel_lines_are_as_far_apart_as_they_were_moved(shift_m, x):
    front = LineString([(x, 0), (x, 3000)])
    moved = shapely.transform(front, lambda c: c + [shift_m, 0])  # noqa: RUF005
    np.testing.assert_allclose(line_distances(front, moved), shift_m, rtol=1e-9, atol=1e-6)


def test_several_fronts_are_measured_against_all_pieces_of_the_reference():
    reference = MultiLineString([[(0, 0), (100, 0)], [(500, 0), (600, 0)]])
    fronts = MultiLineString([[(0, 20), (100, 20)], [(500, 20), (600, 20)]])
    np.testing.assert_allclose(line_distances(fronts, reference), 20)
    assert line_distances(fronts.geoms[0], reference).max() == pytest.approx(np.hypot(500, 20))


def test_a_line_whose_segments_are_parts_is_measured_as_one():
    reference = LineString([(0, 100), (1000, 100), (2000, 900)])
    whole = LineString([(0, 0), (1000, 0), (2000, 0)])
    pieces = MultiLineString([*([(x, 0), (x + 1, 0)] for x in range(1000)), [(1000, 0), (2000, 0)]])
    for measure in (line_distances, common_distances):
        assert measure(pieces, reference).mean() == pytest.approx(measure(whole, reference).mean())
    assert lengths_within(pieces, reference, 300.0) == pytest.approx(lengths_within(whole, reference, 300.0))


def test_points_along_a_line_hold_both_ends_and_leave_no_wider_gap():
    points = shapely.get_coordinates(points_along(LineString([(0, 0), (95, 0)]), 10))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [95, 0]
    assert np.diff(points[:, 0]).max() <= 10
    bent = LineString([(0, 0), (30, 40), (30, 40), (99, 40)])  # with a point twice
    expected = bent.interpolate(np.linspace(0, bent.length, 13))
    assert shapely.distance(points_along(bent, 10), expected).max() < 1e-9


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


@settings(max_examples=50)
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


def test_a_missed_front_counts_as_infinitely_far_in_the_median_of_all_scenes():
    table, distances = table_of([np.full(3, 1.0), np.full(3, 2.0), None, None, None])
    summary = summarise(table, distances)
    assert summary["image_median"] == 1.5
    assert summary["image_median_all"] == np.inf
    table, distances = table_of([np.full(3, 1.0), np.full(3, 2.0), None])
    assert summarise(table, distances)["image_median_all"] == 2


def test_intervals_of_all_figures_hold_them_and_equal_those_of_drawing_the_scenes_one_by_one():
    rng = np.random.default_rng(5)
    scenes = [rng.exponential(scale, 80) for scale in rng.uniform(1, 9, 30)]
    table, distances = table_of([*scenes, None, None])
    summary = summarise(table, distances)
    for name in ("image_mean", "image_median", "pooled_mean", "pooled_median", "hd95", "detection_rate"):
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"], name
    drawn = [np.concatenate([scenes[i] for i in rng.integers(0, 30, 30)]) for _ in range(1000)]
    for name, figure in (("pooled_median", np.median), ("pooled_mean", np.mean)):
        low, high = np.percentile([figure(d) for d in drawn], [2.5, 97.5])
        assert summary[f"{name}_low"] == pytest.approx(low, rel=0.05), name
        assert summary[f"{name}_high"] == pytest.approx(high, rel=0.05), name


def test_one_scene_has_no_interval():
    summary = summarise(*table_of([np.array([1.0, 2.0])]))
    assert summary["image_mean"] == 1.5
    assert np.isnan([v for k, v in summary.items() if k.endswith(("_low", "_high"))]).all()


def test_two_methods_are_compared_on_scenes_that_both_found_and_the_others_are_counted():
    a = pd.Series([1.0, 2.0, np.nan, 4.0, np.nan], index=list("vwxyz"))
    b = pd.Series([3.0, 2.0, 5.0, np.nan, np.nan], index=list("vwxyz"))
    compared = compare_paired(a, b)
    assert [compared[k] for k in ("n_scenes", "n_both", "only_a", "only_b", "neither")] == [5, 2, 1, 1, 1]
    assert (compared["mean_a"], compared["mean_b"], compared["difference"]) == (1.5, 2.5, -1)
    assert compared["relative"] == pytest.approx(-0.4)
    assert (compared["difference_low"], compared["difference_high"]) == (-2, 0)
    assert compared["a_is_closer"] == 2
    turned = compare_paired(b, a)
    assert (turned["difference_low"], turned["difference_high"], turned["only_a"]) == (0, 2, 1)


def test_a_paired_interval_is_narrow_where_methods_err_on_the_same_scenes():
    rng = np.random.default_rng(2)
    b = pd.Series(rng.exponential(10, 60))
    compared = compare_paired(b * 0.7, b)
    assert compared["difference_high"] < 0
    np.testing.assert_allclose([compared["relative_low"], compared["relative_high"]], -0.3)


def test_methods_scored_on_other_scenes_are_not_compared():
    with pytest.raises(ValueError, match="the same scenes in one order"):
        compare_paired(pd.Series([1.0], index=["a"]), pd.Series([1.0], index=["b"]))


def test_methods_without_a_common_front_have_no_difference():
    compared = compare_paired(pd.Series([1.0, np.nan]), pd.Series([np.nan, 2.0]))
    assert (compared["only_a"], compared["only_b"], compared["n_both"]) == (1, 1, 0)
    assert np.isnan([compared["difference"], compared["relative"], compared["difference_low"]]).all()


def test_a_front_is_false_where_most_of_it_is_far_from_the_reference():
    reference = np.zeros((40, 40), dtype=bool)
    reference[5, :20] = True
    assert not is_false(np.roll(reference, 4, axis=0), reference, 4)
    assert is_false(np.roll(reference, 5, axis=0), reference, 4)
    half_off = reference.copy()
    half_off[5, 20:] = True
    assert not is_false(half_off, reference, 4)
    assert is_false(reference, np.zeros_like(reference), 1000)


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.lists(st.floats(0, 100), min_size=1, max_size=9)), min_size=1, max_size=8))
def test_scenes_of_a_summary_are_all_counted_whatever_was_found(found):
    scenes = [None if f is None else np.array(f) for f in found]
    summary = summarise(*table_of(scenes))
    assert summary["n_scenes"] == summary["n_referenced"] == len(scenes)
    assert summary["detection_rate"] == pytest.approx(sum(f is not None for f in found) / len(found))
    assert np.isnan(summary["image_mean"]) == all(f is None for f in found)


def test_where_two_lines_have_other_ends_only_what_lies_beside_each_other_is_compared():
    short, long = LineString([(0, 10), (100, 10)]), LineString([(-500, 0), (600, 0)])
    np.testing.assert_allclose(common_distances(short, long), 10)
    assert line_distances(short, long).mean() > 100
    assert not len(common_distances(short, LineString([(1000, 0), (1100, 0)])))


def test_shares_of_a_front_that_runs_on_along_the_coast_and_misses_a_flank():
    reference = LineString([(0, 0), (4000, 0)])
    front = LineString([(2000, 100), (6000, 100)])
    shares = shares_of(lengths_within(front, reference, 100.0))
    assert shares == pytest.approx({"precision": 0.5, "recall": 0.5, "f": 0.5}, abs=0.01)


def test_a_missed_front_lowers_recall_by_its_length_and_leaves_precision():
    reference = LineString([(0, 0), (1000, 0)])
    found, missed = (lengths_within(line, reference, 150.0) for line in (reference, None))
    assert shares_of({name: found[name] + missed[name] for name in found}) == pytest.approx(
        {"precision": 1.0, "recall": 0.5, "f": 2 / 3}
    )
    assert np.isnan(shares_of(missed)["precision"])


@given(st.integers(0, 1000), st.integers(1, 1000).map(lambda n: n + 0.5))
def test_a_parallel_front_is_all_near_or_all_far(apart, within):
    shares = shares_of(lengths_within(LineString([(0, apart), (500, apart)]), LineString([(0, 0), (500, 0)]), within))
    assert shares["f"] == (1.0 if apart <= within else 0.0)
