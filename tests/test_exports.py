"""Fronts and polygons in other people's formats, read back by other people's readers."""

import cProfile
import json
import pstats
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from calved import X, Y, fronts_of, issm_model, polygons_of
from odc.geo.geobox import GeoBox
from painted import copy_sample
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from storing import DOMAIN, LINE, item, new_store, polygon_rows, rejected_rows, rows

import calfin_cloud as cc
from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.columns import satellite_code
from calfin_cloud.datasets import read_samples
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.exports import (
    calfin_lines,
    calfin_polygons,
    exp_text,
    known_name,
    region_at,
    termpicks_lines,
    write_by_glacier,
    write_collection,
)
from calfin_cloud.exports.tables import CALFIN_COLUMNS, TERMPICKS_COLUMNS
from calfin_cloud.products import product_of
from calfin_cloud.results.training_scenes import write_domain_files
from calfin_cloud.storage import read_fronts, read_store_domains


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


def test_glaciers_whose_ids_are_words_stay_apart_in_termpicks():
    fronts = pd.concat([fronts_of().assign(glacier_id=name, domain=name) for name in ("Ålpha", "Beta")])
    table = termpicks_lines(fronts, author="x")
    assert table["GlacierID"].eq(0).all()
    assert set(product_of(table)["glacier_id"]) == {"Ålpha", "Beta"}


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    copy_sample(folder / "scenes", 3)
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


def test_one_format_needs_no_list_and_none_at_all_is_refused(exported, tmp_path):
    store = exported / "store"
    assert tmp_path / "gpkg" / "calfin_cloud.gpkg" in cc.export_store(store, tmp_path, "gpkg", author="Me")
    with pytest.raises(ValueError, match="got no formats, expected some of"):
        cc.export_store(store, tmp_path / "none", [], author="Me")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("call", ["export {store} --out {out} --format levelset", "sample {out} --scenes 1"])
def test_a_file_for_which_there_is_no_room_is_told_in_a_sentence(call, exported, tmp_path):
    """HDF5 crashed when Python ended, and GDAL had an error that nobody expected."""
    within = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)); "
    within += "from calfin_cloud.cli import main; sys.exit(main(sys.argv[1:]))"
    words = call.format(store=exported / "store", out=tmp_path / "out").split()
    done = subprocess.run([sys.executable, "-c", within, *words], check=False, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert re.search(r"File too large: .*\.(nc|tif)", done.stderr)


def test_every_format_of_a_store_opens_in_its_reader(exported):
    fronts = read_fronts(str(exported / "store"))
    n = int((fronts["state"] == "front").sum())
    out = exported / "out"
    (together,) = out.glob("calfin/termini_*_Greenland_v1.0.shp")
    assert len(gpd.read_file(together)) == n
    assert gpd.read_file(out / "termpicks" / "termpicks.shp")["Author"].eq("Me").all()
    packed = gpd.read_file(out / "gpkg" / "calfin_cloud.gpkg", layer="fronts")
    assert len(packed) == len(fronts)
    assert {name: packed[name].dtype for name in ("front", "quality_flag")} == {
        "front": "int16",
        "quality_flag": "int16",
    }
    assert sum(len(read_exp(path.read_text())) for path in out.glob("issm/*.exp")) == n
    closed = [contour for path in out.glob("issm/closed/*_ocean.exp") for contour in read_exp(path.read_text())]
    assert closed
    levels = xr.open_dataset(out / "levelset" / "Synthetic-Glacier.nc", engine="h5netcdf", decode_coords="all")
    assert levels["ice_levelset"].dims == ("time", "y", "x")
    assert levels.rio.crs.to_epsg() == fronts.crs.to_epsg()
    cube = xr.open_zarr(out / "icemask" / "Synthetic-Glacier.zarr")
    same = xr.open_dataset(out / "icemask" / "Synthetic-Glacier.nc", engine="h5netcdf", decode_coords="all")
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
    plain = xr.open_dataset(exported / "out" / "levelset" / "Synthetic-Glacier.nc", engine="h5netcdf")
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
    outline = gpd.read_file(out / "domains" / "Synthetic-Glacier.shp")
    assert outline.geometry[0].equals_exact(domain.polygon, 1e-3, normalize=True)


def test_where_fronts_may_lie_is_exported_as_calfin_draws_it(tmp_path):
    grid = box_grid((0, 0, 3000, 2400), 3413, 30.0)
    write_domain_files(Domain("A_b", grid, "9", fjord_boundary=box(300, 300, 2700, 2100)), tmp_path)
    for ending in ("png", "tif"):
        with rasterio.open(tmp_path / "fjord_boundaries" / f"A-b_fjord_boundaries.{ending}") as mask:
            assert mask.transform.almost_equals(grid.transform)
            assert (mask.read(1) == 255).sum() == 80 * 60


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


def test_the_boxes_of_a_collection_cross_the_antimeridian_and_its_polygons_turn_left(tmp_path):
    places = {"across": (-4000, -1_335_000), "touching": (-6000, -1_500_000), "away": (-1_500_000, -4000)}
    domains = [Domain(n, box_grid((x, y, x + 6000, y + 6000), 3031, 30.0)) for n, (x, y) in places.items()]
    rows_ = [rows("s0").assign(domain=d.name, key=f"{d.name}/s0", flags="") for d in domains]
    areas, told = {d.name: d.area_lonlat for d in domains}, {"id_": "a", "description": "b", "made_by": {}}
    write_collection(tmp_path, pd.concat(rows_).set_crs(3031, allow_override=True), areas, lambda *_: {}, **told)
    collection = pystac.Collection.from_file(str(tmp_path / "collection.json"))
    items = {item.properties["calfin:domain"]: item for item in collection.get_items()}
    assert items["across"].bbox[::2] == pytest.approx([179.913, -179.827], abs=1e-3)
    assert items["touching"].bbox[::2] == pytest.approx([-180, -179.770], abs=1e-3)
    assert items["away"].bbox == list(areas["away"].bounds)
    assert collection.extent.spatial.bboxes[0][::2] == pytest.approx([179.913, -89.923], abs=1e-3)
    for found in items.values():
        found.validate()
        assert all(part.exterior.is_ccw for part in shapely.get_parts(shapely.geometry.shape(found.geometry)))


def test_a_front_that_touches_the_antimeridian_is_a_line_in_the_collection(tmp_path):
    fronts = rows("s0", line=LineString([(0, -1_500_000), (-3000, -1_499_000)])).assign(flags="")
    area = {"Store": Domain("a", box_grid((-6000, -1_500_000, 0, -1_494_000), 3031, 30.0)).area_lonlat}
    fronts, told = fronts.set_crs(3031, allow_override=True), {"id_": "a", "description": "b", "made_by": {}}
    path = write_collection(tmp_path, fronts, area, lambda *_: {}, **told)
    (found,) = pystac.Collection.from_file(str(path)).get_items()
    assert found.geometry["type"] == "LineString"
