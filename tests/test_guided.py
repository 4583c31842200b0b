"""Fronts at known termini: painted fjords with a front, coasts and termini that are right, shifted or wrong."""

import pickle
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from scipy.ndimage import distance_transform_edt, gaussian_filter
from shapely.geometry import LineString, box
from skimage.graph import MCP_Geometric

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.fronts import DEFAULT, GuideSettings, georeference, place_of, trace_fronts, trace_placed
from calfin_cloud.fronts.corridor import Corridor, corridor_along, ends_of, smoothed_line
from calfin_cloud.fronts.evidence import edge_directions, map_weight, wall_weight, walls_of
from calfin_cloud.fronts.guided import _cheapest, widths_m
from calfin_cloud.fronts.settings import MapWeights
from calfin_cloud.metrics import line_distances
from calfin_cloud.termini import Terminus

SIDE, PIXEL_M = 320, 30.0
LEFT, RIGHT = 110, 210  # columns of the fjord's walls
WHEN, KNOWN = date(2020, 8, 1), date(2015, 2, 1)


def grid():
    return box_grid((0, 0, SIDE * PIXEL_M, SIDE * PIXEL_M), 3413, PIXEL_M)


def on_map(row, left=LEFT, right=RIGHT, slope=0.0):
    """Line on the map across the fjord at a row of the image."""
    columns = np.linspace(left, right, 40)
    return georeference(np.column_stack([columns, row + slope * (columns - left)]), grid().transform)


def domain_with(*lines, **more):
    termini = tuple(Terminus(line, KNOWN, "drawn") for line in lines)
    return Domain("fjord", grid(), "1", termini=termini, **more)


