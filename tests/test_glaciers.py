"""A glacier by its name, a point or a box becomes a domain, and what is wrong with a place is said."""

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from painted import copy_sample
from pyproj import Transformer
from shapely.geometry import Point

from calfin_cloud.cli import main
from calfin_cloud.domains import box_grid, read_domains
from calfin_cloud.glaciers import (
    check_place,
    domain_from_box,
    domain_from_glacier,
    domain_from_point,
    find_glacier,
    known_termini,
    read_glaciers,
    read_termini,
)
from calfin_cloud.land import land_around, read_land, window_around


def test_the_index_has_all_glaciers_of_measures_each_with_dated_termini():
    glaciers, termini = read_glaciers(), read_termini()
    ids = glaciers.loc[glaciers["id"] != "", "id"]
    assert len(ids) == len(set(ids)) == 239
    assert set(termini["glacier_id"]) == set(ids)
    assert len(termini) == 2499
    assert termini["date"].between("2009-01-01", "2021-12-31").all()
    named = glaciers.loc[glaciers["name"] != "", "name"]
    assert not named.duplicated().any()


def test_the_place_of_each_glacier_is_among_its_termini():
    for glacier in read_glaciers().query("id != ''").itertuples():
        lon, lat = read_termini(glacier.id).to_crs(4326).geometry.union_all().centroid.coords[0]
        assert abs(lat - glacier.lat) < 0.2
        assert abs(lon - glacier.lon) * np.cos(np.radians(lat)) < 0.2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Store", "Store"),
        ("KONG oscar", "Kong-Oscar"),
        ("Sermersuaq", "Humboldt"),
        ("Zachariæ Isstrøm", "Zachariae-Isstrom"),
        ("Midgård", ""),
        ("92", "Humboldt"),
        ("no. 92", "Humboldt"),
        ("nioghalvfjerds", "Nioghalvfjerdsbrae"),
        ("Store Glacier", "Store"),
        ("Petermann Gl.", "Petermann"),
        ("Kangerlussuaq Glacier", "Kangerlussuaq"),
        ("Jakobshavn Isbræ", "Jakobshavn"),
        ("glacier", ""),
    ],
)
def test_a_glacier_is_found_by_any_of_its_names_and_by_its_number(text, name):
    if not name:
        with pytest.raises(ValueError, match="--point LON,LAT"):
            find_glacier(text)
    else:
        assert find_glacier(text).name == name


def test_a_name_of_several_glaciers_and_a_misspelt_one_are_told_with_the_near_ones():
    with pytest.raises(ValueError, match=r"3 glaciers .*Upernavik-NE \(22\)"):
        find_glacier("upernavik")
    with pytest.raises(ValueError, match=r"did you mean Jakobshavn \(3\)\?"):
        find_glacier("Jakobshaven")


def test_the_domain_of_a_glacier_holds_all_its_termini_and_nothing_is_doubted():
    domain = domain_from_glacier("Store")
    assert (domain.name, domain.glacier_id, domain.crs) == ("Store", "9", "EPSG:3413")
    assert read_termini("9").within(domain.polygon).all()
    assert set(known_termini(domain)["glacier_id"]) >= {"9"}
    assert check_place(domain) == []


def test_a_glacier_that_is_known_as_a_point_gets_a_square_in_the_crs_of_its_place():
    domain = domain_from_glacier("Crane")
    assert domain.crs == "EPSG:3031"
    assert domain.grid.boundingbox.span_x == pytest.approx(20_000, abs=60)


@settings(max_examples=25)
@example(lon=0.0, lat=85.0, size_km=5.0)  # UTM ends at 84 degrees
@given(lon=st.floats(-180, 180), lat=st.floats(-85, 85), size_km=st.floats(5, 60))
def test_a_square_around_any_point_holds_the_point_in_its_middle(lon, lat, size_km):
    domain = domain_from_point(lon, lat, size_km=size_km)
    middle = domain.polygon.centroid
    span = domain.grid.boundingbox.span_x
    assert span == pytest.approx(size_km * 1000, abs=61)
    back = shapely.transform(Point(lon, lat), lambda p: to_crs(p, domain.crs))
    assert middle.distance(back) < 62


def to_crs(points, crs):
    from pyproj import Transformer  # noqa: PLC0415

    return np.column_stack(Transformer.from_crs(4326, crs, always_xy=True).transform(*points.T))


def test_a_box_may_cross_the_antimeridian():
    domain = domain_from_box((179.5, 70.9, -179.5, 71.1), resolution_m=100)
    assert domain.grid.boundingbox.span_x < 60_000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: domain_from_point(200, 70), "longitude -180 to 180"),
        (lambda: domain_from_box((-50, 70, -49, 69)), "west, south, east, north"),
        (lambda: domain_from_point(-50, 70, size_km=1), "64 to 8192 pixels"),
        (lambda: box_grid((-51, 70, -50, 71), "EPSG:4326"), "a projected CRS in metres"),
    ],
)
def test_what_is_no_place_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_place_where_no_front_can_be_mapped_is_doubted():
    assert "land and ice only" in check_place(domain_from_point(-45, 75))[0]
    assert "sea only" in check_place(domain_from_point(-57, 66))[0]
    (cut,) = check_place(domain_from_point(-49.68, 69.18, size_km=6))
    assert cut.startswith("13 of 13 known termini leave the box")
    assert "EPSG:3413 is made for this place" in check_place(domain_from_point(-50.6, 70.38, crs="EPSG:3857"))[-1]
    assert "pixels a side" in check_place(domain_from_point(-50.6, 70.38, size_km=80))[-1]


