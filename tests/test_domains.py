import json
import os
import pickle
import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from shapely.geometry import LineString, Polygon, box

from calfin_cloud.domains import (
    Domain,
    box_grid,
    cut_at_antimeridian,
    domains_from_termini,
    read_domains,
    with_fjord_mask,
    with_fjord_polygons,
    write_domains,
)
from calfin_cloud.glaciers import domain_from_point

LINES_APART = "MULTILINESTRING ((0 0, 5 0), (6 0, 9 0))"


def a_domain(name="Rink-Isbrae", **more):
    return Domain(name, box_grid((-300_000, -1_900_000, -290_000, -1_888_000), 3413, 30.0), "12", **more)


def test_a_domain_file_without_a_domain_which_nobody_could_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="at least one domain, got none"):
        write_domains([], tmp_path / "d.geojson")
    assert not (tmp_path / "d.geojson").exists()


def test_a_domain_file_reads_back_exactly(tmp_path):
    written = [
        a_domain("Brückner", fjord_boundary=Polygon([(-299e3, -1899e3), (-291e3, -1899e3), (-295e3, -1889e3)])),
        a_domain("B", centerline=LineString([(-295e3, -1899e3), (-295e3, -1889e3)])),
    ]
    assert read_domains(write_domains(written, tmp_path / "d.geojson")) == written


@given(st.floats(-1e6, 1e6), st.floats(-3e6, -1e6), st.floats(2000, 60_000), st.sampled_from([10.0, 15.0, 30.0, 100.0]))
def test_a_grid_covers_its_box_with_less_than_a_pixel_to_spare(left, bottom, side, resolution):
    bounds = (left, bottom, left + side, bottom + side)
    got = box_grid(bounds, 3413, resolution).boundingbox.bbox
    spare = np.array([bounds[0] - got[0], bounds[1] - got[1], got[2] - bounds[2], got[3] - bounds[3]])
    assert (spare > -1e-4 * resolution).all()
    assert (spare < resolution).all()
    assert np.allclose(np.array(got) % resolution, 0)


@pytest.mark.parametrize("resolution", [0, -30.0, float("nan"), float("inf")])
def test_a_pixel_without_a_side_is_refused_in_words(resolution):
    with pytest.raises(ValueError, match="the side of a pixel must be some metres long"):
        box_grid((0, 0, 3000, 3000), 3413, resolution)
    with pytest.raises(ValueError, match="the side of a pixel must be some metres long"):
        domain_from_point(-50, 70, resolution_m=resolution)


def test_any_polygon_file_with_names_makes_domains(tmp_path):
    polygons = gpd.GeoDataFrame({"name": ["Store"]}, geometry=[box(-51.2, 70.3, -50.5, 70.5)], crs=4326)
    polygons.to_file(tmp_path / "drawn.gpkg")
    (domain,) = read_domains(tmp_path / "drawn.gpkg")
    assert domain.crs == "EPSG:3413"
    assert domain.resolution_m == 30
    assert domain.area_lonlat.buffer(1e-6).covers(box(-51.2, 70.3, -50.5, 70.5))


@pytest.mark.parametrize("low_left", [(-100_000, -1_400_000), (-100_000, -100_000)], ids=["antimeridian", "pole"])
def test_a_domain_at_the_antimeridian_or_a_pole_is_written_and_read_back(tmp_path, low_left):
    x, y = low_left
    domain = Domain("far-south", box_grid((x, y, x + 200_000, y + 200_000), 3031, 1000.0))
    (back,) = read_domains(write_domains([domain], tmp_path / "domains.geojson"))
    assert back == domain
    assert domain.area_lonlat.is_valid
    assert domain.area_lonlat.bounds[::2] == (-180, 180)
    if low_left[1] != -100_000:  # around the pole it is a cap
        areas = [abs(Geod(ellps="WGS84").geometry_area_perimeter(part)[0]) for part in domain.area_lonlat.geoms]
        assert areas == pytest.approx([0.517 * 200_000**2] * 2, rel=0.01)


