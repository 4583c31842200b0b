"""Fronts and polygons in other people's formats, read back by other people's readers."""

import cProfile
import json
import pstats
import re
import tracemalloc
from importlib.resources import files
from pathlib import Path

import geopandas as gpd
import h5netcdf
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.spatial import Delaunay
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from storing import DOMAIN, LINE, item, new_store, polygon_rows, rejected_rows, rows

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.datasets import read_samples
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.exports import (
    calfin_lines,
    calfin_polygons,
    exp_text,
    known_name,
    level_set_series,
    levels_of,
    merge_levels,
    monthly_ice,
    read_mesh,
    region_at,
    termpicks_lines,
    write_by_glacier,
    write_collection,
)
from calfin_cloud.exports.tables import CALFIN_COLUMNS, TERMPICKS_COLUMNS, satellite_code
from calfin_cloud.results.formats import _netcdf
from calfin_cloud.results.training_scenes import write_domain_files
from calfin_cloud.sample import write_sample
from calfin_cloud.storage import read_fronts, read_store_domains

X, Y = -200_000.0, -2_200_000.0
GRID = GeoBox.from_bbox((X, Y, X + 1000, Y + 1000), crs="EPSG:3413", resolution=10)


def fronts_of(x=500.0, dates=("2004-06-19", "2004-06-29", "2004-08-01")):
    rows = [
        {
            "key": f"Dom/{i}",
            "domain": "Dom",
            "scene_id": f"LE07_L2SP_016008_{date}",
            "glacier_id": "7",
            "platform": "landsat-7",
            "datetime": pd.Timestamp(date, tz="UTC"),
            "state": "front",
            "quality_flag": 13,
            "geometry": LineString([(X + x + 100 * i, Y), (X + x + 100 * i, Y + 1000)]),
        }
        for i, date in enumerate(dates)
    ]
    missing = rows[0] | {"key": "Dom/none", "state": "no_front", "geometry": None}
    return gpd.GeoDataFrame([*rows, missing], crs=3413)


def polygons_of(fronts, width=100.0):
    rows = []
    for front in fronts[fronts["state"] == "front"].itertuples():
        x = front.geometry.coords[0][0]
        shapes = {"ocean": box(x, Y, X + 1000, Y + 1000), "ice": box(x - width, Y, x, Y + 1000)}
        for kind, shape in shapes.items():
            same = {"key": front.key, "domain": "Dom", "scene_id": front.scene_id, "datetime": front.datetime}
            more = {"kind": kind, "glacier_id": "7", "platform": front.platform, "geometry": MultiPolygon([shape])}
            rows.append(same | more)
    return gpd.GeoDataFrame(rows, crs=3413)


def read_exp(text):
    """Contours of an `.exp` file, as ISSM's documentation describes it."""
    contours = []
    for block in re.split(r"(?=^## Name:)", text, flags=re.MULTILINE):
        if not block.strip():
            continue
        lines = block.splitlines()
        assert lines[1] == "## Icon:0"
        assert lines[2] == "# Points Count  Value"
        count = int(lines[3].split()[0])
        assert lines[4] == "# X pos Y pos"
        points = np.array([[float(v) for v in line.split()] for line in lines[5 : 5 + count]])
        assert not any(line.strip() for line in lines[5 + count :])
        contours.append((lines[0].removeprefix("## Name:"), points))
    return contours


def test_lines_have_the_columns_of_calfin_and_come_back_from_the_shapefile(tmp_path):
    table = calfin_lines(fronts_of(), author="Someone")
    assert list(table.columns) == [*CALFIN_COLUMNS, "geometry"]
    first = table.iloc[0]
    assert (first["GlacierID"], first["Satellite"], first["Date"], first["QualFlag"]) == (7, "LE07", "2004-06-19", 13)
    assert (first["Center_X"], first["Center_Y"]) == pytest.approx((X + 500, Y + 500))
    assert first["Latitude"] == pytest.approx(69.8, abs=0.5)
    paths = write_by_glacier(table, tmp_path, region="Greenland", closed=False, version="1.0")
    assert [p.name for p in paths] == ["termini_2004-2004_Greenland_v1.0.shp", "termini_2004-2004_Dom_v1.0.shp"]
    back = gpd.read_file(paths[0])
    assert list(back.columns) == list(table.columns)
    assert back.geometry.geom_equals_exact(table.geometry, 1e-6).all()
    assert back["ImageID"].tolist() == table["ImageID"].tolist()


