"""The settings, filters and windows of the release, and what of ours stands beside them."""

from dataclasses import replace

import numpy as np
import pytest
from coasts import paint
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.transform import resize

from calfin_cloud.fronts import (
    BAUMHOER,
    CALFIN,
    DEFAULT,
    MOHAJERANI,
    VARIANTS,
    ZHANG,
    candidate_boxes,
    isolate_fronts,
    trace_fronts,
    whole_box,
)
from calfin_cloud.fronts.filters import buffered_mean, edge_confidence, edge_length, frame_objection, land_ratio
from calfin_cloud.fronts.settings import FilterSettings, IsolationSettings

# --- the release: settings of 6.1, filters and windows of 6.4 ---------------------------------------------------------


def test_named_variants_hold_the_table_of_the_method():
    """calfin-method 6.1: edge confidence, re-crop ratio, mask probability, land ratio, buffered mean, path."""
    rows = {
        name: (
            v.filter.min_edge_confidence,
            v.window.ratio,
            v.filter.ice_probability,
            v.filter.max_land_ratio,
            v.filter.max_imbalance,
            v.line.path_zero,
            v.line.path_power,
        )
        for name, v in VARIANTS.items()
        if v.filter
    }
    assert rows == {
        "calfin": (0.525, 2.5, 0.5, 32, 0.13, 5, 1.5),
        "mohajerani": (0.575, 2.5, 0.25, 64, 1.0, 5, 1.5),
        "zhang": (0.525, 2.25, 0.25, 512, 1.0, 5, 1.5),
        "baumhoer": (0.575, 1.75, 0.25, 32, 0.13, 10, 1.45),
    }
    assert {v.filter.min_edge_px for v in (CALFIN, MOHAJERANI, ZHANG, BAUMHOER)} == {32}
    assert {v.filter.edge_probability for v in (CALFIN, MOHAJERANI, ZHANG, BAUMHOER)} == {0.25}


def test_filters_measure_what_the_method_defines():
    edge = np.zeros((256, 256))
    edge[100:103, 50:200] = 0.9
    edge[200, 200] = 0.04  # too faint to count
    ice = np.zeros((256, 256))
    ice[101:] = 1
    assert edge_length(edge, 0.25) == pytest.approx(150)
    assert land_ratio(ice, 0.5) == pytest.approx(155 * 256 / (101 * 256 + 1))
    assert edge_confidence(edge) == pytest.approx(0.8)
    assert buffered_mean(edge, ice, None) == pytest.approx(9 / 17 - 0.5)  # 17 rows around the edge, 9 of them ice


def test_filters_are_of_the_frame_not_of_its_pixels():
    front, ice, _ = paint((256, 256))
    large = [resize(mask, (512, 512), order=1) for mask in (front, ice)]
    assert edge_length(large[0], 0.25) == pytest.approx(edge_length(front, 0.25), rel=0.05)
    assert buffered_mean(*large, None) == pytest.approx(buffered_mean(front, ice, None), abs=0.03)


def blank_edge(front, ice):
    return np.where(front > 0.3, 0.6, 0), ice


def short_edge(front, ice):
    return np.where(np.arange(256) < 250, 0, front), ice


def all_land(front, ice):
    return front, np.full_like(ice, 0.9)


def mostly_ice_around(front, ice):
    return front, np.clip(ice + 0.45, 0, 1)


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (short_edge, "edge size", "edge_too_short"),
        (all_land, "land ratio", "one_sided"),
        (blank_edge, "edge confidence", "low_confidence"),
        (mostly_ice_around, "buffered mean", "unbalanced"),
    ],
)
def test_each_released_filter_rejects_a_window_and_says_by_how_much(spoil, name, reason):
    front, ice, _ = paint((256, 256), part=(0, 1))
    assert frame_objection(front, ice, None, FilterSettings()) is None
    objection = frame_objection(*spoil(front, ice), None, FilterSettings())
    assert (objection.filter, objection.reason) == (name, reason)
    assert objection.value != objection.limit
    assert f"{objection.value:.3g}" in objection.detail


