"""Known termini and maps of a domain: read from any product, kept in its file, found by date."""

from datetime import date

import geopandas as gpd
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiLineString, Polygon, box

from calfin_cloud.domains import Domain, box_grid, domains_from_termini, read_domains, write_domains
from calfin_cloud.surroundings import with_maps, with_termini
from calfin_cloud.termini import Terminus, nearest_in_time, termini_of, years_between

DAYS = st.dates(date(1972, 1, 1), date(2030, 12, 31))


def line(y=0.0, x=0.0):
    return LineString([(x, y), (x + 3000.0, y)])


def a_domain(**more):
    return Domain("Store", box_grid((-3000, -6000, 6000, 3000), 3413, 30.0), "9", **more)


def table(**columns):
    n = len(next(iter(columns.values())))
    return gpd.GeoDataFrame(columns, geometry=[line(100.0 * i) for i in range(n)], crs=3413)


def test_termini_survive_a_domain_file_with_dates_sources_and_maps(tmp_path):
    known = (Terminus(line(), date(2009, 2, 1), "RAD1_x"), Terminus(line(50.123456), None, ""))
    written = [a_domain(termini=known, ice=box(0, 0, 900, 900), ocean=box(-900, 0, -10, 900)), a_domain_of("bare")]
    assert read_domains(write_domains(written, tmp_path / "d.geojson")) == written


def a_domain_of(name):
    return Domain(name, box_grid((0, 0, 3000, 3000), 3413, 30.0))


def test_a_file_without_termini_says_nothing_of_them(tmp_path):
    text = write_domains([a_domain()], tmp_path / "d.geojson").read_text()
    assert not any(word in text for word in ("termini", '"ice"', "ocean"))


def test_domains_keep_the_termini_they_were_made_from():
    lines = table(Glacier_ID=[9, 9, 7], SourceDate=["2010-03-31", "2009-02-01", "2009-01-25"], Image_ID=["b", "a", "c"])
    seven, nine = domains_from_termini(lines, crs="EPSG:3413")
    assert [(t.date, t.source) for t in nine.termini] == [(date(2009, 2, 1), "a"), (date(2010, 3, 31), "b")]
    assert len(seven.termini) == 1
    assert all(nine.polygon.contains(t.line) for t in nine.termini)


def test_parts_of_a_terminus_are_tributaries_and_undated_lines_come_last():
    both = MultiLineString([line(), line(x=5000.0)])
    made = termini_of(gpd.GeoDataFrame({"date": ["", "2015-01-01"]}, geometry=[line(9.0), both], crs=3413), "EPSG:3413")
    assert [t.date for t in made] == [date(2015, 1, 1), date(2015, 1, 1), None]


def test_termini_are_brought_to_the_crs_of_the_domain():
    (made,) = termini_of(table(date=["2015-01-01"]).to_crs(4326), "EPSG:3413", source="drawn")
    assert made.line.hausdorff_distance(line()) < 0.1
    assert made.source == "drawn"


def test_a_terminus_needs_a_length():
    with pytest.raises(ValueError, match="line of some length"):
        Terminus(LineString([(0, 0), (0, 0)]))


@given(st.lists(DAYS, min_size=1, max_size=6), DAYS)
def test_the_nearest_date_gives_all_its_lines(days, when):
    termini = tuple(Terminus(line(float(i)), day) for i, day in enumerate(days))
    nearest = nearest_in_time(termini, when)
    gap = abs((nearest[0].date - when).days)
    assert gap == min(abs((day - when).days) for day in days)
    assert len(nearest) == days.count(nearest[0].date)


def test_undated_termini_serve_where_none_has_a_date_and_may_be_of_any_age():
    undated = (Terminus(line()), Terminus(line(60.0)))
    assert nearest_in_time(undated, date(2020, 1, 1)) == undated
    assert years_between(undated[0], date(2020, 1, 1)) == float("inf")
    assert nearest_in_time((), date(2020, 1, 1)) == ()


def test_fronts_of_a_store_become_termini_once():
    fronts = table(domain=["Store", "Store", "Rink"], datetime=pd.to_datetime(["2019-01-01"] * 3, utc=True))
    fronts.loc[1, "geometry"] = None
    (once,) = with_termini([a_domain()], fronts)
    assert [t.date for t in once.termini] == [date(2019, 1, 1)]
    assert with_termini([once], fronts) == [once]


def test_fronts_without_a_crs_or_a_glacier_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="assign one"):
        with_termini([a_domain()], table(domain=["Store"]).set_crs(None, allow_override=True))
    with pytest.raises(ValueError, match="glacier ids"):
        with_termini([a_domain()], table(when=["2019-01-01"]))


def test_maps_of_ice_lose_their_holes_and_end_at_the_domain():
    ring = Polygon([(-9e4, -9e4), (9e4, -9e4), (9e4, 9e4), (-9e4, 9e4)], [[(-8e4, -8e4), (8e4, -8e4), (8e4, 8e4)]])
    (with_ice,) = with_maps([a_domain()], ice=gpd.GeoDataFrame(geometry=[ring], crs=3413))
    assert with_ice.ice.equals(with_ice.polygon)
    assert with_ice.ocean is None


def test_closed_coastlines_leave_the_ocean_around_them():
    island = LineString(box(-1000, -1000, 1000, 1000).exterior.coords)
    domain = a_domain()
    (with_sea,) = with_maps([domain], ocean=gpd.GeoDataFrame(geometry=[island], crs=3413))
    assert with_sea.ocean.area == pytest.approx(domain.polygon.area - 4e6, rel=1e-6)


def test_a_map_that_does_not_touch_a_domain_changes_nothing():
    far = gpd.GeoDataFrame(geometry=[box(5e5, 5e5, 6e5, 6e5)], crs=3413)
    assert with_maps([a_domain()], ice=far, ocean=far) == [a_domain()]


@pytest.mark.parametrize(
    ("columns", "day"),
    [
        ({"Date": 2019.5}, "2019-07-02"),
        ({"decimal_year": 2019.5}, "2019-07-02"),
        ({"DATE_": " 2019-07-04 "}, "2019-07-04"),
        ({"src": "20190704_30m.tif"}, "2019-07-04"),
        ({"Year": 2019}, "2019-08-15"),
    ],
)
def test_termini_are_dated_as_fronts_of_other_products_are(columns, day):
    table = gpd.GeoDataFrame({k: [v] for k, v in columns.items()}, geometry=[LineString([(0, 0), (9, 9)])], crs=3413)
    assert [str(t.date) for t in termini_of(table, "EPSG:3413")] == [day]


@pytest.mark.parametrize(("date", "told"), [("30.06.2019", "got '30.06.2019'"), (2019, "years without a day")])
def test_a_date_of_a_terminus_that_cannot_be_read_is_not_lost(date, told):
    table = gpd.GeoDataFrame({"Date": [date]}, geometry=[LineString([(0, 0), (9, 9)])], crs=3413)
    with pytest.raises(ValueError, match=told):
        termini_of(table, "EPSG:3413")