def test_a_front_of_an_image_that_has_none_is_no_row():
    assert len(calfin_lines(fronts_of(), author="x")) == 3


def test_names_are_taken_where_they_are_known():
    names = pd.DataFrame({"domain": ["Dom"], "GrnlndcN": ["Sermeq"], "RefName": ["The Glacier"]})
    row = calfin_lines(fronts_of(), author="x", names=names).iloc[0]
    assert (row["GrnlndcN"], row["RefName"], row["AltName"]) == ("Sermeq", "The Glacier", "")


@pytest.mark.parametrize("same", ["Upper-Fjord", "Greenland"])
def test_names_whose_files_would_overwrite_each_other_are_refused(tmp_path, same):
    table = calfin_lines(fronts_of(), author="x").assign(RefName=["Upper Fjord", same, "Third"])
    with pytest.raises(ValueError, match=f"the RefName '{same}' would overwrite"):
        write_by_glacier(table, tmp_path, region="Greenland", closed=False, version="1.0")
    assert not list(tmp_path.iterdir())


def test_an_ocean_with_an_island_is_one_closed_polygon_with_a_hole():
    fronts = fronts_of()
    polygons = polygons_of(fronts)
    holed = Polygon(box(X, Y, X + 900, Y + 900).exterior, [box(X + 200, Y + 200, X + 300, Y + 300).exterior.coords])
    polygons.loc[0, "geometry"] = MultiPolygon([holed, box(X + 950, Y, X + 990, Y + 50)])
    table = calfin_polygons(polygons, fronts, author="x")
    of_first = table[table["ImageID"] == polygons["scene_id"][0]]
    assert len(of_first) == 2
    assert sorted(len(p.interiors) for p in of_first.geometry) == [0, 1]
    inside = of_first["Center_X"].between(of_first.bounds["minx"], of_first.bounds["maxx"])
    assert inside.all()  # each its own, not one for all of the scene
    assert table["QualFlag"].eq(13).all()


def test_termpicks_has_decimal_years():
    table = termpicks_lines(fronts_of(dates=("2004-07-01",)), author="x")
    assert list(table.columns) == [*TERMPICKS_COLUMNS, "geometry"]
    assert table["DecDate"][0] == pytest.approx(2004 + 182.5 / 366)


@pytest.mark.parametrize(
    ("platform", "scene", "code"),
    [
        ("landsat-8", "LC08_L2SP_x", "LC08"),
        ("SENTINEL-1A", "S1A_EW_x", "S1A"),
        ("sentinel-2b", "other", "S2B"),
        ("Envisat", "x", "Envisat"),
    ],
)
def test_satellites_are_named_as_calfin_names_them(platform, scene, code):
    assert satellite_code(platform, scene) == code


def test_an_exp_file_has_a_contour_a_part_and_closes_polygons():
    lines = [("Dom 2004", fronts_of().geometry[0]), ("Sea", box(0, 0, 1, 1))]
    contours = read_exp(exp_text(lines))
    assert [name for name, _ in contours] == ["Dom 2004", "Sea"]
    np.testing.assert_allclose(contours[0][1], [(X + 500, Y), (X + 500, Y + 1000)])
    assert (contours[1][1][0] == contours[1][1][-1]).all()


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


def issm_model(path, x, y):
    """A model as ISSM's export_netCDF writes it: a group a class, dimensions at the top."""
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"VertNum": len(x), "EltNum": 1, "VertPerElt": 3, "Time": 1}
        mesh = file.create_group("mesh")
        mesh.attrs["classtype"] = "mesh2d.mesh2d"
        mesh.create_variable("x", ("VertNum",), data=np.asarray(x, float))
        mesh.create_variable("y", ("VertNum",), data=np.asarray(y, float))
        mesh.create_variable("elements", ("EltNum", "VertPerElt"), data=np.array([[1, 2, 3]]))
        file.create_group("mask").create_variable("ice_levelset", ("VertNum",), data=np.ones(len(x)))
    return path


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
    np.testing.assert_allclose(sigma[:-1], 10)


