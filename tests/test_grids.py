"""Fronts and polygons become ice masks and level sets on grids and meshes, read back as models read them."""

import tracemalloc

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from calved import GRID, X, Y, fronts_of, issm_model, polygons_of
from odc.geo.geobox import GeoBox
from scipy.spatial import Delaunay
from shapely.geometry import LineString, MultiPolygon, Polygon, box

from calfin_cloud.domains import box_grid
from calfin_cloud.exports import (
    level_set_series,
    levels_of,
    merge_levels,
    monthly_ice,
    read_mesh,
)
from calfin_cloud.results.formats import _netcdf


def test_a_month_has_the_share_of_its_scenes_that_show_ice_and_unknown_is_not_ocean():
    cube = monthly_ice(polygons_of(fronts_of()), GRID)
    assert cube["time"].dt.strftime("%Y-%m").values.tolist() == ["2004-06", "2004-07", "2004-08"]
    assert cube["n_scenes"].values.tolist() == [2, 0, 1]
    june = cube["ice"][0].sel(y=Y + 505).to_series()
    assert june.loc[X + 455] == 100
    assert june.loc[X + 555] == 50  # ocean in the first scene, ice in the second
    assert june.loc[X + 905] == 0
    assert june.loc[X + 105] == 255
    assert (cube["ice"][1] == 255).all()
    assert meanings(cube["origin"]) == ["observed", "none", "observed"]
    assert "nothing is interpolated" in cube.attrs["comment"]


def meanings(flag):
    """Words of a CF flag variable."""
    words = dict(zip(flag.attrs["flag_values"].tolist(), flag.attrs["flag_meanings"].split(), strict=True))
    return [words[value] for value in flag.values.tolist()]


def test_months_without_a_scene_are_carried_only_where_that_is_asked_for_and_marked():
    polygons = polygons_of(fronts_of(dates=("2004-06-19", "2004-10-29")))
    cube = monthly_ice(polygons, GRID, carry_months=2)
    assert meanings(cube["origin"]) == ["observed", "carried", "carried", "none", "observed"]
    assert cube["n_scenes"].values.tolist() == [1, 0, 0, 0, 1]
    for month in (1, 2):
        np.testing.assert_array_equal(cube["ice"][month], cube["ice"][0])
    assert (cube["ice"][3] == 255).all()
    assert "at most 2 months back" in cube.attrs["comment"]


