"""All dates of a place choose its fronts together: outliers go, steps that stay are kept, people's words count more."""

import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storing import PLACES, contents, new_store, write_masks

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.fronts import Candidate, Dated, SequenceSettings, best_sequences, reconcile_scenes, trace_fronts
from calfin_cloud.pipeline import MapSettings
from calfin_cloud.pipeline.scene import Target, trace_scene
from calfin_cloud.pipeline.settings import made_by
from calfin_cloud.pipeline.tables import feature_tables, scene_rows, tables_of
from calfin_cloud.results import apply_verdicts, export_store, lineage_of, reconcile_store, usable_fronts, write_report
from calfin_cloud.results.fjords import derive_fjords
from calfin_cloud.results.reviewing import reviewed_fronts, write_training_pairs
from calfin_cloud.schema import NO_BOXES

SIDE, PIXEL_M = 128, 60.0
FIRST = date(2020, 1, 10)
STEADY = 60


def masks_at(row, sure=0.95):
    """Masks (mask, y, x) of a straight front at a row, ice below it; rock on both sides of the fjord."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ridge = sure * np.exp(-(((rows - row) / 1.5) ** 2)) * ((columns > 30) & (columns < 98))
    ice = ((rows > row) | (columns <= 30) | (columns >= 98)).astype(float)
    return np.stack([ridge, ice]).astype(np.float32)


def line_at(row, first=31.0, last=97.0):
    return np.column_stack([np.linspace(first, last, 40), np.full(40, float(row))])


def sequence_of(rows, *, every_days=30, support=0.9, sea=-1, doubted=(), **more):
    """Dates that the best sequence through one front a date takes; the sea is above the lines."""
    dates = [[Candidate(line_at(row), support, sea=sea, is_doubted=n in doubted)] for n, row in enumerate(rows)]
    days = [float(every_days * n) for n in range(len(rows))]
    found = best_sequences(dates, days, PIXEL_M, 0.5, SequenceSettings(**more))
    return [date for date, _ in found[0]], len(found)


def reconciled(rows, sure=None, days=None, **more):
    """Choices of a series of scenes whose masks show a front at each row."""
    sure, days = sure or [0.95] * len(rows), days or [30 * n for n in range(len(rows))]
    masks = [masks_at(row, s) for row, s in zip(rows, sure, strict=True)]
    traced = [trace_fronts(*m) for m in masks]
    scenes = [
        Dated(FIRST + timedelta(days=day), [f.line for f in t.fronts], [r.line for r in t.rejected])
        for day, t in zip(days, traced, strict=True)
    ]
    return reconcile_scenes(scenes, lambda n: masks[n], PIXEL_M, **more)


def test_one_date_that_lies_apart_is_no_part_of_the_sequence_on_either_side():
    for off in (-45, 45):
        rows = [STEADY] * 5 + [STEADY + off] + [STEADY] * 5
        assert sequence_of(rows) == ([0, 1, 2, 3, 4, 6, 7, 8, 9, 10], 1)


def test_a_collapse_of_5_km_that_stays_is_kept_even_on_the_last_date():
    step = round(5000 / PIXEL_M)
    assert sequence_of([20] * 6 + [20 + step] * 4) == (list(range(10)), 1)
    assert sequence_of([20] * 6 + [20 + step]) == (list(range(7)), 1)


def test_a_surge_as_fast_as_ice_can_be_is_kept():
    rows = [100 - 20 * n for n in range(5)]  # 1,200 m a month, 40 m a day
    assert sequence_of([100] * 4 + rows + [rows[-1]] * 3) == (list(range(12)), 1)


def test_a_longer_gap_lets_a_front_have_come_further():
    rows = [90] * 5 + [50] + [90] * 5  # 2,400 m forward and back
    assert len(sequence_of(rows, every_days=5)[0]) == 10
    assert len(sequence_of(rows, every_days=120)[0]) == 11
    assert len(sequence_of(rows, every_days=120, rate_m_a_day=1.0)[0]) == 10


def test_a_front_that_melange_touches_must_lie_nearer_to_the_others():
    rows = [90] * 5 + [50] + [90] * 5
    assert len(sequence_of(rows, every_days=120, doubted=[5])[0]) == 10
    assert len(sequence_of(rows, every_days=120, doubted=[0, 1, 2])[0]) == 11
    assert sequence_of([STEADY] * 11, doubted=range(11)) == (list(range(11)), 1)


def test_a_tributary_is_a_sequence_of_its_own():
    main_front, other = Candidate(line_at(60), 0.9), Candidate(line_at(20, 5.0, 25.0), 0.8)
    found = best_sequences([[main_front, other]] * 6, [30.0 * n for n in range(6)], PIXEL_M, 0.5)
    assert found == [[(n, 0) for n in range(6)], [(n, 1) for n in range(6)]]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(5, 120), min_size=1, max_size=12), st.floats(0.25, 1.0))
def test_no_candidate_is_in_two_sequences_and_each_date_is_once_in_one(rows, support):
    dates = [[Candidate(line_at(row), support), Candidate(line_at(128 - row), 0.5, "rejected")] for row in rows]
    found = best_sequences(dates, [9.0 * n for n in range(len(rows))], PIXEL_M, 0.5)
    nodes = [node for sequence in found for node in sequence]
    assert len(nodes) == len(set(nodes))
    for sequence in found:
        assert [day for day, _ in sequence] == sorted({day for day, _ in sequence})


def test_a_date_whose_front_was_too_faint_is_retraced_or_restored_along_its_neighbours():
    sure = [0.95] * 4 + [0.5] + [0.95] * 4
    choices = reconciled([60, 61, 60, 61, 62, 61, 60, 61, 60], sure)
    (found,) = choices[4]
    assert found.choice in ("retraced", "restored")
    assert np.abs(found.front.line[:, 1] - 62).mean() < 1
    assert [c.choice for of_scene in choices[:4] + choices[5:] for c in of_scene] == ["kept"] * 8


def test_nothing_is_invented_where_a_date_shows_no_edge():
    sure = [0.95] * 4 + [0.0] + [0.95] * 4
    assert reconciled([60] * 9, sure)[4] == []


def test_an_outlier_is_dropped_and_told_how_far_it_lies():
    (dropped,) = reconciled([60] * 4 + [105] + [60] * 4)[4]
    assert (dropped.choice, dropped.front) == ("dropped", None)
    assert "m from the front of 2020-04-09 and 269" in dropped.why


@pytest.mark.parametrize("row", [20, 105])
def test_an_outlier_that_two_scenes_of_one_day_show_is_one_date_and_dropped(row):
    days = [0, 30, 60, 90, 120, 120, 150, 180, 210, 240]
    choices = reconciled([60] * 4 + [row, row] + [60] * 4, days=days)
    assert [c.choice for of_scene in choices for c in of_scene] == ["kept"] * 4 + ["dropped"] * 2 + ["kept"] * 4


def test_scenes_of_one_day_that_agree_with_the_other_dates_are_all_kept():
    days = [0, 30, 60, 60, 60, 90, 120, 120]
    assert [c.choice for of_scene in reconciled([60] * 8, days=days) for c in of_scene] == ["kept"] * 8


def test_with_few_dates_time_is_no_witness():
    assert [c.choice for of_scene in reconciled([60, 105, 60]) for c in of_scene] == ["kept"] * 3
    twice = reconciled([60, 60, 105, 105, 60, 60], days=[0, 0, 30, 30, 60, 60])
    assert {c.why for of_scene in twice for c in of_scene} == {"too few dates"}


def test_a_front_traced_in_two_pieces_keeps_both():
    masks = [masks_at(60)] * 9
    halves = [line_at(60, 31, 62), line_at(60, 66, 97)]
    scenes = [
        Dated(FIRST + timedelta(days=30 * n), halves if n == 4 else [line_at(60)]) for n in range(9)
    ]  # fmt: skip
    assert [c.choice for c in reconcile_scenes(scenes, lambda n: masks[n], PIXEL_M)[4]] == ["kept", "kept"]


# Stores


OUTLIER, FAINT = 4, 6
ROWS = [60, 60, 61, 60, 105, 60, 62, 61, 60]


def make_store(store, touched=None):
    """Write a store of nine dates, of which one shows its front elsewhere and one hardly, traced as they are mapped.

    With `touched`, the numbers of scenes whose front melange touches, it has a table of melange.
    """
    domain = Domain("Store", box_grid((0, 0, SIDE * PIXEL_M, SIDE * PIXEL_M), 3413, PIXEL_M), "9")
    made = MapSettings()
    storage.open_store(store, crs=domain.crs, made_by=made_by(made))
    storage.keep_domain(store, domain)
    days = [pd.Timestamp(FIRST + timedelta(days=30 * n), tz="UTC") for n in range(len(ROWS))]
    items = [pystac.Item(f"scene-{n}", None, None, day, {"platform": "landsat-8"}) for n, day in enumerate(days)]
    places = storage.add_scenes(
        store, domain, {i.id: np.datetime64(d.tz_localize(None)) for i, d in zip(items, days, strict=True)}
    )
    results = []
    for n, (item, day) in enumerate(zip(items, days, strict=True)):
        masks = masks_at(ROWS[n], 0.5 if n == FAINT else 0.95)
        grey = np.where(masks[1] > 0, 200, 50).astype(np.uint8)
        write_masks(store, domain.name, places[item.id], masks, grey=grey)
        stored = storage.read_scene_masks(store, domain.name, places[item.id])
        target = Target(store, domain, places[item.id], item.id, day.to_pydatetime())
        results.append(trace_scene(stored, NO_BOXES, grey, target, made))
    content = {f"Store/{item.id}": item.to_dict() for item in items}
    rows = scene_rows(list(content.values()), domain, made)
    seen = {"state": "measured", "reason": "", "detail": ""}
    sea = [{"features": {"melange": seen | {"touches_front": n in (touched or ())}}} for n in range(len(ROWS))]
    features = {} if touched is None else feature_tables(rows, sea, domain, ["melange"])
    tables = tables_of(rows, results, domain)
    storage.write_batch(store, tables, content, recipe={"masks": "a", "fronts": "b"}, features=features)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mapped") / "store"
    make_store(str(folder))
    return folder


@pytest.fixture
def store(mapped, tmp_path):
    shutil.copytree(mapped, tmp_path / "store")
    return str(tmp_path / "store")


def shown(store, n):
    fronts = reviewed_fronts(store)
    return fronts[fronts["key"] == f"Store/scene-{n}"]


def verdict(row, what):
    return {"key": row["key"], "front": int(row["front"]), "verdict": what, "author": "M", "time": "2026-01-31T12:00Z"}


def test_a_store_is_read_as_reconciled_and_what_was_mapped_stays_byte_for_byte(store, capsys):
    before, mapped_fronts = contents(store), storage.read_fronts(store)
    assert len(usable_fronts(store)) == 8
    assert main(["reconcile", store]) == 0
    assert "1 dropped" in capsys.readouterr().out
    after = contents(store)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {"choices/Store.json"}
    assert storage.read_fronts(store).equals(mapped_fronts)
    assert set(usable_fronts(store)["key"]) == {f"Store/scene-{n}" for n in range(9) if n != OUTLIER}
    gone = shown(store, OUTLIER).iloc[0]
    assert (gone["state"], gone["reason"], gone["choice"]) == ("no_front", "out_of_sequence", "dropped")
    assert re.search(r"lies 27[6-9]\d m from", gone["choice_why"])  # on the ground: 2,690 m of this map, at the pole
    came = shown(store, FAINT).iloc[0]
    assert came["choice"] in ("retraced", "restored")
    assert came["sigma_m"] > 0
    assert 3500 < came["length_m"] < 4500


@pytest.mark.parametrize("kind", PLACES)
def test_a_second_call_writes_nothing_on_disk_and_on_s3(kind, request):
    store = new_store(kind, request)
    make_store(store)
    assert len(dict(reconcile_store(store))) == 1
    once = contents(store)
    assert dict(reconcile_store(store)) == {}
    assert contents(store) == once


def test_fronts_that_melange_touches_are_doubted_and_no_table_changes(tmp_path):
    store = str(tmp_path / "store")
    make_store(store, touched={1, OUTLIER})
    before = contents(f"{store}/fronts")
    ((_, choices),) = reconcile_store(store, settings=SequenceSettings(rate_m_a_day=200.0))
    assert choices["dropped"] == 1
    ((_, choices),) = reconcile_store(store, settings=SequenceSettings(rate_m_a_day=200.0, doubted=1.0))
    assert choices["dropped"] == 0
    assert contents(f"{store}/fronts") == before


def test_a_store_that_does_not_tell_its_settings_is_refused_in_words(tmp_path, capsys):
    store = str(tmp_path / "store")
    storage.open_store(store, crs="EPSG:3413", made_by={"model": "mine"})
    before = contents(store)
    for verb in ("reconcile", "retrace", "retry"):
        assert main([verb, store]) == 2
        assert "does not say with which settings it was made" in capsys.readouterr().err
    assert contents(store) == before


@pytest.mark.parametrize("lost", ["scene_id/c/0", "scene_id"])
def test_a_store_that_has_lost_the_places_of_its_masks_is_told_by_all_that_read_them(store, tmp_path, lost):
    apply_verdicts(store, [verdict(shown(store, 0).iloc[0], "accept")])
    path = Path(store) / "masks/Store" / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    before = contents(store)
    for read in (
        lambda: dict(reconcile_store(store)),
        lambda: derive_fjords(store, storage.read_store_domains(store)),
        lambda: write_training_pairs(store, tmp_path / "pairs"),
    ):
        with pytest.raises(
            storage.DamagedFileError, match=r"mapped scenes? have no place in it.*restore it from a copy"
        ):
            read()
    assert contents(store) == before


def test_another_rate_or_new_fronts_are_reconciled_again_and_old_choices_on_changed_lines_are_void(store):
    dict(reconcile_store(store))
    assert list(dict(reconcile_store(store, settings=SequenceSettings(rate_m_a_day=10.0)))) == ["Store"]
    (stored,) = storage.read_batches(store)
    tables = storage.read_tables(store, stored)
    moved = tables.fronts.assign(geometry=tables.fronts.geometry.translate(1000, 0))
    storage.write_batch(store, tables._replace(fronts=moved), storage.read_items(store, stored), recipe={},
                        before=stored)  # fmt: skip
    now = reviewed_fronts(store)
    assert set(now.loc[now["choice"] != "", "key"]) <= {f"Store/scene-{FAINT}"}  # which has no line of its own
    assert list(dict(reconcile_store(store))) == ["Store"]


def test_a_person_who_accepts_the_front_that_time_dropped_is_right(store):
    dropped = storage.read_fronts(store).query(f"scene_id == 'scene-{OUTLIER}'").iloc[0]
    apply_verdicts(store, [verdict(dropped, "accept")])
    dict(reconcile_store(store))
    row = shown(store, OUTLIER).iloc[0]
    assert (row["state"], row["verdict"], row["choice"]) == ("front", "accept", "")
    assert row["geometry"].equals(dropped["geometry"])


def test_a_front_that_came_in_can_be_rejected_and_stays_so(store):
    dict(reconcile_store(store))
    apply_verdicts(store, [verdict(shown(store, FAINT).iloc[0], "reject")])
    for _ in range(2):
        assert f"Store/scene-{FAINT}" not in set(usable_fronts(store)["key"])
        assert shown(store, FAINT).iloc[0]["verdict"] == "reject"
        dict(reconcile_store(store))


def test_exports_lineage_and_report_tell_what_was_chosen(store, tmp_path):
    dict(reconcile_store(store))
    export_store(store, tmp_path / "out", ["gpkg"], author="M")
    (front,) = lineage_of(store, f"scene-{FAINT}")["fronts"]
    assert front["choice"] in ("retraced", "restored")
    assert front["choice_why"]
    assert lineage_of(store, f"scene-{OUTLIER}")["reason"] == "out_of_sequence"
    page = write_report(store, tmp_path / "report")
    data = (page.parent / "data" / "00000.js").read_text()
    assert data.count('"choice":') == 1, "what was kept as it was mapped needs no word"
    assert front["choice_why"] in data
    shown = gpd.read_file(page.parent / "fronts.geojson").set_index("key")["choice"]
    assert shown.pop(f"Store/scene-{FAINT}") == front["choice"]
    assert set(shown) == {"kept"}


def test_a_rate_of_nothing_is_refused_before_the_store_is_touched(store, capsys):
    before = contents(store)
    assert main(["reconcile", store, "--rate", "0"]) != 0
    assert "0 m a day" in capsys.readouterr().err
    assert contents(store) == before
