"""Positions, rates, seasons and doubtful fronts, on cases that can be worked out by hand and on real series."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from shapely.affinity import rotate, translate
from shapely.geometry import LineString, MultiLineString, Point, Polygon, box

from calfin_cloud.figures.series import series_png
from calfin_cloud.products import product_of
from calfin_cloud.results import Lines, measure_series, read_lines, write_series
from calfin_cloud.timeseries import (
    Gate,
    box_position,
    check_fjord,
    check_series,
    crossing,
    derive_gate,
    flag_fronts,
    flow_axis,
    gate_along,
    gate_around,
    length_scale,
    measure_positions,
    relative_change,
    season_of,
    seasonal_cycle,
    seaward_of,
    swept_m,
)

UTM = "EPSG:32622"
EASTWARD = Gate(box(0, 0, 1000, 400), (1.0, 0.0), 400.0)
ALONG = LineString([(0, 200), (1000, 200)])


def front_at(x, *, y=(0, 400)):
    return LineString([(x, y[0]), (x, y[1])])


def table_of(lines, dates=None, *, glacier="g", sigma=10.0, crs=UTM):
    dates = pd.date_range("2020-01-15", periods=len(lines), freq="30D", tz="UTC") if dates is None else dates
    moved = [translate(line, 500_000, 8_000_000) for line in lines]
    return gpd.GeoDataFrame(
        {"key": [f"{glacier}/{i}" for i in range(len(lines))], "glacier_id": glacier, "sigma_m": sigma, "score": 0.8},
        geometry=moved, crs=crs,
    ).assign(datetime=pd.DatetimeIndex(dates))  # fmt: skip


def positions_of(values, dates, *, glacier="g", branch="box", sigma=10.0):
    return pd.DataFrame(
        {"key": [f"{glacier}/{i}" for i in range(len(values))], "glacier_id": glacier, "branch": branch,
         "datetime": pd.DatetimeIndex(dates, tz="UTC"), "position_m": values, "sigma_m": sigma, "reason": ""}
    )  # fmt: skip


def test_a_front_across_a_centreline_lies_where_they_cross():
    measured = crossing(front_at(300), ALONG, 12.0)
    assert (measured.position_m, measured.sigma_m, measured.crossings) == (300.0, 12.0, 1)


def test_a_vertical_centreline_is_measured_like_any_other():
    vertical = LineString([(200, 0), (200, 1000)])
    assert crossing(LineString([(0, 640), (400, 640)]), vertical).position_m == 640


def test_of_several_crossings_the_outermost_counts_and_their_spread_makes_it_unsure():
    bay = LineString([(500, 0), (500, 300), (300, 300), (300, 100), (700, 100), (700, 400)])
    measured = crossing(bay, ALONG, 0.0)
    assert measured.position_m == 700
    assert measured.crossings == 3
    assert measured.sigma_m == pytest.approx(200)


def test_a_front_at_a_slant_is_less_sure_along_the_centreline():
    slanted = LineString([(200, 100), (200 + 200 / np.tan(np.radians(30)), 300)])
    assert crossing(slanted, ALONG, 10.0).sigma_m == pytest.approx(20.0, rel=1e-3)


def test_a_front_that_misses_the_centreline_says_so():
    assert crossing(front_at(300, y=(0, 100)), ALONG).reason == "not_crossed"


@given(st.floats(0, 360), st.floats(50, 950))
@settings(max_examples=50)
def test_the_place_of_a_straight_front_in_a_box_does_not_depend_on_the_direction_of_the_flow(angle, x):
    turned = rotate(EASTWARD.box, angle, origin=(0, 0))
    seaward = (float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle))))
    gate = Gate(turned, seaward, 400.0)
    measured = box_position(rotate(front_at(x, y=(-50, 450)), angle, origin=(0, 0)), gate)
    assert measured.position_m == pytest.approx(x, abs=1e-6)


def test_the_box_gives_the_mean_place_of_a_curved_front():
    bent = LineString([(300, -10), (300, 200), (500, 200), (500, 410)])
    measured = box_position(bent, EASTWARD)
    assert measured.position_m == pytest.approx(400)
    assert measured.area_m2 == pytest.approx(400 * 400)


def test_a_front_that_stops_short_of_a_wall_is_drawn_on_to_it_a_little_but_not_half_the_width():
    assert box_position(front_at(300, y=(30, 400)), EASTWARD).position_m == pytest.approx(300)
    assert box_position(front_at(300, y=(200, 400)), EASTWARD).reason == "not_across"


@given(st.floats(0, 360))
@settings(max_examples=30)
def test_a_front_that_ends_on_the_sides_of_the_box_but_for_rounding_is_across_it(angle):
    fronts = [rotate(front_at(x, y=(100, 2300)), angle, origin=(0, 0)) for x in (900, *range(2000, 2120, 10))]
    gate = derive_gate(fronts, (float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle)))))
    measured = [box_position(front, gate) for front in fronts]
    assert [m.reason for m in measured] == [""] * len(fronts)
    np.testing.assert_allclose(np.diff([m.position_m for m in measured]), [1100, *[10] * 11], atol=1e-3)


def test_a_front_in_touching_parts_is_measured_as_one_in_one_part():
    """One that bends within reach of the side, in parts as QGIS merges them, and one that crosses itself."""
    whole = LineString([(300, 0), (300, 20), (500, 50), (500, 400)])
    parts = MultiLineString([whole.coords[:3], whole.coords[2:]])
    measured = box_position(whole, EASTWARD, 10.0)
    assert box_position(parts, EASTWARD, 10.0) == measured
    nearly = MultiLineString([whole.coords[:3], [(500, 50 + 1e-9), *whole.coords[3:]]])  # cut at the antimeridian
    assert box_position(nearly, EASTWARD, 10.0) == measured
    looped = LineString([*whole.coords[:2], (440, 44), (440, 30), (420, 60), *whole.coords[2:]])
    crossed = shapely.union_all([looped])  # as of a product: it is parted where it crosses itself
    assert len(crossed.geoms) == 3
    assert box_position(crossed, EASTWARD).position_m == pytest.approx(measured.position_m, abs=3)


def test_two_parts_of_a_front_beside_a_rock_both_count():
    parts = MultiLineString([front_at(300, y=(0, 190)), front_at(500, y=(210, 400))])
    gate = Gate(EASTWARD.box.difference(box(200, 190, 1000, 210)), (1.0, 0.0), 400.0)
    ice = 300 * 190 + 500 * 190 + 200 * 20
    assert box_position(parts, gate).area_m2 == pytest.approx(ice)


def test_an_iceberg_that_a_front_encloses_is_not_ice_of_the_glacier():
    with_lake = MultiLineString([front_at(600, y=(-5, 405)), LineString(box(200, 100, 300, 300).exterior.coords)])
    assert box_position(with_lake, EASTWARD).area_m2 == pytest.approx(600 * 400 - 100 * 200)


def test_a_front_outside_the_box_says_so():
    assert box_position(front_at(2000), EASTWARD).reason == "outside_box"


def test_a_box_is_derived_across_the_fronts_and_holds_them_all():
    fronts = [front_at(x, y=(y, y + 500)) for x, y in ((100, 0), (300, 20), (500, -20), (700, 0), (900, 10))]
    gate = derive_gate(fronts, (1.0, 0.0))
    assert gate.width_m == pytest.approx(460, abs=0.03)  # what all of them reach
    assert all(box_position(front, gate).reason == "" for front in fronts[:4])
    steps = np.diff([box_position(front, gate).position_m for front in fronts])
    np.testing.assert_allclose(steps, 200, atol=1e-6)


@given(degrees=st.floats(0, 360), east=st.floats(-1e6, 1e6))
def test_a_front_that_just_reaches_the_side_of_its_box_crosses_it_whatever_rounding_says(degrees, east):
    """One of Greenland's glaciers had its first front, and so 2.7 km more of a retreat, or not: rounding said which."""
    hooked = LineString([(300, -10), (310, 480), (350, 300)])  # its middle reaches least far, and so makes the side
    fronts = [*(front_at(x, y=(-50, 550)) for x in (100, 500, 700, 900)), hooked]
    turned = [translate(rotate(front, degrees, origin=(0, 0)), east, -2e6) for front in fronts]
    flow = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    assert box_position(turned[-1], gate_around(derive_gate(turned, flow).box, flow)).reason == ""


