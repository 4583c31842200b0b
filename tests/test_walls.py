"""The fjord that scenes show: what many dates, one date and a map of glacier ice tell of the walls."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calfin_cloud.fronts import draw_line
from calfin_cloud.fronts.fjords import beside_fronts, fjord_from_scenes
from calfin_cloud.sample.drawing import draw_glacier, draw_look
from calfin_cloud.sample.painting import paint

SIZE, WALL = 128, 30
REACH = 12  # of a front in a frame of 128 px


def scene(row, *, wall=WALL):
    """Ice mask and front of a glacier that fills a straight fjord below `row`, with water above."""
    ice = np.ones((SIZE, SIZE), dtype=np.float32)
    ice[: int(row), wall : SIZE - wall] = 0
    columns = np.linspace(wall - 0.4, SIZE - wall - 0.6, 50)  # from wall to wall: no pixel centre lies on an end
    return ice, [np.column_stack([columns, np.full(len(columns), row)]).astype(float)]


def water(mask):
    return np.broadcast_to(np.where(mask, 0.0, 1.0), (SIZE, SIZE))


def test_many_dates_open_the_fjord_from_the_sea_to_upstream_of_the_last_front():
    fjord = fjord_from_scenes(scene(row) for row in (50.3, 55.3, 60.3, 65.3, 70.3))
    assert fjord[: 70 + REACH, WALL : SIZE - WALL].all()
    assert not fjord[:, :WALL].any()
    assert not fjord[:, SIZE - WALL :].any()
    assert not fjord[70 + REACH + 1 :].any()


def test_one_date_shows_its_water_and_what_lies_beside_its_front():
    fjord = fjord_from_scenes([scene(64.3)])
    expected = np.zeros((SIZE, SIZE), dtype=bool)
    expected[: 64 + REACH + 1, WALL : SIZE - WALL] = True
    assert (fjord == expected).all()


def test_a_wall_taken_for_water_on_one_day_in_twenty_stays_a_wall():
    dates = [scene(50.3 + n) for n in range(20)]
    dates[7] = (water(np.arange(SIZE) < SIZE - WALL), dates[7][1])
    fjord = fjord_from_scenes(dates)
    assert not fjord[:, :WALL].any()
    assert fjord[:60, WALL : SIZE - WALL].all()


def test_a_front_of_one_day_in_twenty_opens_no_land():
    dates = [scene(50.3 + n) for n in range(20)]
    astray = np.column_stack([np.full(40, 8.3), np.arange(80.0, 120.0)])
    dates[3] = (dates[3][0], [*dates[3][1], astray])
    assert not fjord_from_scenes(dates)[:, :WALL].any()


def test_a_place_is_judged_by_the_dates_that_see_it():
    dates = [scene(60.3 + n) for n in range(20)]
    for ice, _ in dates[1:]:
        ice[:20] = np.nan
    assert fjord_from_scenes(dates)[:20, WALL : SIZE - WALL].all()


def test_waters_that_no_front_reaches_are_left_out():
    ice, fronts = scene(64.3)
    ice[100:120, 5:20] = 0
    fjord = fjord_from_scenes([(ice, fronts)])
    assert not fjord[100:120, 5:20].any()
    assert fjord[:60, WALL : SIZE - WALL].all()


def test_glacier_ice_of_a_map_belongs_to_the_fjord():
    glacier = np.zeros((SIZE, SIZE), dtype=bool)
    glacier[64:, WALL : SIZE - WALL] = True
    fjord = fjord_from_scenes([scene(64.3)], glacier=glacier)
    assert fjord[:, WALL : SIZE - WALL].all()
    assert not fjord[:, :WALL].any()


@pytest.mark.parametrize("scenes", [[], [(water(np.ones(SIZE, dtype=bool)), [])]])
def test_without_a_front_no_fjord_is_told(scenes):
    assert fjord_from_scenes(scenes) is None


def test_nothing_beyond_the_ends_of_a_front_lies_beside_it():
    band = beside_fronts([np.array([[39.6, 64.3], [89.4, 64.3]])], (SIZE, SIZE))
    rows, columns = np.nonzero(band)
    assert (columns.min(), columns.max()) == (40, 89)
    assert np.ptp(rows) + 1 == 2 * REACH


def test_a_front_of_one_vertex_has_nothing_beside_it():
    assert not beside_fronts([np.array([[40.0, 64.0]])], (SIZE, SIZE)).any()


@settings(max_examples=25)
@given(st.lists(st.integers(30, 90), min_size=1, max_size=8), st.integers(10, 40))
def test_the_fjord_of_mirrored_scenes_is_the_mirrored_fjord(rows, wall):
    dates = [scene(row + 0.3, wall=wall) for row in rows]
    mirrored = [(ice[::-1], [line * [1, -1] + [0, SIZE - 1] for line in fronts]) for ice, fronts in dates]
    assert (fjord_from_scenes(mirrored) == fjord_from_scenes(dates)[::-1]).all()


SIDE, PIXEL_M = 160, 60.0
N_DATES = 6


@cache
def series(seed):
    """Scenes (ice mask, its front in px) of one painted glacier whose front moves, and its fjord (y, x) bool."""
    rng = np.random.default_rng((5, seed))
    x, y = np.meshgrid(np.arange(SIDE) * PIXEL_M, np.arange(SIDE) * -PIXEL_M)
    half = SIDE * PIXEL_M * rng.uniform(0.12, 0.22)
    glacier = draw_glacier(rng, (float(x.mean()), float(y.mean())), half)
    scenes = []
    for position in np.linspace(-0.2, 0.2, N_DATES) * SIDE * PIXEL_M:
        look = replace(draw_look(rng, "optical", half), position_m=position)
        scene = paint(glacier, look, x, y, rng)
        scenes.append((scene.ice.astype("float32"), [scene.front * (1 / PIXEL_M, -1 / PIXEL_M)]))
    return scenes, scene.fjord


def straight(a, b):
    """Line (n, 2) x, y through the frame from a to b."""
    return np.linspace(a, b, 60)


def basin(shape=(128, 128), walls=(40, 40), front_row=64):
    """Scene of a straight fjord from the bottom to the top, open water above the front, and its fjord."""
    fjord = np.zeros(shape, dtype=bool)
    fjord[:, walls[0] : shape[1] - walls[1]] = True
    ice = ~fjord
    ice[front_row:] = True
    front = straight((walls[0] - 0.5, front_row - 0.5), (shape[1] - walls[1] - 0.5, front_row - 0.5))
    return (ice.astype("float32"), [front]), fjord


@pytest.mark.parametrize("seed", range(2))
def test_the_fjord_of_a_painted_series_is_the_painted_one_wherever_a_front_has_been(seed):
    scenes, fjord = series(seed)
    derived = fjord_from_scenes(scenes)
    swept = np.any([beside_fronts(lines, fjord.shape) for _, lines in scenes], axis=0)
    assert derived[swept & fjord].mean() > 0.97
    # A front slants and bends, so that the band beside it takes in some rock; the rest of the rock is wall.
    assert (~derived)[~fjord].mean() > 0.85
    assert not derived[~fjord & ~swept].any()


@settings(max_examples=60)
@given(
    ends=st.tuples(*[st.floats(8, 119)] * 4),
    bow=st.floats(-1, 1),
    water=st.integers(0, 2**32 - 1),
)
def test_the_fjord_of_one_date_contains_its_front(ends, bow, water):
    start, end = np.array(ends[:2]), np.array(ends[2:])
    if np.hypot(*(end - start)) < 16:
        end = start + np.array([16 if start[0] < 64 else -16, 0])
    # Of a front that curls within its reach, the ends lie beside the band.
    bow *= min(((end - start) ** 2).sum() / 160, 10)
    t = np.linspace(0, 1, 80)[:, None]
    line = start + t * (end - start) + bow * np.sin(np.pi * t) * np.array([0.6, 0.8])
    ice = (np.random.default_rng(water).random((128, 128)) > 0.1).astype("float32")
    fjord = fjord_from_scenes([(ice, [line])])
    pixels = draw_line(np.rint(line[10:-10, ::-1].clip(0, 127)).astype(np.intp), ice.shape)
    assert fjord[pixels].all()


@settings(max_examples=25)
@given(st.lists(st.integers(50, 78), min_size=1, max_size=10))
def test_rock_that_never_changes_is_wall_wherever_the_front_goes(rows):
    scenes = [basin(front_row=row)[0] for row in rows]
    derived = fjord_from_scenes(scenes)
    assert not derived[~basin()[1]].any()
    assert derived[: max(rows), 40:88].all()


def test_dates_without_a_front_tell_of_water_but_not_how_often_fronts_pass():
    (ice, lines), fjord = basin()
    scenes = [(ice, lines), *[(np.ones_like(ice), [])] * 9]
    derived = fjord_from_scenes(scenes)
    assert derived[60:68, 40:88].all()
    assert not derived[~fjord].any()


def test_where_nothing_was_ever_seen_is_wall_except_beside_a_front():
    (ice, lines), _ = basin()
    derived = fjord_from_scenes([(np.full_like(ice, np.nan), lines)])
    assert np.array_equal(derived, beside_fronts(lines, ice.shape))


def test_the_reach_beside_a_front_grows_with_the_frame():
    small = beside_fronts([straight((40, 128), (216, 128))], (256, 256))
    large = beside_fronts([straight((80, 256), (432, 256))], (512, 512))
    assert large.sum() / small.sum() == pytest.approx(4, rel=0.05)