def test_the_months_of_a_cube_have_bounds_and_its_coordinates_the_attributes_of_cf(tmp_path):
    monthly_ice(polygons_of(fronts_of()), GRID).to_netcdf(tmp_path / "ice.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "ice.nc", engine="h5netcdf", decode_cf=False) as raw:
        assert raw[raw["time"].attrs["bounds"]].values.tolist()[0] == [12570, 12600]
        assert raw["time"].attrs["units"] == "days since 1970-01-01"
        assert "_FillValue" not in raw["x"].attrs
        assert raw["ice"].attrs["_FillValue"] == 255
        assert raw["spatial_ref"].attrs["latitude_of_projection_origin"] == 90
        assert set(raw["ice"].attrs["ancillary_variables"].split()) <= set(raw)


def test_the_level_set_is_the_signed_distance_to_the_front_in_metres():
    levels = level_set_series(polygons_of(fronts_of()), GRID)
    row = levels["ice_levelset"][0].sel(y=Y + 505).to_series()
    assert row.loc[X + 505] == pytest.approx(5)
    assert row.loc[X + 495] == pytest.approx(-5)
    assert row.loc[X + 205] == pytest.approx(-295)
    assert levels["decimal_year"][0] == pytest.approx(2004 + 170.5 / 366)


def test_scenes_of_one_time_are_one_level_set_and_an_ocean_without_a_pixel_has_none():
    fronts = fronts_of(dates=("2004-06-19", "2004-06-19", "2004-06-20", "2004-06-21"), x=500)
    polygons = polygons_of(fronts)
    oceans = {2: box(X + 991, Y, X + 994, Y + 1000), 3: box(X, Y, X + 1000, Y + 1000)}
    for scene, ocean in oceans.items():
        polygons.loc[(polygons["key"] == f"Dom/{scene}") & (polygons["kind"] == "ocean"), "geometry"] = ocean
    levels = level_set_series(polygons, GRID)
    assert levels.indexes["time"].is_unique
    assert levels["scene_id"].values.tolist()[0] == ", ".join(fronts["scene_id"][:2])
    row = levels["ice_levelset"][0].sel(y=Y + 505).to_series()
    assert row.loc[[X + 455, X + 535, X + 585, X + 655]].tolist() == [-45, 35, -15, 55]  # edges at 500 and 600 m
    assert np.isnan(levels["ice_levelset"][1:]).all()


def levels_at(polygons, places, *, grid=GRID, sigma=10.0):
    sigmas = pd.Series(sigma, index=polygons["key"].unique())
    return levels_of(polygons, sigmas, box(*grid.boundingbox), float(grid.transform.a), places)


def mesh_of(x, y):
    coords = {"x": ("vertex", np.asarray(x, float)), "y": ("vertex", np.asarray(y, float))}
    on_map = {f"map_{name}": values for name, values in coords.items()}
    return xr.Dataset(on_map, coords=coords, attrs={"crs": "EPSG:3413"})


def test_the_level_set_of_a_model_is_one_file_as_issm_wants_it(tmp_path):
    dates = ("2004-06-01", "2004-07-01", "2004-08-01")
    rng = np.random.default_rng(3)
    x, y = X + rng.uniform(20, 980, 500), Y + rng.uniform(20, 980, 500)
    places = read_mesh(issm_model(tmp_path / "model.nc", x, y), crs="EPSG:3413")
    made = merge_levels([levels_at(polygons_of(fronts_of(dates=dates)), places)], places)
    made.to_netcdf(tmp_path / "levels.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "levels.nc", engine="h5netcdf") as file:
        np.testing.assert_array_equal(file["x"], x)
        spclevelset, sigma = file["spclevelset"].values, file["spclevelset_sigma"].values
        assert file["time"].dt.strftime("%Y-%m-%d").values.tolist() == [*dates, "2004-09-01"]
    assert spclevelset.shape == sigma.shape == (501, 4)
    for column, front in enumerate([500, 600, 700, 700]):
        np.testing.assert_allclose(spclevelset[:-1, column], x - X - front, atol=10)  # its ends lie a pixel inside
        middle = abs(y - Y - 500) < 400
        np.testing.assert_allclose(spclevelset[:-1, column][middle], (x - X - front)[middle], atol=0.01)
    assert spclevelset[-1, 0] == pytest.approx(2004 + 152.5 / 366)
    np.testing.assert_allclose(sigma[:-1, :3], 10)
    assert np.isnan(sigma[:-1, 3]).all()  # held from the last scene


def test_between_two_scenes_a_level_set_is_linear_and_less_sure_and_held_beyond_them():
    polygons = polygons_of(fronts_of(dates=("2004-01-16", "2004-05-16"), x=400))
    places = mesh_of([X + 300], [Y + 500])
    made = merge_levels([levels_at(polygons, places)], places).isel(vertex=0)
    level, origin = made["ice_levelset"].values, made["origin"].values
    assert (level[0], level[-1]) == (-100, -200)
    assert level[2] == pytest.approx(-100 - 100 * 45 / 121, abs=0.5)
    assert origin.tolist() == [2, 1, 1, 1, 1, 2]
    sigma = made["sigma"].values
    assert np.isnan(sigma[[0, -1]]).all()
    assert sigma[2] == pytest.approx(np.sqrt(100 * (0.628**2 + 0.372**2) + 0.628 * 0.372 * 100**2), rel=0.01)


def test_level_sets_come_at_the_first_of_the_month_of_the_first_scene_to_that_after_the_last():
    places = mesh_of([X + 300], [Y + 500])
    for dates, months in (
        (("2019-01-31",), ["2019-01-01", "2019-02-01"]),
        (("2020-02-29", "2020-12-31"), pd.date_range("2020-02-01", "2021-01-01", freq="MS").astype(str).tolist()),
        (("2019-01-01",), ["2019-01-01", "2019-02-01"]),
    ):
        polygons = polygons_of(fronts_of(dates=dates))
        made = merge_levels([levels_at(polygons, places)], places).isel(vertex=0)
        assert made["time"].dt.strftime("%Y-%m-%d").values.tolist() == months
        assert made["ice_levelset"].values[-1] == -200 - 100 * (len(dates) - 1)


def test_domains_are_merged_and_a_base_mask_tells_the_rest():
    polygons = polygons_of(fronts_of(dates=("2004-06-01",)))
    away = polygons.assign(domain="Next", geometry=polygons.geometry.translate(xoff=700))
    next_grid = GeoBox.from_bbox((X + 700, Y, X + 1700, Y + 1000), crs="EPSG:3413", resolution=10)
    places = mesh_of(X + np.array([300.0, 760, 940, 1500, -3000, 5000]), [Y + 500.0] * 6)
    found = [levels_at(polygons, places), levels_at(away, places, grid=next_grid)]
    alone = merge_levels(found, places).isel(time=0)
    assert np.isnan(alone["ice_levelset"][4:]).all()
    assert alone["origin"].values.tolist() == [1, 1, 1, 1, 0, 0]
    # The second and third place are in both domains: each has the level of that in which it lies deeper.
    np.testing.assert_allclose(alone["ice_levelset"][:4], [-200, 260, -260, 300], atol=0.01)
    whole = merge_levels(found, places, base=box(X - 9000, Y - 9000, X + 1000, Y + 9000)).isel(time=0)
    np.testing.assert_allclose(whole["ice_levelset"][4:], [-4000, 4000], atol=0.01)
    assert whole["origin"].values.tolist() == [1, 1, 1, 1, 3, 3]


def test_the_zero_contour_on_a_mesh_is_the_front_within_half_an_edge():
    rng = np.random.default_rng(1)
    x, y = X + rng.uniform(20, 980, 900), Y + rng.uniform(20, 980, 900)
    places, mesh = mesh_of(x, y), Delaunay(np.c_[x, y])
    bent = LineString([(X + 400, Y), (X + 550, Y + 350), (X + 450, Y + 700), (X + 600, Y + 1000)])
    front = fronts_of(dates=("2004-06-01",)).assign(geometry=lambda t: [bent, None])
    ocean = Polygon([*bent.coords, (X + 1000, Y + 1000), (X + 1000, Y)])
    ice = box(X, Y, X + 1000, Y + 1000).difference(ocean)
    polygons = polygons_of(front).assign(geometry=[MultiPolygon([ocean]), MultiPolygon([ice])])
    level = merge_levels([levels_at(polygons, places)], places)["ice_levelset"].isel(time=0).values
    edges = np.unique(np.sort(mesh.simplices[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    start, end = level[edges.T]
    cut = edges[start * end < 0]
    share = level[cut[:, 0]] / (level[cut[:, 0]] - level[cut[:, 1]])
    ends = mesh.points[cut]
    contour = ends[:, 0] + share[:, None] * (ends[:, 1] - ends[:, 0])
    half = np.hypot(*(ends[:, 1] - ends[:, 0]).T) / 2
    assert len(contour) > 30
    assert (shapely.distance(bent, shapely.points(contour)) <= half).all()


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n1.5,2\n3,4\n",
        "y;x;name\n2;1.5;a\n4;3;b\n",
        "# vertices\n  1.5e+00   2.0e+00\n  3.0e+00   4.0e+00\n",
        "1.5,2\n3,4",
    ],
)
def test_vertices_are_read_from_tables_of_text(tmp_path, text):
    (tmp_path / "mesh.csv").write_text(text)
    places = read_mesh(tmp_path / "mesh.csv", crs="EPSG:3413")
    assert (places["x"].values.tolist(), places["y"].values.tolist()) == ([1.5, 3], [2, 4])
    assert places["map_x"].dims == ("vertex",)


@pytest.mark.parametrize(("engine", "format_"), [("h5netcdf", "NETCDF4"), ("scipy", "NETCDF3_64BIT")])
def test_a_level_set_comes_on_any_grid_whatever_its_crs(tmp_path, engine, format_):
    middle = gpd.GeoSeries.from_xy([X + 500], [Y + 500], crs=3413).to_crs(32624)[0]
    grid = xr.Dataset(coords={"x": middle.x + np.arange(-100, 101, 50), "y": middle.y + np.array([60.0, -60.0])})
    grid["x"].attrs["units"] = "m"
    grid.to_netcdf(tmp_path / "grid.nc", engine=engine, format=format_)
    places = read_mesh(tmp_path / "grid.nc", crs="EPSG:3413", mesh_crs="EPSG:32624")
    levels = merge_levels([levels_at(polygons_of(fronts_of(dates=("2004-06-01",))), places)], places)
    assert "spclevelset" not in levels
    assert levels["ice_levelset"].dims == ("time", "y", "x")
    nodes = gpd.GeoSeries.from_xy(*(v.ravel() for v in np.meshgrid(grid["x"], grid["y"])), crs=32624).to_crs(3413)
    np.testing.assert_allclose(levels["ice_levelset"][0].values.ravel(), nodes.x - X - 500, atol=0.1)
    assert levels.rio.crs.to_epsg() == 32624


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither NetCDF nor a table"),
        (b"a mesh of Argus\n", "neither NetCDF nor a table"),
        (b"x,y\n1,nan\n", "numbers only"),
        (b"x,y\n", "got 0 x and 0 y, expected some"),
        (b"\x89HDF and no more", "cannot be read as NetCDF"),
    ],
)
def test_a_file_that_is_no_mesh_says_what_is_expected(tmp_path, content, words):
    (tmp_path / "mesh").write_bytes(content)
    with pytest.raises(ValueError, match=words) as told:
        read_mesh(tmp_path / "mesh", crs="EPSG:3413")
    assert "export_netCDF" in str(told.value)


def test_a_netcdf_without_places_or_in_kilometres_is_refused(tmp_path):
    xr.Dataset({"z": ("n", [1.0])}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="no x and y"):
        read_mesh(tmp_path / "a.nc", crs="EPSG:3413")
    km = xr.Dataset({"x": ("n", [1.0, 2], {"units": "km"}), "y": ("n", [1.0, 2], {"units": "km"})})
    km.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"in metres, got \['km'\]"):
        read_mesh(tmp_path / "b.nc", crs="EPSG:3413")
    flat = xr.Dataset({"x": (("a", "b"), np.ones((2, 2))), "y": (("a", "b"), np.ones((2, 2)))})
    flat.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="one dimension"):
        read_mesh(tmp_path / "c.nc", crs="EPSG:3413")


