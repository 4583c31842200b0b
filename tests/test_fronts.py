"""Tracing: parity with the original, painted fronts, reasons, and what must never change a front."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from coasts import distance_px, drawn, paint
from dense_line import dense_line
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.signal import savgol_filter
from scipy.sparse.csgraph import minimum_spanning_tree
from skimage.transform import resize

from calfin_cloud.fronts import (
    CALFIN,
    DEFAULT,
    candidate_boxes,
    extract_line,
    georeference,
    isolate_fronts,
    trace_fronts,
    window_around,
)
from calfin_cloud.fronts.isolation import wall_distance
from calfin_cloud.fronts.lines import best_path, skeleton_pixels, spanning_tree
from calfin_cloud.fronts.settings import IsolationSettings, WindowSettings
from calfin_cloud.metrics import pixel_distances
from calfin_cloud.resampling import distance_inside
from calfin_cloud.schema import REASONS

# --- parity with the original -----------------------------------------------------------------------------------------


def test_line_has_the_vertices_of_the_original(shared):
    parity = np.load(shared / "parity" / "line_256.npz")
    np.testing.assert_array_equal(extract_line(parity["edge"]), parity["line"].T)


def test_isolation_gives_the_original_s_threshold_and_front(shared):
    parity = np.load(shared / "parity" / "post_256.npz")
    line, fjord = extract_line(parity["edge"]), parity["fjord"] > 127
    away = distance_transform_edt(np.pad(fjord, 1))[1:-1, 1:-1]
    assert wall_distance(away[tuple(line.T)]) == pytest.approx(float(parity["threshold"]), abs=1e-12)
    (front,) = isolate_fronts(line, fjord)
    np.testing.assert_array_equal(front, parity["front"].T)
    smooth = savgol_filter(front, 9, 3, axis=0)
    np.testing.assert_allclose(smooth[:, ::-1], parity["smoothed"].T, atol=1e-9)


def test_released_settings_trace_the_original_s_front(shared):
    parity = np.load(shared / "parity" / "post_256.npz")
    trace = trace_fronts(parity["edge"], parity["mask"] / 255, fjord_mask=parity["fjord"] > 127, settings=CALFIN)
    (front,) = trace.fronts
    np.testing.assert_allclose(front.line, parity["smoothed"].T[:, ::1] - 0.5, atol=1e-9)  # the release's half pixel


# --- the parts against plain definitions ------------------------------------------------------------------------------

pixel_sets = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=4, max_size=40, unique=True)


@given(pixel_sets)
def test_spanning_tree_is_as_short_as_that_of_all_distances(points):
    pixels = np.array(sorted(points))
    distance = np.hypot(*(pixels[:, None] - pixels[None]).transpose(2, 0, 1))
    shortest = minimum_spanning_tree(distance).sum()
    links = spanning_tree(pixels)
    length = np.hypot(*(pixels[links[:, 0]] - pixels[links[:, 1]]).T)
    assert length.sum() <= shortest + 1e-9
    if len(links) == len(pixels) - 1:  # no link was too far for the nearest quarter
        assert length.sum() == pytest.approx(shortest)


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (2, 3)])
def test_pixels_on_one_straight_line_are_linked_one_after_the_other(step):
    pixels = np.arange(12)[:, None] * np.array(step)
    links = {tuple(sorted(link)) for link in spanning_tree(pixels)}
    assert links == {(i, i + 1) for i in range(11)}


def walks(links, gain, ends_at_leaf):
    """Sums of all simple paths of a tree that may end where the rule allows."""
    neighbours = {}
    for (a, b), g in zip(links, gain, strict=True):
        neighbours.setdefault(a, []).append((b, g))
        neighbours.setdefault(b, []).append((a, g))
    stack = [(b, a, g) for a in neighbours for b, g in neighbours[a]]
    while stack:
        here, before, total = stack.pop()
        if not ends_at_leaf or len(neighbours[here]) == 1:
            yield total
        stack += [(c, here, total + g) for c, g in neighbours[here] if c != before]


@st.composite
def forests(draw):
    n = draw(st.integers(2, 14))
    links = [(draw(st.integers(0, i - 1)), i) for i in range(1, n) if i == 1 or draw(st.integers(0, 5))]
    gain = draw(st.lists(st.integers(-10, 10), min_size=len(links), max_size=len(links)))
    return np.array(links), np.array(gain, dtype=float)


@settings(max_examples=300)
@given(forests(), st.booleans())
def test_best_path_is_the_best_of_all_paths(forest, ends_at_leaf):
    links, gain = forest
    nodes, worth = best_path(links, gain, ends_at_leaf=ends_at_leaf)
    assert worth == pytest.approx(max(walks(links.tolist(), gain, ends_at_leaf)))
    of_link = {frozenset(link): g for link, g in zip(links.tolist(), gain, strict=True)}
    assert sum(of_link[frozenset(pair)] for pair in pairwise(nodes.tolist())) == pytest.approx(worth)


@pytest.mark.parametrize("seed", range(4))
def test_line_equals_the_dense_definition_on_clean_masks(seed):
    rng = np.random.default_rng(seed)
    gap = 60 + rng.integers(0, 60)
    front, _, _ = paint((200, 240), part=(0.05, 0.95), gap=(gap, gap + 6), wave=rng.uniform(0.02, 0.2))
    front[rng.integers(5, 195, 6), rng.integers(5, 235, 6)] = 1
    np.testing.assert_array_equal(extract_line(front), dense_line(front))


# --- painted fronts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (96, 80), (200, 300), (256, 256), (512, 512), (700, 1024), (1024, 1024)])
def test_painted_front_is_traced_within_a_pixel_of_any_frame(shape):
    front, ice, line = paint(shape)
    trace = trace_fronts(front, ice)
    assert len(trace.fronts) == 1
    assert trace.reason == ""
    assert trace.fronts[0].confidence > 0.8
    assert distance_px(trace, line) < 1


def test_front_of_an_enlarged_first_pass_is_traced_within_a_pixel_of_that_pass():
    front, ice, _ = paint((256, 256))
    _, _, line = paint((1024, 1024))
    large = [resize(mask, (1024, 1024), order=1) for mask in (front, ice)]
    trace = trace_fronts(*large)
    assert len(trace.fronts) == 1
    assert distance_px(trace, line) < 4


def test_front_that_meets_the_border_is_traced_to_the_border():
    front, ice, line = paint((256, 256), part=(0, 1))
    (found,) = trace_fronts(front, ice).fronts
    assert found.line[:, 0].min() < 4
    assert found.line[:, 0].max() > 251
    assert pixel_distances(drawn(trace_fronts(front, ice), line.shape), line).mean() < 1


def test_gap_below_the_bridge_limit_is_bridged_and_a_wider_one_parts_two_fronts():
    short, ice, line = paint((256, 256), gap=(120, 128))
    assert len(trace_fronts(short, ice).fronts) == 1
    assert distance_px(trace_fronts(short, ice), line) < 1
    wide, ice, _ = paint((256, 256), gap=(110, 150))
    assert len(trace_fronts(wide, ice).fronts) == 2


def test_bridged_gap_lowers_the_confidence():
    whole, ice, _ = paint((256, 256))
    broken, _, _ = paint((256, 256), gap=(120, 128))
    assert trace_fronts(broken, ice).fronts[0].confidence < trace_fronts(whole, ice).fronts[0].confidence - 0.02


def test_two_branches_are_two_fronts_the_longer_one_first():
    front, ice, line = paint((256, 256), part=(0.1, 0.9))
    front[:, 150:190] = 0
    line[:, 150:190] = False
    trace = trace_fronts(front, ice)
    lengths = [np.hypot(*np.diff(f.line, axis=0).T).sum() for f in trace.fronts]
    assert len(lengths) == 2
    assert lengths[0] > lengths[1]
    assert distance_px(trace, line) < 1


def test_specks_of_noise_do_not_move_the_front():
    front, ice, line = paint((256, 256))
    rng = np.random.default_rng(7)
    away = distance_transform_edt(~line) > 12
    rows, columns = np.nonzero(away)
    some = rng.choice(len(rows), 60, replace=False)
    noisy = front.copy()
    noisy[rows[some], columns[some]] = 1
    trace = trace_fronts(noisy, ice)
    assert len(trace.fronts) == 1
    assert distance_px(trace, line) < 1


def test_edge_without_a_step_of_the_ice_mask_does_not_lead_the_front_astray():
    front, ice, line = paint((256, 256), part=(0.2, 0.8))
    front[150:250, 203:205] = 0.9  # a shear margin: bright, joined to the front, ice on both sides
    trace = trace_fronts(front, ice)
    assert distance_px(trace, line) < 2


def test_fjord_mask_cuts_the_front_out_of_the_coastline():
    shape = (256, 256)
    fjord = np.zeros(shape, dtype=bool)
    fjord[:, 70:190] = True
    ice = np.ones(shape)
    ice[:128, 70:190] = 0
    land = ice > 0
    coast = land & (distance_transform_edt(land) < 1.5) | ~land & (distance_transform_edt(~land) < 1.5)
    front = np.minimum(1.5 * gaussian_filter(coast.astype(float), 1), 0.95)
    (found,) = trace_fronts(front, gaussian_filter(ice, 3), fjord_mask=fjord).fronts
    assert np.abs(found.line[5:-5, 1] - 127.5).max() < 2
    assert found.line[:, 0].min() > 68
    assert found.line[:, 0].max() < 192


def test_part_of_a_front_is_a_front_unless_it_must_lead_back_to_the_walls():
    fjord = np.zeros((256, 256), dtype=bool)
    fjord[:, 70:190] = True
    front, ice, line = paint((256, 256), part=(0.3, 0.5), wave=0.02)
    trace = trace_fronts(front, ice, fjord_mask=fjord)
    assert distance_px(trace, line) < 1
    strict = trace_fronts(front, ice, fjord_mask=fjord, settings=replace(DEFAULT, isolation=IsolationSettings()))
    assert strict.fronts == ()


def test_coast_along_the_walls_alone_is_no_front():
    fjord = np.zeros((256, 256), dtype=bool)
    fjord[:, 70:190] = True
    front = np.zeros((256, 256))
    front[:, [70, 71, 188, 189]] = 0.9
    trace = trace_fronts(front, fjord.astype(float), fjord_mask=fjord)
    assert trace.fronts == ()
    assert trace.reason == "only_walls"


# --- no front, and why ------------------------------------------------------------------------------------------------


def no_front(front, ice, **kwargs):
    trace = trace_fronts(front, ice, **kwargs)
    assert trace.fronts == ()
    assert trace.reason in REASONS
    assert trace.detail
    return trace.reason


def test_empty_mask_has_no_edge():
    _, ice, _ = paint((256, 256))
    assert no_front(np.zeros((256, 256)), ice) == "no_edge"


def test_specks_are_too_short():
    front, ice, _ = paint((256, 256))
    specks = np.zeros_like(front)
    specks[[50, 120, 200], [60, 130, 40]] = 1
    specks[90, 90:96] = 1
    assert no_front(specks, ice) == "edge_too_short"


def test_faint_edge_is_of_low_confidence_and_the_detail_says_by_how_much():
    front, ice, _ = paint((256, 256))
    trace = trace_fronts(0.55 * front, ice)
    assert trace.reason == "low_confidence"
    assert "0.55 is needed" in trace.detail
    objection = trace.rejected[0].objection
    assert (objection.filter, objection.reason, objection.limit) == ("confidence", "low_confidence", 0.55)
    assert 0.4 < objection.value < 0.55
    assert trace.rejected[0].line.shape[1] == 2


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_edge_amid_land_or_amid_ocean_is_one_sided(level):
    front, _, _ = paint((256, 256))
    assert no_front(front, np.full_like(front, level)) == "one_sided"


def test_edge_at_the_border_is_no_front():
    front = np.zeros((256, 256))
    front[1:3, 40:220] = 0.9
    assert no_front(front, np.tile(np.linspace(0, 1, 256)[:, None], 256)) == "only_walls"


def test_edge_that_runs_along_missing_data_is_no_front():
    front, ice, _ = paint((256, 256), wave=0)
    front[131:] = np.nan
    assert no_front(front, ice) == "only_walls"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [0, 2])
def test_noise_is_no_front(seed, smooth):
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.uniform(0, 1, (2, 256, 256)), (0, smooth, smooth))
    noise = (noise - noise.min()) / np.ptp(noise)
    no_front(*noise)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (64, 64), (300, 200)])
def test_constant_masks_of_any_size_give_a_reason(shape, value):
    assert no_front(np.full(shape, value), np.full(shape, value))


def test_blob_is_no_line_and_costs_no_time():
    blob, ice, line = paint((1500, 1500))
    blob[100:500, 200:1300] = 1
    assert distance_px(trace_fronts(blob, ice), line) < 1
    everywhere = np.ones_like(blob)
    trace = trace_fronts(everywhere, ice)
    assert (trace.fronts, trace.reason) == ((), "low_confidence")
    assert "100% of the scene" in trace.detail


def test_edge_that_is_everywhere_is_not_traced():
    noise = np.random.default_rng(0).uniform(0, 1, (900, 900))
    trace = trace_fronts(noise, noise)
    assert trace.reason == "low_confidence"
    assert "everywhere" in trace.detail


def test_missing_pixels_in_both_masks_do_not_hide_the_front():
    front, ice, line = paint((256, 256))
    front[:, 230:], ice[:, 230:] = np.nan, np.nan
    front[:40], ice[:40] = np.nan, np.nan
    assert distance_px(trace_fronts(front, ice), line) < 1


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        trace_fronts(np.zeros((64, 64)), np.zeros((64, 65)))


def test_very_long_edge_hits_no_recursion_limit():
    edge = np.zeros((400, 1500))
    for i, row in enumerate(range(4, 396, 8)):
        edge[row, 4:1496] = 1
        edge[row : row + 9, 1495 if i % 2 else 4] = 1
    assert len(extract_line(edge)) > 60_000


# --- what must not change a front -------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.floats(0.02, 0.2), st.booleans(), st.booleans(), st.booleans())
def test_tracing_commutes_with_flips_and_transposition(wave, up, left, turn):
    front, ice, line = paint((180, 220), wave=wave)

    def turned(mask):
        mask = mask[::-1] if up else mask
        mask = mask[:, ::-1] if left else mask
        return np.ascontiguousarray(mask.T if turn else mask)

    straight, other = trace_fronts(front, ice), trace_fronts(turned(front), turned(ice))
    assert len(other.fronts) == 1
    apart = pixel_distances(drawn(other, turned(line).shape), turned(drawn(straight, line.shape)))
    assert apart.mean() < 0.5
    assert apart.max() < 4


@settings(max_examples=15)
@given(st.integers(-20, 20), st.integers(-20, 20))
def test_moved_edge_gives_the_moved_front(down, right):
    front, ice, _ = paint((256, 256), part=(0.3, 0.7))
    straight = trace_fronts(front, ice).fronts[0]
    moved = trace_fronts(*(np.roll(mask, (down, right), axis=(0, 1)) for mask in (front, ice))).fronts[0]
    np.testing.assert_allclose(moved.line, straight.line + np.array([right, down]), atol=1e-6)


def test_same_masks_give_the_same_front_twice():
    front, ice, _ = paint((256, 256), gap=(100, 104))
    first, second = (trace_fronts(front, ice).fronts[0].line for _ in range(2))
    assert first.tobytes() == second.tobytes()


# --- windows and maps -------------------------------------------------------------------------------------------------


def test_box_of_a_candidate_lies_around_its_front_in_pixels_of_the_scene():
    front, ice, line = paint((256, 256), part=(0.4, 0.6))
    ((top, bottom, left, right),) = candidate_boxes(front, ice, (512, 1024))
    y, x = np.nonzero(line)
    assert (top, bottom) == pytest.approx((2 * y.min(), 2 * y.max() + 2), abs=4)
    assert (left, right) == pytest.approx((4 * x.min(), 4 * x.max() + 4), abs=12)


def test_candidates_may_be_fainter_than_fronts():
    front, ice, _ = paint((256, 256))
    assert trace_fronts(0.55 * front, ice).fronts == ()
    assert len(candidate_boxes(0.55 * front, ice, front.shape)) == 1


def test_no_candidate_gives_no_box():
    assert candidate_boxes(np.zeros((256, 256)), np.zeros((256, 256)), (512, 512)).shape == (0, 4)


@settings(max_examples=50)
@given(
    st.tuples(st.integers(64, 3000), st.integers(64, 3000)),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    st.floats(1, 4),
    st.booleans(),
)
def test_window_lies_in_the_scene_around_its_box_and_is_large_enough(shape, corners, ratio, square):
    edges = np.floor(np.sort(np.reshape(corners, (2, 2)), axis=1) * (np.reshape(shape, (2, 1)) - 1)).astype(int)
    box = (edges + np.array([0, 1])).ravel()
    window = window_around(box, shape, WindowSettings(ratio=ratio, square=square))
    height, width = window.shape
    assert 0 <= window.top < window.bottom <= shape[0]
    assert 0 <= window.left < window.right <= shape[1]
    wanted = max(256, ratio * max(box[1] - box[0], box[3] - box[2]))
    if square:
        assert height == width >= min(wanted, min(shape) // 2 * 2)
    else:
        assert (height >= min(wanted, shape[0])) & (width >= min(wanted, shape[1]))
    if wanted < min(shape) - 1:
        assert window.top <= box[0] < box[1] <= window.bottom
        assert window.left <= box[2] < box[3] <= window.right


def test_line_is_georeferenced_at_pixel_centres_with_all_its_vertices():
    line = georeference(np.array([[0, 0], [1, 0], [1, 2]]), Affine(30, 0, 500_000, 0, -30, 8_000_000))
    assert list(line.coords) == [(500_015, 7_999_985), (500_045, 7_999_985), (500_045, 7_999_925)]


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 4), st.tuples(*[st.integers(0, 9)] * 4))
def test_a_skeleton_is_that_of_the_edge_whatever_lies_around_it(seed, blur_px, margins):
    edge = gaussian_filter(np.random.default_rng(seed).random((24, 31)), blur_px)
    edge = (edge - edge.min()) / np.ptp(edge)
    top, bottom, left, right = margins
    wide = np.pad(edge, ((top, bottom), (left, right)), constant_values=np.nan)
    how = replace(DEFAULT.line, max_width_px=None)  # whose meaning goes with the size of the image
    assert (skeleton_pixels(wide, how) == skeleton_pixels(edge, how) + np.array([top, left])).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.98), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_distances_to_the_outside_of_a_mask_are_those_of_scipy(seed, share, shape):
    mask = np.random.default_rng(seed).random(shape) < share
    mask[0, 0] = False
    np.testing.assert_allclose(distance_inside(mask), distance_transform_edt(mask), rtol=1e-6)
