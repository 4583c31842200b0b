"""From fronts to tables and pictures in one call, on real series and on a store."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
from pyproj import Geod
from shapely.affinity import translate
from shapely.geometry import LineString, MultiPolygon, box, mapping, shape
from storing import DOMAIN, LINE, PLACES, contents, item, new_store, polygon_rows, rejected_rows, rows

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.glaciers import read_termini
from calfin_cloud.pipeline import summarise_scenes
from calfin_cloud.products import product_of, read_product
from calfin_cloud.results import (
    Lines,
    apply_verdicts,
    compare_products,
    lineage_of,
    measure_series,
    read_lines,
    reporting,
    reviewed_fronts,
    store_product,
    summarise_pairs,
    usable_fronts,
)
from calfin_cloud.results.series import rate_words


def fronts_of(glaciers):
    rows = [
        {
            "glacier_id": glacier,
            "Date": f"20{10 + year}-07-01",
            "geometry": LineString([(x - 50.0 * year, 0), (x - 50.0 * year, 500)]),
        }
        for glacier, x in glaciers.items()
        for year in range(5)
    ]
    return product_of(gpd.GeoDataFrame(rows, crs="EPSG:3413"))


def test_a_glacier_that_cannot_be_measured_keeps_its_rows_and_says_why():
    fronts = fronts_of({"known": 1000, "unknown": 90_000})
    series = measure_series(fronts, Lines(ice={"known": box(-9000, -9000, 800, 9000)}))
    by_glacier = series.positions.groupby("glacier_id")["reason"].unique()
    assert by_glacier["known"].tolist() == [""]
    assert by_glacier["unknown"].tolist() == ["no_seaward"]
    assert series.positions["key"].nunique() == len(fronts)


def test_the_rate_of_a_retreat_of_fifty_metres_a_year_is_measured_on_the_ground():
    series = measure_series(fronts_of({"g": 1000}), Lines(ice={"g": box(-9000, -9000, 800, 9000)}))
    scale = 1 / 0.9684  # near the pole the map of 70 degrees north shows lengths too short
    assert series.rates["rate_m_a"].to_numpy() == pytest.approx(np.full(2, -50 * scale), rel=5e-3)


@pytest.mark.parametrize("upstream", [900, 5000, 60_000])
@pytest.mark.parametrize("turned", [False, True], ids=["given", "turned"])
def test_a_centreline_runs_from_ice_to_sea_however_far_upstream_it_starts(upstream, turned):
    line = LineString([(-upstream, 250), (4000, 250)])
    lines = Lines(centerlines={"g": {"center": line.reverse() if turned else line}}, ice={"g": box(-1000, 0, 800, 500)})
    rate = measure_series(fronts_of({"g": 1000}), lines).rates.set_index("branch")["rate_m_a"]
    assert rate["center"] == pytest.approx(rate["box"], rel=1e-3)


def test_centrelines_belong_to_the_glacier_of_their_id_or_to_all_and_none_is_lost(tmp_path):
    line = LineString([(-5000, 250), (5000, 250)])
    fronts = fronts_of({"3": 1000, "4": 1000})
    columns = {"GlacierID": [3, 3, None], "BranchName": ["N", None, None]}
    gpd.GeoDataFrame(columns, geometry=[line] * 3, crs=3413).to_file(tmp_path / "lines.gpkg")
    found = read_lines(None, fronts, centerlines=str(tmp_path / "lines.gpkg")).centerlines
    assert {glacier: sorted(named) for glacier, named in found.items()} == {
        "3": ["N", "center", "center-2"],
        "4": ["center"],
    }


def test_a_front_that_leaves_the_fjord_of_its_glacier_is_flagged():
    fronts = fronts_of({"g": 1000})
    lines = Lines(ice={"g": box(-9000, -9000, 800, 9000)}, fjords={"g": box(0, 0, 960, 500)})
    flags = measure_series(fronts, lines).flags
    assert flags["flag"].tolist() == ["outside_fjord"]
    assert flags["key"].tolist() == [fronts["key"][0]]


def outlier_store(kind, request, *, last="2020-09-21"):
    """Twelve fronts of one glacier in a year, the sixth far ahead of its neighbours; `last` is the date of the last."""
    store = new_store(kind, request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, DOMAIN)
    scenes = [f"s{i}" for i in range(12)]
    places = [900.0 if i == 5 else 2000.0 + 10 * i for i in range(12)]
    dates = pd.date_range("2020-01-01", periods=11, freq="24D", tz="UTC").as_unit("us")
    dates = dates.append(pd.DatetimeIndex(np.array([last], "datetime64[us]")).tz_localize("UTC"))
    fronts = rows(*scenes, line=LINE).assign(datetime=dates, sigma_m=10.0, score=0.8)
    fronts["geometry"] = [LineString([(x, 100), (x, 2300)]) for x in places]
    ice = MultiPolygon([box(2200, 0, 3000, 2400)])
    polygons = polygon_rows(*scenes, kind="ice", polygon=ice).assign(datetime=dates)
    tables = storage.Tables(fronts, rejected_rows(), polygons)
    more = {"type": "Feature", "stac_version": "1.1.0", "geometry": None, "assets": {}}
    items = {f"Store/{s}": item(s) | more for s in scenes}
    storage.write_batch(store, tables, items, recipe={"masks": "a", "fronts": "b"})
    return store


def test_a_scene_that_a_store_has_with_a_date_that_nothing_can_tell_is_left_out_by_name(request, tmp_path, caplog):
    store = outlier_store("disk", request, last="9999-12-31")
    formats = ["--format", "calfin", "termpicks", "gpkg", "issm", "levelset", "icemask", "stac"]
    for verb, *more in (["report"], ["timeseries"], ["composite"], ["export", *formats]):
        assert main([verb, store, "--out", str(tmp_path / verb), *more]) == 0
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert told == [f"{store}: scenes whose dates are not of the years 1900 to 2149 are left out: Store/s11"]
    positions = pd.read_csv(tmp_path / "timeseries" / "positions.csv")
    assert positions["key"].nunique() == 11
    assert len(gpd.read_file(tmp_path / "export" / "gpkg" / "calfin_cloud.gpkg", layer="polygons")) == 11
    assert len(storage.read_fronts(store)) == 12, "the store keeps it"
    as_run = storage.read_fronts(store).astype({"datetime": object})  # as `map`, `retrace` and `retry` have them
    scenes = summarise_scenes(as_run)
    assert scenes["datetime"].tolist()[-1] == "9999-12-31"


def test_a_scene_at_the_antimeridian_is_exported_on_either_side_of_it_and_not_around_the_globe(request, tmp_path):
    store = new_store("disk", request)
    ross = Domain("Store", box_grid((-100_000, -1_400_000, 100_000, -1_200_000), 3031, 1000.0))
    storage.open_store(store, crs=ross.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, ross)
    across = LineString([(-90_000, -1_300_000), (90_000, -1_300_000)])
    parts = [rows("s0"), rows("s1", line=LINE).assign(geometry=[across])]
    fronts = pd.concat([part.set_crs(3031, allow_override=True) for part in parts], ignore_index=True)
    polygons = polygon_rows("s0", "s1").set_crs(3031, allow_override=True)
    more = {"type": "Feature", "stac_version": "1.1.0", "geometry": None, "assets": {}}
    items = {f"Store/{name}": item(name) | more for name in ("s0", "s1")}
    tables = storage.Tables(fronts, rejected_rows().set_crs(3031, allow_override=True), polygons)
    storage.write_batch(store, tables, items, recipe={"masks": "a", "fronts": "b"})
    assert main(["export", store, "--out", str(tmp_path / "out"), "--format", "stac"]) == 0
    collection = pystac.Collection.from_file(str(tmp_path / "out" / "stac" / "collection.json"))
    told = list(collection.get_items(recursive=True))
    assert len(told) == 2
    for geometry in (shape(scene.geometry) for scene in told):
        west, east = sorted(geometry.geoms, key=lambda part: part.bounds[0])
        assert west.bounds[2] < -170
        assert east.bounds[0] > 170


def test_a_glacier_of_two_domains_has_the_ice_the_centrelines_and_the_fjord_of_both(request):
    store = new_store("disk", request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    line, fjord, ice = LineString([(0, 0), (3000, 0)]), box(0, 0, 900, 900), MultiPolygon([box(0, 0, 90, 90)])
    domains = [replace(DOMAIN, fjord_boundary=fjord, centerline=line)]
    domains += [replace(DOMAIN, name="Next", grid=box_grid((9000, 0, 12_000, 2400), 3413, 30.0), centerline=line)]
    for shift, domain in zip((0, 9000), domains, strict=True):
        storage.keep_domain(store, domain)
        scene = f"s{shift}"
        its = {"key": f"{domain.name}/{scene}", "domain": domain.name}
        polygons = polygon_rows(scene, kind="ice", polygon=translate(ice, shift)).assign(**its)
        tables = storage.Tables(rows(scene, line=LINE).assign(**its), rejected_rows(), polygons)
        storage.write_batch(store, tables, {its["key"]: item(scene)}, recipe={"masks": "a", "fronts": "b"})
    fronts, lines = store_product(store)
    assert fronts["glacier_id"].tolist() == ["9", "9"]
    assert sorted(lines.centerlines["9"]) == ["center", "center-2"]
    assert lines.ice["9"].bounds == (0, 0, 9090, 90)
    assert lines.fjords["9"].bounds == (0, 0, 12_000, 2400)  # all of the domain whose boundary nobody drew


@pytest.mark.parametrize("kind", PLACES)
def test_flags_of_a_series_are_kept_with_the_store_and_its_fronts_stay_as_they_are(kind, request, tmp_path, capsys):
    store = outlier_store(kind, request)
    before = contents(store)
    assert main(["timeseries", store, "--out", str(tmp_path / "series")]) == 0
    after = contents(store)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {"flags/Store.json"}
    told = usable_fronts(store).set_index("scene_id")
    assert told.loc[told["flags"] != "", "flags"].to_dict() == {"s5": "outlier"}
    assert "m from its neighbours" in told.loc["s5", "flag_details"]
    assert (told.loc["s5", "score"], told.loc["s4", "score"]) == (0.2, 0.8)
    assert main(["timeseries", store, "--out", str(tmp_path / "again")]) == 0
    assert "the store has these flags already" in capsys.readouterr().out
    assert contents(store) == after
    assert (tmp_path / "again" / "fronts.parquet").read_bytes() == (tmp_path / "series" / "fronts.parquet").read_bytes()


def test_boxes_are_written_with_their_crs_and_read_as_an_earlier_version_wrote_them_too(request, tmp_path, capsys):
    store = outlier_store("disk", request)
    call = ["timeseries", store, "--out", str(tmp_path)]
    assert main(call) == 0
    gates, positions = gpd.read_file(tmp_path / "gates.gpkg"), (tmp_path / "positions.csv").read_bytes()
    assert gates.crs.to_epsg() == 3413
    gates.to_file(tmp_path / "gates.geojson")
    (tmp_path / "gates.gpkg").unlink()
    for name in ("gates.geojson", "gates.gpkg"):
        assert main(call) == 0
        assert f"boxes of the run before are used: {tmp_path / name}" in capsys.readouterr().err
        assert (tmp_path / "positions.csv").read_bytes() == positions


def test_a_flag_and_its_reason_reach_exports_and_lineage(request, tmp_path):
    store = outlier_store("disk", request)
    assert main(["timeseries", store, "--out", str(tmp_path / "series")]) == 0
    assert main(["export", store, "--out", str(tmp_path / "out"), "--format", "gpkg", "stac"]) == 0
    layer = gpd.read_file(tmp_path / "out" / "gpkg" / "calfin_cloud.gpkg", layer="fronts").set_index("scene_id")
    assert (layer.loc["s5", "flags"], layer.loc["s5", "score"]) == ("outlier", 0.2)
    assert len(layer) == 12
    doubtful = pd.read_csv(tmp_path / "out" / "doubtful.csv")
    assert doubtful["scene_id"].tolist() == ["s5"]
    assert "1 of 1 domains" in (tmp_path / "out" / "README.md").read_text()
    items = pystac.Collection.from_file(str(tmp_path / "out" / "stac" / "collection.json")).get_items(recursive=True)
    flags = {item.properties["calfin:scene_id"]: item.properties["calfin:flags"] for item in items}
    assert flags["s5"] == ["outlier"]
    assert flags["s4"] == []
    (front,) = lineage_of(store, "s5")["fronts"]
    assert (front["flags"], front["score"]) == ("outlier", 0.2)


def test_a_flag_is_of_the_line_it_was_found_on_and_not_of_the_one_a_person_drew(request, tmp_path):
    store = outlier_store("disk", request)
    assert main(["timeseries", store, "--out", str(tmp_path)]) == 0
    line = mapping(LineString([(2050, 100), (2050, 2300)]))
    said = {"key": "Store/s5", "front": 0, "author": "M", "time": "2026-01-31T12:00:00Z"}
    apply_verdicts(store, [said | {"verdict": "accept"}])
    assert usable_fronts(store)["flags"].tolist().count("outlier") == 1
    apply_verdicts(store, [said | {"verdict": "redraw", "geometry": line, "time": "2026-02-01T12:00:00Z"}])
    assert (usable_fronts(store)["flags"] == "").all()


def test_the_flags_of_one_glacier_leave_those_of_another(request, tmp_path):
    store = outlier_store("disk", request)
    fronts = storage.read_fronts(store)
    other = fronts.assign(domain="Other", key="Other/" + fronts["scene_id"])
    told = pd.DataFrame([("Other/s1", "box", "outlier", "far")], columns=["key", "branch", "flag", "detail"])
    assert storage.write_flags(store, other, told) == ["Other"]
    assert main(["timeseries", store, "--out", str(tmp_path)]) == 0
    assert storage.checked_domains(store) == ["Other", "Store"]
    assert storage.read_flags(store, other)[["key", "front", "flag"]].to_numpy().tolist() == [
        ["Other/s1", 0, "outlier"]
    ]
    assert storage.write_flags(store, other, told) == []


def test_a_damaged_file_of_flags_says_what_to_do_and_a_new_series_mends_it(request, tmp_path):
    store = outlier_store("disk", request)
    arguments = ["timeseries", store, "--out", str(tmp_path / "series")]
    assert main(arguments) == 0
    path = tmp_path / "store" / "flags" / "Store.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"outlier", b"outline"))
    with pytest.raises(ValueError, match="calfin timeseries"):
        usable_fronts(store)
    assert main(arguments) == 0
    assert path.read_bytes() == whole


def test_a_report_checks_what_no_series_has_and_otherwise_tells_what_was_kept(request):
    store = outlier_store("disk", request)
    found = measure_series(*store_product(store)).flags
    flagged = reporting._with_flags(store, reviewed_fronts(store), found).set_index("scene_id")
    assert flagged.loc["s5", ["flags", "score"]].tolist() == ["outlier", 0.2]
    storage.write_flags(store, storage.read_fronts(store), found.iloc[:0])
    flagged = reporting._with_flags(store, reviewed_fronts(store), found)
    assert (flagged["flags"] == "").all()
    assert (flagged["score"] == 0.8).all()


def test_a_long_report_and_a_long_series_tell_how_far_they_are(request, tmp_path):
    store = outlier_store("disk", request)
    told = []

    def watch(what, parts):
        for part in parts:
            told.append((what, len(parts)))
            yield part

    reporting.write_report(store, tmp_path / "report", watch=watch)
    assert told == [("positions measured", 1), ("glaciers written", 1)]
    told.clear()
    measure_series(*store_product(store), watch=watch)
    assert told == [("positions measured", 1), ("break points sought", 1)]


def test_fronts_are_chosen_by_the_names_of_glaciers_where_these_lie(tmp_path, capsys):
    termini = pd.concat([read_termini("92").iloc[:2], read_termini("9").iloc[:2]])
    termini.to_file(tmp_path / "there.gpkg")
    termini.assign(geometry=termini.translate(0, 300_000)).to_file(tmp_path / "elsewhere.gpkg")
    call = ["timeseries", str(tmp_path / "there.gpkg"), "--glaciers", "sermersuaq", "Store", "Nowhere"]
    assert main([*call, "--out", str(tmp_path / "series")]) == 0
    assert "no front of ['Nowhere']" in capsys.readouterr().err
    positions = pd.read_csv(tmp_path / "series" / "positions.csv")
    assert set(positions["glacier_id"]) == {9, 92}
    call = ["timeseries", str(tmp_path / "elsewhere.gpkg"), "--glaciers", "Humboldt"]
    assert main([*call, "--out", str(tmp_path / "other")]) == 2
    assert "no front of ['Humboldt']; its glaciers are ['9', '92']" in capsys.readouterr().err


def test_the_other_of_two_products_may_call_the_chosen_glaciers_otherwise_where_place_tells(tmp_path, capsys):
    ice = gpd.GeoDataFrame(geometry=[box(-9000, -9000, 800, 9000)], crs="EPSG:3413")
    ice.to_file(tmp_path / "ice.gpkg")
    fronts_of({"a": 1000, "far": 90_000}).to_parquet(tmp_path / "a.parquet")
    fronts_of({"b": 1010}).to_parquet(tmp_path / "b.parquet")
    a, b, *chosen = str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), "--glaciers", "a", "--out", str(tmp_path)
    assert main(["compare", a, b, "--by-place", *chosen]) == 0
    assert set(pd.read_csv(tmp_path / "pairs.csv")["glacier_id"]) == {"a"}
    assert main(["figures", a, "--against", b, "--ice", str(tmp_path / "ice.gpkg"), *chosen]) == 0
    assert (tmp_path / "products.png").is_file()
    assert main(["compare", a, b, *chosen]) == 2
    assert "b.parquet has no front of ['a']" in capsys.readouterr().err


def test_a_store_in_another_crs_is_measured_with_its_own_ice_brought_there_too(request, tmp_path):
    store = outlier_store("disk", request)
    for name, more in (("own", []), ("other", ["--crs", "EPSG:32622"])):
        assert main(["timeseries", store, "--out", str(tmp_path / name), *more]) == 0
    own, other = (pd.read_csv(tmp_path / name / "positions.csv")["change_m"] for name in ("own", "other"))
    assert other.to_numpy() == pytest.approx(own.to_numpy(), abs=5)
    assert np.isfinite(own).any()


def test_the_advance_of_two_products_has_the_other_sign_where_they_are_named_the_other_way_round(request, tmp_path):
    store, drawn = outlier_store("disk", request), str(tmp_path / "drawn.parquet")
    fronts, _ = store_product(store)
    fronts.assign(geometry=fronts.translate(-30, 0)).to_crs(32622).to_parquet(drawn)
    means = []
    for n, call in enumerate([[store, drawn], [drawn, store]]):
        assert main(["compare", *call, "--out", str(tmp_path / str(n))]) == 0
        means.append(pd.read_csv(tmp_path / str(n) / "pairs.csv")["advance_m"].mean())
    assert means[0] == pytest.approx(-means[1], abs=1)
    assert abs(means[0]) == pytest.approx(30, rel=0.1)


def test_products_without_a_pair_are_told_apart_by_their_ids_or_their_dates(tmp_path, capsys):
    fronts = fronts_of({"g": 1000})
    others = {
        "id": fronts.assign(glacier_id="h"),
        "late": fronts.assign(datetime=fronts["datetime"] + pd.Timedelta("40D")),
    }
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("mine", *others)}
    for name, table in {"mine": fronts, **others}.items():
        table.to_parquet(paths[name])
    told = []
    for other in ([paths["id"]], [paths["late"]], []):
        assert main(["compare", paths["mine"], *other, "--out", str(tmp_path / "out")]) == 1
        told.append(capsys.readouterr().err)
    assert all(said in told[0] for said in ("1 glacier (g)", "1 glacier (h)", "use --by-place"))
    assert "40 days apart, see --days" in told[1]
    assert "name a second store or file" in told[2]
    assert "author=COLUMN" in told[2]


def test_pairs_whose_sea_nothing_tells_are_counted(tmp_path, capsys):
    fronts_of({"g": 1000}).to_parquet(path := tmp_path / "fronts.parquet")
    assert main(["compare", str(path), str(path), "--out", str(tmp_path / "out")]) == 0
    assert "5 pairs of 5 without advance_m: give --ice" in capsys.readouterr().err


def test_a_map_that_lacks_the_ice_of_a_glacier_is_told_since_it_turns_its_sea_around(tmp_path, capsys):
    fronts = fronts_of({"g": 1000})  # 500 m wide; the ice comes from the west
    fronts.to_parquet(tmp_path / "fronts.parquet")
    cap = box(1400, -300, 2000, 100)  # beside the fjord, seaward of the front
    for name, ice in (("whole", [box(-9000, -9000, 800, 9000), cap]), ("caps", [cap])):
        gpd.GeoDataFrame(geometry=ice, crs=fronts.crs).to_file(tmp_path / f"{name}.gpkg")
        call = ["timeseries", str(tmp_path / "fronts.parquet"), "--ice", str(tmp_path / f"{name}.gpkg")]
        assert main([*call, "--out", str(tmp_path / name)]) == 0
        is_wrong = pd.read_csv(tmp_path / name / "rates.csv")["rate_m_a"].iloc[0] > 0
        told = "has little ice behind the fronts of 1 glacier (g)" in capsys.readouterr().err
        assert is_wrong == told == (name == "caps")
    inward = gpd.GeoDataFrame({"glacier_id": ["g"]}, geometry=[LineString([(2000, 250), (-500, 250)])], crs=fronts.crs)
    inward.to_file(tmp_path / "line.gpkg")
    call = ["timeseries", str(tmp_path / "fronts.parquet"), "--centerlines", str(tmp_path / "line.gpkg"), "--out"]
    told = "no ice tells where the sea of 1 glacier (g) lies: centrelines are taken to run from ice to sea"
    assert main([*call, str(tmp_path / "untold")]) == 0
    assert told in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "untold" / "rates.csv")["rate_m_a"].iloc[0] > 0
    assert main([*call, str(tmp_path / "told"), "--ice", str(tmp_path / "whole.gpkg")]) == 0
    assert told not in capsys.readouterr().err
    assert (pd.read_csv(tmp_path / "told" / "rates.csv")["rate_m_a"] < 0).all()


def test_ocean_in_place_of_ice_is_refused_by_what_a_store_knows_and_by_what_a_file_says_of_itself(
    request, tmp_path, capsys
):
    store, ocean, ice = outlier_store("disk", request), box(-9000, 0, 800, 2400), box(2200, 0, 9000, 2400)
    files = {
        "bare.gpkg": {"geometry": [ocean]},
        "kind.gpkg": {"kind": ["ocean"], "geometry": [ocean]},
        "termini_2020-2020_closed_v1.0.shp": {"geometry": [ocean]},
        "both.gpkg": {"kind": ["ocean", "ice"], "geometry": [ocean, ice]},
    }
    said = {}
    for name, columns in files.items():
        gpd.GeoDataFrame(columns, crs=DOMAIN.crs).to_file(tmp_path / name)
        code = main(["timeseries", store, "--ice", str(tmp_path / name), "--out", str(tmp_path / f"out-{name}")])
        said[name] = capsys.readouterr().err
        assert code == (0 if name == "both.gpkg" else 2)
        assert (tmp_path / f"out-{name}").exists() == (code == 0)
    assert "has the sea of 1 glacier (9) on the other side than the scenes of the store" in said["bare.gpkg"]
    assert "holds ocean alone, by its column `kind`" in said["kind.gpkg"]
    assert "is named as CALFIN names files of ocean" in said["termini_2020-2020_closed_v1.0.shp"]
    assert "the sea lies at, in degrees from north: 9 " in said["both.gpkg"]


def test_a_file_of_fronts_is_measured_with_the_degrees_at_which_its_ice_puts_the_sea(tmp_path, capsys):
    fronts = fronts_of({"g": 1000})
    fronts.to_parquet(tmp_path / "fronts.parquet")
    gpd.GeoDataFrame(geometry=[box(-9000, -9000, 800, 9000)], crs=fronts.crs).to_file(tmp_path / "ice.gpkg")
    call = ["timeseries", str(tmp_path / "fronts.parquet"), "--ice", str(tmp_path / "ice.gpkg")]
    assert main([*call, "--out", str(tmp_path / "out")]) == 0
    middle = fronts.to_crs(3413).union_all().centroid
    start, end = gpd.GeoSeries([middle, translate(middle, 100, 0)], crs=3413).to_crs(4326)
    azimuth = Geod(ellps="WGS84").inv(start.x, start.y, end.x, end.y)[0] % 360
    assert f"the sea lies at, in degrees from north: g {azimuth:.0f}" in capsys.readouterr().err


def test_a_glacier_that_a_store_lacks_is_told_from_those_it_has(request, tmp_path, capsys):
    store = outlier_store("disk", request)
    assert main(["timeseries", store, "--glaciers", "8", "--out", str(tmp_path / "series")]) == 2
    assert "no front of ['8']; its glaciers are ['9']" in capsys.readouterr().err
    domain = storage.read_fronts(store)["domain"].iloc[0]
    assert main(["timeseries", store, "--glaciers", domain, "--out", str(tmp_path / "series")]) == 0
    nothing = str(tmp_path / "nothing")
    storage.open_store(nothing, crs=DOMAIN.crs, made_by={"model": "a"})
    assert main(["timeseries", nothing, "--out", str(tmp_path / "series")]) == 2
    assert "has no front, so there is nothing to measure" in capsys.readouterr().err


def test_a_file_without_fronts_or_positions_and_nameless_regions_are_told_in_words(tmp_path, capsys):
    rows = gpd.GeoDataFrame({"Date": ["2015-07-01"], "GlacierID": ["9"]}, geometry=[LINE], crs=3413)
    rows.to_file(tmp_path / "one.gpkg")
    rows.iloc[:0].to_file(tmp_path / "none.gpkg")
    out = ["--out", str(tmp_path / "series")]
    assert main(["timeseries", str(tmp_path / "none.gpkg"), *out]) == 2
    assert capsys.readouterr().err.strip().endswith("none.gpkg has no front, so there is nothing to measure")
    assert main(["timeseries", str(tmp_path / "one.gpkg"), *out]) == 0
    assert capsys.readouterr().out.startswith("no front has a position, so there are no rates\n1 position")
    for name in (None, "all"):
        gpd.GeoDataFrame({"region": ["east", name]}, geometry=[LINE.buffer(9)] * 2, crs=3413).to_file(
            tmp_path / "r.gpkg"
        )
        assert main(["timeseries", str(tmp_path / "one.gpkg"), "--regions", str(tmp_path / "r.gpkg"), *out]) == 2
        assert "without a name, or called `all`" in capsys.readouterr().err


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_store_that_may_only_be_read_is_measured_all_the_same(error, request, tmp_path, capsys, monkeypatch):
    store = outlier_store("disk", request)

    def forbidden(*_):
        raise error

    monkeypatch.setattr(storage.beside, "write_whole", forbidden)
    assert main(["timeseries", store, "--out", str(tmp_path / "series")]) == 0
    assert "may not be written" in capsys.readouterr().err
    assert (tmp_path / "series" / "flags.csv").read_text().count("outlier") == 2


def test_fronts_in_longitude_and_latitude_are_refused():
    with pytest.raises(ValueError, match="projected CRS"):
        measure_series(fronts_of({"g": 1000}).to_crs(4326), Lines())


def test_what_few_fronts_leave_unknown_is_left_out_and_no_front_is_refused():
    lines = Lines(ice={"g": box(-9000, -9000, 800, 9000)})
    words = [rate_words(measure_series(fronts_of({"g": 1000}).iloc[:n], lines).rates) for n in (1, 2)]
    assert words[0] == ""
    assert words[1].endswith(" m/a")
    assert "nan" not in words[1]
    with pytest.raises(ValueError, match="no fronts to measure"):
        measure_series(fronts_of({"g": 1000}).iloc[:0], lines)


def test_the_series_of_a_real_glacier_retreats_by_two_kilometres_in_the_box_drawn_for_it(shared, tmp_path):
    data = shared / "data"
    folder = data / "harald_moltke"
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    arguments = [
        "--boxes",
        str(folder / "box" / "harald_moltke_brae.shp"),
        "--ice",
        str(basins),
        "--out",
        str(tmp_path),
    ]
    assert main(["timeseries", str(folder / "derived_fronts_2019-2021.parquet"), *arguments]) == 0
    positions = pd.read_csv(tmp_path / "positions.csv", parse_dates=["datetime"])
    in_box = positions[positions["branch"] == "box"].set_index("datetime")["position_m"]
    assert in_box.notna().sum() == 159
    assert in_box["2021-09"].mean() - in_box["2019-03"].mean() == pytest.approx(-1960, abs=100)
    assert (tmp_path / "series-harald_moltke_brae.png").stat().st_size > 10_000
    flagged = gpd.read_parquet(tmp_path / "fronts.parquet")
    assert len(flagged) == 159


def test_nearly_all_greenland_glaciers_get_a_box_of_their_own(shared):
    data = shared / "data"
    fronts = read_product(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    some = fronts[fronts["glacier_id"].isin(sorted(fronts["glacier_id"].unique())[:60])]
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    series = measure_series(some, read_lines(None, some, ice=str(basins)))
    measured = series.positions[series.positions["branch"] == "box"]["position_m"].notna()
    assert measured.mean() > 0.95
    assert len(series.gates) >= 57


def test_pairs_are_nearest_in_time_and_say_by_how_much_one_lies_further_out():
    a = fronts_of({"g": 1000})
    b = a.copy()
    b["geometry"] = b.geometry.translate(xoff=30)
    b["datetime"] += pd.Timedelta(days=3)
    pairs = compare_products(a, b, days=8, lines=Lines(ice={"g": box(-9000, -9000, 800, 9000)}))
    assert len(pairs) == 5
    assert set(pairs["days"]) == {-3}
    scale = 1 / 0.9684
    np.testing.assert_allclose(pairs["common_m"], 30 * scale, rtol=5e-3)
    np.testing.assert_allclose(pairs["advance_m"], -30 * scale, rtol=5e-3)
    assert compare_products(a, b, days=2).empty


def test_authors_of_one_product_are_compared_once_a_pair():
    a = fronts_of({"g": 1000})
    both = pd.concat([a.assign(author="A"), a.assign(author="B", key=a["key"] + "-b")], ignore_index=True)
    pairs = compare_products(both)
    assert pairs[["author_a", "author_b"]].drop_duplicates().to_numpy().tolist() == [["A", "B"]]
    assert len(pairs) == 5
    assert summarise_pairs(pairs).set_index(["by", "group"]).loc[("authors", "A - B"), "distance_m"] == 0


def test_seasons_of_pairs_are_turned_in_the_south():
    a = fronts_of({"g": 1000})
    there = a.set_crs(3031, allow_override=True)
    north, south = (compare_products(p, p.copy())["season"].unique().tolist() for p in (a, there))
    turned = {"winter": "summer", "spring": "autumn", "summer": "winter", "autumn": "spring"}
    assert south == [turned[s] for s in north]


def test_without_ice_the_side_of_the_sea_is_unknown_and_so_is_the_bias():
    a = fronts_of({"g": 1000})
    assert compare_products(a, a.copy())["advance_m"].isna().all()


def test_the_fronts_of_another_network_lie_as_near_to_drawn_ones_as_their_source_says(shared, tmp_path):
    data = shared / "data"
    drawn = str(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    mapped = str(data / "harald_moltke" / "derived_fronts_2019-2021.parquet")
    assert main(["compare", mapped, drawn, "--by-place", "--days", "26", "--out", str(tmp_path)]) == 0
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert set(pairs["key_b"].str.partition("/")[0]) == {"75"}
    assert pairs["distance_m"].between(40, 120).all()
    predicted = str(data / "cobra2023" / "geojson" / "CALFIN.geo.json")
    more = ["--by-place", "--days", "1", "--crs", "EPSG:3413", "--out", str(tmp_path)]
    assert main(["compare", predicted, drawn, *more]) == 0
    (pair,) = pd.read_csv(tmp_path / "pairs.csv").itertuples()
    assert pair.glacier_id == "Nunatakassaap"
    assert pair.common_m == pytest.approx(128, abs=30)


def test_boxes_of_one_run_serve_the_next_and_a_redrawn_front_moves_no_other_position(tmp_path):
    fronts = fronts_of({"g": 1000})
    ice = gpd.GeoDataFrame(geometry=[box(-9000, -9000, 800, 9000)], crs=fronts.crs)
    ice.to_file(tmp_path / "ice.gpkg")
    out = tmp_path / "series"

    def positions():
        fronts.to_parquet(tmp_path / "fronts.parquet")
        told = ["timeseries", str(tmp_path / "fronts.parquet"), "--ice", str(tmp_path / "ice.gpkg"), "--out", str(out)]
        assert main(told) == 0
        table = pd.read_csv(out / "positions.csv")
        return table[table["branch"] == "box"].set_index("key")["position_m"]

    before = positions()
    redrawn = fronts["key"].iloc[-1]
    fronts.loc[fronts["key"] == redrawn, "geometry"] = [LineString([(700, 40), (700, 460)])]
    after = positions()
    assert after[redrawn] != pytest.approx(before[redrawn], abs=1)
    assert after.drop(redrawn).to_numpy() == pytest.approx(before.drop(redrawn).to_numpy(), abs=0.01)


def test_a_box_that_misses_the_retreat_is_doubtful():
    fronts = fronts_of({"g": 1000})
    small = box(900, 0, 1400, 500)  # the last fronts lie upstream of it
    lines = Lines(boxes={"g": small}, ice={"g": box(-9000, -9000, 700, 9000)})
    fronts.loc[fronts.index[-2:], "geometry"] = [LineString([(x, 0), (x, 500)]) for x in (500, 300)]
    gate = measure_series(fronts, lines).gates.iloc[0]
    assert gate["measured"] < gate["fronts"]
    assert gate["is_doubtful"]
    assert gate["swept_m"] < -600
    assert not measure_series(fronts, lines._replace(boxes={})).gates["is_doubtful"].any()


def test_boxes_of_greenland_hold_the_retreat_of_nearly_all_glaciers(shared):
    data = shared / "data"
    fronts = read_product(data / "measures_termini_greenland" / "derived_termini_3413.parquet")
    some = fronts[fronts["glacier_id"].isin(["153", "106", "3", "95", "23", "24", "35", "43", "65", "71"])]
    basins = data / "greenland_basins_icemask" / "greenland_basins_polarstereo.shp"
    series = measure_series(some, read_lines(None, some, ice=str(basins)))
    missed = series.gates["fronts"] - series.gates["measured"]
    assert missed.sum() <= 9  # 22 with boxes as wide as four fifths of the fronts reach
    change = series.gates.set_index("glacier_id")["change_m"]
    assert change["95"] == pytest.approx(-11_130, abs=200)  # -5,700 m there: its fronts of 2009 were lost
