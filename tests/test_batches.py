"""Batches of scenes: written whole, replaced in one moment, merged, and the same after any kill."""

import contextlib
import io
import json
from dataclasses import replace

import geopandas as gpd
import pyarrow.parquet as pq
import pytest
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, box
from storing import (
    DOMAIN,
    LINE,
    NOON,
    PLACES,
    WATER,
    contents,
    item,
    new_store,
    paths_in,
    polygon_rows,
    rejected_rows,
    rows,
    write,
)

from calfin_cloud import storage
from calfin_cloud.schema import FRONT_SCHEMA, POLYGON_SCHEMA, REJECTED_SCHEMA
from calfin_cloud.storage import files, leases
from calfin_cloud.storage.parquet import to_parquet


@pytest.fixture
def store(tmp_path):
    return made(str(tmp_path / "store"))


@pytest.fixture(params=PLACES)
def anywhere(request):
    """Store on disk, and one on S3."""
    return made(new_store(request.param, request))


def made(uri):
    storage.open_store(uri, crs=DOMAIN.crs, made_by={"model": "a@1"})
    return uri


def table_files(store):
    """All files of a store that belong to batches."""
    return {path: data for path, data in contents(store).items() if path.startswith(("fronts", "rej", "poly", "items"))}


def of(kind, table, *scenes):
    """Tables of a batch of scenes, of which one is `table`."""
    made = {"fronts": rows(*scenes), "rejected": rejected_rows(), "polygons": polygon_rows()} | {kind: table}
    return storage.Tables(**made), {key: item(key) for key in made["fronts"]["key"]}


def marks(store):
    """What each table says of each scene: the mark it was written with, see `storing.write`."""
    read = (storage.read_fronts, storage.read_rejected, storage.read_polygons)
    return [dict(zip(table["scene_id"], table["detail"], strict=True)) for table in (r(store) for r in read)]


def test_geopandas_reads_the_folder_of_fronts_even_where_a_batch_has_none(store):
    write(store, "a", "b")
    write(store, "c", line=LINE)
    table = gpd.read_parquet(store + "/fronts")
    assert sorted(table["scene_id"]) == ["a", "b", "c"]
    assert table.crs.to_epsg() == 3413
    ours = storage.read_fronts(store)
    assert ours.crs.to_epsg() == 3413
    assert ours.loc[ours["scene_id"] == "c", "geometry"].item() == LINE
    assert ours["geometry"].isna().sum() == 2
    assert list(ours.columns) == [*FRONT_SCHEMA.names, "geometry"]
    assert storage.finished_keys(store) == {"Store/a", "Store/b", "Store/c"}


def test_what_is_read_is_what_geopandas_reads(store):
    write(store, "a", "b", line=LINE)
    ours, theirs = storage.read_fronts(store), gpd.read_parquet(store + "/fronts")
    assert_geodataframe_equal(ours, theirs[ours.columns])


def test_writing_a_batch_twice_is_writing_it_once(anywhere):
    write(anywhere, "a", "b", line=LINE)
    before = contents(anywhere)
    write(anywhere, "a", "b", line=LINE)
    assert contents(anywhere) == before
    assert len(table_files(anywhere)) == 4


def test_the_files_of_a_batch_share_its_name_and_read_as_they_were_written(anywhere):
    fronts = rows("a", "b", line=LINE)
    tables = storage.Tables(fronts, rejected_rows("b"), polygon_rows("a", polygon=WATER))
    items = {key: item(key) for key in fronts["key"]}
    stored = storage.write_batch(anywhere, tables, items, recipe={"masks": "m"})
    assert {path.partition("/")[2][:22] for path in table_files(anywhere)} == {stored.name[:22]}
    assert storage.read_batches(anywhere) == [stored]
    for read, written in zip(storage.read_tables(anywhere, stored), tables, strict=True):
        assert read["key"].tolist() == written["key"].tolist()
        assert read.geometry.geom_equals(written.geometry).all()
    assert storage.read_items(anywhere, stored) == items
    assert stored.recipe == {"masks": "m"}
    assert stored.items["Store/a"] == storage.item_digest(items["Store/a"]) != stored.items["Store/b"]


