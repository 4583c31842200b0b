"""The fjord that scenes show: what many dates, one date and a map of glacier ice tell of the walls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calfin_cloud.fronts.walls import beside_fronts, fjord_from_scenes

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


@settings(deadline=None)
@given(st.lists(st.integers(30, 90), min_size=1, max_size=8), st.integers(10, 40))
def test_the_fjord_of_mirrored_scenes_is_the_mirrored_fjord(rows, wall):
    dates = [scene(row + 0.3, wall=wall) for row in rows]
    mirrored = [(ice[::-1], [line * [1, -1] + [0, SIZE - 1] for line in fronts]) for ice, fronts in dates]
    assert (fjord_from_scenes(mirrored) == fjord_from_scenes(dates)[::-1]).all()