@pytest.mark.parametrize("left", [-6000, 0])
def test_a_domain_that_touches_the_antimeridian_is_one_polygon(left):
    area = Domain("a", box_grid((left, -1_500_000, left + 6000, -1_494_000), 3031, 30.0)).area_lonlat
    assert area.geom_type == "Polygon"
    assert area.bounds[2] - area.bounds[0] < 0.3


def test_the_middle_of_a_domain_across_the_antimeridian_lies_in_it():
    domain = Domain("Ross", box_grid((-4000, -1_335_000, 2000, -1_329_000), 3031, 30.0))
    assert domain.area_lonlat.geom_type == "MultiPolygon"
    assert domain.middle_lonlat.coords[0] == pytest.approx((-179.957, -77.785), abs=1e-3)
    assert "179.957° W" in domain._repr_html_()


@pytest.mark.parametrize(("there", "back"), [((179.9, 180), (179.9, 180)), ((180, 180.1), (-180, -179.9))])
def test_a_line_that_touches_the_antimeridian_stays_a_line(there, back):
    line, end = LineString([(x, -76) for x in there]), LineString([(x, -76) for x in back])
    assert cut_at_antimeridian(line).equals(end)
    assert cut_at_antimeridian(end).equals(end)


@pytest.mark.parametrize(
    ("lon", "lat", "crs"),
    [(-50, 70, "EPSG:3413"), (-60, -65, "EPSG:3031"), (15.5, 78, "EPSG:32633"), (-147, 61, "EPSG:32606")],
)
def test_a_domain_gets_the_crs_of_its_place(tmp_path, lon, lat, crs):
    drawn = gpd.GeoDataFrame({"name": ["a"]}, geometry=[box(lon, lat, lon + 0.3, lat + 0.1)], crs=4326)
    drawn.to_file(tmp_path / "drawn.geojson")
    assert read_domains(tmp_path / "drawn.geojson")[0].crs == crs


def test_a_domain_file_is_utf_8_whatever_the_machine_writes_by_default(tmp_path):
    program = """
import calfin_cloud as cc
grid = cc.box_grid((0, 0, 6000, 6000), "EPSG:3413")
cc.write_domains([cc.Domain("A", grid, "Harald Moltke Br\\u00e6")], "d.geojson")
"""
    latin = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | latin, check=True)
    assert read_domains(tmp_path / "d.geojson")[0].glacier_id == "Harald Moltke Bræ"


def test_only_named_domains_are_read_and_unknown_names_are_told(tmp_path):
    path = write_domains([a_domain("A"), a_domain("B")], tmp_path / "d.geojson")
    assert [d.name for d in read_domains(path, ["B"])] == ["B"]
    assert [d.name for d in read_domains(path, "B")] == ["B"]
    assert [d.name for d in read_domains(path, (name for name in "B"))] == ["B"]
    with pytest.raises(ValueError, match=r"no domain \['C'\]; it has \['A', 'B'\]"):
        read_domains(path, ["B", "C"])


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x" * 300, "a..b"])
def test_a_name_that_could_become_another_path_is_refused(name):
    with pytest.raises(ValueError, match="becomes part of a path"):
        a_domain(name)


def test_a_grid_in_degrees_is_refused():
    with pytest.raises(ValueError, match="projected CRS"):
        Domain("a", box_grid((-51, 70, -50, 71), 4326, 0.01))


def test_bounds_in_degrees_make_no_grid_of_one_pixel_in_metres():
    with pytest.raises(ValueError, match="`domain_from_box` takes degrees"):
        box_grid((-51, 70, -50, 71), "EPSG:3413")


@pytest.mark.parametrize("bounds", [(3e3, 0, 0, 3e3), (0, 3e3, 3e3, 0), (0, 0, float("nan"), 3e3)])
def test_bounds_in_another_order_or_without_a_number_are_refused_in_words(bounds):
    with pytest.raises(ValueError, match="bounds are left, bottom, right, top"):
        box_grid(bounds, 3413, 30.0)


def test_a_grid_whose_crs_has_no_epsg_code_is_refused_before_anything_is_mapped():
    with pytest.raises(ValueError, match="that has an EPSG code"):
        Domain("a", box_grid((0, 0, 6000, 6000), "+proj=stere +lat_0=90 +lon_0=-41 +lat_ts=71.5", 30.0))