@pytest.mark.parametrize(
    ("folder", "make", "schema"),
    [("rejected", rejected_rows, REJECTED_SCHEMA), ("polygons", polygon_rows, POLYGON_SCHEMA)],
)
def test_an_empty_table_has_a_file_of_the_same_types(store, folder, make, schema):
    paths = []
    for table, scenes in ((make(), ("a",)), (make("b"), ("b",))):
        stored = storage.write_batch(store, *of(folder, table, *scenes), recipe={})
        paths.append(f"{store}/{folder}/{stored.files[folder]}")
    empty, full = paths
    assert pq.read_schema(empty).equals(pq.read_schema(full))
    assert [pq.read_schema(empty).field(f.name).type for f in schema] == schema.types
    assert len(pq.read_table(empty)) == 0
    together = gpd.read_parquet(f"{store}/{folder}")
    assert together.crs.to_epsg() == 3413
    assert len(together) == 1


def test_a_file_of_fronts_from_elsewhere_is_refused(store):
    stored = write(store, "a")
    rows("a").to_parquet(f"{store}/fronts/{stored.name}")  # without our header
    with pytest.raises(ValueError, match="no header"):
        storage.finished_keys(store)
    with pytest.raises(ValueError, match="no header"):
        storage.read_fronts(store)


@pytest.mark.parametrize("table", [rows("a", "b"), polygon_rows("a"), polygon_rows()])
def test_a_table_says_of_its_geometry_what_geopandas_says(table, tmp_path):
    schema = FRONT_SCHEMA if "state" in table else POLYGON_SCHEMA
    table.to_parquet(tmp_path / "theirs", index=False, schema_version="1.1.0", write_covering_bbox=True)
    ours, theirs = pq.read_schema(io.BytesIO(to_parquet(table, schema))), pq.read_schema(tmp_path / "theirs")
    assert ours.metadata == {b"geo": theirs.metadata[b"geo"]}
    for name in ("geometry", "bbox"):
        assert ours.field(name).equals(theirs.field(name), check_metadata=True)
    read = gpd.read_parquet(io.BytesIO(to_parquet(table, schema)))
    assert read.geometry.geom_equals(table.geometry).all() | table.geometry.isna().all()


def test_rows_of_scenes_outside_the_batch_are_not_written(store):
    with pytest.raises(ValueError, match=r"rows of others \['Store/b'\]"):
        storage.write_batch(store, *of("rejected", rejected_rows("a", "b"), "a"), recipe={})
    tables, items = of("rejected", rejected_rows(), "a", "b")
    with pytest.raises(ValueError, match=r"none of \['Store/b'\]"):
        storage.write_batch(store, tables, {"Store/a": items["Store/a"]}, recipe={})
    two = tables._replace(fronts=tables.fronts.assign(key=["Store/a", "Other/b"]))
    with pytest.raises(ValueError, match=r"one domain.*'Other', 'Store'"):
        storage.write_batch(store, two, {"Store/a": {}, "Other/b": {}}, recipe={})
    assert table_files(store) == {}


def test_half_a_file_left_by_a_killed_run_is_in_no_readers_way_and_the_next_run_deletes_it(store, tmp_path):
    stored = write(store, "a")
    leftover = tmp_path / "store/fronts" / f".{stored.name}.part"
    leftover.write_bytes(b"PAR1 half")
    assert len(gpd.read_parquet(store + "/fronts")) == 1
    assert storage.finished_keys(store) == {"Store/a"}
    storage.tidy(store)
    assert not leftover.exists()


def test_rows_that_break_the_contract_are_not_written(store):
    broken = rows("a").assign(state="front")
    with pytest.raises(ValueError, match="state and geometry disagree"):
        storage.write_batch(store, *of("fronts", broken, "a"), recipe={})
    with pytest.raises(ValueError, match="unknown states or reasons"):
        storage.write_batch(store, *of("fronts", rows("a").assign(reason="bored"), "a"), recipe={})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rejected_rows("a").assign(reason=""), "unknown reasons"),
        (rejected_rows("a").assign(filter=""), "a filter"),
        (rejected_rows("a", line=None), "must have a line"),
        (rejected_rows("a", "a"), "a number of their own"),
        (rejected_rows("a").drop(columns="limit"), "must have the columns"),
    ],
)
def test_rejected_candidates_that_break_the_contract_are_not_written(store, table, message):
    with pytest.raises(ValueError, match=message):
        storage.write_batch(store, *of("rejected", table, "a"), recipe={})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (polygon_rows("a", kind="land"), "unknown kinds"),
        (polygon_rows("a").assign(reason="bored"), "unknown kinds or reasons"),
        (polygon_rows("a").assign(reason=""), "None with a reason"),
        (polygon_rows("a", polygon=MultiPolygon([box(0, 0, 1, 1)])).assign(reason="no_ocean"), "None with a reason"),
        (polygon_rows("a", polygon=box(0, 0, 1, 1)), "one MultiPolygon"),
        (polygon_rows("a", "a"), "one MultiPolygon a kind"),
    ],
)
def test_polygons_that_break_the_contract_are_not_written(store, table, message):
    with pytest.raises(ValueError, match=message):
        storage.write_batch(store, *of("polygons", table, "a"), recipe={})


