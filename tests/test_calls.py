"""How a verb is called and what it says: options of a file, results in JSON, notes, bars, what is checked first."""

import argparse
import errno
import inspect
import io
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from operator import length_hint

import geopandas as gpd
import pytest
import s3fs
from botocore.parsers import ResponseParserError
from shapely.geometry import LineString, box
from storing import DOMAIN, NOON, new_store, rows, write
from tqdm import tqdm

import calfin_cloud as cc
from calfin_cloud import doctor, storage
from calfin_cloud.cli import main
from calfin_cloud.cli.config import with_config
from calfin_cloud.cli.ends import end
from calfin_cloud.cli.mapping import MOST_ROWS, _show_scenes
from calfin_cloud.cli.output import notes, set_up_log
from calfin_cloud.cli.parser import VERBS, make_parser
from calfin_cloud.cli.searching import FEW_SCENES, cluster_for, counted, search_ahead
from calfin_cloud.network import weights_path
from calfin_cloud.pipeline import MapSettings, retrace_fronts, retry_failed
from calfin_cloud.pipeline.settings import made_by
from calfin_cloud.scenes import describe_catalog

NOWHERE = "tcp://127.0.0.1:9"  # a scheduler that is not there: who asks it first ends with 3


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Folder of the real sample."""
    folder = tmp_path_factory.mktemp("real")
    cc.write_real_sample(folder)
    return folder


@pytest.fixture
def find(real):
    """Words of a call that finds the real scene."""
    return ["--catalog", str(real / "catalog.json"), "--domains", str(real / "domains.geojson"), "--period", "2021"]


def parsed(*words):
    return make_parser().parse_args(with_config(make_parser(), list(words)))


# --- options of a file ------------------------------------------------------------------------------------------------


def test_options_of_a_file_are_those_of_a_call_and_the_call_wins(tmp_path):
    (tmp_path / "run.toml").write_text(
        'catalog = "earth-search"\ndomains = "d.geojson"\nstore = "s"\nperiod = 2019-06-01\nmax-cloud = 0.3\n'
        'domain = ["a", "-b"]\nrecompute = true\njson = false\n[cluster-option]\nimage = "x:1"\ngpu_workers = 2\n'
    )
    config = ["--conf", str(tmp_path / "run.toml")]  # shortened, as argparse allows
    options = parsed("map", *config)
    assert (options.catalog, options.period, options.max_cloud) == ("earth-search", "2019-06-01", 0.3)
    assert (options.domain, options.recompute, options.json) == (["a", "-b"], True, False)
    assert options.cluster_option == [("image", "x:1"), ("gpu_workers", 2)]
    options = parsed("map", "--max-cl", "0.1", "--domain", "c", "--images", "a.tif", *config)
    assert (options.max_cloud, options.domain) == (0.1, ["c"])
    assert (options.images, options.catalog) == (["a.tif"], None), "of options that exclude each other the call's stays"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("perod = 2019\n", ["run.toml", "['perod']", "'period'"]),
        ("period = [2019]\n", ["period takes a value", "[2019]"]),
        ('recompute = "yes"\n', ["recompute must be true or false", "'yes'"]),
        ("domain = []\n", ["domain is an empty list", "leave it out"]),  # it meant all domains
        ("period = \n", ["cannot read the configuration", "TOML"]),
    ],
)
def test_a_file_of_options_with_a_mistake_is_refused_by_name(tmp_path, capsys, text, words):
    (tmp_path / "run.toml").write_text(text)
    assert main(["map", "--config", str(tmp_path / "run.toml")]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert all(word in said for word in words)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_common_options(verb):
    (verbs,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    known = {option for action in verbs.choices[verb]._actions for option in action.option_strings}
    assert {"--json", "--log-format", "--config", "--verbose"} <= known


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("calfin ")


# --- results and notes ------------------------------------------------------------------------------------------------


def test_a_result_in_json_is_all_there_is_on_stdout_and_every_note_a_line_with_its_time(find, capsys):
    assert main(["search", *find, "--json", "--log-format", "json"]) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert (row["domain"], row["platform"]) == ("Harald-Moltke-Brae", "landsat-8")
    (note,) = map(json.loads, err.splitlines())
    assert (note["message"], note["level"]) == ("1 scene", "INFO")
    assert note["time"].endswith("+00:00")


def test_a_long_table_of_scenes_says_how_many_are_not_in_it(capsys):
    scenes = rows(*(f"s{n:03}" for n in range(MOST_ROWS + 3)))
    counts = {"found": len(scenes), "front": len(scenes)}
    for words in ([], ["--json"]):
        _show_scenes(make_parser().parse_args(["retry", "fronts", *words]), scenes, len(scenes), counts)
    out = capsys.readouterr().out
    told = json.loads(out[out.index("{") :])
    assert "and 3 more scenes" in out.partition("{")[0]
    assert (len(told["scenes"]), told["scenes_left_out"]) == (MOST_ROWS, 3)


def test_all_lines_of_a_run_have_its_name_which_the_environment_may_give(find, capsys, monkeypatch):
    runs = []
    for given in ("", "", "weekly-7"):
        monkeypatch.setenv("CALFIN_RUN", given)
        assert main(["search", *find, "--log-format", "json", "--verbose"]) == 0
        (run,) = {json.loads(line)["run"] for line in capsys.readouterr().err.splitlines()}
        runs.append(run)
    assert runs[0] != runs[1]
    assert runs[2] == "weekly-7"


def test_a_mistake_is_a_line_of_json_where_the_log_is(find, capsys):
    assert main(["map", *find[:-1], "20x", "--store", "s", "--log-format", "json"]) == 2
    note = json.loads(capsys.readouterr().err)
    assert note["level"] == "ERROR"
    assert "20x" in note["message"]


def test_status_review_and_report_print_json(tmp_path, request, capsys):
    store = new_store("disk", request)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, {"s1": NOON})
    write(store, "s1")
    assert main(["status", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] == 1
    assert main(["review", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"verdicts": [], "orphaned": []}
    assert main(["report", store, "--out", str(tmp_path / "report"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "report" / "index.html")


def test_a_bar_counts_the_scenes_that_are_not_in_the_store_yet(real, request):
    (domain,) = cc.read_domains(real / "domains.geojson")
    items = cc.search_scenes(real / "catalog.json", domain, "2021")
    store = new_store("disk", request)
    with tqdm(file=io.StringIO(), disable=False) as bar:
        find = counted(lambda _: items, bar, store)
        assert (list(find(domain)), bar.total) == (items, 1)
        assert (list(find(domain)), bar.total) == (items, 2)
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    write(store, "s1")
    with tqdm(file=io.StringIO(), disable=False) as bar:
        (known,) = (item for item in [items[0].clone()])
        known.id = "s1"
        list(counted(lambda _: [known, *items], bar, store)(DOMAIN))
        assert bar.total == 1


def test_without_a_terminal_there_is_no_bar(find, tmp_path):
    (tmp_path / "no.png").write_text("no image")
    files = [str(tmp_path / "no.png"), "--out", str(tmp_path / "f.geojson")]
    words = [sys.executable, "-m", "calfin_cloud.cli", "trace", *files]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    assert "images traced" not in done.stderr


# --- what is checked before workers start -----------------------------------------------------------------------------


def test_a_wrong_call_ends_before_it_asks_for_workers(find, real, tmp_path, capsys):
    call = ["map", "--cluster", NOWHERE, "--store", str(tmp_path / "store")]
    assert main([*call, *find[:-1], "20x"]) == 2
    assert "cannot read the period" in capsys.readouterr().err
    assert main([*call, "--catalog", str(tmp_path / "none.json"), *find[2:]]) == 2
    assert "cannot read the catalogue" in capsys.readouterr().err
    assert main([*call, *find, "--network", "none"]) == 2
    assert "none" in capsys.readouterr().err
    both = [*cc.read_domains(real / "domains.geojson"), cc.domain_from_point(0, -75, name="south")]
    cc.write_domains(both, tmp_path / "both.geojson")
    assert main([*call, *find[:2], "--domains", str(tmp_path / "both.geojson"), "--period", "2021"]) == 2
    assert "must share one CRS" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_store_of_other_settings_is_refused_before_workers_start_and_only_what_differs_is_told(find, request, capsys):
    store = new_store("disk", request)
    storage.open_store(store, crs="EPSG:3413", made_by=made_by(MapSettings()))
    call = ["map", *find, "--cluster", NOWHERE, "--store", store]
    assert main([*call, "--max-cloud", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "settings.max_cloud is 0.15 in the store and 0.5 now; `calfin map --recompute`" in said
    assert len(said.replace(store, "")) < 200


def test_a_domain_that_was_renamed_is_told_before_its_scenes_are_mapped_again(find, real, request, tmp_path, caplog):
    store = new_store("disk", request)
    storage.open_store(store, crs="EPSG:3413", made_by=made_by(MapSettings()))
    (domain,) = cc.read_domains(real / "domains.geojson")
    storage.keep_domain(store, domain)
    cc.write_domains([replace(domain, name="new")], tmp_path / "new.geojson")
    call = ["map", *find[:2], "--domains", str(tmp_path / "new.geojson"), "--period", "1999", "--store", store]
    assert main(call) == 0
    assert f"domain new has the box of {domain.name} in the store" in caplog.text


def test_a_reference_that_no_scene_can_be_measured_against_is_told_with_both_glaciers(find, real, tmp_path, capsys):
    drawn = gpd.read_parquet(real / "reference.parquet").assign(glacier_id="harald_moltke_brae")
    drawn.to_parquet(tmp_path / "drawn.parquet")
    call = ["map", *find, "--store", str(tmp_path / "fronts"), "--reference", str(tmp_path / "drawn.parquet")]
    assert main(call) == 0
    told = capsys.readouterr().err
    assert "its glacier ids are harald_moltke_brae, those of the store 75: use the same" in told


def test_few_scenes_start_no_workers_unless_the_call_asks_for_them():
    options = parsed("retry", "store", "--cluster", "auto")
    assert cluster_for(options, FEW_SCENES - 1) == "none"
    assert cluster_for(options, FEW_SCENES) == "local"
    assert cluster_for(parsed("retry", "store", "--cluster", "auto", "--workers", "2"), 1) == "local"
    assert cluster_for(parsed("retry", "store", "--cluster", "none"), FEW_SCENES) == "none"


def test_a_search_ahead_is_not_made_twice_and_stops_when_it_knows_enough(real):
    (domain,) = cc.read_domains(real / "domains.geojson")
    asked = []

    def find(of):
        asked.append(of.name)
        return cc.stream_scenes(real / "catalog.json", of, "2021")

    others = [cc.domain_from_point(-68, 76.6, name=name) for name in ("b", "c")]
    ahead, n_scenes = search_ahead(find, [domain, *others], enough=2)
    assert (n_scenes, asked) == (2, [domain.name, "b"])
    assert len(list(ahead(domain))) == 1
    assert asked == [domain.name, "b"]
    list(ahead(domain))
    assert asked == [domain.name, "b", domain.name]


def test_a_stream_knows_how_many_scenes_are_left(real):
    (domain,) = cc.read_domains(real / "domains.geojson")
    stream = cc.stream_scenes(real / "catalog.json", domain, "2021")
    assert length_hint(stream) == 1
    next(stream)
    assert length_hint(stream) == 0


def test_the_doctor_asks_a_catalogue_also_where_no_domain_is_named(real, tmp_path):
    found = doctor.check_catalog(lambda: describe_catalog(real / "catalog.json"))
    assert (found.status, found.detail) == ("ok", "answers: Catalog calfin-real-sample")
    (tmp_path / "page.json").write_text("[]")
    for name in ("page.json", "none.json"):
        found = doctor.check_catalog(lambda name=name: describe_catalog(tmp_path / name))
        assert found.status == "problem"
        assert found.remedy


def test_the_package_is_imported_without_what_takes_long():
    code = "import sys, calfin_cloud; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    heavy = {"numpy", "pandas", "geopandas", "shapely", "xarray", "dask", "distributed", "rasterio", "matplotlib"}
    heavy |= {"tensorflow", "keras", "openvino", "cv2", "scipy", "pyarrow", "pystac", "stackstac", "zarr"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--max-cloud", "15", "must be a share from 0 to 1, as 0.15 for 15 %, got '15'"),
        ("--max-nodata", "much", "must be a share from 0 to 1"),
        ("--batch-size", "0", "must be a whole number from 1 on, got '0'"),
        ("--workers", "two", "must be a number, as 4, or two, as 2:16, got 'two'"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused_with_what_was_expected(option, value, words, capsys):
    call = ["map", "--catalog", "c.json", "--domains", "d.geojson", "--store", "s", option, value]
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(call)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["composite", "fronts", "--out", "o", "--grid-m", "0"], "must be a number above 0, got '0'"),
        (["compare", "a", "b", "--out", "o", "--days", "-1"], "must be a number from 0 on, got '-1'"),
        (["report", "fronts", "--out", "o", "--pictures", "-4"], "must be a whole number from 0 on, got '-4'"),
        (["plan", "--price-cpu-hour", "-0.1"], "must be a number from 0 on, got '-0.1'"),
        (["composite", "fronts", "--out", "o", "--grid-m", "nan"], "must be a number above 0, got 'nan'"),
        (["status", "fronts", "--serve", "99999"], "must be the number of a port from 1 to 65535, got '99999'"),
        (["status", "fronts", "--serve", "-1"], "must be the number of a port from 1 to 65535, got '-1'"),
        (["compact", "fronts", "--scenes", "0"], "must be a whole number from 1 on, got '0'"),
        (["compact", "fronts", "--scenes", "-4"], "must be a whole number from 1 on, got '-4'"),
    ],
)
def test_sides_days_counts_and_prices_that_cannot_be_are_refused(call, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(call)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [
        ["trace", "scene.png"],
        ["domains", "--bbox", "-50.8,70.33,-50.4,70.43"],
        ["fjords", "--domains", "domains.geojson", "--ice-mask", "ice.gpkg"],
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.shp", "t.gpkg", "t.PARQUET"])
def test_a_file_of_geojson_is_not_given_the_name_of_another_format(call, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*call, "--out", name])
    said = f"argument --out: is written as GeoJSON, to a name that ends in .geojson or .json, got '{name}'"
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_vector_file_that_is_not_there_or_holds_no_lines_is_named(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    out = ["--out", str(tmp_path / "series")]
    assert main(["timeseries", str(tmp_path / "gone.shp"), *out]) == 2
    assert "cannot read the file of fronts" in capsys.readouterr().err
    assert main(["timeseries", str(tmp_path / "table.csv"), *out]) == 2
    assert "has no geometry, only columns ['a', 'b']" in capsys.readouterr().err
    assert not (tmp_path / "series").exists()


def test_a_series_without_ice_says_what_tells_where_the_sea_lies(real, tmp_path, capsys):
    assert main(["timeseries", str(real / "reference.parquet"), "--out", str(tmp_path / "series")]) == 0
    assert "no gate: no_seaward: give --ice, which tells where the sea lies" in capsys.readouterr().err


def lines_at(path, *places, crs=4326):
    """Write short lines of glacier 75, in the days of June 2021, that begin at places (x, y)."""
    shapes = [LineString([(x, y), (x + 0.1, y + 0.05)]) for x, y in places]
    dates = [f"2021-06-{day:02d}" for day in range(1, len(places) + 1)]
    gpd.GeoDataFrame({"glacier_id": "75", "date": dates}, geometry=shapes, crs=crs).to_file(path)
    return str(path)


def test_degrees_in_a_file_that_calls_them_metres_are_refused(tmp_path, capsys):
    termini = lines_at(tmp_path / "degrees.gpkg", (-67.6, 76.6), crs=3413)
    assert main(["domains", "--from-termini", termini, "--out", str(tmp_path / "domains.geojson")]) == 2
    assert "[-67.6, 76.6, -67.5, 76.65], look like degrees: give it its true CRS" in capsys.readouterr().err
    assert not (tmp_path / "domains.geojson").exists()


def test_termini_with_latitude_first_are_doubted(tmp_path, capsys):
    termini = lines_at(tmp_path / "swapped.geojson", (76.6, -67.6))
    assert main(["domains", "--from-termini", termini, "--out", str(tmp_path / "domains.geojson")]) == 0
    assert "a place is given with its longitude first" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "is_told"), [((76.6, -67.6), True), ((-67.7, 76.6), False)])
def test_a_reference_that_lies_elsewhere_is_told_by_map_and_report(find, tmp_path, capsys, place, is_told):
    reference = ["--reference", lines_at(tmp_path / "drawn.geojson", place)]
    store = str(tmp_path / "fronts")
    for call in (["map", *find, "--store", store], ["report", store, "--out", str(tmp_path / "report")]):
        assert main([*call, *reference]) == 0
        assert ("drawn.geojson lies in a domain: check its CRS" in capsys.readouterr().err) == is_told


def test_ice_that_lies_elsewhere_is_told_and_not_asked_for_again(real, tmp_path, capsys):
    ice = tmp_path / "ice.geojson"
    gpd.GeoDataFrame(geometry=[box(75, -68, 76, -67)], crs=4326).to_file(ice)
    call = ["timeseries", str(real / "reference.parquet"), "--ice", str(ice), "--out", str(tmp_path / "series")]
    assert main(call) == 0
    assert f"no_seaward: no ice of {ice} is near: check the CRS of both files" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["composite", "figures", "timeseries"])
def test_names_of_columns_are_refused_where_all_fronts_are_of_a_store(verb, tmp_path, capsys):
    assert main([verb, str(tmp_path / "fronts"), "--out", str(tmp_path / "o"), "--columns", "datetime=when"]) == 2
    assert "--columns names columns of a vector file of fronts" in capsys.readouterr().err


def test_of_two_files_each_takes_the_columns_that_it_has(tmp_path, capsys):
    for name, columns in {"a": {"GID": "x", "day": "2020-01-01"}, "b": {"number": "x", "Date": "2020-01-02"}}.items():
        table = gpd.GeoDataFrame(columns, index=[0], geometry=[LineString([(0, 0), (0, 900)])], crs=6931)
        table.to_file(tmp_path / f"{name}.gpkg")
    call = ["compare", str(tmp_path / "a.gpkg"), str(tmp_path / "b.gpkg"), "--out", str(tmp_path / "o"), "--columns"]
    assert main([*call, "datetime=day"]) == 1
    assert "a.gpkg names no glaciers; `--columns glacier_id=COLUMN`" in capsys.readouterr().err
    assert main([*call, "datetime=day", "glacier_id=GID", "glacier_id=number"]) == 0
    assert "1 pairs" in capsys.readouterr().out
    assert main([*call, "datetime=days"]) == 2
    assert "no column ['days']" in capsys.readouterr().err


def test_nothing_is_made_where_a_store_is_missing(tmp_path, capsys):
    for verb in ("reconcile", "compact", "retry", "retrace"):
        assert main([verb, str(tmp_path / "gone")]) == 2
        assert "is not a store of calfin" in capsys.readouterr().err
    for change in (retry_failed, retrace_fronts):
        with pytest.raises(ValueError, match="is not a store of calfin"):
            change(str(tmp_path / "gone"))
    assert not (tmp_path / "gone").exists()


def test_a_pixel_without_a_side_is_refused(tmp_path, capsys):
    call = ["domains", "--point", "-49.67,69.19", "--resolution", "0", "--out", str(tmp_path / "d.geojson")]
    assert main(call) == 2
    assert "--resolution takes metres above 0, got 0" in capsys.readouterr().err
    assert not (tmp_path / "d.geojson").exists()


# --- how a call ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["search --catalog c.json --period 2019 --domains {}", "timeseries {} --out out"])
def test_a_file_in_a_bucket_without_credentials_says_which_ones_to_set(call, capsys, monkeypatch, tmp_path):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(call.format("s3://calfin-none/lines.parquet").split()) == 2
    s3fs.S3FileSystem.clear_instance_cache()  # other tests have credentials
    assert "s3://calfin-none/lines.parquet: Unable to locate credentials; set AWS_ACCESS" in capsys.readouterr().err


@pytest.mark.parametrize(("address", "extra"), [("gs://bucket/fronts", "gcs"), ("abfs://bucket/fronts", "azure")])
def test_a_client_that_is_not_installed_is_named_with_the_extra_that_brings_it(address, extra, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, {"gcs": "gcsfs", "azure": "adlfs"}[extra], None)
    assert main(["status", address]) == 2
    assert main(["search", "--catalog", "c", "--period", "2019", "--domains", f"{address}/d.geojson"]) == 2
    assert capsys.readouterr().err.count(f'pip install "calfin-cloud[{extra}]"') == 2


@pytest.mark.usefixtures("dead_s3")
def test_a_storage_that_is_out_of_reach_is_no_mistake_in_the_call(capsys):
    assert main(["status", "s3://fronts/greenland"]) == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "no answer from a server" in said
    assert "make the same call again later" in said


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EIO, errno.ECONNRESET, errno.EPIPE])
def test_a_storage_that_is_busy_is_no_mistake_in_the_call(number):
    assert end("map", OSError(number, "Service Unavailable")) == 3


def test_a_storage_whose_answer_is_no_answer_is_no_mistake_in_the_call():
    """A proxy that says in HTML that the server is away, or a flipped bit in the answer to a copy."""
    assert end("map", ResponseParserError("not well-formed (invalid token): <html>")) == 3


def test_a_full_disk_is_not_over_by_the_next_call(capsys):
    set_up_log(parsed("status", "s"))
    assert end("map", OSError(errno.ENOSPC, "No space left on device", "fronts/x")) == 2
    assert end("map", OSError(errno.EDQUOT, "Disk quota exceeded")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "calfin map: no space is left for fronts/x: free some and make the same call again",
        "calfin map: no space is left: free some and make the same call again",
    ]


def test_a_disk_that_may_only_be_read_is_told_in_words(capsys):
    set_up_log(parsed("status", "s"))
    assert end("map", OSError(errno.EROFS, "Read-only file system", "store/.lease.part")) == 2
    told = "calfin map: store/.lease.part: the file system is read-only; choose a path that you may read or write"
    assert capsys.readouterr().err.splitlines() == [told]


@pytest.mark.parametrize("verb", ["domains --list", "status store", "--help"])
def test_a_verb_whose_output_nobody_reads_any_more_ends_in_silence(verb, tmp_path):
    storage.open_store(str(tmp_path / "store"), crs=DOMAIN.crs, made_by={"model": "a"})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    call = [sys.executable, "-m", "calfin_cloud.cli", *verb.split()]
    ended = subprocess.run(
        call, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(("where", "code", "told"), [(">&-", 0, ""), ("> /dev/full", 2, "no space is left")])
def test_a_verb_that_cannot_print_ends_without_a_traceback(where, code, told, tmp_path):
    storage.open_store(str(tmp_path / "store"), crs=DOMAIN.crs, made_by={"model": "a"})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    call = f"{sys.executable} -m calfin_cloud.cli status store {where}"
    ended = subprocess.run(
        ["sh", "-c", call], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == code
    assert told in ended.stderr
    assert ended.stderr.count("\n") == bool(told)


def test_an_interrupt_while_the_program_is_still_loading_is_told_in_one_line():
    program = """
