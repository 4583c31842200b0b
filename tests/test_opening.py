"""A store is opened as one object, whose tables are those of the functions that read them."""

import errno
import os
import resource
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from shapely.geometry import LineString, box
from storing import DOMAIN, LINE, NOON, PLACES, new_store, rows, write

import calfin_cloud as cc
from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import Domain
from calfin_cloud.products import product_of
from calfin_cloud.results.spreadsheets import write_csv


@pytest.fixture
def store(request):
    store = new_store("disk", request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, {"s1": NOON, "s2": NOON})
    write(store, "s1", line=LINE)
    write(store, "s2")
    return store


def test_a_store_has_fronts_masks_domains_and_says_what_it_holds(store):
    opened = cc.open_store(store)
    assert opened.fronts["key"].tolist() == storage.read_fronts(store)["key"].tolist()
    assert opened.masks["Store"].dims == ("time", "mask", "y", "x")
    assert opened.domains["Store"] == DOMAIN
    assert opened.rejected["key"].tolist() == ["Store/s1", "Store/s2"]
    told = opened._repr_html_()
    assert "1 front, 1 no_front" in told
    assert "<td>Store</td><td>1</td><td>2020-07-01</td>" in told


def test_positions_are_those_of_the_series(store):
    assert cc.open_store(store).positions["key"].tolist() == ["Store/s1"]


def test_what_takes_the_address_of_a_store_takes_an_opened_one_too(store):
    assert cc.usable_fronts(cc.open_store(store)).equals(cc.usable_fronts(store))


@pytest.mark.parametrize(
    "call",
    [
        lambda domain: cc.search_scenes("catalog.json", [domain], "2019"),
        lambda domain: cc.map_fronts(domain, lambda _: [], "new"),
        lambda domain: cc.map_fronts([domain], "catalog.json", "new"),
        lambda _: cc.map_fronts("domains.geojson", lambda _: [], "new"),
        lambda domain: cc.map_fronts([domain], lambda _: [], None),  # no folder of this name is made
        lambda _: cc.read_fronts(5),
        lambda _: cc.explore(None),
        lambda _: cc.usable_fronts(rows("s1")),
        lambda _: cc.summarise_scenes("fronts"),
        lambda _: cc.summarise_scenes(product_of(rows("s1", line=LINE))),
        lambda domain: cc.stack_scenes([], [domain]),
        lambda domain: cc.map_fronts([domain], lambda _: [], "new", batch_size=0),
        lambda domain: cc.map_fronts([domain], lambda _: [], "new", batch_size=2.5),
    ],
)
def test_what_is_not_of_the_wanted_kind_is_told_in_words_before_anything_is_written(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    words = (
        r"call once a domain|give \[domain\] and partial|batch_size is a whole number|"
        r"a store is the folder.* got (NoneType|int|GeoDataFrame)|`read_fronts` are summarised, got (str|with)"
    )
    with pytest.raises((TypeError, ValueError), match=words):
        call(DOMAIN)
    assert not list(tmp_path.iterdir())


def test_domains_that_come_one_by_one_are_all_searched(tmp_path):
    searched = []
    cc.map_fronts((d for d in [DOMAIN]), lambda domain: searched.append(domain.name) or [], tmp_path / "new")
    assert searched == [DOMAIN.name]


def test_a_domain_that_a_store_lacks_is_told_from_those_it_has(store):
    for read in (cc.read_fronts, cc.read_polygons, cc.read_rejected, partial(cc.read_features, feature="plumes")):
        with pytest.raises(ValueError, match=r"has no domain 'Stor'; it has \['Store'\]"):
            read(store, domain="Stor")
    assert len(cc.read_features(store, "plumes", domain="Store")) == 0


def test_percent_for_a_share_is_refused():
    with pytest.raises(ValueError, match=r"max_cloud must be a part of the domain, at most 1, got 15: 15 % is 0\.15"):
        cc.MapSettings(max_cloud=15)
    with pytest.raises(ValueError, match="at most 1, got nan"):  # which would let all scenes pass
        cc.MapSettings(max_cloud=float("nan"))


def test_a_place_without_a_store_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="not a store of calfin"):
        cc.open_store(tmp_path)


def test_a_file_where_a_store_was_meant_is_told_in_a_sentence(tmp_path):
    (tmp_path / "domains.geojson").write_text("{}")
    with pytest.raises(ValueError, match=r"domains\.geojson is not a store of calfin"):
        cc.open_store(tmp_path / "domains.geojson")
    with pytest.raises(ValueError, match=r"domains\.geojson is not a store of calfin"):
        cc.store_product(tmp_path / "domains.geojson")


def test_the_fronts_of_a_glacier_are_read_by_its_number_too(store):
    numbered = replace(DOMAIN, name="Lille", glacier_id="10")
    storage.keep_domain(store, numbered)
    assert len(cc.read_fronts(store, glacier=10)) == 0
    with pytest.raises(ValueError, match=r"no domain of the glacier '11'"):
        cc.read_fronts(store, glacier=11)