@pytest.mark.parametrize("shape", ["POINT (0 0)", "POLYGON ((0 0, 9 0, 9 9, 0 0))", "LINESTRING EMPTY", LINES_APART])
def test_a_centreline_that_is_no_line_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="domain Store: its centreline must be one LineString"):
        Domain("Store", a_domain("Store").grid, centerline=shapely.from_wkt(shape))
    path = write_domains([a_domain("Store")], tmp_path / "d.geojson")
    path.write_text(path.read_text().replace('"centerline": null', f'"centerline": "{shape}"'))
    with pytest.raises(ValueError, match="its centreline must be one LineString"):
        read_domains(path)


def test_a_centreline_in_parts_that_meet_is_one_line(tmp_path):
    path = write_domains([a_domain("Store")], tmp_path / "d.geojson")
    parts = "MULTILINESTRING ((0 0, 5 0), (5 0, 9 0))"
    path.write_text(path.read_text().replace('"centerline": null', f'"centerline": "{parts}"'))
    assert read_domains(path)[0].centerline.equals(LineString([(0, 0), (5, 0), (9, 0)]))


@pytest.mark.parametrize("name", ["ice", "ocean"])
@pytest.mark.parametrize("shape", ["POINT (0 0)", "LINESTRING (0 0, 9 0)", "POLYGON EMPTY"])
def test_a_map_of_ice_or_ocean_that_is_no_area_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"domain Store: its {name} must be a Polygon or MultiPolygon"):
        Domain("Store", a_domain("Store").grid, **{name: shapely.from_wkt(shape)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution_m": -30.0}, "-30"),
        ({"resolution_m": "wide"}, "wide"),
        ({"bounds": [0, 0, 6000]}, "got the bounds"),
        ({"bounds": None, "geometry": None}, "got the bounds"),
        ({"bounds": None, "geometry": {"type": "Polygon", "coordinates": []}}, "got the bounds"),
        ({"termini": [{"line": "LINESTRING (0 0, 9 0)", "date": "0000-99-99"}]}, "date (as 2019-06-30)"),
        ({"termini": [1]}, "termini a list of line, date"),
        ({"termini": 1}, "termini a list of line, date"),
        ({"glacier_id": [1, 2]}, "glacier_id"),
    ],
)
def test_a_domain_that_cannot_be_read_is_named_with_its_file(tmp_path, change, words):
    content = json.loads(write_domains([a_domain("Store")], tmp_path / "d.geojson").read_text())
    (feature,) = content["features"]
    feature.update({key: value for key, value in change.items() if key == "geometry"})
    feature["properties"].update({key: value for key, value in change.items() if key != "geometry"})
    (tmp_path / "d.geojson").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"d\.geojson: .*domain '?Store") as refused:
        read_domains(tmp_path / "d.geojson")
    assert words in str(refused.value)


def test_what_one_domain_of_a_file_lacks_is_as_if_none_had_it(tmp_path):
    boxes = [box(-50, 70, -49.7, 70.1), box(-52, 71, -51.7, 71.1)]
    drawn = {"name": ["a", "b"], "resolution_m": [60.0, None], "crs": ["EPSG:3413", None], "glacier_id": [7, None]}
    gpd.GeoDataFrame(drawn, geometry=boxes, crs=4326).to_file(tmp_path / "drawn.geojson")
    a, b = read_domains(tmp_path / "drawn.geojson")
    assert (a.resolution_m, a.glacier_id, b.resolution_m, b.glacier_id) == (60.0, "7", 30.0, "")


def test_a_grid_of_a_few_pixels_is_refused():
    with pytest.raises(ValueError, match="64 to 8192 pixels"):
        Domain("a", box_grid((0, 0, 300, 300), 3413, 30.0))