# --- replaced and merged in one moment --------------------------------------------------------------------------------


def test_a_batch_is_replaced_when_its_fronts_are_and_its_old_files_are_put_aside(anywhere):
    old = write(anywhere, "a", "b", mark="old")
    new = write(anywhere, "a", "b", mark="new", before=old)
    assert marks(anywhere) == [{"a": "new", "b": "new"}] * 3
    assert new.name == old.name
    assert new.files["polygons"] != old.files["polygons"]
    assert len(table_files(anywhere)) == 4


def test_compaction_keeps_every_row_and_every_item_and_twice_is_once(anywhere):
    for scenes in (("a", "e"), ("b",), ("c", "d")):
        write(anywhere, *scenes, line=LINE if "b" in scenes else None, mark="".join(scenes))
    read = (storage.read_fronts, storage.read_rejected, storage.read_polygons)
    before = [r(anywhere) for r in read]
    assert storage.compact_store(anywhere) == (3, 1)
    for r, table in zip(read, before, strict=True):
        assert_geodataframe_equal(r(anywhere), table)
    (stored,) = storage.read_batches(anywhere)
    assert list(stored.items) == [f"Store/{s}" for s in "abcde"]
    assert storage.read_items(anywhere, stored)["Store/d"] == item("d", mark="cd")
    assert len(table_files(anywhere)) == 4
    after = contents(anywhere)
    assert storage.compact_store(anywhere) == (1, 1)
    assert contents(anywhere) == after


def test_a_compacted_store_does_not_show_how_it_was_cut_into_batches(tmp_path):
    stores = [made(str(tmp_path / name)) for name in ("one", "two")]
    for store, cuts in zip(stores, ((("a", "b"), ("c",)), (("a",), ("b", "c"))), strict=True):
        for scenes in cuts:
            write(store, *scenes)
        storage.compact_store(store)
    one, two = (storage.read_fronts(store) for store in stores)
    assert one.equals(two)
    names = [[path for path in table_files(store)] for store in stores]
    assert names[0] == names[1]


