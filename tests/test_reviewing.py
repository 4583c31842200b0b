"""People accept, reject and redraw fronts; the automatic ones stay, and every front says where it is from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import shapely
from shapely.affinity import translate
from shapely.geometry import LineString, mapping
from storing import map_sample

from calfin_cloud.cli import main
from calfin_cloud.datasets import read_samples
from calfin_cloud.domains import read_domains
from calfin_cloud.fronts import DEFAULT
from calfin_cloud.network import DEFAULT_NETWORK
from calfin_cloud.pipeline import MapSettings, retrace_fronts
from calfin_cloud.results import (
    apply_verdicts,
    export_store,
    lineage_of,
    orphaned_verdicts,
    read_verdicts,
    reviewed_fronts,
    usable_fronts,
    write_training_pairs,
)
from calfin_cloud.results.reviewed_polygons import reviewed_polygons
from calfin_cloud.results.settling import line_id
from calfin_cloud.schema import check_polygons
from calfin_cloud.storage import read_fronts, read_polygons, write_review
from calfin_cloud.timeseries import length_scale

IN_DEGREES = {"type": "LineString", "coordinates": [[-49.9, 69.1], [-49.8, 69.2]]}
TIME = "2026-01-31T12:00:00Z"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return map_sample(tmp_path_factory.mktemp("reviewed"), scenes=4)


@pytest.fixture
def store(mapped, tmp_path):
    shutil.copytree(mapped / "store", tmp_path / "store")
    return str(tmp_path / "store")


def verdict(front, what, **more):
    return {"key": front["key"], "front": int(front["front"]), "verdict": what, "author": "M", "time": TIME, **more}


def test_a_redrawn_front_has_the_drawn_line_and_the_flag_of_a_manual_one_and_the_automatic_one_stays(store):
    before = read_fronts(store)
    first = before[before["state"] == "front"].iloc[0]
    drawn = translate(first["geometry"], 90, 0)
    apply_verdicts(store, [verdict(first, "redraw", geometry=mapping(drawn), note="followed melange")])
    after = reviewed_fronts(store).set_index(["key", "front"]).loc[(first["key"], first["front"])]
    assert after["geometry"].equals_exact(drawn, 1e-6)
    assert after["quality_flag"] == {10: 0, 13: 3}[first["quality_flag"]]
    assert (after["reviewer"], after["reviewed_at"], after["note"]) == ("M", TIME, "followed melange")
    assert np.isnan(after["sigma_m"])
    assert read_fronts(store).geometry.dropna().geom_equals_exact(before.geometry.dropna(), 0).all()


def test_a_rejected_front_stays_in_the_table_but_is_not_used(store):
    fronts = read_fronts(store)
    first = fronts[fronts["state"] == "front"].iloc[0]
    apply_verdicts(store, [verdict(first, "reject")])
    assert len(reviewed_fronts(store)) == len(fronts)
    assert len(usable_fronts(store)) == (fronts["state"] == "front").sum() - 1


def test_a_verdict_on_a_line_that_has_changed_since_is_void_but_a_redrawn_line_stays(store):
    fronts = read_fronts(store)
    judged = fronts[fronts["state"] == "front"]
    drawn = mapping(judged.iloc[1]["geometry"])
    apply_verdicts(store, [verdict(judged.iloc[0], "reject"), verdict(judged.iloc[1], "redraw", geometry=drawn)])
    retrace_fronts(store, settings=MapSettings(trace=replace(DEFAULT, vertex=replace(DEFAULT.vertex, smooth_px=15.0))))
    after = reviewed_fronts(store).set_index(["key", "front"])
    assert after.loc[(judged.iloc[0]["key"], judged.iloc[0]["front"]), "verdict"] == ""
    assert after.loc[(judged.iloc[1]["key"], judged.iloc[1]["front"]), "verdict"] == "redraw"
    assert len(after.loc[(judged.iloc[1]["key"], judged.iloc[1]["front"]), "vertex_sigma_m"]) == 0


def test_a_store_whose_fronts_were_all_rejected_says_that_there_is_nothing_to_measure(store, tmp_path, capsys):
    fronts = read_fronts(store)
    apply_verdicts(store, [verdict(row, "reject") for _, row in fronts[fronts["state"] == "front"].iterrows()])
    assert main(["report", store, "--out", str(tmp_path / "report")]) == 0
    assert main(["timeseries", store, "--out", str(tmp_path / "series")]) == 2
    assert "no front" in capsys.readouterr().err


def test_the_last_verdict_counts_whatever_the_order_in_which_files_are_applied(store):
    fronts = read_fronts(store)
    first = fronts[fronts["state"] == "front"].iloc[0]
    apply_verdicts(store, [verdict(first, "accept") | {"time": "2026-02-02T00:00:00Z"}])
    apply_verdicts(store, [verdict(first, "reject")])
    apply_verdicts(store, [verdict(first, "reject")])  # twice is once
    assert reviewed_fronts(store)["verdict"].value_counts().get("accept") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "maybe"}, "must be one of"),
        ({"front": 7}, "no front 7"),
        ({"author": ""}, "lacks"),
        ({"time": "yesterday"}, "time must be"),
        ({"verdict": "redraw"}, "LineString"),
        ({"verdict": "redraw", "geometry": {"type": "Point", "coordinates": [0, 0]}}, "LineString"),
        ({"verdict": "redraw", "geometry": IN_DEGREES}, "give it in EPSG:3413, within the domain"),
    ],
)
def test_one_wrong_verdict_keeps_none(store, change, words):
    fronts = read_fronts(store)
    first = fronts[fronts["state"] == "front"].iloc[0]
    good = verdict(first, "accept")
    with pytest.raises(ValueError, match=words):
        apply_verdicts(store, [good, good | change])
    assert (reviewed_fronts(store)["verdict"] == "").all()


def test_a_file_of_verdicts_is_applied_from_the_command_line(store, tmp_path, capsys):
    fronts = read_fronts(store)
    first = fronts[fronts["state"] == "front"].iloc[0]
    (tmp_path / "v.json").write_text(json.dumps([verdict(first, "accept")]))
    assert main(["review", store, "--apply", str(tmp_path / "v.json"), "--training", str(tmp_path / "pairs")]) == 0
    assert "1 accept" in capsys.readouterr().out
    for text in ("{}", "[" * 100_000):
        (tmp_path / "v.json").write_text(text)
        assert main(["review", store, "--apply", str(tmp_path / "v.json")]) == 2
        assert f"{tmp_path}/v.json" in capsys.readouterr().err


def test_fronts_that_people_vouch_for_become_pairs_that_training_reads(store, tmp_path):
    fronts = read_fronts(store)
    found = fronts[fronts["state"] == "front"]
    apply_verdicts(store, [verdict(row, "accept") for _, row in found.iterrows()])
    paths = write_training_pairs(store, tmp_path / "pairs")
    assert len(paths) >= 2
    sample = next(iter(read_samples(tmp_path / "pairs")))
    assert sample.glacier == "Synthetic-Glacier"
    assert sample.front.any()


def test_every_front_tells_which_file_network_and_settings_made_it(store, tmp_path, capsys):
    fronts = read_fronts(store)
    first = fronts[fronts["state"] == "front"].iloc[0]
    told = lineage_of(store, first["scene_id"])
    assert told["read"]["item"] == first["scene_id"]
    assert told["read"]["files"][0]["address"].endswith(".tif")
    assert told["read"]["files"][0]["checksum"] == "unknown", "the painted catalogue gives none"
    assert "sha256" in told["made_by"]["model"] or len(told["made_by"]["model"]) > 10
    assert told["made_by"]["settings"]["network"] == DEFAULT_NETWORK
    assert main(["show", store, first["key"], "--picture", str(tmp_path / "p.png")]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == first["key"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", store, "nothing"]) == 2


def test_exports_leave_out_what_was_rejected_and_have_what_was_redrawn(store, tmp_path):
    fronts = read_fronts(store)
    found = fronts[fronts["state"] == "front"]
    rejected, redrawn = found.iloc[0], found.iloc[1]
    line = translate(redrawn["geometry"], 300, 0)
    apply_verdicts(store, [verdict(rejected, "reject"), verdict(redrawn, "redraw", geometry=mapping(line))])
    assert main(["export", store, "--out", str(tmp_path), "--format", "calfin"]) == 0
    (path,) = tmp_path.glob("calfin/*Greenland_v1.0.shp")
    table = gpd.read_file(path)
    assert len(table) == len(found) - 1
    assert table["QualFlag"].isin([0, 3]).sum() == 1
    authors = table.set_index("ImageID")["Author"]
    assert authors[redrawn["scene_id"]] == "M"  # who drew the line
    assert set(authors.drop(redrawn["scene_id"])) == {"calfin_cloud"}
    told = pd.read_csv(tmp_path / "reviewed.csv").set_index("key")
    assert told["verdict"].to_dict() == {rejected["key"]: "reject", redrawn["key"]: "redraw"}
    assert shapely.from_wkt(told.loc[rejected["key"], "line"]).equals_exact(rejected["geometry"], 1e-3)
    (closed,) = tmp_path.glob("calfin/*Greenland_closed_v1.0.shp")
    ocean = gpd.read_file(closed).to_crs(fronts.crs)
    assert rejected["scene_id"] not in set(ocean["ImageID"])
    (anew,) = ocean[ocean["ImageID"] == redrawn["scene_id"]].geometry
    assert line.difference(anew.boundary.buffer(1)).length < 0.05 * line.length


def test_a_scene_whose_front_was_rejected_is_still_told_of_in_exports(store, tmp_path):
    fronts = read_fronts(store)
    rejected = fronts[fronts["state"] == "front"].iloc[0]
    apply_verdicts(store, [verdict(rejected, "reject")])
    assert main(["export", store, "--out", str(tmp_path), "--format", "stac", "gpkg"]) == 0
    items = [json.loads(p.read_text())["properties"] for p in (tmp_path / "stac").glob("*/*.json")]
    assert {(i["calfin:domain"], i["calfin:scene_id"]) for i in items} == {
        (d, s) for d, s in zip(fronts["domain"], fronts["scene_id"], strict=True)
    }
    (told,) = [i for i in items if i["calfin:reason"] == "rejected"]
    assert (told["calfin:scene_id"], told["calfin:state"]) == (rejected["scene_id"], "no_front")
    assert (told["calfin:fronts"], told["calfin:score"]) == (0, None)
    assert (told["calfin:verdicts"], told["calfin:reviewers"]) == (["reject"], ["M"])
    lines = gpd.read_file(tmp_path / "gpkg" / "calfin_cloud.gpkg", layer="reviewed")
    assert lines[["key", "verdict", "reviewer"]].to_numpy().tolist() == [[rejected["key"], "reject", "M"]]
    table = gpd.read_file(tmp_path / "gpkg" / "calfin_cloud.gpkg", layer="fronts")
    (row,) = table[table["reason"] == "rejected"].itertuples()
    assert (row.front, row.geometry) == (-1, None)
    assert f"{fronts['key'].nunique()} scenes" in (tmp_path / "README.md").read_text()


def test_the_polygons_of_a_redrawn_front_are_closed_as_those_of_the_store_and_the_others_stay(store):
    before, fronts = read_polygons(store), read_fronts(store)
    found = fronts[fronts["state"] == "front"]
    first = found.iloc[0]
    assert reviewed_polygons(store, reviewed_fronts(store)).equals(before)
    apply_verdicts(store, [verdict(first, "redraw", geometry=mapping(first["geometry"]))])  # the same line once more
    after = check_polygons(reviewed_polygons(store, reviewed_fronts(store)))
    assert sorted(after["key"]) == sorted(before["key"])
    for (key, kind), row in before.set_index(["key", "kind"]).iterrows():
        same = after.set_index(["key", "kind"]).loc[(key, kind)]
        assert same["geometry"].symmetric_difference(row["geometry"]).area < 1e-6 * row["area_m2"]
        assert (same["reason"], same["fjord"]) == (row["reason"], row["fjord"])


def test_a_line_drawn_where_the_network_saw_nothing_says_why_it_closes_no_ocean(store):
    fronts = read_fronts(store)
    without, found = (fronts[fronts["state"] == state].iloc[0] for state in ("no_front", "front"))
    apply_verdicts(store, [verdict(without, "redraw", geometry=mapping(found["geometry"]))])
    made = reviewed_polygons(store, reviewed_fronts(store)).set_index("key").loc[[without["key"]]]
    assert made["geometry"].isna().all()
    assert (made["reason"] != "").all()


# --- verdicts and recomputes ------------------------------------------------------------------------------------------

SMOOTHER = replace(DEFAULT, vertex=replace(DEFAULT.vertex, smooth_px=15.0))


def judged(store, *more):
    """First front of a store and its scene; verdicts with the words of `more` are applied to it in turn."""
    first = read_fronts(store).query("state == 'front'").iloc[0]
    for what, about in more:
        apply_verdicts(store, [verdict(first, what) | about])
    return first


def of_scene(store, key):
    return reviewed_fronts(store).query("key == @key")


def without_fronts(store):
    """Trace a store anew so that no scene has a front."""
    settings = MapSettings(trace=replace(DEFAULT, candidate=replace(DEFAULT.candidate, min_confidence=1.1)))
    retrace_fronts(store, settings=settings)
    assert (read_fronts(store)["state"] != "front").all()


def test_a_drawn_line_stays_when_a_recompute_finds_no_front_any_more(store):
    drawn = mapping(translate(judged(store)["geometry"], 90, 0))
    first = judged(store, ("redraw", {"geometry": drawn}))
    without_fronts(store)
    (row,) = of_scene(store, first["key"]).itertuples()
    assert (row.state, row.front, row.verdict, row.reviewer) == ("front", 0, "redraw", "M")
    assert mapping(row.geometry) == drawn
    assert orphaned_verdicts(store) == []


def test_a_verdict_whose_line_is_gone_is_listed_as_orphaned_and_counts_again_when_the_line_is_back(store):
    first = judged(store, ("reject", {}))
    before = reviewed_fronts(store)
    retrace_fronts(store, settings=MapSettings(trace=SMOOTHER))
    assert (reviewed_fronts(store)["verdict"] == "").all()
    (orphan,) = orphaned_verdicts(store)
    assert (orphan["key"], orphan["verdict"], orphan["author"]) == (first["key"], "reject", "M")
    retrace_fronts(store, settings=MapSettings())
    assert reviewed_fronts(store)["verdict"].tolist() == before["verdict"].tolist()
    assert orphaned_verdicts(store) == []


def test_a_verdict_of_a_report_that_is_older_than_the_line_is_not_put_on_the_new_one(store):
    first = judged(store)
    told = verdict(first, "reject") | {"line": line_id(first["geometry"])}
    retrace_fronts(store, settings=MapSettings(trace=SMOOTHER))
    apply_verdicts(store, [told])
    assert (reviewed_fronts(store)["verdict"] == "").all()
    assert [orphan["key"] for orphan in orphaned_verdicts(store)] == [first["key"]]
    without_fronts(store)
    apply_verdicts(store, [told | {"time": "2026-02-01T12:00:00Z"}])
    assert len(orphaned_verdicts(store)) == 2, "and one on a front that is gone spoils no file of verdicts"
    with pytest.raises(ValueError, match="the store has no front 0 of 'Synthetic-Glacier/of-another-store'"):
        apply_verdicts(store, [told | {"key": "Synthetic-Glacier/of-another-store"}])


def test_a_drawn_line_far_from_every_front_of_a_recompute_stands_beside_them(store):
    automatic = judged(store)["geometry"]
    far = mapping(translate(automatic, 0, 1.2 * automatic.length))
    first = judged(store, ("redraw", {"geometry": far}))
    retrace_fronts(store, settings=MapSettings(trace=SMOOTHER))
    rows = of_scene(store, first["key"])
    assert rows["front"].tolist() == [0, 1]
    assert rows["verdict"].tolist() == ["", "redraw"]
    assert mapping(rows.iloc[1]["geometry"]) == far
    apply_verdicts(store, [verdict(rows.iloc[1], "reject") | {"time": "2026-03-01T00:00:00Z"}])
    assert of_scene(store, first["key"])["verdict"].tolist() == ["", "reject"]


def test_of_two_verdicts_the_later_instant_counts_whatever_the_offsets(store):
    first = judged(
        store,
        ("accept", {"time": "2026-01-31T11:30:00Z"}),
        ("reject", {"time": "2026-01-31T12:00:00+02:00"}),  # ten o'clock in UTC
    )
    (row,) = of_scene(store, first["key"]).itertuples()
    assert (row.verdict, row.reviewed_at) == ("accept", "2026-01-31T11:30:00Z")


def test_who_accepts_a_drawn_line_accepts_that_one(store):
    drawn = translate(judged(store)["geometry"], 90, 0)
    later = {"time": "2026-03-01T00:00:00Z", "author": "N"}
    first = judged(store, ("redraw", {"geometry": mapping(drawn)}), ("accept", later))
    (row,) = of_scene(store, first["key"]).itertuples()
    assert (row.verdict, row.reviewer, row.quality_flag) == ("accept", "N", {10: 0, 13: 3}[first["quality_flag"]])
    assert row.geometry.equals_exact(drawn, 1e-6)
    assert first["scene_id"] in set(reviewed_polygons(store, reviewed_fronts(store))["scene_id"])


def test_a_front_drawn_where_there_was_none_can_be_judged_by_the_number_that_is_shown(store):
    fronts = read_fronts(store)
    without, found = (fronts[fronts["state"] == state].iloc[0] for state in ("no_front", "front"))
    apply_verdicts(store, [verdict(without, "redraw", geometry=mapping(found["geometry"]))])
    shown = of_scene(store, without["key"]).iloc[0]
    assert shown["front"] == 0
    apply_verdicts(store, [verdict(shown, "reject") | {"time": "2026-03-01T00:00:00Z"}])
    assert of_scene(store, without["key"])["verdict"].tolist() == ["reject"]


def test_a_damaged_file_of_verdicts_is_mended_as_its_message_says(store, tmp_path):
    front = judged(store)
    apply_verdicts(store, [verdict(front, "reject")])
    before, (path,) = reviewed_fronts(store), (tmp_path / "store/reviews").iterdir()
    path.write_text("half")
    with pytest.raises(ValueError, match=f"{path.name} is damaged .*: delete it, then apply the file of verdicts"):
        apply_verdicts(store, [verdict(front, "reject")])
    path.unlink()
    apply_verdicts(store, [verdict(front, "reject")])
    assert reviewed_fronts(store).equals(before)


def test_verdicts_on_scenes_that_are_gone_are_kept_and_listed(store):
    first = judged(store, ("accept", {}))
    write_review(store, [verdict(first, "accept") | {"key": "Painted/gone", "line": "0" * 16}])
    assert [v["key"] for v in orphaned_verdicts(store)] == ["Painted/gone"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"front": "0"}, "a whole number"),
        ({"front": True}, "a whole number"),
        ({"key": ["a"]}, "must be text"),
        ({"note": {}}, "must be text"),
        ({"line": None}, "must be text"),
        ({"note": "seen by \ud800"}, r"half a character, '\\ud800': write the text anew"),
        ({"more": ["\ud800"]}, "half a character"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "time must be"),
        ({"verdict": "redraw", "geometry": {"type": "LineString", "coordinates": [[0, 0], [1e400, 0]]}}, "LineString"),
    ],
)
def test_odd_verdicts_are_told_in_a_sentence(store, change, words):
    first = judged(store)
    with pytest.raises(ValueError, match=words):
        apply_verdicts(store, [verdict(first, "accept") | change])


def test_the_length_of_a_redrawn_front_is_one_on_the_ground(store):
    before = read_fronts(store)
    first = before[before["state"] == "front"].iloc[0]
    x, y = first["geometry"].coords[0]
    drawn = LineString([(x, y), (x, y + 1000)])
    apply_verdicts(store, [verdict(first, "redraw", geometry=mapping(drawn))])
    fronts = reviewed_fronts(store)
    after = fronts[(fronts["key"] == first["key"]) & (fronts["verdict"] == "redraw")].iloc[0]
    assert after["length_m"] == pytest.approx(1000 / length_scale(fronts.crs, drawn))


def test_the_area_of_polygons_that_are_closed_anew_is_one_on_the_ground(store):
    before = read_fronts(store)
    first = before[before["state"] == "front"].iloc[0]
    apply_verdicts(store, [verdict(first, "redraw", geometry=mapping(translate(first["geometry"], 30, 0)))])
    polygons = reviewed_polygons(store, reviewed_fronts(store))
    anew = polygons[(polygons["key"] == first["key"]) & (polygons["kind"] == "ocean")].iloc[0]
    scale = length_scale(polygons.crs, anew["geometry"])
    assert scale != pytest.approx(1, abs=1e-4)
    assert anew["area_m2"] == pytest.approx(anew["geometry"].area / scale**2)


def test_known_termini_of_a_store_are_as_people_left_them(mapped, store, tmp_path):
    first, second, *rest = (row for _, row in read_fronts(store).iterrows() if row["state"] == "front")
    drawn = translate(second["geometry"], 90, 0)
    apply_verdicts(store, [verdict(first, "reject"), verdict(second, "redraw", geometry=mapping(drawn))])
    fjords = ["fjords", "--domains", str(mapped / "scenes" / "domains.geojson"), "--termini", store]
    for call in (fjords, ["domains", "--from-termini", store]):
        assert main([*call, "--out", str(tmp_path / "known.geojson")]) == 0
        (known,) = read_domains(tmp_path / "known.geojson")
        assert len(known.termini) == 1 + len(rest)
        assert any(t.line.equals_exact(drawn, 0.02) for t in known.termini)


def test_pictures_in_stac_are_those_that_the_store_has_whatever_people_say(store, tmp_path):
    before = read_fronts(store)
    first = before[before["state"] == "front"].iloc[0]
    cloudy = before[before["reason"] == "cloudy"].iloc[0]
    drawn = verdict(cloudy, "redraw", geometry=mapping(first["geometry"]))
    apply_verdicts(store, [verdict(first, "reject"), drawn])
    export_store(store, tmp_path / "out", ["stac"], author="M")
    items = list(pystac.Collection.from_file(str(tmp_path / "out" / "stac" / "collection.json")).get_items())
    shown = {item.properties["calfin:scene_id"]: item.assets["picture"] for item in items if "picture" in item.assets}
    assert first["scene_id"] in shown
    assert all(Path(picture.href).exists() for picture in shown.values())


def test_a_line_that_was_drawn_with_heights_is_kept_without_them(store):
    first = next(row for _, row in read_fronts(store).iterrows() if row["state"] == "front")
    high = shapely.force_3d(translate(first["geometry"], 90, 0), 5.0)
    apply_verdicts(store, [verdict(first, "redraw", geometry=mapping(high))])
    assert not usable_fronts(store).has_z.any()


def test_a_file_of_verdicts_may_begin_with_the_mark_of_windows(tmp_path):
    (tmp_path / "v.json").write_text('[{"key": "a/b"}]', encoding="utf-8-sig")
    assert read_verdicts(tmp_path / "v.json") == [{"key": "a/b"}]
