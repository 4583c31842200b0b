"""Fronts of other products are recognised by their columns, or named by the caller."""

import geopandas as gpd
import pytest
from shapely.geometry import LineString

from calfin_cloud.products import PRODUCT_COLUMNS, product_of, read_product
from calfin_cloud.vectors import read_vectors

LINE = LineString([(0, 0), (100, 50)])
PIECE = LineString([(0, 0), (5, 5)])


def table(crs=3413, **columns):
    return gpd.GeoDataFrame({name: [value] for name, value in columns.items()}, geometry=[LINE], crs=crs)


LAYOUTS = {
    "calfin": {
        "GlacierID": 3,
        "Date": "2015-07-01",
        "Satellite": "LC08",
        "ImageID": "LC08_X",
        "QualFlag": 10,
        "Author": "Cheng_D",
    },
    "termpicks": {
        "GlacierID": 3,
        "Date": "2015-07-01",
        "Satellite": "LC08",
        "ImageID": "LC08_X",
        "QualFlag": 0,
        "Author": "Cheng_D",
    },
    "measures": {"Glacier_ID": 3, "SourceDate": "2015-07-01", "Sensor": "LC08", "Image_ID": "LC08_X", "Quality_Fl": 1},
    "store": {"glacier_id": "3", "datetime": "2015-07-01T10:00:00Z", "platform": "LC08", "scene_id": "LC08_X"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_columns_of_known_products_are_recognised(layout):
    product = product_of(table(**LAYOUTS[layout]))
    first = product.iloc[0]
    assert (first["glacier_id"], first["sensor"], first["scene_id"]) == ("3", "LC08", "LC08_X")
    assert first["datetime"].strftime("%Y-%m-%d") == "2015-07-01"
    assert first["key"] == "3/LC08_X" + ("/Cheng_D" if "Author" in LAYOUTS[layout] else "")
    assert list(product.columns) == [*PRODUCT_COLUMNS, "geometry"]


@pytest.mark.parametrize(
    ("columns", "day"),
    [({}, "1999-08-15"), ({"Month": 3}, "1999-03-15"), ({"MONTH": "3", "day": 2.0}, "1999-03-02")],
)
def test_years_have_the_month_and_day_of_their_columns_or_the_middle_of_august(columns, day):
    product = product_of(table(Year=1999, name="X", **columns))
    assert product["datetime"].dt.strftime("%Y-%m-%d").tolist() == [day]
    with pytest.raises(ValueError, match="1 of 1 fronts have no date"):
        product_of(table(Year=1999, Month=None, Day=1))


@pytest.mark.parametrize("column", ["Date", "DecDate"])
def test_decimal_years_are_dates_and_one_that_is_missing_is_counted(column):
    years = gpd.GeoDataFrame({column: [2019.5, 2020.0]}, geometry=[LINE] * 2, crs=3413)
    assert product_of(years)["datetime"].dt.strftime("%Y-%m-%dT%H").tolist() == ["2019-07-02T12", "2020-01-01T00"]
    assert product_of(years.astype({column: str})).equals(product_of(years))
    with pytest.raises(ValueError, match="1 of 2 fronts have no date"):
        product_of(years.assign(**{column: [2019.5, None]}))


@pytest.mark.parametrize("years", [[2019, 2020], [2019.0, 2020.0], ["2019", "2020"], ["2019-07-04", "2020"]])
def test_years_without_a_day_are_no_first_of_january(years):
    with pytest.raises(ValueError, match=r"years without a day, got 20.*call the column Year"):
        product_of(gpd.GeoDataFrame({"when": years}, geometry=[LINE] * 2, crs=3413), {"datetime": "when"})


@pytest.mark.parametrize("month", ["2020-02", "2020/02", "2020-2"])
def test_months_without_a_day_are_no_first_of_the_month(month):
    with pytest.raises(ValueError, match=f"column Date has months without a day, got '{month}'.*such as 2019-07-15"):
        product_of(gpd.GeoDataFrame({"Date": ["2019-07-04", month]}, geometry=[LINE] * 2, crs=3413))


@pytest.mark.parametrize(
    "columns", [{"DecDate": "2019,5"}, {"scene_id": "LC08_20190230"}, {"Year": 2019, "Month": 2, "Day": 30}]
)
def test_a_column_that_holds_no_date_is_named(columns):
    with pytest.raises(ValueError, match=f"column {next(iter(columns))} cannot be read, got '.*expected"):
        product_of(table(**columns))


@pytest.mark.parametrize("days", [[20190704, 20200101], ["20190704", "20200101"], ["2019-07-04", "2020-01-01T00:00"]])
def test_days_are_read_with_and_without_hyphens(days):
    product = product_of(gpd.GeoDataFrame({"Date": days}, geometry=[LINE] * 2, crs=3413))
    assert product["datetime"].dt.strftime("%Y-%m-%d").tolist() == ["2019-07-04", "2020-01-01"]


def test_other_columns_are_named_by_the_caller():
    product = product_of(table(when="2001-02-03", who="me"), {"datetime": "when", "author": "who"})
    assert product.iloc[0]["author"] == "me"
    with pytest.raises(ValueError, match="no column"):
        product_of(table(when="2001-02-03"), {"datetime": "then"})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (table(crs=None, Date="2015-01-01"), "no CRS"),
        (table(x=1), "no date"),
        (table(Date="July"), "got 'July': expected ISO dates"),
    ],
)
def test_a_file_that_cannot_be_understood_says_what_is_missing(wrong, words):
    with pytest.raises(ValueError, match=words):
        product_of(wrong)