def test_a_point_with_its_latitude_first_is_doubted_where_there_is_land_too():
    (doubt,) = check_place(domain_from_point(69.18, -49.68))  # Kerguelen, in place of Jakobshavn
    assert "at longitude -49.68, latitude 69.18: a place is given with its longitude first" in doubt
    assert check_place(domain_from_point(-49.68, 69.18)) == []
    assert not any("longitude first" in doubt for doubt in check_place(domain_from_point(-45, 75)))


@pytest.mark.parametrize(
    ("lon", "lat", "crs", "kinds"),
    [
        (-45, 75, "EPSG:3413", {"land"}),
        (-62.2, -65.3, "EPSG:3031", {"ice"}),
        (-147, 61.05, "EPSG:32606", {"land"}),
        (170, 65, "EPSG:32659", {"land"}),  # Chukotka, which crosses the antimeridian
        (-57, 66, "EPSG:3413", set()),  # Davis Strait
        (-15, 72, "EPSG:3413", set()),  # Greenland Sea
    ],
)
def test_land_is_where_land_is(lon, lat, crs, kinds):
    domain = domain_from_point(lon, lat, crs=crs)
    found = read_land(domain.grid.boundingbox.bbox, domain.crs)
    share = {kind: sum(p.area for p in shapes) / domain.polygon.area for kind, shapes in found.items()}
    assert {kind for kind, part in share.items() if part > 0.3} == kinds


def test_the_south_pole_lies_on_ice_and_a_tall_store_shows_land_as_far_as_a_wide_screen_does():
    (pole,) = land_around((-9000, -9000, 9000, 9000), "EPSG:3031")["ice"]
    assert len(pole[0]) == 2 * 5, "a square of ice"
    left, right = -75_000, 390_000
    tall = land_around((left, -1_650_000, right, 2_200_000), "EPSG:3031")["ice"]
    xs = np.concatenate([np.cumsum(rings[0][::2]) for rings in tall])
    assert right + 2_000_000 < xs.max() < 2_800_000, "the coast of East Antarctica"


@pytest.mark.parametrize(
    ("crs", "half_m", "lon", "lat"),
    [
        ("EPSG:3413", 2_700_000, -95, 40),  # North America, of which the map of the Arctic shows more than the north
        ("EPSG:3413", 2_700_000, 60, 42),
        ("EPSG:3031", 2_700_000, -65, -36),  # Argentina, and Australia, beside Antarctica
        ("EPSG:3031", 2_700_000, 145, -37),
        ("EPSG:32718", 1_000_000, -70, -36),  # Patagonia
    ],
)
def test_land_goes_on_to_the_end_of_the_map_of_a_continent(crs, half_m, lon, lat):
    middle = (0, 0) if crs != "EPSG:32718" else (500_000, 4_500_000)
    window = window_around((middle[0] - half_m, middle[1] - half_m, middle[0] + half_m, middle[1] + half_m))
    place = shapely.Point(Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat))
    assert shapely.box(*window).contains(place), "else the map does not show it"
    assert any(shape.contains(place) for shape in read_land(window, crs)["land"])


def test_land_lies_on_both_sides_of_the_antimeridian():
    window = (0, 7_000_000, 800_000, 7_500_000)  # Chukotka, from the zone to the east of it
    to_map = Transformer.from_crs(4326, 32601, always_xy=True)
    shapes = read_land(window, "EPSG:32601")["land"]
    for lon in (178, -175):
        place = shapely.Point(to_map.transform(lon, 66.5))
        assert any(shape.contains(place) for shape in shapes), lon


def test_the_verb_makes_domains_by_name_point_and_box(tmp_path, capsys):
    out = tmp_path / "domains.geojson"
    assert main(["domains", "--glacier", "Store", "crane", "--out", str(out)]) == 0
    assert [d.name for d in read_domains(out)] == ["Store", "Crane"]
    assert f"2 domains (Store, Crane): {out}" in capsys.readouterr().out  # part of a name may mean another glacier
    assert main(["domains", "--point", "-49.7,69.2", "--size-km", "30", "--name", "mine", "--out", str(out)]) == 0
    assert read_domains(out)[0].shape == (1000, 1000)
    assert main(["domains", "--bbox", "-50.5,69.0,-49.3,69.3", "--out", str(out)]) == 0
    assert "1 domain (69.00N-50.50W): " in capsys.readouterr().out
    assert main(["domains", "--point", "5", "--out", str(out)]) == 2
    assert "takes 2 numbers" in capsys.readouterr().err
    assert main(["domains", "--list"]) == 0
    assert "Nioghalvfjerdsbrae" in capsys.readouterr().out


def test_a_preview_shows_box_termini_doubts_and_the_newest_clear_scene(tmp_path, capsys):
    catalog = copy_sample(tmp_path / "scenes", 4)
    (domain,) = read_domains(tmp_path / "scenes" / "domains.geojson")
    lon, lat = domain.area_lonlat.centroid.coords[0]
    page = tmp_path / "page.html"
    point = ["domains", "--point", f"{lon},{lat}", "--size-km", "8", "--out", str(tmp_path / "d.geojson")]
    assert main([*point, "--preview", str(page), "--catalog", str(catalog), "--period", "1984/2024"]) == 0
    html = page.read_text()
    assert "data:image/png;base64," in html
    assert "land and ice only" in html
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "")
    assert main(["domains", "--glacier", "Store", "9", "--out", str(tmp_path / "d.geojson")]) == 2
    assert "must be unique" in capsys.readouterr().err
    assert main(["domains", "--glacier", "Store", "--out", str(tmp_path / "d.geojson"), "--preview", str(page)]) == 0
    assert "13 lines" in page.read_text()