def test_each_glacier_gets_one_square_domain_that_holds_all_its_termini():
    lines = [
        LineString([(0, -2e6), (4000, -2e6)]),
        LineString([(500, -2.001e6), (4500, -2.001e6)]),
        LineString([(1e5, -2e6), (1.1e5, -2e6)]),
    ]
    termini = gpd.GeoDataFrame({"Glacier_ID": [3.0, 3.0, 7.0]}, geometry=lines, crs=3413)
    first, second = domains_from_termini(termini)
    assert (first.name, second.name, first.glacier_id) == ("glacier-3", "glacier-7", "3")
    assert first.shape[0] == first.shape[1]
    assert all(first.polygon.contains(line) for line in lines[:2])
    assert second.polygon.contains(lines[2])


def test_a_terminus_whose_points_are_all_one_makes_no_domain_larger():
    lines = [LineString([(-2e5, -2e6), (-2e5, -1.995e6)]), LineString([(0, 0), (0, 0)])]
    termini = gpd.GeoDataFrame({"glacier_id": [9, 9]}, geometry=lines, crs=3413)
    assert domains_from_termini(termini) == domains_from_termini(termini[:1])


def test_termini_without_ids_or_crs_are_refused_with_a_remedy():
    lines = gpd.GeoDataFrame({"length": [1]}, geometry=[LineString([(0, 0), (1, 1)])], crs=3413)
    with pytest.raises(ValueError, match="no column with glacier ids"):
        domains_from_termini(lines)
    with pytest.raises(ValueError, match="no CRS"):
        domains_from_termini(lines.set_crs(None, allow_override=True))


def test_a_domain_file_is_counter_clockwise_and_survives_other_formats(tmp_path):
    domain = Domain("a", box_grid((0, -2e6, 6000, -1.994e6), 3413, 60.0), "7")
    path = write_domains([domain], tmp_path / "a.geojson")
    table = gpd.read_file(path)
    assert table.geometry.iloc[0].exterior.is_ccw
    for bounds in ("[0.0, -2e6, 6000, -1994000.0]", "(4:0,-2000000,6000,-1994000)", "[0. -2.000e+06 6000. -1994000.]"):
        whole = table.assign(bounds=bounds)
        for name, written in (("a.gpkg", whole), ("a.shp", whole.rename(columns=lambda column: column[:10]))):
            written.to_file(tmp_path / name)
            assert read_domains(tmp_path / name) == [domain]


def test_lines_without_an_id_are_left_out_with_a_word_and_glaciers_keep_names_apart(caplog):
    lines = [LineString([(k * 1e4, -2e6), (k * 1e4 + 4000, -2e6)]) for k in range(4)]
    made = domains_from_termini(gpd.GeoDataFrame({"GLACIER": ["a b", "a-b", "", None]}, geometry=lines, crs=3413))
    assert [(d.name, d.glacier_id) for d in made] == [("glacier-a-b", "a b"), ("glacier-a-b-2", "a-b")]
    assert "2 of 4 lines are left out: they have no glacier id in GLACIER" in caplog.text
    with pytest.raises(ValueError, match="no line has a glacier id"):
        domains_from_termini(gpd.GeoDataFrame({"glacier_id": [None] * 4}, geometry=lines, crs=3413))


def test_a_glacier_is_no_numbered_line_and_those_without_a_number_of_calfin_go_by_their_name():
    lines = [LineString([(k, -2e6), (k + 4000, -2e6)]) for k in range(2)]
    (one,) = domains_from_termini(gpd.GeoDataFrame({"ID": [1, 2], "glacier": ["x"] * 2}, geometry=lines, crs=3413))
    assert len(one.termini) == 2
    named = gpd.GeoDataFrame({"GlacierID": [0, 0, 3], "RefName": [*"AB", "C"]}, geometry=[*lines, lines[0]], crs=3413)
    assert [d.glacier_id for d in domains_from_termini(named)] == ["3", "A", "B"]


def test_real_termini_of_239_glaciers_make_239_domains(shared):
    termini = gpd.read_parquet(shared / "data/measures_termini_greenland/derived_termini_3413.parquet")
    made = domains_from_termini(termini)
    assert len(made) == 239
    by_id = {d.glacier_id: d for d in made}
    for glacier, lines in termini.groupby("Glacier_ID"):
        assert by_id[str(glacier)].polygon.contains(lines.geometry.union_all())


