"""Features of the sea in the main job: tables beside the fronts, which they change by no byte; retraced, exported."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from storing import contents

from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.feature_schema import FEATURE_REASONS, FEATURES
from calfin_cloud.features import sun_zenith_deg
from calfin_cloud.imagery import read_further
from calfin_cloud.pipeline import MapSettings, map_fronts, recompute_changed, retrace_fronts, retry_failed
from calfin_cloud.pipeline.features import measured_features
from calfin_cloud.pipeline.settings import VARIANTS, made_by, settings_from
from calfin_cloud.pipeline.tables import feature_tables
from calfin_cloud.results import apply_verdicts, export_store, feature_series, features_of, lineage_of, write_report
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError
from calfin_cloud.storage import DamagedFileError, compact_store, read_bands, read_features, read_fronts, write_bands

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 2
ONCE = VARIANTS["once"]
"""Each picture is shown to the network once, at a third of the price; features are measured without it."""
ALL = replace(ONCE, features=FEATURES)


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    """Folder of a painted glacier with its sea: a Landsat and a Sentinel-1 scene."""
    folder = tmp_path_factory.mktemp("painted")
    write_sample(folder, scenes=N_SCENES, seed=3, features=True)
    return folder


def find(painted: Path):
    return partial(search_scenes, painted / "catalog.json", period="1984/2030")


def run(painted: Path, store: Path, settings: MapSettings) -> Path:
    domains = read_domains(painted / "domains.geojson")
    map_fronts(domains, find(painted), str(store), settings=settings, batch_size=1)
    return store


@pytest.fixture(scope="module")
def plain(painted, tmp_path_factory) -> Path:
    """Store without features."""
    return run(painted, tmp_path_factory.mktemp("plain") / "store", ONCE)


@pytest.fixture(scope="module")
def store(painted, tmp_path_factory) -> Path:
    """Store with all features."""
    return run(painted, tmp_path_factory.mktemp("with") / "store", ALL)


def rows_of(path: Path) -> bytes:
    """All of a Parquet file before its footer, in which the commit is."""
    body = path.read_bytes()
    return body[: -8 - int.from_bytes(body[-8:-4], "little")]


def test_features_change_no_byte_of_the_fronts_tables(plain, store):
    files = sorted(path.name for path in (plain / "fronts").glob("*.parquet"))
    assert files == sorted(path.name for path in (store / "fronts").glob("*.parquet"))
    for name in files:
        assert rows_of(plain / "fronts" / name) == rows_of(store / "fronts" / name)
        headers = [json.loads(pq.read_metadata(s / "fronts" / name).metadata[b"calfin"]) for s in (plain, store)]
        assert {*headers[1]["files"]} - {*headers[0]["files"]} == set(FEATURES)
    for folder in ("rejected", "polygons", "items"):
        assert [p.name for p in sorted((plain / folder).iterdir())] == [
            p.name for p in sorted((store / folder).iterdir())
        ]


def test_a_store_without_features_knows_nothing_of_them(plain):
    assert not [path for path in plain.iterdir() if path.name in (*FEATURES, "bands")]
    kept = json.loads((plain / "store.json").read_text())
    assert "features" not in kept["settings"]
    assert settings_from(kept["settings"]) == ONCE
    assert features_of(str(plain)) == {}


def test_every_scene_has_a_row_in_each_table(store):
    fronts = read_fronts(str(store))
    for name in FEATURES:
        table = read_features(str(store), name)
        assert sorted(table["key"]) == sorted(set(fronts["key"]))
        assert set(table["reason"]) <= set(FEATURE_REASONS)
        assert table.crs == fronts.crs
        assert len(gpd.read_parquet(store / name)) == N_SCENES


def test_icebergs_lie_where_they_were_painted(painted, store):
    truth = gpd.read_parquet(painted / "truth_icebergs.parquet")
    found = read_features(str(store), "icebergs")
    seen = found[found["state"] == "measured"]
    parts = seen[["scene_id", "geometry"]].explode().dropna(subset="geometry")
    on_truth = [truth[truth["scene_id"] == row.scene_id].intersects(row.geometry).any() for row in parts.itertuples()]
    assert len(seen) == N_SCENES
    assert len(parts) >= 10
    assert np.mean(on_truth) > 0.8


def test_icebergs_of_radar_that_is_coarser_than_the_domain_are_said_to_be_too_large(painted, store):
    found = read_features(str(store), "icebergs").set_index("sensor_kind")
    assert "radar image are 40 m apart, those of the domain 30 m" in found.loc["sar", "detail"]
    assert found.loc["optical", "detail"] == ""


def test_a_retrace_measures_features_anew_without_the_scenes(store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    before = contents(str(again))
    retrace_fronts(str(again), everything=True)
    assert contents(str(again)) == before


def test_bands_that_are_gone_or_damaged_are_told_and_take_no_front_with_them(store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    gone, damaged = sorted((again / "bands").rglob("*.tif"))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-3000] + bytes(3000))
    fronts = read_fronts(str(again))
    retrace_fronts(str(again), everything=True)
    assert read_fronts(str(again)).equals(fronts)
    reasons = read_features(str(again), "icebergs")["reason"].tolist()
    assert reasons.count("unreadable") == 2


@pytest.mark.slow  # scenes that are mapped again are in the one below
def test_a_retry_reads_the_bands_that_are_gone(store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    shutil.rmtree(again / "bands")
    retrace_fronts(str(again), everything=True)
    retry_failed(str(again))
    for name in FEATURES:
        assert read_features(str(again), name).equals(read_features(str(store), name))


@pytest.mark.slow  # maps all scenes again
def test_recomputing_with_features_comes_to_a_store_that_had_them_from_the_start(painted, plain, store, tmp_path):
    again = Path(shutil.copytree(plain, tmp_path / "again"))
    recompute_changed(str(again), read_domains(painted / "domains.geojson"), find(painted), settings=ALL)
    assert {**made_by(ALL)}["settings"]["features"] == FEATURES
    for name in FEATURES:
        assert [p.read_bytes() for p in sorted((again / name).iterdir())] == [
            p.read_bytes() for p in sorted((store / name).iterdir())
        ]


@pytest.mark.parametrize("reason", ["cloudy", "nodata", "flat", "unreadable"])
def test_a_scene_that_was_left_out_is_so_for_the_same_reason_when_it_is_traced_anew(reason):
    domain = Domain("D", box_grid((0, 0, 3000, 3000), 3413, 30.0))
    scene = dict.fromkeys(("key", "domain", "scene_id", "glacier_id", "platform"), "s") | {"datetime": pd.NaT}
    results = [{"reason": reason, "detail": "34% of the domain"}, SceneError(reason, "34% of the domain")]
    mapped, again = (feature_tables([scene], [result], domain, ["icebergs"])["icebergs"] for result in results)
    assert again.equals(mapped)
    assert mapped["reason"].iloc[0] == (reason if reason in ("cloudy", "nodata") else "no_scene")


def test_mapping_changed_scenes_again_keeps_the_features_of_the_store(painted, store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    before = contents(str(again))
    call = ["map", "--catalog", str(painted / "catalog.json"), "--domains", str(painted / "domains.geojson")]
    assert main([*call, "--period", "1984/2030", "--store", str(again), "--variant", "once", "--recompute"]) == 0
    assert contents(str(again)) == before


def test_compaction_keeps_the_features(store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    assert compact_store(str(again)) == (2, 1)
    for name in FEATURES:
        assert read_features(str(again), name).equals(read_features(str(store), name))


def test_a_further_band_that_cannot_be_read_is_told_by_name(painted, tmp_path):
    folder = Path(shutil.copytree(painted, tmp_path / "painted"))
    (domain,) = read_domains(folder / "domains.geojson")
    item = next(i for i in find(folder)(domain) if "red" in i.assets)
    Path(item.assets["red"].get_absolute_href()).unlink()
    bands, missing = read_further(item, domain.grid, {"red", "green"})
    assert set(bands) == {"green"}
    assert missing["red"][0] == "unreadable"


def test_kept_bands_are_those_of_the_scene_to_a_step(painted, store):
    (domain,) = read_domains(painted / "domains.geojson")
    item = next(i for i in find(painted)(domain) if "red" in i.assets)
    kept = read_bands(str(store), domain.name, item.id)
    bands, _ = read_further(item, domain.grid, {"red"})
    assert np.nanmax(np.abs(kept.bands["red"] - bands["red"])) <= 3e-5
    assert kept.about["at_surface"]


def test_the_uncalibrated_numbers_of_a_radar_are_kept_whole(tmp_path):
    grid = box_grid((0, 0, 4000, 4000), 3413, 40.0)
    amplitude = np.geomspace(1, 65_535, grid.shape[0] * grid.shape[1]).reshape(grid.shape)
    power = (20 * np.log10(amplitude)).astype(np.float32)
    write_bands(str(tmp_path), "d", "s", {"co": ("dB", power)}, grid, {})
    assert read_bands(str(tmp_path), "d", "s").bands["co"] == pytest.approx(power, abs=0.002)


def test_a_damaged_file_of_bands_is_not_read(store, tmp_path):
    again = Path(shutil.copytree(store, tmp_path / "again"))
    path = sorted((again / "bands").rglob("*.tif"))[0]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DamagedFileError):
        read_bands(str(again), path.parent.name, path.stem)


def test_an_unknown_feature_is_refused():
    with pytest.raises(ValueError, match="unknown features"):
        MapSettings(features=("whales",))
    assert MapSettings(features="icebergs").features == ("icebergs",)


def test_features_are_exported_told_and_on_the_page(store, tmp_path):
    export_store(str(store), tmp_path / "out", ["gpkg", "stac"], author="a")
    for name in FEATURES:
        assert len(gpd.read_file(tmp_path / "out" / "gpkg" / "calfin_cloud.gpkg", layer=name)) == N_SCENES
    items = [
        json.loads(p.read_text()) for p in (tmp_path / "out" / "stac").rglob("*.json") if p.name != "collection.json"
    ]
    assert all(item["properties"]["calfin:icebergs_state"] in ("measured", "not_seen") for item in items)
    assert all("plumes" in item["assets"] for item in items)
    series = feature_series(features_of(str(store)))
    key = series.dropna(subset="icebergs.area_m2")["key"].iloc[0]
    told = lineage_of(str(store), key)["features"]
    assert told["icebergs"]["state"] == "measured"
    write_report(str(store), tmp_path / "report")
    data = (tmp_path / "report" / "data" / "00000.js").read_text()
    assert '"features":{"icebergs":[' in data
    assert (tmp_path / "report" / "features.csv").is_file()


def test_features_before_a_front_that_a_person_rejected_are_not_told_and_stay_in_the_store(store, tmp_path):
    again = str(shutil.copytree(store, tmp_path / "again"))
    front = read_fronts(again).query("state == 'front'").iloc[0]
    said = {"key": front["key"], "front": 0, "verdict": "reject", "author": "M", "time": "2026-01-31T12:00Z"}
    apply_verdicts(again, [said])
    assert front["key"] in set(feature_series(features_of(str(store)))["key"])
    assert front["key"] not in set(feature_series(features_of(again))["key"])
    for name, table in features_of(again).items():
        row = table.set_index("key").loc[front["key"]]
        assert (row["state"], row["geometry"]) == ("not_seen", None)
        assert read_features(again, name).equals(read_features(str(store), name))
        others = [of[of["key"] != front["key"]] for of in (table, read_features(again, name))]
        assert others[0].equals(others[1])
    export_store(again, tmp_path / "out", ["gpkg"], author="a")


def test_the_sun_across_the_antimeridian_is_that_of_the_place(tmp_path):
    domain = Domain("Ross", box_grid((-4000, -1_335_000, 2000, -1_329_000), 3031, 30.0))
    when = datetime(2020, 12, 21, tzinfo=UTC)
    found = measured_features(str(tmp_path), domain, "s0", {}, when, ["melange"])
    assert found["melange"]["sun_zenith_deg"] == pytest.approx(sun_zenith_deg(when, -179.957, -77.785), abs=0.01)