def test_fronts_that_share_no_band_need_a_box_by_hand():
    with pytest.raises(ValueError, match="share no band"):
        derive_gate([front_at(0, y=(y, y + 100)) for y in (0, 500, 1000, 1500)], (1.0, 0.0))


def test_a_box_by_hand_has_its_own_axis():
    tilted = rotate(box(0, 0, 1000, 400), 20, origin=(0, 0))
    gate = gate_around(tilted, (1.0, 0.0))
    assert gate.width_m == pytest.approx(400)
    assert gate.seaward == pytest.approx((np.cos(np.radians(20)), np.sin(np.radians(20))))


def test_the_flow_is_across_the_mean_front_and_the_ice_tells_which_way():
    fronts = [front_at(500), front_at(510).reverse()]
    assert np.abs(flow_axis(fronts)) == pytest.approx([1, 0])
    assert seaward_of(fronts, box(-5000, -5000, 500, 5000)) == pytest.approx((1, 0))
    assert seaward_of(fronts, box(500, -5000, 5000, 5000)) == pytest.approx((-1, 0))
    assert seaward_of(fronts, box(-5000, -5000, 5000, 5000)) is None


def test_lengths_and_areas_are_those_on_the_ground_not_those_of_the_map():
    place = Point(-180_000, -2_300_000)  # at 69 degrees north the map of 70 degrees stretches, at 76 it shrinks
    assert length_scale("EPSG:3413", place) == pytest.approx(1.005, abs=0.003)
    far = gpd.GeoSeries([Point(-45, 80)], crs=4326).to_crs(3413).iloc[0]
    x, y = far.x, far.y
    gate = Gate(box(x, y, x + 1000, y + 400), (1.0, 0.0), 400.0)
    front = gpd.GeoDataFrame(
        {"key": ["a"], "glacier_id": ["g"], "sigma_m": [10.0], "datetime": pd.to_datetime(["2020-01-01"], utc=True)},
        geometry=[LineString([(x + 500, y), (x + 500, y + 400)])], crs=3413,
    )  # fmt: skip
    measured = measure_positions(front, gate=gate).iloc[0]
    lonlat = gpd.GeoSeries([LineString([(x, y + 200), (x + 500, y + 200)])], crs=3413).to_crs(4326)
    ground = shapely.get_coordinates(lonlat.iloc[0])

    _, _, true = pyproj.Geod(ellps="WGS84").inv(*ground[0], *ground[1])
    assert measured["position_m"] == pytest.approx(true, rel=1e-3)