def painted(row, *, left=LEFT, right=RIGHT, coasts=True, slope=0.0, seen=(0.0, 1.0)):
    """Front and ice of a fjord open to the north, whose coasts the network takes for front as surely as the front."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    at = row + slope * (columns - left)
    in_fjord = (columns > left) & (columns < right)
    water = in_fjord & (rows < at)
    share = (columns - left) / (right - left)
    line = in_fjord & (np.abs(rows - at) < 1) & (share >= seen[0]) & (share <= seen[1])
    if coasts:
        line |= ((np.abs(columns - left) < 1) | (np.abs(columns - right) < 1)) & (rows < at)
    front = 0.95 * np.exp(-0.5 * (distance_transform_edt(~line) / 1.5) ** 2)
    return front, np.where(water, 0.02, 0.98)


def traced(masks, domain):
    trace = trace_placed(*masks, place=place_of(domain, WHEN))
    return trace, [georeference(f.line, grid().transform) for f in trace.fronts]


def test_a_front_is_traced_across_the_fjord_without_its_coasts():
    masks = painted(170)
    trace, (line,) = traced(masks, domain_with(on_map(150)))
    assert line_distances(line, on_map(170)).mean() < 60
    assert trace.fronts[0].traced_by == "guided"
    assert trace.fronts[0].guide_m == pytest.approx(20 * PIXEL_M, rel=0.1)
    free = [georeference(f.line, grid().transform) for f in trace_fronts(*masks).fronts]
    assert line_distances(free[0], on_map(170)).mean() > 600


def test_without_termini_the_free_trace_stands():
    masks = painted(170)
    trace, free = trace_placed(*masks, place=place_of(domain_with(), WHEN)), trace_fronts(*masks)
    assert len(trace.fronts) == len(free.fronts)
    for ours, theirs in zip(trace.fronts, free.fronts, strict=True):
        np.testing.assert_array_equal(ours.line, theirs.line)
        assert ours.traced_by == "free"


@given(st.integers(-45, 45), st.floats(-0.3, 0.3))
@settings(max_examples=8)
def test_a_front_is_never_moved_towards_the_terminus(moved, slope):
    _, (line,) = traced(painted(160, slope=slope), domain_with(on_map(160 + moved)))
    assert line_distances(line, on_map(160, slope=slope)).mean() < 75


def test_blank_masks_give_no_front_and_say_why():
    trace, _ = traced((np.zeros((SIDE, SIDE)), np.full((SIDE, SIDE), 0.5)), domain_with(on_map(150)))
    assert (trace.fronts, trace.reason) == ((), "not_across")
    assert "no edge runs across" in trace.detail


def test_noise_gives_no_front_along_the_terminus():
    noise = np.random.default_rng(1).uniform(0, 0.25, (SIDE, SIDE))
    assert traced((noise, np.full((SIDE, SIDE), 0.5)), domain_with(on_map(150)))[0].reason == "not_across"


@pytest.mark.parametrize("shift", [-2000, 2000])
def test_a_terminus_two_kilometres_off_gives_the_front_or_none(shift):
    _, lines = traced(painted(160), domain_with(on_map(160 + shift / PIXEL_M)))
    assert all(line_distances(line, on_map(160)).mean() < 100 for line in lines)


def test_the_terminus_of_another_glacier_gives_no_front_beside_it():
    trace, _ = traced(painted(160), domain_with(on_map(100, 250, 310)))
    assert (trace.fronts, trace.reason) == ((), "not_across")


def test_coasts_alone_are_no_front():
    front, ice = painted(170, seen=(2.0, 3.0))
    trace, _ = traced((front, ice), domain_with(on_map(150)))
    assert trace.reason == "not_across"
    assert {r.objection.filter for r in trace.rejected} <= {"terminus", "length", "border", "confidence", "contrast"}


def test_a_front_that_left_the_corridors_reach_is_kept_as_free():
    rate = GuideSettings(rate_m=0.0, width_m=600.0)
    masks, domain = painted(190, coasts=False), domain_with(on_map(100))
    trace = trace_placed(
        *masks, place=place_of(domain, WHEN), settings=DEFAULT.__class__(**{**vars(DEFAULT), "guide": rate})
    )
    assert [f.traced_by for f in trace.fronts] == ["free"]
    assert trace.fronts[0].guide_m > 600


def test_an_unseen_flank_is_drawn_on_only_where_the_rest_has_not_moved():
    still, (line,) = traced(painted(152, coasts=False, seen=(0.0, 0.55)), domain_with(on_map(150)))
    assert line.length > 0.9 * on_map(152).length
    assert still.fronts[0].least < 0.05
    _, lines = traced(painted(185, coasts=False, seen=(0.0, 0.55)), domain_with(on_map(150)))
    assert all(line.length < 0.7 * on_map(185).length for line in lines)


def test_each_tributary_has_its_front():
    one, two = (painted(160, left=a, right=b) for a, b in ((40, 120), (200, 280)))
    masks = np.maximum(one[0], two[0]), np.minimum(one[1], two[1])
    known = domain_with(on_map(150, 40, 120), on_map(150, 200, 280))
    _, lines = traced(masks, known)
    assert len(lines) == 2
    assert line_distances(lines[0].union(lines[1]), on_map(160, 40, 120).union(on_map(160, 200, 280))).mean() < 60


def test_the_box_around_a_glacier_does_not_move_its_front():
    front, ice = painted(170)
    domain = domain_with(on_map(150))
    (whole,) = traced((front, ice), domain)[1]
    cut = slice(40, 290), slice(60, 270)
    small = box_grid((60 * PIXEL_M, (SIDE - 290) * PIXEL_M, 270 * PIXEL_M, (SIDE - 40) * PIXEL_M), 3413, PIXEL_M)
    part = Domain("part", small, "1", termini=domain.termini)
    trace = trace_placed(front[cut], ice[cut], place=place_of(part, WHEN))
    assert line_distances(georeference(trace.fronts[0].line, small.transform), whole).mean() < 30


def test_missing_data_over_the_terminus_gives_no_front():
    front, ice = painted(170)
    front[120:220] = np.nan
    assert traced((front, ice), domain_with(on_map(150)))[0].fronts == ()


@pytest.mark.parametrize("beyond", [-10, 0, 10, 40, 400])
def test_a_terminus_that_ends_beyond_the_scene_or_at_its_border_leaves_the_front_whole(beyond):
    trace, lines = traced(painted(160, left=-1, right=SIDE), domain_with(on_map(165, -beyond, SIDE + beyond)))
    assert [f.traced_by for f in trace.fronts] == ["guided"]
    assert np.ptp(lines[0].xy[0]) > 0.9 * SIDE * PIXEL_M
    assert line_distances(lines[0], on_map(160, 0, SIDE)).mean() < PIXEL_M


@pytest.mark.parametrize("share", [0.1, 0.2, 0.24])
def test_a_front_is_drawn_as_far_as_the_data_reach(share):
    front, ice = painted(160)
    missing = np.arange(SIDE) > RIGHT - share * (RIGHT - LEFT)
    front[:, missing] = ice[:, missing] = np.nan
    trace, lines = traced((front, ice), domain_with(on_map(165)))
    assert [f.traced_by for f in trace.fronts] == ["guided"]
    assert np.ptp(lines[0].xy[0]) > (0.93 - share) * (RIGHT - LEFT) * PIXEL_M
    assert trace.fronts[0].covered < 1.02 - share


def test_lines_that_several_people_drew_on_one_day_count_once():
    drawn = [on_map(165), on_map(165.4), on_map(164.7, LEFT + 1, RIGHT - 1)]
    alone, together = (traced(painted(160), domain_with(*lines))[0] for lines in (drawn[:1], drawn))
    assert [len(trace.fronts) for trace in (alone, together)] == [1, 1]
    assert together.fronts[0].covered == pytest.approx(alone.fronts[0].covered, rel=0.05)


def test_a_terminus_outside_the_grid_gives_no_front_and_no_error():
    far = LineString([(50_000, 50_000), (53_000, 50_000)])
    assert traced(painted(170), domain_with(far))[0].reason == "not_across"


@pytest.mark.parametrize(("years", "widest"), [(0, 1500), (2, 2000), (8, 3500), (100, 6000), (np.inf, 6000)], ids=str)
def test_corridors_reach_as_far_as_a_front_can_have_moved(years, widest):
    widths = widths_m(years, GuideSettings())
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (1500, widest)


@given(st.floats(20, 300), st.floats(-60, 60), st.floats(0.0, 400.0))
def test_smoothing_leaves_the_ends_of_a_line_in_place(length, bow, half):
    x = np.linspace(0, 1, 30)
    line = np.column_stack([length * x, bow * np.sin(np.pi * x)])
    smooth = smoothed_line(line, half, GuideSettings())
    along = np.hypot(*np.diff(line, axis=0).T).sum()
    np.testing.assert_allclose(smooth[[0, -1]], line[[0, -1]], atol=0.02 * along + 0.5)


def test_a_corridor_is_as_wide_as_asked_and_opens_at_its_ends():
    valid = np.ones((200, 200), dtype=bool)
    corridor = corridor_along(np.array([[60.0, 100.0], [140.0, 100.0]]), 40.0, valid, GuideSettings())
    rows, columns = np.nonzero(corridor.inside)
    assert (rows.min() + corridor.top, rows.max() + corridor.top) == pytest.approx((60, 140), abs=1)
    opened = 40 * np.tan(np.radians(GuideSettings().fan_deg))
    got = (columns.min() + corridor.left, columns.max() + corridor.left)
    assert got == pytest.approx((60 - opened, 140 + opened), abs=2)
    assert corridor.inside[100 - corridor.top].sum() == pytest.approx(81, abs=2)


@pytest.mark.parametrize("part", [(slice(200, 240), slice(30, 300)), (slice(0, 25), slice(290, 320))])
def test_the_direction_of_an_edge_is_that_of_the_whole_scene_wherever_the_edge_lies(part):
    edge, width_px = np.zeros((SIDE, SIDE)), 4.0
    edge[part] = gaussian_filter(np.random.default_rng(1).random(edge[part].shape), 3.0)
    down, right = (gaussian_filter(edge, width_px, order=order) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (gaussian_filter(product, width_px) for product in (right * right, down * down, right * down))
    twice = np.arctan2(2 * xy, xx - yy) + np.pi  # modulo whole turns, as a ridge has no way
    turned = np.exp(1j * (2 * edge_directions(edge, width_px) - twice))[edge > 0]
    np.testing.assert_allclose(turned, 1, atol=1e-9)


def test_termini_of_several_dates_show_the_walls_between_their_ends():
    lines = [np.array([[50.0, y], [150.0, y]]) for y in (100.0, 130.0, 160.0)]
    walls = walls_of(lines, PIXEL_M, GuideSettings())
    assert len(walls) == 2
    along = np.column_stack([np.full(40, 51.0), np.arange(110.0, 150)])
    across = np.column_stack([np.arange(60.0, 140), np.full(80, 120.0)])
    assert wall_weight(along, walls, PIXEL_M, GuideSettings()).max() == pytest.approx(0.15)
    assert wall_weight(across, walls, PIXEL_M, GuideSettings()).min() == 1.0
    assert walls_of(lines[:1], PIXEL_M, GuideSettings()) == ()


def test_maps_weaken_coasts_far_from_ice_and_no_front_at_ice_or_out_at_sea():
    ice, ocean = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=bool)
    ice[:, :20], ocean[:, 40:] = True, True
    weight = map_weight(ice, ocean, PIXEL_M, MapWeights())
    assert weight[50, 10] == weight[50, 25] == 1.0
    assert weight[50, 45] == pytest.approx(0.1)
    assert weight[50, 90] == 1.0
    assert map_weight(None, ocean, PIXEL_M, MapWeights()) is None


def test_a_map_of_ice_takes_the_coasts_off_a_free_front():
    x0, x1 = LEFT * PIXEL_M, RIGHT * PIXEL_M
    ice = box(x0 - 100, 0, x1 + 100, (SIDE - 165) * PIXEL_M)
    masks = painted(170)
    with_map = trace_placed(*masks, place=place_of(domain_with(ice=ice), WHEN))
    without = trace_placed(*masks, place=place_of(domain_with(), WHEN))
    apart = [
        line_distances(georeference(t.fronts[0].line, grid().transform), on_map(170)).mean()
        for t in (with_map, without)
    ]
    assert apart[0] < apart[1] / 2


def test_weights_by_maps_are_made_once_for_the_copies_of_a_domain_and_anew_for_other_maps():
    side = SIDE * PIXEL_M
    ice, ocean = box(0, 0, side, side / 2), box(0, side / 2, side, side)
    known = domain_with(ice=ice, ocean=ocean)
    first = place_of(known, WHEN).weight
    assert place_of(pickle.loads(pickle.dumps(known)), None).weight is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    other = place_of(domain_with(ice=ice), WHEN).weight
    assert other.shape == first.shape
    assert not np.array_equal(other, first)


@given(seed=st.integers(0, 2**31), n_levels=st.integers(1, 3))
@settings(max_examples=40)
def test_of_paths_that_cost_the_same_the_one_of_a_search_for_all_ends_is_taken(seed, n_levels):
    guide = GuideSettings()
    rows, columns = np.mgrid[:21, :31]
    away, beyond = np.abs(rows - 10.0), np.maximum(3.0 - columns, columns - 27.0)
    inside, line = np.ones(rows.shape, dtype=bool), np.zeros((31, 2))
    corridor = Corridor(0, 0, inside, columns, away, beyond, np.ones(rows.shape), line, 3, 27)
    support = np.random.default_rng(seed).integers(0, n_levels, corridor.inside.shape) / 2
    starts, ends = ends_of(corridor, 12.0, guide)
    search = MCP_Geometric(np.where(corridor.inside, corridor.stretch / (guide.cost + support), -1))
    total, _ = search.find_costs(starts, ends)
    expected = search.traceback(ends[np.argmin(total[tuple(ends.T)])])
    np.testing.assert_array_equal(_cheapest(corridor, support, 12.0, guide), expected)


@pytest.mark.parametrize("crs", [3413, 32623])
def test_corridors_and_maps_of_ice_are_in_metres_on_the_ground_whatever_the_map(crs):
    to_map = Transformer.from_crs(4326, crs, always_xy=True)
    ends = [(-43.1, 60.2), (-43.0, 60.2)]  # where EPSG:3413 is 4 % too long
    (x0, y0), (x1, y1) = (to_map.transform(*end) for end in ends)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    box_around = box_grid((middle_x - 6000, middle_y - 6000, middle_x + 6000, middle_y + 6000), crs, PIXEL_M)
    (west, south), (east, north) = (middle_x - 6000, middle_y - 6000), (middle_x - 3000, middle_y + 6000)
    domain = Domain(
        "far", box_around, termini=(Terminus(LineString([(x0, y0), (x1, y1)])),), ice=box(west, south, east, north)
    )
    place = place_of(domain, None)
    (guide,) = place.guides
    _, _, on_ground = Geod(ellps="WGS84").inv(*ends[0], *ends[1])
    assert np.hypot(*(guide.line[-1] - guide.line[0])) * guide.pixel_m == pytest.approx(on_ground, rel=2e-3)
    from_ice_m = np.count_nonzero(place.weight[200] > MapWeights().least_weight) * guide.pixel_m
    inside_m = 3000 / PIXEL_M * guide.pixel_m
    assert from_ice_m - inside_m == pytest.approx(MapWeights().far_m, abs=guide.pixel_m)
