"""The ice of all glaciers on one grid, month by month: gaps, origins, areas, memory, and a real ice sheet."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate, translate
from shapely.geometry import LineString, box

from calfin_cloud.cli import main
from calfin_cloud.products import product_of, read_product
from calfin_cloud.results import Lines, cut_to_boxes, measure_series, read_lines, write_composite, write_series
from calfin_cloud.timeseries import Gate, course_of, length_scale

POLAR = "EPSG:3413"
AT = (-300_000.0, -2_000_000.0)
MONTH = pd.Timestamp("2010-01-01", tz="UTC")


def fronts_of(places, days, *, glacier="1", angle=0.0, width=3000.0, at=AT, bulge=0.0):
    """Fronts across a glacier that flows to the east, turned by an angle; `bulge` bends them seaward in the middle."""
    y = np.linspace(0, width, 13)
    out = bulge * np.sin(np.pi * y / width)
    lines = [translate(rotate(LineString(np.column_stack([x + out, y])), angle, origin=(0, 0)), *at) for x in places]
    dates = [f"{day:%Y-%m-%dT%H:%M:%SZ}" for day in days]
    return product_of(gpd.GeoDataFrame({"glacier_id": glacier, "Date": dates}, geometry=lines, crs=POLAR))


def box_of(length=20_000.0, *, angle=0.0, width=3000.0, at=AT):
    return translate(rotate(box(0, 0, length, width), angle, origin=(0, 0)), *at)


def ice_of(*, angle=0.0, at=AT, width=3000.0):
    return translate(rotate(box(-9000, -500, 9000, width + 500), angle, origin=(0, 0)), *at)


def composite_of(fronts, tmp_path, boxes, ices, **more):
    areas = write_composite(fronts, Lines(boxes=boxes, ice=ices), tmp_path, **more)
    return xr.open_zarr(tmp_path / "composite.zarr"), areas


def test_between_its_dates_a_front_moves_and_each_cell_says_where_it_is_from(tmp_path):
    days = pd.to_datetime(["2010-01-01", "2014-01-01"], utc=True)
    fronts = fronts_of([12_000, 8000], days)
    cube, _ = composite_of(fronts, tmp_path, {"1": box_of()}, {"1": ice_of()}, period="2009-06/2014-12")
    row = cube.isel(y=cube.sizes["y"] // 2)
    reach = ((row["ice"] == 1).sum("x") * 120).to_series()
    assert reach["2012-01-01"] == pytest.approx(10_000, abs=120)
    assert reach["2013-01-01"] == pytest.approx(9000, abs=120)
    assert reach["2009-06-01"] == pytest.approx(12_000, abs=120)
    meanings = cube["origin"].attrs["flag_meanings"].split()
    origin = row["origin"].isel(x=10).to_series().map(dict(enumerate(meanings)))
    told = {"2009-06-01": "extrapolated", "2010-01-01": "observed", "2012-01-01": "interpolated"}
    assert {day: origin[day] for day in told} == told
    age = row["age"].isel(x=10).to_series()
    assert age["2012-01-01"] == 730
    assert float(cube["age"].max()) < 5 * 366
    assert age["2014-12-01"] == 334


def test_outside_of_all_boxes_the_base_tells_what_is_ice_and_takes_no_room(tmp_path):
    days = pd.to_datetime(["2010-01-01", "2010-06-01"], utc=True)
    far = (AT[0] + 400_000, AT[1])
    fronts = pd.concat([fronts_of([9000, 8000], days), fronts_of([9000, 8000], days, glacier="2", at=far)])
    base = gpd.GeoDataFrame(geometry=[translate(box(0, 0, 100_000, 2000), *AT)], crs=POLAR)
    boxes, ices = ({g: f(at=at) for g, at in (("1", AT), ("2", far))} for f in (box_of, ice_of))
    cube, _ = composite_of(fronts.reset_index(drop=True), tmp_path, boxes, ices, base=base)
    assert (cube["ice"].sel(x=AT[0] + 200_000, method="nearest") == 255).all()
    assert cube["base"].sel(x=AT[0] + 50_000, y=AT[1] + 1000, method="nearest") == 1
    assert cube["base"].sel(x=AT[0] + 150_000, y=AT[1] + 1000, method="nearest") == 0
    tiles = cube.sizes["x"] // 128 * (cube.sizes["y"] // 128 + 1)
    assert len(list((tmp_path / "composite.zarr" / "ice").rglob("c/*/*/*"))) < tiles / 2
    assert set(np.unique(cube["glacier"])) == {-1, 0, 1}


def test_a_cell_in_two_boxes_belongs_to_the_glacier_nearer_to_whose_middle_it_lies(tmp_path):
    days = pd.to_datetime(["2010-01-01", "2010-06-01"], utc=True)
    beside = (AT[0], AT[1] + 2400)
    fronts = pd.concat([fronts_of([9000, 8000], days), fronts_of([5000, 4000], days, glacier="2", at=beside)])
    boxes, ices = ({g: f(at=at) for g, at in (("1", AT), ("2", beside))} for f in (box_of, ice_of))
    cube, _ = composite_of(fronts.reset_index(drop=True), tmp_path, boxes, ices)
    column = cube["glacier"].sel(x=AT[0] + 1000, method="nearest").sortby("y").to_series()
    assert column[column >= 0].is_monotonic_increasing
    assert column.groupby(column).size()[0] == pytest.approx(2700 / 120, abs=1)  # up to half way between both middles


@given(
    st.lists(st.floats(7000, 11_000), min_size=2, max_size=5),
    st.floats(0, 360),
    st.floats(-900, 900),
)
@settings(max_examples=8, deadline=None)
def test_cells_of_ice_add_up_to_the_area_that_regions_sum(tmp_path_factory, places, angle, bulge):
    tmp_path = tmp_path_factory.mktemp("composite")
    days = pd.date_range(MONTH, periods=len(places), freq="YS")
    fronts = fronts_of(places, days, angle=angle, bulge=bulge)
    cube, areas = composite_of(fronts, tmp_path, {"1": box_of(angle=angle)}, {"1": ice_of(angle=angle)})
    own = (cube["ice"] == 1).sum(("y", "x")).to_series() * 120.0**2 / length_scale(POLAR, box_of(angle=angle)) ** 2
    told = areas[areas["by"] == "region"].set_index("month")["area_change_m2"]
    of_cells = (own - own.iloc[0])[told.index.tz_localize(None)].to_numpy()
    assert of_cells == pytest.approx(told.to_numpy(), abs=120 * 3200)  # half a cell along each of two fronts
    of_glacier = areas[areas["by"] == "glacier"].set_index("month")["area_change_m2"]
    assert of_glacier.to_numpy() == pytest.approx(told.to_numpy())


def test_the_strips_of_a_course_average_to_the_position_in_the_box():
    fronts = fronts_of([12_000, 8000], pd.to_datetime(["2010-01-01", "2014-01-01"], utc=True), bulge=900)
    gate = Gate(box_of(), (1.0, 0.0), 3000.0)
    course = course_of(fronts, list(fronts["key"]), gate, pd.date_range(MONTH, periods=3, freq="YS"), 60.0)
    mean = course.extents.mean(axis=1) - AT[0]
    y = (np.arange(50) + 0.5) * 60
    out = np.interp(y, np.linspace(0, 3000, 13), 900 * np.sin(np.pi * np.linspace(0, 1, 13))).mean()
    assert mean == pytest.approx([12_000 + out, 11_000.7 + out, 10_000.7 + out], abs=2)
    assert course.front(0).length > 3000


def test_a_glacier_of_one_date_is_in_the_composite_and_nothing_is_said_of_its_change(tmp_path, capsys):
    places, days = [12_000], pd.to_datetime(["2010-01-01"], utc=True)
    fronts_of(places, days).to_parquet(tmp_path / "fronts.parquet")
    gpd.GeoDataFrame({"glacier_id": ["1"]}, geometry=[box_of()], crs=POLAR).to_file(tmp_path / "boxes.gpkg")
    gpd.GeoDataFrame(geometry=[ice_of()], crs=POLAR).to_file(tmp_path / "ice.gpkg")
    files = [f"--{name}={tmp_path / name}.gpkg" for name in ("boxes", "ice")]
    assert main(["composite", str(tmp_path / "fronts.parquet"), *files, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "no glacier has fronts of two dates" in out
    assert "1 glacier: " in out


def test_who_waits_sees_glaciers_and_tiles_go_by(tmp_path):
    seen = []

    def watch(what, parts):
        seen.append((what, len(parts)))
        return parts

    days = pd.to_datetime(["2010-01-01", "2014-01-01"], utc=True)
    fronts = pd.concat([fronts_of([12_000, 8000], days, glacier=name) for name in "ab"])
    lines = Lines(boxes={name: box_of() for name in "ab"}, ice={name: ice_of() for name in "ab"})
    write_composite(fronts, lines, tmp_path / "composite", watch=watch)
    assert [what for what, _ in seen] == ["glaciers measured", "tiles written"]
    assert min(n for _, n in seen) >= 2
    seen.clear()
    write_series(measure_series(fronts, lines, watch=watch), fronts, tmp_path / "series", watch=watch)
    assert seen == [(what, 2) for what in ("positions measured", "break points sought", "pictures drawn")]


def test_a_composite_that_is_stopped_on_its_way_leaves_the_one_before_and_no_part_of_a_new_one(tmp_path):
    days = pd.to_datetime(["2010-01-01", "2014-01-01"], utc=True)
    fronts, lines = fronts_of([12_000, 8000], days), Lines(boxes={"1": box_of()}, ice={"1": ice_of()})

    def stopped(what, parts):
        for number, part in enumerate(parts):
            if what == "tiles written" and number == 1:
                raise KeyboardInterrupt
            yield part

    for before in (None, "2010-01/2010-03"):
        if before:
            write_composite(fronts, lines, tmp_path, period=before)
            (tmp_path / "composite.zarr.unfinished").mkdir()  # of a run that was killed
        with pytest.raises(KeyboardInterrupt):
            write_composite(fronts, lines, tmp_path, watch=stopped)
        there = {path.name for path in tmp_path.iterdir()}
        assert there == ({"composite.zarr", "gates.gpkg", "positions.csv", "areas.csv"} if before else set())
    assert xr.open_zarr(tmp_path / "composite.zarr").sizes["time"] == 3
    write_composite(fronts, lines, tmp_path)
    assert xr.open_zarr(tmp_path / "composite.zarr").sizes["time"] == 50


def test_a_composite_in_degrees_or_of_no_month_is_refused(tmp_path):
    fronts = fronts_of([12_000, 8000], pd.to_datetime(["2010-01-01", "2014-01-01"], utc=True))
    with pytest.raises(ValueError, match="projected CRS"):
        write_composite(fronts.to_crs(4326), Lines(), tmp_path)
    for period in ("2010 until 2012", "2010/2012", "2010-01-01/2012-12-31", "2010-01"):  # a year is no January
        with pytest.raises(ValueError, match="FIRST/LAST"):
            write_composite(fronts, Lines(), tmp_path, period=period)
    with pytest.raises(ValueError, match="no month"):
        write_composite(fronts, Lines(), tmp_path, period="2012-01/2010-01")
    with pytest.raises(ValueError, match="--ice"):
        write_composite(fronts, Lines(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_composite_of_four_real_glaciers_loses_what_their_lines_lost(shared, tmp_path):
    data = shared / "data"
    basins = str(data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp")
    termini = str(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    glaciers = ["153", "106", "23", "24"]
    told = ["composite", termini, "--ice", basins, "--regions", basins, "--glaciers", *glaciers]
    assert main([*told, "--grid-m", "240", "--out", str(tmp_path)]) == 0
    areas = pd.read_csv(tmp_path / "areas.csv")
    cube = xr.open_zarr(tmp_path / "composite.zarr")
    fronts = gpd.read_parquet(termini)
    boxes = gpd.read_file(tmp_path / "gates.gpkg").set_index("glacier_id")
    for number, glacier in enumerate(cube["glacier_id"].values):
        told = areas[(areas["by"] == "glacier") & (areas["name"].astype(str) == glacier)].iloc[-1]
        left, bottom, right, top = boxes.geometry[glacier].bounds
        near = cube.sel(x=slice(left, right), y=slice(top, bottom)).isel(time=[0, -1])
        cells = ((near["ice"] == 1) & (near["glacier"] == number)).sum(("y", "x")).to_numpy() * 240.0**2
        change = (cells[1] - cells[0]) / length_scale(POLAR, boxes.geometry[glacier]) ** 2
        width = boxes["width_m"][glacier]
        assert change == pytest.approx(told["area_change_m2"], abs=240 * width * 0.5)
        assert len(fronts[fronts["Glacier_ID"].astype(int).astype(str) == glacier]) >= 9


@pytest.mark.slow
def test_antarctic_coasts_are_a_product_and_a_composite_of_every_other_date_tells_the_dates_between(shared, tmp_path):
    path = shared / "data" / "antarctic_coastlines" / "antarctic_coastlines_1997-2021.parquet"
    coasts = read_product(path)
    assert coasts["datetime"].dt.strftime("%Y-%m-%d").iloc[[0, -1]].tolist() == ["1997-10-01", "2021-03-15"]
    along = rotate(box(-2_210_000, 1_165_000, -2_030_000, 1_215_000), 62)
    boxes = {"Larsen C": along, "Ross": box(-60_000, -1_450_000, 60_000, -1_200_000)}
    gpd.GeoDataFrame({"glacier_id": list(boxes)}, geometry=list(boxes.values()), crs=3031).to_file(tmp_path / "b.gpkg")
    ring = max(shapely.get_parts(coasts.geometry.iloc[0]), key=shapely.length)
    ice = dict.fromkeys(boxes, shapely.Polygon(ring).buffer(0))
    cut = cut_to_boxes(coasts, str(tmp_path / "b.gpkg"))
    lines = read_lines(Lines(ice=ice), cut, boxes=str(tmp_path / "b.gpkg"))
    whole = measure_series(cut, lines)
    in_box = whole.positions[whole.positions["branch"] == "box"].pivot_table(
        index="datetime", columns="glacier_id", values="position_m"
    )
    assert in_box.notna().to_numpy().sum() == 48
    steps = in_box.diff().groupby(in_box.index.year).sum()
    assert steps["Larsen C"].loc[2018] == pytest.approx(-44_450, abs=300)  # A-68, 5,800 km2 of July 2017
    assert steps["Ross"].loc[2003] == pytest.approx(-4870, abs=300)  # C-19 of May 2002
    calved = whole.breaks[(whole.breaks["branch"] == "box") & (whole.breaks["glacier_id"] == "Larsen C")]
    largest = calved.sort_values("step_m").iloc[0]
    assert largest["earliest"] <= pd.Timestamp("2017-07-12", tz="UTC") <= largest["latest"]
    assert largest["step_m"] == pytest.approx(-45_000, abs=1500)
    days = in_box.index
    kept = cut[cut["datetime"].isin(days[::2])].reset_index(drop=True)
    write_composite(kept, lines, tmp_path / "out")
    told = pd.read_csv(tmp_path / "out" / "positions.csv", parse_dates=["month"])
    left_out = [day for day in days[1:-1:2] if day < days[::2][-1]]
    apart = {}
    for name, part in told.set_index("month").groupby("glacier_id"):
        nearest = part.index.get_indexer(left_out, method="nearest")
        apart[name] = np.abs(part["position_m"].to_numpy()[nearest] - in_box[name][left_out].to_numpy())
    assert np.median(apart["Larsen C"]) == pytest.approx(153, abs=30)
    assert np.median(apart["Ross"]) == pytest.approx(104, abs=30)
    cube = xr.open_zarr(tmp_path / "out" / "composite.zarr")
    assert abs(float(cube["x"][1] - cube["x"][0])) == 240
    coast = coasts.geometry[coasts["datetime"] == days[9]].iloc[0]
    true = shapely.Polygon(max(shapely.get_parts(coast), key=shapely.length)).buffer(0)
    day = cube.sel(time=days[9].tz_localize(None), method="nearest")
    for number, name in enumerate(cube["glacier_id"].values):
        left, bottom, right, top = boxes[name].bounds
        near = day.sel(x=slice(left, right), y=slice(top, bottom)).load()
        x, y = np.meshgrid(near["x"], near["y"])
        alike = (near["ice"].to_numpy() == 1) == shapely.contains_xy(true, x, y)
        assert alike[near["glacier"].to_numpy() == number].mean() > 0.998