def fjord_scene(side=256):
    """Coast of a fjord with a front across it: edge probability, ice or land, fjord mask."""
    fjord = np.zeros((side, side), dtype=bool)
    left, right, row = int(0.3 * side), int(0.7 * side), side // 2
    fjord[:, left:right] = True
    ice = ~fjord | (np.arange(side)[:, None] >= row)
    coast = ice & (distance_transform_edt(ice) < 1.5) | ~ice & (distance_transform_edt(~ice) < 1.5)
    return np.minimum(6 * gaussian_filter(coast.astype(float), 0.7), 0.97), ice.astype(float), fjord


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_the_release_finds_the_front_of_a_fjord_in_a_window_of_a_scene_of_any_size(side):
    low_edge, low_ice, low_fjord = fjord_scene()
    edge, ice, fjord = (resize(mask.astype(float), (side, side), order=1) for mask in fjord_scene())
    settings = replace(CALFIN, vertex=DEFAULT.vertex)
    boxes = candidate_boxes(low_edge, low_ice, (side, side), fjord_mask=low_fjord, settings=settings)
    assert len(boxes) == 1
    trace = trace_fronts(edge, ice, fjord_mask=fjord > 0.5, boxes=boxes, settings=settings)
    (front,) = trace.fronts
    middle = front.line[5:-5]
    assert np.abs(middle[:, 1] - (side / 2 - 0.5)).max() < 1.5 * side / 256
    assert np.ptp(front.line[:, 0]) > 0.35 * side


def test_a_front_outside_the_candidate_s_box_is_rejected_as_elsewhere():
    edge, ice, fjord = fjord_scene(512)
    boxes = np.array([[300, 340, 200, 300]])  # ice behind the front
    trace = trace_fronts(edge, ice, fjord_mask=fjord, boxes=boxes, settings=CALFIN)
    assert [r.objection.reason for r in trace.rejected] == ["elsewhere"]
    assert len(trace.fronts) == 1  # the whole scene is tried where no window has a front


def test_without_a_front_in_any_window_the_whole_scene_is_tried():
    edge, ice, fjord = fjord_scene(512)
    trace = trace_fronts(edge, ice, fjord_mask=fjord, settings=CALFIN)
    assert len(trace.fronts) == 1


def test_half_a_pixel_of_the_window_is_the_only_difference_of_the_release_s_vertices():
    edge, ice, fjord = fjord_scene(512)
    boxes = whole_box(edge.shape)[None]
    (released,) = trace_fronts(edge, ice, fjord_mask=fjord, boxes=boxes, settings=CALFIN).fronts
    (centred,) = trace_fronts(
        edge,
        ice,
        fjord_mask=fjord,
        boxes=boxes,
        settings=replace(CALFIN, vertex=replace(CALFIN.vertex, at_corner=False)),
    ).fronts
    np.testing.assert_allclose(centred.line - released.line, 1.0)  # half of a 256 px pixel is one of 512


def test_the_longest_run_is_a_front_where_the_first_is_a_spur():
    line = np.array(
        [[128, c] for c in range(40, 60)] + [[r, 60] for r in range(129, 140)] + [[140, c] for c in range(61, 200)]
    )
    fjord = np.ones((256, 256), dtype=bool)
    fjord[:, :30] = fjord[:, 215:] = False
    fjord[100:150, 58:63] = False  # a skerry parts the line
    first = isolate_fronts(line, fjord)
    longest = isolate_fronts(line, fjord, IsolationSettings(must_return=False, longest_run=True))
    assert max((len(f) for f in longest), default=0) >= max((len(f) for f in first), default=0)
    assert max(len(f) for f in longest) > 100


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5, 0.8])
def test_vertices_on_the_crest_of_the_probability_lie_within_a_tenth_of_a_pixel(offset):
    rows = np.arange(256)[:, None]
    front = np.repeat(0.97 * np.exp(-0.5 * ((rows - 120 - offset) / 1.5) ** 2), 256, axis=1)
    front[:, :40] = front[:, 210:] = 0
    ice = np.repeat((rows > 120).astype(float), 256, axis=1)
    crest = replace(DEFAULT, vertex=replace(DEFAULT.vertex, ridge_px=2.5))
    (found,) = trace_fronts(front, ice, settings=crest).fronts
    assert np.abs(found.line[10:-10, 1] - 120 - offset).max() < 0.1