def test_compaction_stops_at_large_files_and_never_merges_two_recipes(store):
    for n, scene in enumerate("abcdefg"):
        write(store, scene, recipe={"masks": str(n // 4)})
    assert storage.compact_store(store, scenes_a_file=2) == (7, 4)
    batches = storage.read_batches(store)
    assert sorted(len(b.items) for b in batches) == [1, 2, 2, 2]
    assert storage.finished_keys(store) == {f"Store/{s}" for s in "abcdefg"}
    assert storage.compact_store(store, scenes_a_file=2) == (4, 4)
    write(store, "h", recipe={"masks": "1"})
    assert storage.compact_store(store, scenes_a_file=2) == (5, 4)


def test_a_batch_that_was_merged_can_be_replaced_and_merged_again(store):
    write(store, "a")
    write(store, "b")
    storage.compact_store(store)
    (stored,) = storage.read_batches(store)
    write(store, "a", "b", mark="new", before=stored)
    write(store, "c", mark="new")
    storage.compact_store(store)
    assert marks(store) == [dict.fromkeys("abc", "new")] * 3
    assert len(table_files(store)) == 4


def test_an_unfinished_store_is_not_compacted(store):
    storage.begin_change(store, "retrace")
    with pytest.raises(ValueError, match=r"`calfin retrace` .* was stopped"):
        storage.compact_store(store)


# --- kills ------------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """As sudden as SIGKILL for the code under test: nothing catches it."""


class Steps:
    """Counts the writes and deletions of a store, and kills before the one of number `last`."""

    def __init__(self, patch, last):
        self.left = last
        self.between = lambda: None
        for name, module in (("write_whole", files), ("delete_files", files), ("move_file", files)):
            self.wrap(patch, name, module)
        self.wrap(patch, "commit_whole", leases)

    def wrap(self, patch, name, module):
        real = getattr(module, name)

        def step(fs, what, *data):
            for path in [what] if isinstance(what, str) else list(what):
                self.between()
                if self.left == 0:
                    raise KilledError
                self.left -= 1
                real(fs, path if data else [path], *data)

        for user in (storage.commits, storage.compaction):
            if hasattr(user, name):
                patch.setattr(user, name, step)


def run_to_the_end(store, cut):
    """What a run of `map` does, then one that maps everything anew, then a compaction; each goes on where it was."""
    done = {key for stored in storage.tidy(store) for key in stored.items}
    todo = [s for s in "abcde" if f"Store/{s}" not in done]
    for start in range(0, len(todo), cut):
        write(store, *todo[start : start + cut], mark="old")
    for stored in storage.tidy(store):
        if stored.recipe["masks"] != "new":
            scenes = [key.removeprefix("Store/") for key in stored.items]
            write(store, *scenes, mark="new", recipe={"masks": "new"}, before=stored)
    storage.compact_store(store, scenes_a_file=100)


def check_readers(store):
    """Whatever a reader sees is whole: the tables agree, and each scene is there once."""
    fronts, rejected, polygons = marks(store)
    assert fronts == rejected == polygons
    assert len(storage.read_fronts(store)) == len(fronts)
    counts = storage.count_scenes(store)
    assert counts["wrong"] == []
    assert sum(counts["states"].values()) + counts["pending"] == counts["found"] == 5


@given(st.lists(st.integers(0, 40), max_size=3), st.integers(1, 3))
@settings(max_examples=6)
def test_any_kills_at_any_step_leave_whole_batches_and_end_in_the_same_files(tmp_path_factory, kills, cut):
    folder = tmp_path_factory.mktemp("s")
    stores = [made(str(folder / name)) for name in ("disturbed", "undisturbed")]
    for store in stores:
        storage.keep_domain(store, DOMAIN)
        storage.add_scenes(store, DOMAIN, dict.fromkeys("abcde", NOON))
    disturbed, undisturbed = stores
    for last in kills:
        with pytest.MonkeyPatch.context() as patch:
            Steps(patch, last)
            with contextlib.suppress(KilledError):
                run_to_the_end(disturbed, cut)
        check_readers(disturbed)
    run_to_the_end(disturbed, cut)
    run_to_the_end(undisturbed, cut)
    assert table_files(disturbed) == table_files(undisturbed)


def test_a_domain_that_an_earlier_version_wrote_in_other_words_is_the_same(store, tmp_path):
    storage.keep_domain(store, DOMAIN)
    path = tmp_path / f"store/domains/{DOMAIN.name}.geojson"
    content = json.loads(path.read_text())
    content.pop(files.SEAL)
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    ring.reverse()  # its rectangle was clockwise once
    before = files.seal(content)
    path.write_bytes(before)
    storage.check_domains(store, [DOMAIN])
    storage.keep_domain(store, DOMAIN)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="another boundary"):
        storage.check_domains(store, [replace(DOMAIN, glacier_id="another")])


def test_a_reader_at_any_moment_sees_whole_batches(store, monkeypatch):
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, dict.fromkeys("abcde", NOON))
    steps = Steps(monkeypatch, 10_000)
    steps.between = lambda: check_readers(store)
    run_to_the_end(store, 2)
    check_readers(store)
    assert 10_000 - steps.left > 30


def test_a_plain_reader_at_any_moment_has_all_rows_and_has_them_twice_only_while_files_are_merged(store, monkeypatch):
    """Not the tables beside the fronts: their files of before and after lie beside each other for a moment."""
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, dict.fromkeys("abcde", NOON))
    twice = []

    def look():
        ours, paths = storage.read_fronts(store), paths_in(f"{store}/fronts")
        plain = gpd.read_parquet(f"{store}/fronts") if paths else ours
        assert set(zip(plain["key"], plain["detail"], strict=True)) == set(
            zip(ours["key"], ours["detail"], strict=True)
        )
        is_merging = any(stored.replaces and len(paths) > 1 for stored in storage.read_batches(store))
        assert plain["key"].duplicated().any() == is_merging
        twice.append(is_merging)

    steps = Steps(monkeypatch, 10_000)
    steps.between = look
    run_to_the_end(store, 2)
    look()
    assert True in twice
    assert twice[-1] is False


def test_a_reader_whose_listing_has_grown_old_looks_again(store, monkeypatch):
    monkeypatch.setattr(files, "READERS", 1)
    for scene in "abc":
        write(store, scene, mark="x")
    fs, root = files.open_place(store)
    looks = []

    def read(path):
        if not looks:
            storage.compact_store(store)
        looks.append(path)
        return bytes(fs.cat_file(path))

    assert len(files.read_snapshot(fs, f"{root}/fronts", ".parquet", read)) == 1
    assert len(looks) == 4, "the three small ones, two of which were gone, then the large one"