def test_a_domain_without_an_ocean_says_so():
    polygons = polygons_of(fronts_of())
    with pytest.raises(ValueError, match="no scene of the domain has an ocean"):
        level_set_series(polygons[polygons["kind"] == "ice"], GRID)


def test_level_sets_are_computed_a_scene_at_a_time(tmp_path):
    grid = box_grid((0, 0, 9000, 9000), 3413, 30.0)
    oceans = [MultiPolygon([box(0, 0, 3000 + 30 * k, 9000)]) for k in range(60)]
    days = pd.date_range("2020-01-01", periods=60, tz="UTC")
    names = [f"s{k}" for k in range(60)]
    columns = {"key": names, "domain": "Store", "scene_id": names, "kind": "ocean", "datetime": days}
    table = gpd.GeoDataFrame(columns, geometry=oceans, crs=3413)
    _netcdf(level_set_series(table[:2], grid), tmp_path, "first")  # imports libraries, which are not counted
    tracemalloc.start()
    levels = level_set_series(table, grid)
    _netcdf(levels, tmp_path, "levels")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * 300 * 300 * 4 / 2  # half of what the levels of all scenes need
    read = xr.open_dataset(tmp_path / "levels.nc", engine="h5netcdf")["ice_levelset"]
    np.testing.assert_array_equal(read, levels["ice_levelset"])
    assert read.isel(time=7, y=5).to_series().abs().idxmin() == pytest.approx(3210, abs=30)