def test_a_series_has_a_row_for_every_front_and_branch_and_tells_why_one_has_no_position():
    fronts = table_of([front_at(300), front_at(320, y=(0, 100)), front_at(340)])
    gate = Gate(translate(EASTWARD.box, 500_000, 8_000_000), (1.0, 0.0), 400.0)
    positions = measure_positions(fronts, {"a": translate(ALONG, 500_000, 8_000_000)}, gate)
    assert positions.groupby("branch").size().to_dict() == {"a": 3, "box": 3}
    assert positions.set_index(["branch", "key"]).loc[("a", "g/1"), "reason"] == "not_crossed"
    assert positions.set_index(["branch", "key"]).loc[("box", "g/1"), "reason"] == "not_across"
    with pytest.raises(ValueError, match="a centreline or a box"):
        measure_positions(fronts)


def test_change_starts_on_the_first_date_on_which_all_branches_are_known():
    dates = ["2020-01-01", "2020-02-01", "2020-03-01"]
    both = pd.concat([positions_of([10, 20, 40], dates), positions_of([np.nan, 5, 1], dates, branch="a")])
    change = relative_change(both).set_index(["branch", "key"])["change_m"]
    assert change.loc["box"].tolist() == [-10, 0, 20]
    assert change.loc["a"].tolist()[1:] == [0, -4]