import sys

class Interrupting:
    def find_spec(self, name, *rest):
        if name == "argparse":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from calfin_cloud.cli import main
sys.exit(main(["status", "fronts"]))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "calfin: interrupted\n")


@pytest.mark.parametrize(
    ("verb", "words"), [("map", "the same call resumes"), ("evaluate", "the same call begins anew")]
)
def test_an_interrupted_verb_says_whether_what_it_did_is_kept(verb, words, capsys):
    set_up_log(parsed("status", "store"))
    assert end(verb, KeyboardInterrupt()) == 130
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "module", "how"),
    [
        ("train --data images --out out", "calfin_cloud.training", "resumes"),
        ("evaluate --data images --out out", "calfin_cloud.evaluation", "begins anew"),
        ("calibrate --data images --out out.json", "calfin_cloud.evaluation", "begins anew"),
        ("adapt store --out out", "calfin_cloud.training", "begins anew"),
        ("retrace store", "calfin_cloud.pipeline.updating", "resumes"),
    ],
)
def test_a_verb_that_is_told_to_end_says_whether_what_it_did_is_kept(call, module, how, tmp_path):
    program = f"""
import os, signal, sys

class Ending:
    def find_spec(self, name, *rest):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Ending())
from calfin_cloud.cli import command
command()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, *call.split()], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr == f"calfin {call.split()[0]}: told to end; the same call {how}\n"


@pytest.mark.parametrize("library", ["tensorflow", "urllib3"])
def test_what_libraries_say_of_their_graphs_and_tries_is_no_warning_for_people(library):
    set_up_log(parsed("status", "store"))
    assert not logging.getLogger(library).isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.weights.h5", "there are no weights gone.weights.h5: correct the path"),
        ("calfin-eficient", "'calfin-eficient': correct the name or path"),
    ],
)
def test_weights_that_are_not_there_are_told_from_a_name_that_nobody_has(name, words):
    with pytest.raises(ValueError, match=words) as told:
        weights_path(name)
    assert "efficientnet" not in str(told.value)  # it draws no fronts


def test_a_place_with_blanks_is_told_to_be_written_with_commas(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["domains", "--bbox", "-50.8", "70.33", "-50.4", "70.43"])
    assert "arguments: 70.33 -50.4 70.43; write a place with commas: --bbox W,S,E,N" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["domains", "--list", "70.33"])
    assert "commas" not in capsys.readouterr().err


def test_a_call_without_a_verb_prints_the_verbs_and_the_first_steps(capsys):
    assert main([]) == 2
    assert "first steps, offline" in capsys.readouterr().err


def test_an_unexpected_error_is_told_with_its_place_and_ends_neither_as_failed_scenes_nor_as_a_mistake():
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    notes.addHandler(handler)
    with pytest.raises(KeyError) as caught:
        {}["fronts"]
    code = end("map", caught.value)
    notes.removeHandler(handler)
    assert code == 70
    assert "calfin map: an unexpected error; please report it" in told.getvalue()
    assert "in test_an_unexpected_error" in told.getvalue()


def test_a_report_takes_as_many_pictures_from_the_command_line_as_from_python():
    told = make_parser().parse_args(["report", "store", "--out", "report"]).pictures
    assert told == inspect.signature(cc.write_report).parameters["most_pictures"].default