def test_less_than_nothing_is_refused_where_it_would_pass_for_nearly_all(store, tmp_path):
    with pytest.raises(ValueError, match="most_pictures must be 0 or more, got -1"):
        cc.write_report(store, tmp_path / "report", most_pictures=-1)
    with pytest.raises(ValueError, match="got no domain"):
        cc.map_fronts([], lambda _: [], tmp_path / "new")


def test_a_report_is_written_below_a_path_given_as_text(store, tmp_path):
    page = cc.open_store(store).write_report(str(tmp_path / "report"))
    assert page == tmp_path / "report" / "index.html"
    assert (tmp_path / "report" / "data" / "00000.js").read_text().startswith('atlas.receive("glacier", ')


def test_a_report_that_is_refused_leaves_the_earlier_one_as_it_was(store, tmp_path):
    cc.write_report(store, tmp_path / "report")
    before = {path: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="no CRS"):
        cc.write_report(
            store, tmp_path / "report", references=cc.open_store(store).fronts.set_crs(None, allow_override=True)
        )
    assert {path: path.read_bytes() for path in before} == before


def kept(folder):
    """All files below a folder, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_leaves_a_folder_with_files_of_others_as_it_is(store, tmp_path, capsys):
    for name in ("data/thesis.csv", "scripts/mine.py", "notes.txt"):
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text("ten years of work")
    before = kept(tmp_path)
    assert main(["report", store, "--out", str(tmp_path / "work")]) == 2
    assert "holds other files in data/, scripts/" in capsys.readouterr().err
    assert kept(tmp_path) == before


def test_a_report_written_again_keeps_what_people_put_beside_it_and_nothing_of_before(store, tmp_path):
    folder = tmp_path / "report"
    cc.write_report(store, folder)
    for name in ("data/mine.csv", "plumes.geojson", "icebergs.geojson"):
        (folder / name).write_text("a")
    about = folder / "data" / "about.js"
    about.write_text(about.read_text().replace('"downloads":[', '"downloads":["icebergs.geojson",'))
    (folder / "data" / "00007.js").write_text("of a glacier that is gone")
    cc.write_report(store, folder)
    assert [(folder / name).read_text() for name in ("data/mine.csv", "plumes.geojson")] == ["a", "a"]
    assert not (folder / "data" / "00007.js").exists()
    assert not (folder / "icebergs.geojson").exists()


def test_a_report_that_was_stopped_half_way_is_written_anew(store, tmp_path):
    folder = tmp_path / "report"
    cc.write_report(store, folder)
    shutil.rmtree(folder / "scripts")
    shutil.rmtree(folder / "lib")
    for name in ("index.html", "data/about.js", "data/land.js"):
        (folder / name).unlink()
    killed = folder / "data" / ".00001.js.a1b2c3d4"
    killed.mkdir()
    (killed / "00001.js").write_text('atlas.receive("glac')
    assert cc.write_report(store, folder).is_file()
    assert not killed.exists()


def test_a_report_on_a_full_disk_ends_with_the_error_of_one_file_and_leaves_it_whole(store, tmp_path):
    before = kept(cc.write_report(store, tmp_path / "report").parent / "lib")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # less than OpenLayers has
    try:
        with pytest.raises(OSError, match="too large") as error:
            cc.write_report(store, tmp_path / "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert kept(tmp_path / "report" / "lib") == before


@pytest.mark.parametrize("verb", ["report", "export", "timeseries", "composite", "compare", "review"])
def test_no_verb_writes_its_results_into_a_store(store, verb, capsys):
    (Path(store) / "pictures" / "Store").mkdir(parents=True)
    (Path(store) / "pictures" / "Store" / "s1.png").write_bytes(b"a picture of the store")
    before = kept(Path(store))
    more = {"export": ["--format", "gpkg"], "compare": [store, "--by-place"]}.get(verb, [])
    for folder in (store, f"{store}/pictures/Store"):
        assert main([verb, store, *more, "--training" if verb == "review" else "--out", folder]) == 2
        assert f"{folder} belongs to the store {store}, whose files are its own" in capsys.readouterr().err
    with pytest.raises(ValueError, match="belongs to the store"):
        cc.write_figures({}, store)
    assert kept(Path(store)) == before


@pytest.mark.parametrize(
    "words",
    [
        ["domains", "--glacier", "Store", "--out"],
        ["domains", "--glacier", "Store", "--out", "d.geojson", "--preview"],
        ["fjords", "--domains", "d.geojson", "--out"],
        ["search", "--catalog", "c.json", "--domains", "d.geojson", "--period", "2021", "--out"],
        ["show", "store", "scene", "--picture"],
        ["trace", "a.png", "--out"],
        ["sample"],
    ],
)
def test_no_verb_writes_its_file_over_one_of_a_store(store, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*words, f"{store}/store.json"])
    assert f"belongs to the store {store}, whose files are its own" in capsys.readouterr().err


def test_the_page_of_a_domain_does_not_replace_its_file(tmp_path, capsys):
    path = str(tmp_path / "d.geojson")
    assert main(["domains", "--glacier", "Store", "--out", path, "--preview", path]) == 2
    assert "give the page a name of its own" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_report_of_a_store_without_a_domain_is_refused(request, tmp_path):
    store = new_store("disk", request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    with pytest.raises(ValueError, match="run `calfin map` first"):
        cc.write_report(store, tmp_path / "report")


def test_a_domain_shows_its_outline_and_place_and_no_markup_of_its_id():
    line = LineString([(1500, 0), (1500, 2400)])
    domain = Domain("Store", DOMAIN.grid, "<b>9", box(0, 0, 1500, 2400), line)
    told = domain._repr_html_()
    assert told.count("<path") == 2
    assert "no known termini" in told
    assert "100 x 80 pixels of 30 m" in told
    assert "&lt;b&gt;9" in told


def test_text_that_a_spreadsheet_would_compute_is_quoted_and_numbers_stay(tmp_path):
    table = pd.DataFrame({"scene": ["=1+1", "+a", "-b", "@c", "plain"], "change_m": [-1.5, 2, 3, 4, 5]})
    read = pd.read_csv(write_csv(table, tmp_path / "t.csv"))
    assert read["scene"].tolist() == ["'=1+1", "'+a", "'-b", "'@c", "plain"]
    assert read["change_m"].tolist() == [-1.5, 2, 3, 4, 5]


def test_the_name_of_the_last_release_writes_the_report_too_and_says_what_took_its_place(store):
    with pytest.warns(DeprecationWarning, match="call write_report"):
        page = cc.write_store_report(store)
    assert Path(page).name == "index.html"
    with (
        pytest.warns(DeprecationWarning, match="call write_report"),
        pytest.raises(ValueError, match="is no folder on this machine"),
    ):
        cc.write_store_report("s3://bucket/store")


def test_a_domain_shows_its_termini_the_oldest_lightest():
    told = cc.domain_from_glacier("Harald Moltke")._repr_html_()
    assert told.count("<path") == 13
    assert "13 known termini, 2009 to 2021" in told
    assert told.index("#bcd3e2") < told.index("#0b4a8f")


@pytest.mark.parametrize("kind", PLACES)
def test_who_reads_a_store_as_a_file_of_fronts_learns_what_reads_it(kind, request):
    place = new_store(kind, request)
    storage.open_store(place, crs=DOMAIN.crs, made_by={"model": "a"})
    with pytest.raises(ValueError, match="is a store of `calfin map`, not a file of fronts: `store_product` reads it"):
        cc.read_product(place)
    with pytest.raises(ValueError, match="cannot read the file of fronts"):
        cc.read_product(f"{place}/fronts-of-mine.gpkg")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_store_and_a_folder_may_be_paths_or_text(store, tmp_path, kind):
    place = kind(store)
    opened = cc.open_store(place)
    assert repr(opened) == f"Store({store!r}: 1 domain, EPSG:3413, 1 front)"
    for read in (cc.read_fronts, cc.read_rejected, cc.read_polygons, cc.usable_fronts):
        assert len(read(place)) >= 1
    assert cc.read_masks(place, "Store").sizes["time"] == 2
    with pytest.raises(ValueError, match="no masks of the domain 'Other'"):
        cc.read_masks(place, "Other")
    assert len(cc.store_product(place)[0]) == 1
    assert cc.write_report(place, kind(tmp_path / "report")).is_file()
    assert cc.export_store(place, kind(tmp_path / "products"), ["gpkg"], author="A")
    assert cc.explore(place).save(kind(tmp_path / "one.html")).stat().st_size > 1_000_000


@pytest.mark.parametrize("version", ["../../up", "a/b", ""])
def test_a_version_of_exported_data_that_would_be_another_path_is_refused(store, tmp_path, version):
    with pytest.raises(ValueError, match=r"the version of the data must be .* since it becomes part of a path"):
        cc.export_store(store, tmp_path / "products", ["calfin"], author="A", version=version)
    assert not (tmp_path / "products").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Domain;RefName\nStore;Rink\n", "has the columns ['Domain;RefName']"),
        (b"glacier_id,name\n9,Rink\n", "has the columns ['glacier_id', 'name']"),
        (b"", "cannot read the names"),
        ("domain,RefName\nStore,Brückner\n".encode("latin-1"), "cannot read the names"),
    ],
)
def test_a_file_of_names_that_would_be_ignored_or_cannot_be_read_is_told(store, tmp_path, capsys, data, words):
    (tmp_path / "names.csv").write_bytes(data)
    call = ["export", store, "--format", "calfin", "--out", str(tmp_path / "products")]
    assert main([*call, "--names", str(tmp_path / "names.csv")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert f"{tmp_path}/names.csv" in said
    assert "with domain or glacier_id, and one of GrnlndcN" in said
    assert not (tmp_path / "products").exists()


def test_a_map_for_a_notebook_that_would_be_too_large_is_refused(store, monkeypatch):
    monkeypatch.setattr("calfin_cloud.results.exploring.LARGEST_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"most_pictures=0.*write_report"):
        cc.explore(store)