@pytest.mark.parametrize(
    ("month", "north", "south"),
    [(12, "winter", "summer"), (2, "winter", "summer"), (3, "spring", "autumn"), (8, "summer", "winter")],
)
def test_seasons_are_turned_in_the_south(month, north, south):
    assert season_of(pd.Timestamp(2015, month, 7), is_southern=False) == north
    assert season_of(pd.Timestamp(2015, month, 7), is_southern=True) == south


def test_a_front_that_is_doubtful_whatever_the_branch_is_ringed():
    dates = pd.date_range("2020-01-01", periods=6, freq="30D", tz="UTC")
    positions = relative_change(positions_of(np.arange(6) * -20.0, dates))
    flags = pd.DataFrame({"key": ["g/3"], "branch": [""], "flag": ["outside_fjord"]})
    plain, ringed = (series_png(positions, seasonal_cycle(positions), f) for f in (flags.iloc[:0], flags))
    assert plain != ringed


def test_a_lone_outlier_is_flagged_and_a_real_retreat_is_not():
    dates = pd.date_range("2020-01-01", periods=12, freq="12D")
    values = 3000 - 40.0 * np.arange(12)
    values[5] += 1500
    flags = check_series(positions_of(values, dates))
    assert flags["key"].unique().tolist() == ["g/5"]
    collapse = np.where(np.arange(12) < 6, 3000, 1200.0)
    assert check_series(positions_of(collapse, dates)).empty


def test_an_advance_faster_than_ice_is_blamed_on_the_front_that_lies_apart():
    values = [1000.0, 990, 985, 980, 3000, 975, 970, 965]
    flags = check_series(positions_of(values, pd.date_range("2020-01-01", periods=8, freq="10D")))
    assert set(flags["flag"]) == {"outlier", "too_fast"}
    assert set(flags["key"]) == {"g/4"}


def test_a_flag_lowers_the_score_and_names_its_reason_but_keeps_the_front():
    fronts = table_of([front_at(300), front_at(310)])
    objections = pd.DataFrame(
        {"key": ["g/1", "g/1"], "branch": ["box", "a"], "flag": ["outlier", "outlier"], "detail": ["far", "far too"]}
    )
    flagged = flag_fronts(fronts, objections)
    assert flagged["flags"].tolist() == ["", "outlier"]
    assert flagged["score"].tolist() == [0.8, 0.2]
    assert len(flagged) == 2


def test_a_flag_of_one_front_of_a_scene_is_not_that_of_the_other():
    fronts = table_of([front_at(300), front_at(310)]).assign(key="g/0", front=[0, 1])
    objection = pd.DataFrame({"key": ["g/0"], "front": [1], "branch": ["box"], "flag": ["outlier"], "detail": ["far"]})
    flagged = flag_fronts(fronts, objection)
    assert flagged["flags"].tolist() == ["", "outlier"]
    assert flagged["score"].tolist() == [0.8, 0.2]
    assert flag_fronts(fronts, objection.iloc[:0])["flags"].tolist() == ["", ""]


def test_a_front_that_leaves_the_fjord_is_flagged():
    fronts = table_of([front_at(300), front_at(300, y=(0, 800))])
    fjord = translate(box(0, 0, 1000, 400), 500_000, 8_000_000)
    flags = check_fjord(fronts, fjord)
    assert flags["key"].tolist() == ["g/1"]
    assert "50%" in flags["detail"].iloc[0]