def test_two_who_drew_the_same_scene_drew_two_fronts_and_pieces_by_one_are_one():
    columns = {"GlacierID": [3.0] * 3, "Date": ["2015-07-01"] * 3, "ImageID": ["X"] * 3, "Author": ["A", "B", "A"]}
    product = product_of(gpd.GeoDataFrame(columns, geometry=[LINE, LINE, PIECE], crs=3413))
    assert product["key"].tolist() == ["3/X/A", "3/X/B", "3/X/A"]


@pytest.mark.parametrize("columns", [{"GlacierID": [3.0] * 3}, {}, {"key": ["a", "a", "a"]}])
def test_a_line_that_stands_twice_in_a_table_counts_once(columns):
    rows = gpd.GeoDataFrame({"Date": ["2015-07-01"] * 3} | columns, geometry=[LINE, PIECE, LINE], crs=3413)
    assert product_of(rows).geometry.tolist() == [LINE, PIECE]
    drawn_by = product_of(rows.drop(columns="key", errors="ignore").assign(Author=["A", "A", "B"]))
    assert drawn_by["author"].tolist() == ["A", "A", "B"]


@pytest.mark.parametrize(
    "tell", [{"Satellite": ["LC08", "LC08", "S1A"]}, {"Date": ["2015-07-01T10:00"] * 2 + ["2015-07-01T17:00"]}]
)
def test_fronts_of_one_day_are_told_apart_by_satellite_and_time_where_scenes_have_no_names(tell):
    columns = {"GlacierID": [3] * 3, "Date": ["2015-07-01"] * 3} | tell
    keys = product_of(gpd.GeoDataFrame(columns, geometry=[LINE, PIECE, LINE], crs=3413))["key"]
    assert keys[0] == keys[1] != keys[2]


def test_lines_of_one_scene_whose_glaciers_nobody_knows_are_not_one_front():
    product = product_of(gpd.GeoDataFrame({"src": ["20200405_30m.tif"] * 2}, geometry=[LINE] * 2, crs=3413))
    assert product["key"].is_unique


def test_case_and_underscores_of_columns_do_not_matter_and_zero_is_no_glacier_of_calfin():
    product = product_of(table(GLACIERID=0, DATE_="2015-07-01", REFNAME="Store", SATELLITE="LC08"))
    assert product[["glacier_id", "sensor"]].iloc[0].tolist() == ["Store", "LC08"]


@pytest.mark.parametrize(
    ("ids", "glaciers"),
    [
        ([4, 4, 7], ["4", "4", "7"]),  # as `calfin domains` takes them
        ([0, 1, 2], ["", "", ""]),  # numbers of the lines
        (["a", "b", "b"], ["", "", ""]),  # the second and third are parts of one front
    ],
)
def test_a_column_id_is_of_glaciers_where_one_has_several_dates(ids, glaciers):
    days = ["2015-07-01", "2016-07-01", "2016-07-01"]
    lines = gpd.GeoDataFrame({"id": ids, "date": days}, geometry=[LINE, LINE, PIECE], crs=3413)
    assert product_of(lines)["glacier_id"].tolist() == glaciers
    assert product_of(lines.assign(name="X"))["glacier_id"].tolist() == ["X"] * 3


