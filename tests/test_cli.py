import json
import shlex
import subprocess
import sys

import cv2
import geopandas as gpd
import numpy as np
import pytest

from calfin_cloud.cli import main
from calfin_cloud.cli.parser import VERBS, make_parser
from calfin_cloud.sample.painting import paint_scene


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"example:\n  calfin {verb} " in said
    catalogs = {words.split()[0] for words in said.partition("example:")[2].split("--catalog ")[1:]}
    assert catalogs <= {"planetary-computer"}, "the public catalogue that asks for no keys and no money"


def test_sample_and_search_agree_on_the_number_of_scenes(tmp_path, capsys):
    assert main(["sample", str(tmp_path), "--scenes", "3", "--seed", "5"]) == 0
    call = ["search", "--catalog", str(tmp_path / "catalog.json"), "--domains", str(tmp_path / "domains.geojson")]
    capsys.readouterr()
    assert main([*call, "--period", "1984/2030"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert {line.split("\t")[-1] for line in lines} == set(gpd.read_parquet(tmp_path / "truth.parquet")["scene_id"])


def test_the_call_that_maps_a_sample_can_be_pasted_whatever_its_folder_is_called(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "my demo"), "--scenes", "1"]) == 0
    words = shlex.split(capsys.readouterr().out.partition("map them: ")[2])
    assert make_parser().parse_args(words[1:]).domains == str(tmp_path / "my demo" / "domains.geojson")


def test_a_mistake_in_the_call_is_told_in_one_line_and_ends_with_2(tmp_path, capsys):
    call = ["search", "--catalog", str(tmp_path / "none.json"), "--domains", str(tmp_path / "none.geojson")]
    assert main([*call, "--period", "2019"]) == 2
    assert "cannot read the domain file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (["train", "--name", "../net"], "letters, digits"),
        (["train", "--steps", "0"], "from 1 on"),
        (["train", "--learning-rate", "nan"], "a number above 0"),
        (["adapt", "fronts", "--name", "/net"], "letters, digits"),
        (["evaluate", "--adverse", "-1"], "from 0 on"),
    ],
)
def test_a_value_that_no_training_or_score_can_have_is_refused_before_anything_is_read(tmp_path, capsys, call, told):
    data = [] if call[0] == "adapt" else ["--data", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main([*call, *data, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--polygons", "polygons"), ("--ice-mask", "polygons"), ("--termini", "lines"), ("", "nothing is given to add")],
)
def test_a_place_is_known_by_shapes_of_the_right_kind_alone(tmp_path, capsys, flag, expected):
    assert main(["sample", str(tmp_path), "--scenes", "1"]) == 0
    domains, out = str(tmp_path / "domains.geojson"), tmp_path / "known.geojson"
    wrong = {"lines": domains, "polygons": str(tmp_path / "truth.parquet")}.get(expected)
    assert main(["fjords", "--domains", domains, "--out", str(out), *([flag, wrong] if flag else [])]) == 2
    assert (f"must hold {expected} alone" if flag else expected) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--regions", "no column `region`"),
        ("--centerlines", "must hold lines alone, got Polygon"),
        ("--ice", "must hold polygons alone, got LineString"),
        ("--boxes", "must hold polygons alone, got LineString"),
    ],
)
def test_a_file_that_cannot_be_what_a_series_needs_is_refused_with_a_reason(tmp_path, capsys, flag, told):
    assert main(["sample", str(tmp_path), "--scenes", "3"]) == 0
    lines, polygons = str(tmp_path / "truth.parquet"), str(tmp_path / "domains.geojson")
    file = polygons if flag in ("--regions", "--centerlines") else lines
    assert main(["timeseries", lines, "--out", str(tmp_path / "out"), flag, file]) == 2
    assert told in capsys.readouterr().err


def test_the_calibration_of_a_shipped_network_is_not_replaced(tmp_path, capsys):
    assert main(["calibrate", "--data", str(tmp_path)]) == 2
    assert "give --out FILE" in capsys.readouterr().err


def test_a_number_of_pictures_without_the_teacher_that_looks_at_them_is_refused(tmp_path, capsys):
    assert main(["train", "--data", "nowhere", "--out", str(tmp_path / "w"), "--steps", "1", "--pictures", "5"]) == 2
    assert "give --teacher, or leave it out" in capsys.readouterr().err


def test_glaciers_that_no_image_shows_are_told_with_those_that_images_show(shared, tmp_path, capsys):
    call = ["evaluate", "--data", str(shared / "data/mohajerani2019"), "--out", str(tmp_path / "scores")]
    for glaciers in (["Nowhere"], ["Kangerlussuaq", "Nowhere"]):
        assert main([*call, "--glaciers", *glaciers]) == 2
        assert "no image shows ['Nowhere'], got ['Jakobshavn'" in capsys.readouterr().err