def test_the_error_of_a_front_is_one_on_the_ground_whatever_the_map():
    place = gpd.GeoSeries([Point(-45, 60)], crs=4326).to_crs(3413).iloc[0]  # the map stretches by 3.8 % here
    x, y = place.x, place.y
    line = LineString([(x + 500, y), (x + 500, y + 400)])
    fronts = gpd.GeoDataFrame(
        {"key": ["a"], "glacier_id": ["g"], "sigma_m": [10.0], "datetime": pd.to_datetime(["2020-01-01"], utc=True)},
        geometry=[line], crs=3413,
    )  # fmt: skip
    positions = measure_positions(fronts, gate=Gate(box(x, y, x + 1000, y + 400), (1.0, 0.0), 400.0))
    assert positions["sigma_m"].tolist() == pytest.approx([10.0])
    assert positions["position_m"].iloc[0] == pytest.approx(500 / 1.0385, rel=1e-3)


def test_two_fronts_of_one_scene_across_the_box_have_no_position_in_it():
    ten = Gate(box(0, 0, 10_000, 4000), (1.0, 0.0), 4000.0)
    both = MultiLineString([front_at(4000, y=(-10, 4010)), front_at(8000, y=(-10, 4010))])
    assert box_position(both, ten).reason == "two_fronts"  # the ice between four and eight kilometres is open


def test_a_box_holds_the_retreat_of_fronts_that_reach_less_far_across():
    wide = [front_at(x, y=(0, 4000)) for x in (9000, 9100, 9200, 9300, 9400, 9500, 9600, 9700)]
    narrow = [front_at(x, y=(800, 3200)) for x in (4000, 4500)]
    gate = derive_gate([*wide, *narrow], (1.0, 0.0))
    measured = [box_position(front, gate) for front in [*wide, *narrow]]
    assert [m.reason for m in measured] == [""] * 10
    assert measured[0].position_m - measured[-1].position_m == pytest.approx(4500)


@given(st.floats(0, 360), st.floats(-3000, 3000))
@settings(max_examples=30, deadline=None)
def test_the_way_between_two_fronts_by_the_area_between_them_needs_no_box(angle, way):
    seaward = (float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle))))
    bent = LineString([(0, 0), (100, 500), (-80, 1200), (0, 2000)])
    first, last = rotate(bent, angle, origin=(0, 0)), rotate(translate(bent, way), angle, origin=(0, 0))
    assert swept_m(first, last, seaward) == pytest.approx(way, abs=1e-6)
    parts = MultiLineString([last, translate(last, *(2000 * np.array([-seaward[1], seaward[0]])))])
    both = MultiLineString([first, translate(first, *(2000 * np.array([-seaward[1], seaward[0]])))])
    assert swept_m(both, parts, seaward) == pytest.approx(way, abs=1e-6)


RING = 6000.0  # radius of a fjord that bends by a quarter of a circle, and is 1,500 m wide


def around(angle, radius):
    return radius * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def front_around(angle, *, tilt=0.0):
    """Front across the bent fjord; `tilt` in degrees more on its outer side."""
    shares = np.linspace(0, 1, 30)
    return LineString([around(angle + tilt * (s - 0.5), RING - 760 + 1520 * s) for s in shares])


BENT = LineString([around(a, RING) for a in np.linspace(-20, 110, 200)])


def test_a_box_along_a_bent_fjord_measures_the_way_around_the_bend():
    fronts = [front_around(a) for a in (80, 60, 40, 10)]
    gate = gate_along(fronts, BENT, (-np.sin(np.radians(45)), np.cos(np.radians(45))))
    assert gate.axis is not None
    places = [box_position(front, gate).position_m for front in fronts]
    assert np.diff(places) == pytest.approx(-RING * np.radians([20, 20, 30]), rel=0.005)
    ring = np.pi / 360 * (6750**2 - 5250**2) * 30
    areas = [box_position(front, gate).area_m2 for front in fronts]
    assert areas[2] - areas[3] == pytest.approx(ring, rel=0.02)
    straight = [box_position(front, derive_gate(fronts, gate.seaward)).position_m for front in fronts]
    assert not np.allclose(np.diff(straight), np.diff(places), rtol=0.1)  # it loses fronts, or shows another way