@pytest.mark.parametrize("platform", ["LANDSAT_8", "landsat-8", "Landsat 8", "LC08"])
def test_a_satellite_has_one_name_whatever_the_product_calls_it(platform):
    assert product_of(table(Date="2015-07-01", platform=platform)).iloc[0]["sensor"] == "LC08"


def test_heights_of_lines_are_left_out(tmp_path):
    high = table(Date="2015-07-01").assign(geometry=[LineString([(0, 0, 7), (100, 50, 7)])])
    high.to_file(tmp_path / "z.gpkg")
    assert product_of(high).geometry.iloc[0].equals_exact(LINE, 0)
    assert not read_vectors(tmp_path / "z.gpkg").has_z.any()


def test_polygons_are_no_fronts():
    areas = table(Date="2015-07-01").assign(geometry=[LINE.buffer(10)])
    with pytest.raises(ValueError, match="must hold lines alone, got Polygon"):
        product_of(areas)


def test_a_front_without_a_date_among_others_is_refused_with_the_count():
    dates = {"Date": ["2015-07-01", None]}
    with pytest.raises(ValueError, match="1 of 2 fronts have no date"):
        product_of(gpd.GeoDataFrame(dates, geometry=[LINE] * 2, crs=3413))


def test_rows_without_a_line_are_left_out_and_files_of_any_format_are_read(tmp_path):
    whole = table(GlacierID=3, Date="2015-07-01")
    whole.to_file(tmp_path / "a.shp")
    assert len(read_product(tmp_path / "a.shp")) == 1
    nowhere = [None, LineString(), LineString([(5, 5), (5, 5)])]
    both = gpd.GeoDataFrame({"GlacierID": 3, "Date": "2015-07-01"}, index=range(4), geometry=[LINE, *nowhere], crs=3413)
    both.to_parquet(tmp_path / "b.parquet")
    assert len(read_product(tmp_path / "b.parquet")) == 1


def test_a_key_is_of_one_front_and_where_it_is_missing_one_is_made():
    dates = {"GlacierID": [3, 3], "Date": ["2015-07-01", "2016-07-01"]}
    made = product_of(gpd.GeoDataFrame(dates | {"key": [None, "x"]}, geometry=[LINE] * 2, crs=3413))
    assert made["key"].tolist() == ["3/2015-07-01", "x"]
    with pytest.raises(ValueError, match="several dates have the key '7'"):
        product_of(gpd.GeoDataFrame(dates | {"key": [7, 7]}, geometry=[LINE] * 2, crs=3413))


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1"])
def test_names_in_a_shapefile_that_tells_no_encoding_are_read_in_utf_8_or_latin_1(tmp_path, encoding):
    table(Date="2015-07-01", name="Harald Moltke Bræ").to_file(tmp_path / "a.shp", encoding=encoding)
    (tmp_path / "a.cpg").unlink()
    assert read_product(tmp_path / "a.shp")["glacier_id"].tolist() == ["Harald Moltke Bræ"]


def test_of_several_layers_the_first_is_read_with_a_word_or_the_one_that_is_named(tmp_path, caplog):
    for year in (2019, 2020):
        table(Date=f"{year}-07-01").to_file(tmp_path / "a.gpkg", layer=f"fronts_{year}")
    assert read_product(tmp_path / "a.gpkg")["datetime"].dt.year.tolist() == [2019]
    assert "'fronts_2020'; name another as FILE|layername=LAYER" in caplog.text
    caplog.clear()
    assert read_product(f"{tmp_path / 'a.gpkg'}|layername=fronts_2020")["datetime"].dt.year.tolist() == [2020]
    assert not caplog.text
    with pytest.raises(ValueError, match="Layer 'x' could not be opened"):
        read_product(f"{tmp_path / 'a.gpkg'}|layername=x")


def test_the_winter_lines_of_all_greenland_glaciers_are_read(shared):
    termini = read_product(shared / "data" / "measures_termini_greenland" / "derived_termini_3413.parquet")
    assert len(termini) == 2499
    assert termini["glacier_id"].nunique() == 239
