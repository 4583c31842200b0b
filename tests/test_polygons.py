"""Polygons: areas of painted fjords, the method's raster as oracle, reasons, and what must hold of any front."""

from itertools import permutations

import cv2
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt, label
from shapely.affinity import translate
from shapely.geometry import LineString, Point

from calfin_cloud.polygons import PolygonSettings, close_polygons, mean_evidence, outline_fjord
from calfin_cloud.sample.painting import paint_scene
from calfin_cloud.schema import POLYGON_REASONS

PIXEL_M = 30.0
LEFT, TOP = -512_010.0, -1_337_010.0


def grid_of(shape, left=LEFT, top=TOP):
    return GeoBox(shape, Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top), "EPSG:3413")


def on_map(points):
    """Line in map coordinates through points (n, 2) in pixels, x = column, y = row, the first pixel from 0 to 1."""
    return LineString(np.asarray(points, dtype=float) * [PIXEL_M, -PIXEL_M] + [LEFT, TOP])


def fjord_of(shape, walls=(20, 20)):
    """Straight fjord from the top to the bottom of the image, between walls of so many columns."""
    mask = np.zeros(shape, dtype=bool)
    mask[:, walls[0] : shape[1] - walls[1]] = True
    return mask


def ice_below(row, shape, *, ocean=0.02, ice=0.98):
    return np.where(np.arange(shape[0])[:, None] >= row, ice, ocean) * np.ones(shape)


def area_px(polygon):
    return polygon.area / PIXEL_M**2


def painted(seed, size=256, **look):
    scene = paint_scene(np.random.default_rng(seed), (size, size), **look)
    return scene, on_map(scene.front + 0.5), grid_of((size, size))


def distance_px(line, polygon, fjord):
    """Greatest distance in px from the vertices of a line that lie in a fjord mask to the border of a polygon."""
    points = shapely.points(line.coords)
    columns, rows = ((np.array(line.coords) - [LEFT, TOP]) / [PIXEL_M, -PIXEL_M]).astype(int).T
    amid = (columns >= 0) & (rows >= 0) & (columns < fjord.shape[1]) & (rows < fjord.shape[0])
    amid[amid] = (distance_transform_edt(fjord) > 2)[rows[amid], columns[amid]]
    return shapely.distance(points[amid], polygon.boundary).max() / PIXEL_M


def method_ocean(line, ice, fjord, *, frame_px):
    """Ocean (y, x) bool as the original's raster has it, for a line (n, 2) in pixels that reaches beyond the walls."""
    cut = np.where(fjord, 255, 0).astype(np.uint8)
    cv2.polylines(cut, [np.floor(line).astype(np.int32)[:, None]], isClosed=False, color=0)
    numbers, n = label(cut > 0)
    areas = np.bincount(numbers.ravel(), minlength=n + 1)[1:]
    ocean = np.zeros(fjord.shape, dtype=np.uint8)
    for i, area in enumerate(areas, start=1):
        part = numbers == i
        if area >= max(0.025 * frame_px, 0.01 * areas.max()) and 255 * ice[part].mean() < 224:
            ocean[part] = 1
    return cv2.medianBlur(ocean, 3) > 0