@pytest.mark.parametrize(("noise_m", "least"), [(0.0, 0.98), (40.0, 0.95)])
def test_a_box_along_an_s_of_two_bends_is_as_wide_as_its_fjord(noise_m, least):
    width, angles = 3000.0, np.radians(np.linspace(0, 80, 9))
    first = 6000 * np.column_stack([np.sin(angles), 1 - np.cos(angles)])
    corners = np.concatenate([[(-6000, 0)], first, (2 * first[-1] - first[::-1])[1:]])
    true = LineString(CubicSpline(np.arange(len(corners)), corners)(np.linspace(0, len(corners) - 1, 400)))

    def across(way):
        (x, y), (x_next, y_next) = (true.interpolate(way + side).coords[0] for side in (-5, 5))
        left = np.array([y - y_next, x_next - x]) / np.hypot(x_next - x, y_next - y)
        middle = np.array([(x + x_next) / 2, (y + y_next) / 2])
        return LineString([middle - left * width / 2, middle + left * width / 2])

    ways = np.array([15_000, 13_000, 11_000, 9500])
    fronts = [across(way) for way in ways]
    drawn = shapely.get_coordinates(shapely.line_interpolate_point(true, np.arange(0, true.length, 700)))
    drawn = LineString(drawn + np.random.default_rng(1).normal(0, noise_m, drawn.shape))
    gate = gate_along(fronts, drawn, (1.0, 0.0))
    assert gate.width_m >= least * width
    areas = [box_position(front, gate).area_m2 for front in fronts]
    assert np.diff(areas) == pytest.approx(np.diff(ways) * width, rel=1.2 - 1.2 * least)


@given(st.floats(15, 75), st.floats(-8, 8))
@settings(max_examples=25, deadline=None)
def test_shapes_come_back_from_the_coordinates_of_a_bent_box(angle, tilt):
    gate = gate_along([front_around(a) for a in (80, 10)], BENT, (-0.7, 0.7))
    front = front_around(angle, tilt=tilt)
    assert gate.to_map(gate.to_flow(front)).hausdorff_distance(front) < 10


def test_a_centreline_that_hardly_bends_or_too_tightly_leaves_the_box_straight():
    fronts = [front_at(x) for x in (200, 500, 800)]
    assert gate_along(fronts, ALONG, (1.0, 0.0)).axis is None
    hairpin = LineString([(-1000, 190), (900, 190), (900, 210), (-1000, 210)])
    assert gate_along(fronts, hairpin, (1.0, 0.0)).axis is None


def test_a_box_follows_the_flow_where_a_field_of_velocity_bends_and_serves_the_next_run(tmp_path):
    x, y = np.arange(-9000.0, 9000, 250), np.arange(-9000.0, 9000, 250)
    radius = np.maximum(np.hypot(x[None, :], y[:, None]), 1.0)
    speed = np.where(radius < 7500, 300.0, np.nan) / radius
    field = xr.Dataset({"vx": (("y", "x"), -speed * y[:, None]), "vy": (("y", "x"), speed * x[None, :])})
    field = field.assign_coords(x=x + 500_000, y=y + 8_000_000)
    field.to_netcdf(tmp_path / "velocity.nc", engine="h5netcdf")
    fronts = product_of(table_of([front_around(a) for a in (80, 60, 40, 10)]))
    ice = {"g": translate(Polygon([(0, 0), *(around(a, 9000) for a in range(-60, 46, 5))]), 500_000, 8_000_000)}
    lines = read_lines(Lines(ice=ice), fronts, velocity=str(tmp_path / "velocity.nc"))
    series = measure_series(fronts, lines)
    in_box = series.positions[series.positions["branch"] == "box"]["position_m"].to_numpy()
    scale = length_scale(UTM, fronts.geometry.iloc[0])
    assert np.diff(in_box) == pytest.approx(-RING * np.radians([20, 20, 30]) / scale, rel=0.01)
    assert series.gates["seaward_deg"].item() == pytest.approx(360 - 45, abs=5), "half way around the bend"
    write_series(series, fronts, tmp_path / "series")
    write_series(measure_series(fronts, Lines()), fronts, tmp_path / "unmeasured")
    assert [len(list((tmp_path / name).glob("series-*.png"))) for name in ("series", "unmeasured")] == [1, 0]
    again = measure_series(fronts, read_lines(Lines(ice=ice), fronts, boxes=str(tmp_path / "series" / "gates.gpkg")))
    pd.testing.assert_frame_equal(again.positions, series.positions, check_exact=True)