def test_between_two_scenes_a_level_set_is_linear_and_less_sure_and_held_beyond_them():
    polygons = polygons_of(fronts_of(dates=("2004-01-16", "2004-05-16"), x=400))
    places = mesh_of([X + 300], [Y + 500])
    made = merge_levels([levels_at(polygons, places)], places).isel(vertex=0)
    level, origin = made["ice_levelset"].values, made["origin"].values
    assert (level[0], level[-1]) == (-100, -200)
    assert level[2] == pytest.approx(-100 - 100 * 45 / 121, abs=0.5)
    assert origin.tolist() == [2, 1, 1, 1, 1, 2]
    sigma = made["sigma"].values
    assert sigma[0] == 10
    assert sigma[2] == pytest.approx(np.sqrt(100 * (0.628**2 + 0.372**2) + 0.628 * 0.372 * 100**2), rel=0.01)


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_sample(folder / "scenes", scenes=3)
    scenes = [
        "--catalog",
        str(folder / "scenes" / "catalog.json"),
        "--domains",
        str(folder / "scenes" / "domains.geojson"),
    ]
    assert main(["map", *scenes, "--period", "1984/2024", "--store", str(folder / "store"), "--cluster", "none"]) == 0
    formats = ["calfin", "termpicks", "gpkg", "issm", "levelset", "icemask", "calfin-ts", "stac"]
    assert (
        main(["export", str(folder / "store"), "--out", str(folder / "out"), "--author", "Me", "--format", *formats])
        == 0
    )
    return folder


def test_every_format_of_a_store_opens_in_its_reader(exported):
    fronts = read_fronts(str(exported / "store"))
    n = int((fronts["state"] == "front").sum())
    out = exported / "out"
    (together,) = out.glob("calfin/termini_*_Greenland_v1.0.shp")
    assert len(gpd.read_file(together)) == n
    assert gpd.read_file(out / "termpicks" / "termpicks.shp")["Author"].eq("Me").all()
    assert len(gpd.read_file(out / "gpkg" / "calfin_cloud.gpkg", layer="fronts")) == len(fronts)
    assert sum(len(read_exp(path.read_text())) for path in out.glob("issm/*.exp")) == n
    closed = [contour for path in out.glob("issm/closed/*_ocean.exp") for contour in read_exp(path.read_text())]
    assert closed
    levels = xr.open_dataset(out / "levelset" / "Painted-Glacier.nc", engine="h5netcdf", decode_coords="all")
    assert levels["ice_levelset"].dims == ("time", "y", "x")
    assert levels.rio.crs.to_epsg() == fronts.crs.to_epsg()
    cube = xr.open_zarr(out / "icemask" / "Painted-Glacier.zarr", consolidated=False)
    same = xr.open_dataset(out / "icemask" / "Painted-Glacier.nc", engine="h5netcdf", decode_coords="all")
    np.testing.assert_array_equal(cube["ice"], same["ice"])
    assert np.isnan(same["ice"]).any()


def test_the_stac_collection_of_a_store_is_valid_and_has_an_item_a_scene(exported):
    collection = pystac.Collection.from_file(str(exported / "out" / "stac" / "collection.json"))
    collection.validate()
    items = list(collection.get_items(recursive=True))
    fronts = read_fronts(str(exported / "store"))
    assert len(items) == fronts["key"].nunique()
    for scene in items:
        scene.validate()
        assert shapely.geometry.shape(scene.geometry).is_valid
    picture = next(scene.assets["picture"].href for scene in items if "picture" in scene.assets)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_the_readme_of_an_export_says_what_made_it(exported):
    text = (exported / "out" / "README.md").read_text()
    made = json.loads((exported / "store" / "store.json").read_text())
    assert made["model"] in text
    assert "doi:10.5194/tc-15-1663-2021" in text
    assert "Me" in (exported / "out" / "CITATION.cff").read_text()