def test_a_reader_between_two_changes_sees_them_in_their_order(store, monkeypatch):
    """The first batch is read before both change, the second afterwards: such a store has never been."""
    one, two = write(store, "a", mark="old"), write(store, "b", mark="old")
    fs, root = files.open_place(store)
    first, changes = min(one.name, two.name), []

    def read(path):
        data = bytes(fs.cat_file(path))
        if path.endswith(first) and not changes:
            changes.append(write(store, "a", mark="new", before=one))
            changes.append(write(store, "b", mark="new", before=two))
        return data

    monkeypatch.setattr(files, "READERS", 1)
    seen = files.read_snapshot(fs, f"{root}/fronts", ".parquet", read)
    assert seen == [bytes(fs.cat_file(path)) for path in files.list_files(fs, f"{root}/fronts", ".parquet")]


@pytest.mark.parametrize("kind", ["replaced", "compacted"])
def test_a_reader_slower_than_a_change_gets_the_tables_it_came_for(anywhere, kind):
    old = [write(anywhere, scene, mark="old") for scene in "ab"]
    fs, root = files.open_place(anywhere)
    if kind == "replaced":
        for stored, scene in zip(old, "ab", strict=True):
            write(anywhere, scene, mark="new", before=stored)
    else:
        storage.compact_store(anywhere)
    for stored, scene in zip(old, "ab", strict=True):
        assert storage.read_items(anywhere, stored) == {f"Store/{scene}": item(scene, mark="old")}
        for folder in ("rejected", "polygons"):
            table = storage.tables._read_side(fs, root, DOMAIN.crs, folder, stored)
            assert set(table["detail"].to_pylist()) == {"old"}


def test_what_was_replaced_is_deleted_by_a_later_run_after_a_day_by_the_clock_of_the_storage(anywhere):
    old = write(anywhere, "a", mark="old")
    write(anywhere, "a", mark="new", before=old)
    aside = [path for path in paths_in(anywhere) if path.startswith("replaced/")]
    assert aside == sorted(f"replaced/{folder}/{name}" for folder, name in old.files.items())
    storage.tidy(anywhere)
    assert [path for path in paths_in(anywhere) if path.startswith("replaced/")] == aside
    storage.tidy(anywhere, grace_s=-2)  # S3 tells times to the second
    assert [path for path in paths_in(anywhere) if path.startswith("replaced/")] == []
    assert marks(anywhere) == [{"a": "new"}] * 3


def test_what_was_replaced_by_what_it_replaces_comes_back(store):
    first = write(store, "a", mark="one")
    second = write(store, "a", mark="two", before=first)
    write(store, "a", mark="one", before=second)
    storage.tidy(store, grace_s=-1)
    assert marks(store) == [{"a": "one"}] * 3


def test_the_tables_read_together_are_of_one_moment(store):
    write(store, "a", "b", line=LINE, mark="x")
    together = storage.read_all_tables(store)
    for table, read in zip(together, (storage.read_fronts, storage.read_rejected, storage.read_polygons), strict=True):
        assert_geodataframe_equal(table, read(store))


@pytest.mark.parametrize("kind", PLACES)
def test_one_domain_is_read_without_the_files_of_the_others(kind, request):
    store = made(new_store(kind, request))
    write(store, "a")
    fs, root = files.open_place(store)
    files.write_whole(fs, f"{root}/fronts/Store-b-{'0' * 16}.parquet", b"of another domain, and damaged")
    with pytest.raises(storage.DamagedFileError):
        storage.read_fronts(store)
    with pytest.raises(storage.DamagedFileError):
        storage.read_fronts(store, domain="Store-b")
    with pytest.raises(ValueError, match="has no domain 'Other'"):
        storage.read_fronts(store, domain="Other")
    storage.keep_domain(store, replace(DOMAIN, name="Other"))
    assert len(storage.read_fronts(store, domain="Other")) == 0


def test_an_empty_store_reads_as_empty_tables(store):
    read = (storage.read_fronts, storage.read_rejected, storage.read_polygons)
    for table, schema in zip([r(store) for r in read], (FRONT_SCHEMA, REJECTED_SCHEMA, POLYGON_SCHEMA), strict=True):
        assert len(table) == 0
        assert list(table.columns) == [*schema.names, "geometry"]
        assert table.crs.to_epsg() == 3413


def test_a_file_that_is_lost_is_told_with_what_to_do(store, tmp_path):
    stored = write(store, "a")
    (tmp_path / "store/polygons" / stored.files["polygons"]).unlink()
    with pytest.raises(ValueError, match=r"polygons.* is missing: .*read again; .*restore it from a copy$"):
        storage.read_polygons(store)
    (tmp_path / "store/fronts" / stored.name).unlink()
    assert len(storage.read_polygons(store)) == 0