@pytest.mark.parametrize("crs", [UTM, "EPSG:3413"])
@pytest.mark.parametrize("angle", [0, 17, 135, 200])
def test_a_box_is_written_with_the_degrees_from_north_at_which_its_sea_lies_on_any_map(tmp_path, angle, crs):
    fronts = product_of(table_of([rotate(front_at(x), angle, origin=(0, 0)) for x in (900, 700, 300)])).to_crs(crs)
    ice = translate(rotate(box(-3000, -3000, 900, 3000), angle, origin=(0, 0)), 500_000, 8_000_000)
    series = measure_series(fronts, Lines(ice={"g": gpd.GeoSeries([ice], crs=UTM).to_crs(crs).iloc[0]}))
    write_series(series, fronts, tmp_path)
    assert gpd.read_file(tmp_path / "gates.gpkg")["seaward_deg"].item() == pytest.approx((90 - angle) % 360, abs=0.2)


@pytest.mark.parametrize("angle", [0, 17, 45])
def test_the_boxes_of_a_run_give_the_next_one_the_same_positions_to_the_last_digit(tmp_path, angle):
    lines = [rotate(front_at(x, y=(0, 400 + x / 7)), angle, origin=(0, 0)) for x in (900, 700, 650, 300)]
    fronts = product_of(table_of(lines))
    ice = {"g": translate(rotate(box(-3000, -3000, 900, 3000), angle, origin=(0, 0)), 500_000, 8_000_000)}
    first = measure_series(fronts, Lines(ice=ice))
    assert first.positions["position_m"].notna().all()
    write_series(first, fronts, tmp_path)
    again = measure_series(fronts, read_lines(Lines(ice=ice), fronts, boxes=str(tmp_path / "gates.gpkg")))
    for name in ("positions", "rates", "gates"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(first, name), check_exact=True)


def test_a_series_of_domains_in_place_of_lines_or_in_feet_is_refused():
    fronts = product_of(table_of([front_at(300), front_at(200)]))
    with pytest.raises(ValueError, match="lines must be `Lines`, got a list: take those of `store_product`"):
        measure_series(fronts, ["domain"])
    with pytest.raises(ValueError, match=r"in metres, got .* in US survey foot: give --crs EPSG:3413"):
        measure_series(fronts.to_crs(2225), Lines())
    with pytest.raises(ValueError, match="in metres, got WGS 84 in degree"):  # before 30 km of ice are sought around
        read_lines(None, fronts.to_crs(4326), ice="missing.gpkg")


def test_a_glacier_of_a_long_name_in_any_letters_has_its_picture(tmp_path):
    name = "ثلج" * 40  # 720 letters as an address writes them, of which a file may have 255
    fronts = product_of(table_of([front_around(a) for a in (80, 60, 40, 10)], glacier=name))
    ice = translate(Polygon([(0, 0), *(around(a, 9000) for a in range(-60, 46, 5))]), 500_000, 8_000_000)
    write_series(measure_series(fronts, Lines(ice={name: ice})), fronts, tmp_path)
    (picture,) = tmp_path.glob("series-*.png")
    assert picture.name.startswith("series-%D8%AB")