# --- areas and borders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["optical", "sar"])
def test_ocean_and_ice_of_a_painted_fjord_have_their_true_areas(seed, kind):
    scene, front, grid = painted(seed, kind=kind)
    made = close_polygons([front], scene.ice.astype(float), grid, fjord_mask=scene.fjord)
    assert made.reason == ""
    assert area_px(made.ocean) == pytest.approx((scene.fjord & ~scene.ice).sum(), rel=0.01)
    assert area_px(made.ice) == pytest.approx((scene.fjord & scene.ice).sum(), rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_the_border_of_the_ocean_is_the_front_itself(seed):
    scene, front, grid = painted(seed)
    made = close_polygons([front], scene.ice.astype(float), grid, fjord_mask=scene.fjord)
    assert distance_px(front, made.ocean, scene.fjord) < 0.01
    assert distance_px(front, made.ice, scene.fjord) < 0.01


@pytest.mark.parametrize("seed", range(6))
def test_ocean_differs_from_the_method_s_raster_along_its_outline_only(seed):
    scene, _, grid = painted(seed)
    ice = scene.ice.astype(float)
    along = scene.front[0] - scene.front[1], scene.front[-1] - scene.front[-2]
    away = [3 * step / np.hypot(*step) for step in along]  # beyond the walls, where there is nothing to snap to
    line = np.vstack([scene.front[:1] + away[0], scene.front, scene.front[-1:] + away[1]]) + 0.5
    expected = method_ocean(line, ice, scene.fjord, frame_px=ice.size)
    made = close_polygons([on_map(line)], ice, grid, fjord_mask=scene.fjord)
    columns, rows = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    inside = shapely.contains_xy(made.ocean, LEFT + PIXEL_M * columns, TOP - PIXEL_M * rows)
    outline = distance_transform_edt(np.pad(expected, 1, mode="edge"))[1:-1, 1:-1]
    outside = distance_transform_edt(~np.pad(expected, 1, mode="edge"))[1:-1, 1:-1]
    wrong = inside != expected
    assert wrong.sum() < 0.02 * expected.sum()
    assert np.maximum(outline, outside)[wrong].max(initial=0) < 3


def test_pixel_centres_are_where_the_grid_has_them():
    shape = (100, 100)
    made = close_polygons([on_map([(-1, 40), (101, 40)])], ice_below(40, shape), grid_of(shape), fjord_mask=None)
    left, bottom, right, top = made.ocean.bounds
    assert (left, right, top) == pytest.approx((LEFT, LEFT + 100 * PIXEL_M, TOP), abs=1e-3)
    assert bottom == pytest.approx(TOP - 40 * PIXEL_M, abs=1e-3)
    assert area_px(made.ocean) == pytest.approx(4000, abs=1e-3)
    assert area_px(made.ice) == pytest.approx(6000, abs=1e-3)


def test_corners_of_the_image_are_not_rounded_and_walls_are_not_stairs():
    shape = (120, 120)
    rows, columns = np.indices(shape)
    mask = columns > 0.5 * rows + 20  # a wall askew
    outline = outline_fjord(mask)
    assert shapely.contains_properly(outline.buffer(1e-3), Point(120, 0))
    assert outline.area == pytest.approx(mask.sum(), rel=2e-3)
    askew = [(x, y) for x, y in outline.geoms[0].exterior.coords if 2 < y < 118 and 0 < x < 119]
    assert max(abs(x - 0.5 * y - 20.75) for x, y in askew) < 0.35  # a staircase of such steps is up to 0.5 px off


def test_specks_and_spits_of_one_pixel_are_no_walls():
    clean = fjord_of((100, 100))
    rough = clean.copy()
    rough[30, 20:40] = False
    rough[60:62, 50:52] = False
    assert outline_fjord(rough).symmetric_difference(outline_fjord(clean)).area < 4  # of 20 px and 4 px


def test_a_part_without_a_pixel_centre_has_the_evidence_of_the_pixel_it_lies_in():
    ice = np.array([[0.1, 0.2], [np.nan, 0.4]])
    parts = np.array([shapely.box(1.1, 0, 1.4, 0.9), shapely.box(0, 1, 0.2, 2), shapely.box(0, 0, 2, 2)])
    np.testing.assert_allclose(mean_evidence(parts[:2], ice), [0.2, np.nan])
    np.testing.assert_allclose(mean_evidence(parts[2:], ice), [0.7 / 3])


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short_px", [0, 0.4, 3, 13])
def test_a_front_that_stops_short_of_the_walls_is_led_to_them(short_px):
    shape = (100, 100)
    front = on_map([(20 + short_px, 50), (80 - short_px, 50)])
    made = close_polygons([front], ice_below(50, shape), grid_of(shape), fjord_mask=fjord_of(shape))
    assert area_px(made.ocean) == pytest.approx(60 * 50, abs=0.1)
    assert area_px(made.ice) == pytest.approx(60 * 50, abs=0.1)


def test_a_front_that_ends_amid_the_fjord_is_rejected_with_the_distance_and_its_limit():
    shape = (100, 100)
    front = on_map([(20, 50), (57.5, 50)])
    made = close_polygons([front], ice_below(50, shape), grid_of(shape), fjord_mask=fjord_of(shape))
    assert (made.ocean, made.ice, made.reason) == (None, None, "front_not_closed")
    assert "22.5 px" in made.detail
    assert "at most 15.0 px" in made.detail
    longer = PolygonSettings(max_gap=0.23)
    kept = close_polygons([front], ice_below(50, shape), grid_of(shape), fjord_mask=fjord_of(shape), settings=longer)
    assert area_px(kept.ocean) == pytest.approx(3000, abs=0.1)


@pytest.mark.parametrize(("from_edge", "goes_to_edge"), [(7.9, True), (8.1, False)])
def test_an_end_goes_to_the_edge_only_where_that_is_one_and_a_half_times_nearer(from_edge, goes_to_edge):
    shape = (100, 100)
    front = on_map([(10, 60), (40, from_edge), (68, from_edge)])  # 12 px from the right wall
    mask = fjord_of(shape)
    ice = np.arange(100)[:, None] > np.interp(np.arange(100), [10, 40, 68], [60, 8, 8])
    made = close_polygons([front], ice.astype(float), grid_of(shape), fjord_mask=mask)
    at_edge = Point(LEFT + 68 * PIXEL_M, TOP)
    assert (made.ocean.boundary.distance(at_edge) < 1 and made.ice.boundary.distance(at_edge) < 1) == goes_to_edge


def test_without_a_fjord_mask_a_front_ends_at_the_edge_of_the_image_only():
    shape = (100, 100)
    ice = ice_below(50, shape)
    near, far = on_map([(6, 50), (94, 50)]), on_map([(20, 50), (80, 50)])
    made = close_polygons([near], ice, grid_of(shape), fjord_mask=None)
    assert area_px(made.ocean) == pytest.approx(5000, abs=0.1)
    rejected = close_polygons([far], ice, grid_of(shape), fjord_mask=None)
    assert rejected.reason == "front_not_closed"
    assert "20.0 px" in rejected.detail


# --- several fronts, islands ------------------------------------------------------------------------------------------


def tributaries():
    """Ocean between two glaciers, with ice above row 30 and below row 70."""
    shape = (100, 100)
    ice = np.maximum(ice_below(70, shape), ice_below(70, shape)[::-1])
    return [on_map([(19, 30), (81, 30)]), on_map([(19, 70), (81, 70)])], ice, grid_of(shape), fjord_of(shape)


def test_several_fronts_bound_one_ocean_whatever_their_order():
    fronts, ice, grid, mask = tributaries()
    for lines in permutations(fronts):
        made = close_polygons(lines, ice, grid, fjord_mask=mask)
        assert area_px(made.ocean) == pytest.approx(60 * 40, abs=0.1)
        assert area_px(made.ice) == pytest.approx(60 * 60, abs=0.1)
        assert (len(made.ocean.geoms), len(made.ice.geoms)) == (1, 2)


def test_a_front_that_does_not_close_rejects_a_scene_whose_ice_would_become_ocean():
    (front, _), ice, grid, mask = tributaries()
    made = close_polygons([front, on_map([(21, 70), (55, 70)])], ice, grid, fjord_mask=mask)
    assert (made.ocean, made.reason) == (None, "front_not_closed")
    assert "1 of 2 fronts left out: an end is 25.0 px" in made.detail


def test_a_front_that_does_not_close_amid_the_ice_is_left_out_and_named():
    (front, other), ice, grid, mask = tributaries()
    made = close_polygons([front, on_map([(21, 82), (46, 82)]), other], ice, grid, fjord_mask=mask)
    assert made.reason == ""
    assert "1 of 3 fronts left out: an end is 18.0 px" in made.detail
    assert area_px(made.ocean) == pytest.approx(60 * 40, abs=0.1)


def test_pieces_of_a_front_from_wall_to_rock_to_wall_make_one_cut():
    shape = (100, 100)
    mask = fjord_of(shape)
    mask[40:60, 45:55] = False
    pieces = [on_map([(19, 50), (44, 50)]), on_map([(56, 50), (82, 50)])]
    made = close_polygons(pieces, ice_below(50, shape), grid_of(shape), fjord_mask=mask)
    assert area_px(made.ocean) == pytest.approx(mask[:50].sum(), rel=0.01)
    assert area_px(made.ice) == pytest.approx(mask[50:].sum(), rel=0.01)


def test_an_island_is_a_hole_of_the_ocean_and_no_polygon():
    shape = (100, 100)
    mask = fjord_of(shape)
    mask[15:30, 40:60] = False
    made = close_polygons([on_map([(19, 50), (81, 50)])], ice_below(50, shape), grid_of(shape), fjord_mask=mask)
    (ocean,) = made.ocean.geoms
    (hole,) = ocean.interiors
    assert area_px(shapely.Polygon(hole)) == pytest.approx(15 * 20, rel=0.02)
    assert area_px(made.ocean) == pytest.approx(60 * 50 - 15 * 20, rel=0.01)


def test_ice_within_a_closed_front_is_a_hole_of_the_ocean_and_belongs_to_the_ice():
    shape = (100, 100)
    ice = ice_below(60, shape)
    ice[20:40, 40:60] = 0.98
    fronts = [on_map([(19, 60), (81, 60)]), on_map([(40, 20), (60, 20), (60, 40), (40, 40), (40, 20)])]
    made = close_polygons(fronts, ice, grid_of(shape), fjord_mask=fjord_of(shape))
    (ocean,) = made.ocean.geoms
    assert area_px(shapely.Polygon(ocean.interiors[0])) == pytest.approx(400, abs=0.1)
    assert area_px(made.ocean) == pytest.approx(60 * 60 - 400, abs=0.1)
    assert area_px(made.ice) == pytest.approx(60 * 40 + 400, abs=0.1)


# --- evidence, missing data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ocean", "ice", "reason"),
    [(0.02, 0.98, ""), (0.7, 0.95, ""), (0.9, 0.98, "no_ocean"), (0.02, 0.6, "no_ice"), (0.98, 0.98, "no_ocean")],
)
def test_parts_of_the_fjord_are_told_apart_by_their_mean_ice_probability(ocean, ice, reason):
    shape = (100, 100)
    front = on_map([(19, 50), (81, 50)])
    made = close_polygons(
        [front], ice_below(50, shape, ocean=ocean, ice=ice), grid_of(shape), fjord_mask=fjord_of(shape)
    )
    assert made.reason == reason
    if reason:
        assert f"{ocean:.3f}" in made.detail
        assert "below 0.878" in made.detail