def test_the_fjord_mask_is_true_inside_the_boundary():
    domain = a_domain(fjord_boundary=box(-301_000, -1_901_000, -295_000, -1_887_000))
    mask = domain.fjord_mask
    assert mask.shape == domain.shape
    assert mask[:, :160].all()
    assert not mask[:, 170:].any()
    assert a_domain().fjord_mask is None


def test_a_domain_goes_to_workers_without_its_mask_which_is_made_anew_there():
    domain = a_domain(fjord_boundary=box(-299e3, -1899e3, -291e3, -1889e3))
    before, mask = len(pickle.dumps(domain)), domain.fjord_mask
    assert len(pickle.dumps(domain)) == before
    there = pickle.loads(pickle.dumps(domain))
    assert there == domain
    np.testing.assert_array_equal(there.fjord_mask, mask)


@pytest.mark.parametrize("source", ["", "fjord_boundary", "dates", "ice_mask"])
def test_a_domain_file_keeps_where_a_fjord_boundary_is_from(tmp_path, source):
    written = a_domain(fjord_boundary=box(-299e3, -1899e3, -291e3, -1889e3), fjord_source=source)
    (read,) = read_domains(write_domains([written], tmp_path / "d.geojson"))
    assert read == written
    assert read.fjord_source == (source or "fjord_boundary")


def test_a_boundary_is_drawn_unless_said_otherwise_and_no_boundary_has_no_source():
    assert a_domain(fjord_boundary=box(-299e3, -1899e3, -291e3, -1889e3)).fjord_source == "fjord_boundary"
    assert a_domain(fjord_source="dates").fjord_source == ""
    with pytest.raises(ValueError, match="fjord_source must be one of"):
        a_domain(fjord_boundary=box(-299e3, -1899e3, -291e3, -1889e3), fjord_source="guessed")


def test_each_domain_gets_the_part_of_the_fjord_polygons_inside_it():
    wide = gpd.GeoDataFrame(geometry=[box(-305e3, -1898e3, -295e3, -1890e3)], crs=3413).to_crs(4326)
    inside, outside = a_domain("A"), Domain("B", box_grid((0, -2e6, 12e3, -1.99e6), 3413, 30.0))
    got, left = with_fjord_polygons([inside, outside], wide)
    assert left is outside
    assert got.fjord_source == "fjord_boundary"
    assert got.fjord_boundary.symmetric_difference(box(-300e3, -1898e3, -295e3, -1890e3)).area < 0.001 * 40e6
    assert got.fjord_boundary.within(got.polygon.buffer(1e-6))


def test_a_fjord_polygon_that_only_touches_a_domain_is_none_of_its_own():
    touching = gpd.GeoDataFrame(geometry=[box(-310e3, -1898e3, -300e3, -1890e3)], crs=3413)
    assert with_fjord_polygons([a_domain()], touching)[0].fjord_boundary is None


def test_a_drawn_polygon_replaces_a_derived_boundary():
    derived = a_domain(fjord_boundary=box(-300e3, -1900e3, -298e3, -1888e3), fjord_source="dates")
    drawn = gpd.GeoDataFrame(geometry=[box(-299e3, -1899e3, -291e3, -1889e3)], crs=3413)
    (got,) = with_fjord_polygons([derived], drawn)
    assert got.fjord_source == "fjord_boundary"
    assert got.fjord_boundary.equals(drawn.geometry.iloc[0])