def test_domains_of_real_termini_around_ten_glaciers(shared, tmp_path, capsys):
    termini = shared / "data/sentinel1_uummannaq_20141031/derived_measures_fronts_2014_2015.geojson"
    out = tmp_path / "domains.geojson"
    assert main(["domains", "--from-termini", str(termini), "--out", str(out), "--resolution", "100"]) == 0
    assert {f["properties"]["glacier_id"] for f in json.loads(out.read_text())["features"]} >= {
        str(i) for i in range(7, 17)
    }


def test_trace_writes_a_feature_for_every_image_and_says_what_it_cannot_read(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {
        "grey8.png": rng.integers(0, 255, (64, 80), dtype="uint8"),
        "grey16.png": rng.integers(0, 65535, (100, 70), dtype="uint16"),
        "rgb8.png": rng.integers(0, 255, (70, 90, 3), dtype="uint8"),
        "rgba16.tif": rng.integers(0, 65535, (80, 80, 4), dtype="uint16"),
        "flat.png": np.full((80, 80), 7, "uint8"),
        "small.png": rng.integers(0, 255, (63, 80), dtype="uint8"),
    }
    for name, pixels in images.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "text.png").write_text("no image")
    paths = [str(tmp_path / name) for name in (*images, "text.png")]
    assert main(["trace", *paths, "--out", str(tmp_path / "fronts.geojson")]) == 1
    features = json.loads((tmp_path / "fronts.geojson").read_text())["features"]
    states = {f["properties"]["image"]: f["properties"]["state"] for f in features}
    assert set(states) == set(paths)
    assert {p for p in paths if states[p] == "failed"} == set(paths[-2:])
    assert states[str(tmp_path / "flat.png")] == "no_front"
    for feature in features:
        assert {"image", "front", "state", "reason"} <= set(feature["properties"])
        assert (feature["geometry"] is not None) == (feature["properties"]["state"] == "front")
    said = capsys.readouterr().err
    assert "expected a PNG or a GeoTIFF" in said
    assert "flat.png: no front, " in said


def test_trace_begins_nothing_where_an_image_or_the_folder_of_its_result_is_missing(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((80, 80), 7, "uint8"))
    paths = [str(tmp_path / name) for name in ("flat.png", "missing.png")]
    assert main(["trace", *paths, "--out", str(tmp_path / "fronts.geojson")]) == 2
    told = capsys.readouterr().err
    assert f"there is no image {paths[1]}: nothing was traced or written" in told
    assert not (tmp_path / "fronts.geojson").exists()
    assert main(["trace", paths[0], "--out", str(tmp_path / "gone" / "fronts.geojson")]) == 2
    assert f"there is no folder {tmp_path / 'gone'} for fronts.geojson" in capsys.readouterr().err


def test_a_traced_image_says_how_far_off_its_front_may_be(tmp_path):
    scene = paint_scene(np.random.default_rng(77), (300, 300), kind="optical", pixel_m=30.0)
    signal = np.nan_to_num(scene.signal)
    cv2.imwrite(str(tmp_path / "scene.png"), (255 * signal / signal.max()).astype("uint8"))
    assert main(["trace", str(tmp_path / "scene.png"), "--out", str(tmp_path / "fronts.geojson")]) == 0
    (feature, *_) = json.loads((tmp_path / "fronts.geojson").read_text())["features"]
    about = feature["properties"]
    assert about["state"] == "front"
    assert 0 < about["sigma_px"] < about["half95_px"]
    assert 0 <= about["score"] <= 1
    assert isinstance(about["score_reasons"], str)


def test_the_main_job_is_imported_without_what_it_uses_late_or_not_at_all_and_no_verb_imports_tensorflow():
    code = (
        "import sys, calfin_cloud.cli.parser, calfin_cloud.pipeline\n"
        "late = {'dask.array', 'stackstac', 'rioxarray', 'scipy.signal', 'scipy.stats', 'matplotlib', 'openvino'}\n"
        "print(sorted(late & set(sys.modules)))\n"
        "import calfin_cloud.evaluation, calfin_cloud.results\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert (done.stdout.split(), done.stderr) == (["[]", "[]"], "")


READING = """
import io, sys, threading
import pyarrow, pyarrow.parquet
from calfin_cloud.cli import command

written = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"a": range(100_000)}), written, row_group_size=1_000)

class Slow(io.RawIOBase):  # as files of an object store are, Python that C++ calls
    inner, begun = io.BytesIO(written.getvalue()), threading.Event()
    def readable(self): return True
    def seekable(self): return True
    def seek(self, *place): return self.inner.seek(*place)
    def tell(self): return self.inner.tell()
    def read(self, size=-1):
        self.begun.set()
        return self.inner.read(size)

def read():
    while True:
        pyarrow.parquet.read_table(Slow())

threading.Thread(target=read, daemon=True).start()
Slow.begun.wait()
command()
"""


@pytest.mark.parametrize(
    ("call", "code", "told"), [(["--version"], 0, "calfin 0"), (["status", "nowhere"], 2, "nowhere")]
)
def test_a_call_ends_although_a_thread_still_reads(tmp_path, call, code, told):
    reading = [sys.executable, "-c", READING, *call]
    ended = subprocess.run(reading, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stderr
    assert told in ended.stdout + ended.stderr