def test_a_small_part_of_ice_does_not_make_the_rest_ocean_if_that_is_more_surely_ice():
    shape = (100, 100)
    ice = np.full(shape, 0.8)
    ice[:10, :10] = 0.7
    made = close_polygons([on_map([(-1, 10), (10, 10), (10, -1)])], ice, grid_of(shape), fjord_mask=None)
    assert made.reason == "no_ice"


def test_a_small_part_goes_by_most_of_its_pixels_or_is_ice_as_in_the_original():
    shape = (100, 100)
    ice = ice_below(50, shape)
    fronts = [on_map([(19, 50), (81, 50)]), on_map([(19, 10), (30, 10), (30, -1)])]  # cuts off a corner of 100 px
    for settings_, ocean_px in ((None, 3000), (PolygonSettings(small_ice_evidence=0), 2900)):
        made = close_polygons(fronts, ice, grid_of(shape), fjord_mask=fjord_of(shape), settings=settings_)
        assert area_px(made.ocean) == pytest.approx(ocean_px, abs=0.2)


def test_missing_pixels_bear_no_evidence():
    shape = (100, 100)
    ice = ice_below(50, shape)
    ice[::2] = np.nan
    ice[:, ::3] = np.nan
    for mask in (fjord_of(shape), np.ones(shape, dtype=bool)):
        made = close_polygons([on_map([(-1, 50), (101, 50)])], ice, grid_of(shape), fjord_mask=mask)
        assert area_px(made.ocean) == pytest.approx(mask[:50].sum(), abs=0.2)