def test_level_sets_of_a_store_come_on_a_mesh_given_on_the_command_line(exported, tmp_path, capsys):
    store, out = str(exported / "store"), tmp_path / "out"
    plain = xr.open_dataset(exported / "out" / "levelset" / "Painted-Glacier.nc", engine="h5netcdf")
    x, y = plain["x"].values[::40], plain["y"].values[::40]
    np.savetxt(tmp_path / "mesh.txt", np.c_[x, y])
    assert main(["export", store, "--out", str(out), "--format", "levelset", "--mesh", str(tmp_path / "mesh.txt")]) == 0
    with xr.open_dataset(out / "levelset" / "spclevelset.nc", engine="h5netcdf") as made:
        at_nodes = plain["ice_levelset"].values[0, np.arange(0, 400, 40), np.arange(0, 400, 40)]
        near = np.abs(at_nodes) < 2000  # the grid sees no coast beyond the domain
        assert made["spclevelset"].shape == (11, made.sizes["time"])
        np.testing.assert_allclose(made["ice_levelset"][0][1:][near[1:]], at_nodes[1:][near[1:]], atol=60)
    base = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=read_fronts(store).crs)
    base.to_file(tmp_path / "base.gpkg")
    assert (
        main(["export", store, "--out", str(out), "--format", "levelset", "--base", str(tmp_path / "base.gpkg")]) == 2
    )
    assert "name the mesh" in capsys.readouterr().err
    issm_model(tmp_path / "elsewhere.nc", [0, 1, 1], [0, 0, 1])
    more = ["--format", "levelset", "--mesh", str(tmp_path / "elsewhere.nc")]
    assert main(["export", store, "--out", str(out), *more]) == 2
    assert "--mesh-crs" in capsys.readouterr().err
    mesh = str(tmp_path / "mesh.txt")
    for wrong, words in (
        (["gpkg", "--mesh", "x"], "add levelset"),
        (["icemask", "--carry", "-1"], "0 months or more"),
        (["levelset", "--mesh", mesh, "--mesh-crs", "EPSG:99999"], "there is no CRS 'EPSG:99999'"),
        (["levelset", "--mesh-crs", "EPSG:3413"], "name the mesh"),
    ):
        assert main(["export", store, "--out", str(out), "--format", *wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["export", store, "--out", str(out), "--format", "levelset", "--mesh", str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_an_unknown_format_is_refused(exported, capsys):
    with pytest.raises(SystemExit):
        main(["export", str(exported / "store"), "--out", "x", "--format", "dwg"])
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("longitude", "latitude", "region"),
    [
        *((-49.7, 69.2, "Greenland"), (-60.5, 80.9, "Greenland"), (-43.5, 60.5, "Greenland"), (-20, 79.5, "Greenland")),
        *((-146.9, 61.1, "Alaska"), (17.5, 78.5, "Svalbard"), (-60, -65, "Antarctica"), (166, -77.8, "Antarctica")),
        *((-80, 79.5, "World"), (-65, 68, "World"), (-18, 64.5, "World"), (60, 76, "World")),
    ],
)
def test_a_place_is_in_the_region_that_its_tables_are_named_after(longitude, latitude, region):
    assert region_at(shapely.Point(longitude, latitude)) == region


def test_glaciers_with_the_number_of_measures_have_their_name_where_they_lie_and_nowhere_else():
    assert known_name("3", shapely.Point(-49.7, 69.2)) == "Jakobshavn"
    assert known_name("3", shapely.Point(17.5, 78.5)) == ""
    assert known_name("236", shapely.Point(-49.7, 69.2)) == known_name("a", shapely.Point(-49.7, 69.2)) == ""


def test_the_shipped_places_of_glaciers_are_those_of_the_lines_they_are_from(shared):
    with files("calfin_cloud.exports").joinpath("glacier_names.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    lines = gpd.read_parquet(shared / "data" / "measures_termini_greenland" / "derived_termini_3413.parquet")
    assert sorted(table["glacier_id"]) == sorted(lines["Glacier_ID"].unique())
    places = gpd.GeoSeries.from_xy(table["longitude"], table["latitude"], crs=4326, index=table["glacier_id"])
    apart = places.to_crs(3413).reindex(lines["Glacier_ID"]).reset_index(drop=True).distance(lines.geometry)
    assert apart.max() < 50_000
    assert apart.median() < 1500
    assert {region_at(place) for place in places} == {"Greenland"}


def test_a_glacier_of_alaska_is_not_exported_as_one_of_greenland(tmp_path, request):
    store = new_store("disk", request)
    alaska = Domain("Columbia", GeoBox.from_bbox((490_000, 6_770_000, 502_000, 6_782_000), "EPSG:32606", resolution=30))
    storage.open_store(store, crs=alaska.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, alaska)
    line = LineString([(495_000, 6_771_000), (495_000, 6_780_000)])
    tables = [rows("s0", line=line), rejected_rows(), polygon_rows("s0")]
    tables = [t.assign(domain="Columbia", key="Columbia/s0").set_crs(32606, allow_override=True) for t in tables]
    more = {"type": "Feature", "stac_version": "1.1.0", "geometry": None, "assets": {}}
    items = {"Columbia/s0": item("s0") | more}
    storage.write_batch(store, storage.Tables(*tables), items, recipe={"masks": "a", "fronts": "b"})
    assert main(["export", store, "--out", str(tmp_path), "--format", "calfin", "termpicks"]) == 0
    (path,) = tmp_path.glob("calfin/*_Alaska_v1.0.shp")
    assert gpd.read_file(path).crs.to_epsg() == 32606
    assert not list(tmp_path.glob("calfin/*Greenland*"))


def test_names_may_be_told_by_glacier_and_those_of_the_domain_come_first():
    names = pd.DataFrame(
        {"domain": ["Dom", None], "glacier_id": [None, "7"], "OfficialN": ["a", "b"], "GrnlndcN": [None, "c"]}
    )
    lines = calfin_lines(fronts_of(), author="A", names=names)
    assert set(lines["OfficialN"]) == {"a"}
    assert set(lines["GrnlndcN"]) == {"c"}


def test_pictures_and_masks_are_exported_with_their_place_as_training_reads_them(exported):
    out = exported / "out" / "calfin-ts"
    fronts = read_fronts(str(exported / "store"))
    samples = list(read_samples(out / "train"))
    assert 0 < len(samples) <= fronts.loc[fronts["state"] == "front", "key"].nunique()
    (domain,) = read_store_domains(str(exported / "store"))
    for path in (out / "train").glob("*.png"):
        with rasterio.open(path) as picture:
            assert picture.crs.to_epsg() == fronts.crs.to_epsg()
            assert picture.transform.almost_equals(domain.grid.transform)
            assert picture.shape == domain.shape
    outline = gpd.read_file(out / "domains" / "Painted-Glacier.shp")
    assert outline.geometry[0].equals_exact(domain.polygon, 1e-3, normalize=True)


def test_where_fronts_may_lie_is_exported_as_calfin_draws_it(tmp_path):
    grid = box_grid((0, 0, 3000, 2400), 3413, 30.0)
    write_domain_files(Domain("A_b", grid, "9", fjord_boundary=box(300, 300, 2700, 2100)), tmp_path)
    for ending in ("png", "tif"):
        with rasterio.open(tmp_path / "fjord_boundaries" / f"A-b_fjord_boundaries.{ending}") as mask:
            assert mask.transform.almost_equals(grid.transform)
            assert (mask.read(1) == 255).sum() == 80 * 60


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


def test_a_collection_takes_twice_the_work_for_twice_the_scenes(tmp_path):
    def calls(n):
        fronts = rows(*[f"s{k}" for k in range(n)], line=LINE).assign(flags="")
        counted = cProfile.Profile()
        counted.enable()
        areas, told = {"Store": DOMAIN.area_lonlat}, {"id_": "a", "description": "b", "made_by": {}}
        write_collection(tmp_path / str(n), fronts, areas, lambda *_: {}, **told)
        counted.disable()
        return pstats.Stats(counted).total_calls

    assert calls(240) / calls(120) < 2.3  # of calls of functions, whatever the machine does beside them