def test_fjord_polygons_without_crs_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"no CRS: assign one"):
        with_fjord_polygons([a_domain()], gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_a_fjord_mask_comes_back_from_its_outline(seed, share):
    domain = Domain("small", box_grid((0, -2e6, 64 * 30, -2e6 + 70 * 30), 3413, 30.0))
    mask = np.random.default_rng(seed).random(domain.shape) < share
    got = with_fjord_mask(domain, mask, "dates")
    assert got.fjord_source == "dates"
    assert (got.fjord_mask == mask).all()


def test_the_front_zones_of_loebel_become_the_fjords_of_their_domains(shared):
    zones = gpd.read_file(shared / "data/fjords_loebel/derived_front_polygons.geojson")
    termini = gpd.read_parquet(shared / "data/measures_termini_greenland/derived_termini_3413.parquet")
    store, lille = 9, 10  # glacier ids of Store, which has a zone, and of Lille, which has none
    made = domains_from_termini(termini[termini["Glacier_ID"].isin([store, lille])])
    first, second = sorted(with_fjord_polygons(made, zones), key=lambda d: int(d.glacier_id))
    assert (first.fjord_source, second.fjord_source) == ("fjord_boundary", "")
    zone = zones[zones["glacier"] == "store"].geometry.iloc[0]
    assert first.fjord_boundary.symmetric_difference(zone.intersection(first.polygon)).area < 1
    assert 0.05 < first.fjord_mask.mean() < 0.95


def test_a_mask_survives_the_domain_file(tmp_path):
    rows, columns = a_domain().shape
    blocks = np.random.default_rng(0).random((rows // 8 + 1, columns // 8 + 1)) > 0.4
    mask = blocks.repeat(8, axis=0).repeat(8, axis=1)[:rows, :columns]
    made = with_fjord_mask(a_domain(), mask, "dates")
    (read,) = read_domains(write_domains([made], tmp_path / "d.geojson"))
    assert np.array_equal(read.fjord_mask, mask)


def test_an_island_in_a_mask_stays_a_hole():
    mask = np.zeros(a_domain().shape, dtype=bool)
    mask[50:150, 60:200] = True
    mask[80:100, 90:120] = False
    boundary = with_fjord_mask(a_domain(), mask, "dates").fjord_boundary
    assert [len(boundary.interiors), boundary.area] == [1, mask.sum() * 900]


def test_only_domains_that_a_polygon_covers_get_its_boundary():
    inside, beside = box(-299e3, -1899e3, -298e3, -1898e3), box(a_domain().polygon.bounds[2], -1899e3, -280e3, -1898e3)
    derived = with_fjord_mask(a_domain(), np.ones(a_domain().shape, dtype=bool), "dates")
    for domain in (a_domain(), derived):
        # The second polygon shares a side with the domain, but no area.
        assert with_fjord_polygons([domain], gpd.GeoDataFrame(geometry=[beside], crs=3413)) == [domain]
        (drawn,) = with_fjord_polygons([domain], gpd.GeoDataFrame(geometry=[inside, beside], crs=3413))
        assert (drawn.fjord_source, drawn.fjord_boundary.area) == ("fjord_boundary", 1e6)


def test_several_polygons_and_their_holes_make_one_boundary():
    ring = box(-299e3, -1899e3, -295e3, -1895e3) - box(-298e3, -1898e3, -297e3, -1897e3)
    table = gpd.GeoDataFrame(geometry=[ring, box(-296e3, -1896e3, -294e3, -1894e3), None], crs=3413)
    (made,) = with_fjord_polygons([a_domain()], table)
    assert made.fjord_boundary.area == 15e6 + 4e6 - 1e6
    assert not made.fjord_boundary.contains(
        Polygon([(-297.9e3, -1897.9e3), (-297.1e3, -1897.9e3), (-297.5e3, -1897.1e3)])
    )


def test_a_polygon_that_crosses_itself_is_taken_by_its_area():
    bow = Polygon([(-299e3, -1899e3), (-295e3, -1895e3), (-295e3, -1899e3), (-299e3, -1895e3)])
    (made,) = with_fjord_polygons([a_domain()], gpd.GeoDataFrame(geometry=[bow], crs=3413))
    assert made.fjord_boundary.is_valid
    assert made.fjord_boundary.area == pytest.approx(8e6)


def test_a_mask_without_fjord_or_on_another_grid_is_refused():
    with pytest.raises(ValueError, match="fjord mask"):
        with_fjord_mask(a_domain(), np.zeros(a_domain().shape, dtype=bool), "dates")
    with pytest.raises(ValueError, match="fjord mask"):
        with_fjord_mask(a_domain(), np.ones((10, 10), dtype=bool), "dates")