def test_a_part_without_any_data_is_neither_ocean_nor_ice():
    fronts, ice, grid, mask = tributaries()
    ice[70:] = np.nan
    made = close_polygons(fronts, ice, grid, fjord_mask=mask)
    assert area_px(made.ocean) == pytest.approx(60 * 40, abs=0.1)
    assert area_px(made.ice) == pytest.approx(60 * 30, abs=0.1)


def test_without_a_fjord_mask_gaps_amid_the_data_are_open_and_the_swath_s_edge_closes():
    shape = (100, 100)
    ice = ice_below(50, shape)
    ice[:, :30] = np.nan  # beyond the swath
    ice[40:60, 50:60] = np.nan  # a gap that the front crosses
    made = close_polygons([on_map([(35, 50), (95, 50)])], ice, grid_of(shape), fjord_mask=None)
    assert area_px(made.ocean) == pytest.approx(70 * 50, abs=0.1)
    assert len(made.ocean.geoms) == 1
    assert not made.ocean.geoms[0].interiors


@pytest.mark.parametrize("mask", [None, "none open", "all open", "noise"])
@pytest.mark.parametrize("values", ["nan", "zeros", "ones", "noise"])
def test_no_input_raises_and_every_answer_has_a_known_reason(mask, values):
    shape, rng = (64, 80), np.random.default_rng(3)
    ice = {"nan": np.full(shape, np.nan), "zeros": np.zeros(shape), "ones": np.ones(shape)}.get(
        values, rng.random(shape)
    )
    mask = {"none open": np.zeros(shape, dtype=bool), "all open": np.ones(shape, dtype=bool)}.get(
        mask, None if mask is None else rng.random(shape) < 0.6
    )
    walk = on_map(np.cumsum(rng.normal(0, 4, (200, 2)), axis=0) + 30)
    for lines in ([], [walk], [walk, on_map([(-5, 30), (90, 30)])], [on_map([(200, 200), (300, 300)])], [LineString()]):
        made = close_polygons(lines, ice, grid_of(shape), fjord_mask=mask)
        assert made.reason in POLYGON_REASONS
        assert (made.ocean is None) == (made.ice is None) == (made.reason != "")


def test_a_scene_without_a_front_within_the_grid_has_no_polygons():
    shape = (100, 100)
    for lines in ([], [on_map([(200, 50), (300, 50)])]):
        made = close_polygons(lines, ice_below(50, shape), grid_of(shape), fjord_mask=None)
        assert (made.ocean, made.reason) == (None, "no_front")


def test_arrays_of_another_shape_and_missing_lines_are_refused_with_a_remedy():
    shape = (100, 100)
    with pytest.raises(ValueError, match=r"one shape \(y, x\), got .*\(90, 100\).*cut them to one grid"):
        close_polygons([], np.ones((90, 100)), grid_of(shape), fjord_mask=None)
    with pytest.raises(ValueError, match=r"\(100, 90\)"):
        close_polygons([], np.ones(shape), grid_of(shape), fjord_mask=np.ones((100, 90), dtype=bool))
    with pytest.raises(ValueError, match="got None: leave out the rows"):
        close_polygons([None], np.ones(shape), grid_of(shape), fjord_mask=None)


# --- what holds of any front ------------------------------------------------------------------------------------------


@st.composite
def fjords_with_a_front(draw):
    """Fjord mask with ragged walls, a front across it as points in pixels, and its ice, all turned by a right angle."""
    n = draw(st.integers(64, 128))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    knots = np.linspace(0, n, draw(st.integers(2, 12)))
    left, right = (np.interp(np.arange(n), knots, rng.uniform(0.02, 0.3, len(knots)) * n) for _ in range(2))
    columns = np.arange(n)
    mask = (columns > left[:, None]) & (columns < n - right[:, None])
    x = np.linspace(-2, n + 2, draw(st.integers(2, 60)))
    y = draw(st.floats(0.35, 0.65)) * n + draw(st.floats(0, 0.15)) * n * rng.uniform(-1, 1, len(x))
    ice = (np.arange(n)[:, None] + 0.5 > np.interp(columns + 0.5, x, y)).astype(float)
    turns = draw(st.integers(0, 3))
    points = np.column_stack([x, y])
    for _ in range(turns):
        points = np.column_stack([points[:, 1], n - points[:, 0]])
    return np.rot90(mask, turns), points, np.rot90(ice, turns)


@given(case=fjords_with_a_front(), shift=st.tuples(st.integers(-40000, 40000), st.integers(-40000, 40000)))
@settings(max_examples=40)
def test_polygons_of_any_front_are_valid_cover_the_fjord_do_not_overlap_and_move_with_the_grid(case, shift):
    mask, points, ice = case
    grid, front = grid_of(mask.shape), on_map(points)
    made = close_polygons([front], ice, grid, fjord_mask=mask)
    assert made.reason == ""
    assert made.ocean.is_valid
    assert made.ice.is_valid
    assert made.ocean.intersection(made.ice).area < 1e-3 * PIXEL_M**2
    columns, rows = np.meshgrid(*(np.arange(n) + 0.5 for n in mask.shape[::-1]))
    x, y = LEFT + PIXEL_M * columns, TOP - PIXEL_M * rows
    in_ocean, in_ice = shapely.contains_xy(made.ocean, x, y), shapely.contains_xy(made.ice, x, y)
    # The median may take a spit or a channel of one pixel, so no pixel deeper than that is open or wall by mistake.
    deep = np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask)) > 2
    off_front = shapely.distance(shapely.points(x, y), front) > 1.5 * PIXEL_M
    np.testing.assert_array_equal((in_ocean | in_ice)[deep & off_front], mask[deep & off_front])
    assert (in_ocean == (ice < 0.5))[deep & off_front & mask].all()
    dx, dy = shift[0] * PIXEL_M / 7, shift[1] * PIXEL_M / 7
    moved = close_polygons([translate(front, dx, dy)], ice, grid_of(mask.shape, LEFT + dx, TOP + dy), fjord_mask=mask)
    for before, after in ((made.ocean, moved.ocean), (made.ice, moved.ice)):
        assert translate(before, dx, dy).symmetric_difference(after).area < 0.05 * PIXEL_M**2
