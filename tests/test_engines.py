"""The same network in another engine: the same masks and fronts, the same store; its files are checked."""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import geopandas as gpd
import keras
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from faults.world import paint_world
from PIL import Image
from storing import change_chunks, contents

from calfin_cloud import doctor, storage
from calfin_cloud.cli import main
from calfin_cloud.cli.mapping import settings_of
from calfin_cloud.cli.parser import make_parser
from calfin_cloud.domains import read_domains
from calfin_cloud.inference import InferenceSettings
from calfin_cloud.network import (
    DEFAULT_NETWORK,
    SHIPPED,
    WEIGHTS_FOLDER,
    OpenVinoPictures,
    build_network,
    convert,
    cut_of,
    engine_of,
    load_network,
    load_predictor,
    predict_pictures,
    predict_with,
    read_openvino,
    save_openvino,
    save_weights,
)
from calfin_cloud.network.engines import compile_model
from calfin_cloud.pipeline import MapSettings, made_by, map_fronts, recompute_changed, retrace_fronts
from calfin_cloud.pipeline.settings import VARIANTS, recipe_of, saved, settings_from
from calfin_cloud.preprocess import to_eight_bit
from calfin_cloud.results import lineage_of
from calfin_cloud.sample import paint_scene
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError

ONCE = VARIANTS["once"]
KERAS, OPENVINO = (replace(ONCE, inference=replace(ONCE.inference, engine=e)) for e in ("keras", "openvino"))
"""Each picture is shown to the network once; other masks of both engines are compared as they are by default."""

N_SCENES = 3


def painted(n=1):
    """Pictures as the network sees them: painted scenes, the same in all channels."""
    scenes = [paint_scene(np.random.default_rng(seed), (256, 256)) for seed in range(n)]
    return np.stack([np.repeat(to_eight_bit(scene.signal)[..., None], 3, axis=-1) for scene in scenes])


@pytest.fixture
def small_file(tmp_path):
    """Weights of a small network, which is converted in a second."""
    keras.utils.set_random_seed(5)
    path = tmp_path / "small.weights.h5"
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    return path


@pytest.fixture(scope="module")
def converted():
    return load_predictor(DEFAULT_NETWORK, OPENVINO.inference)


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    folder = paint_world(tmp_path_factory.mktemp("painted"), N_SCENES, seed=3)
    return partial(search_scenes, folder / "catalog.json", period="1984/2030")


@pytest.fixture(scope="module")
def domains(find):
    return read_domains(find.args[0].with_name("domains.geojson"))


@pytest.fixture(scope="module")
def stores(find, domains, tmp_path_factory):
    """The painted scenes mapped by each engine."""
    folder = tmp_path_factory.mktemp("stores")
    for name, settings in (("keras", KERAS), ("openvino", OPENVINO)):
        map_fronts(domains, find, str(folder / name), settings=settings)
    return str(folder / "keras"), str(folder / "openvino")


@pytest.mark.parametrize(("name", "settings"), [("calfin-efficient", {}), ("calfin-small-2", {"stride": None})])
def test_masks_of_shipped_networks_are_the_same_up_to_rounding(name, settings):
    by_openvino, by_keras = (
        predict_pictures(painted(), network=name, settings=InferenceSettings(engine=engine, **settings)).astype(int)
        for engine in ("openvino", "keras")
    )
    assert np.abs(by_openvino - by_keras).max() <= 1
    assert (by_openvino != by_keras).mean() < 1e-3
    assert by_keras[..., 0].max() > 100


@pytest.mark.parametrize("name", ["calfin-efficient", "calfin-small-2"])
def test_shipped_files_are_made_of_the_shipped_weights_and_give_equal_masks(name):
    note = json.loads((WEIGHTS_FOLDER / f"{name}.openvino.json").read_text())
    assert note["weights"] == SHIPPED[name].sha256
    assert note["largest_difference"] < 1e-5
    for size in filter(str.isdigit, note["files"]):  # those of eight bits are not equal
        network = load_network(name, size=int(size))
        tiles = np.random.default_rng(9).uniform(-1, 1, (2, int(size), int(size), 3)).astype("float32")
        compiled = compile_model(read_openvino(name, int(size)))
        assert np.abs(compiled(tiles)[0] - np.asarray(network.predict_on_batch(tiles))).max() < 1e-5


def test_a_keras_model_file_is_converted_too(tmp_path):
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same", activation="sigmoid")(inputs))
    model.save(tmp_path / "other.keras")
    by_openvino, by_keras = (
        predict_pictures(
            painted(), network=str(tmp_path / "other.keras"), settings=InferenceSettings(engine=engine)
        ).astype(int)
        for engine in ("openvino", "keras")
    )
    assert np.abs(by_openvino - by_keras).max() <= 1


def test_saved_files_are_used_only_with_their_own_weights_and_as_they_were_written(small_file):
    assert engine_of(small_file) == "keras"
    assert [path.name for path in save_openvino(small_file)] == ["small-224.xml", "small-256.xml"]
    assert engine_of(small_file) == engine_of(small_file, InferenceSettings(stride=None)) == "openvino"
    masks = predict_pictures(painted(), network=str(small_file))
    by_keras = predict_pictures(painted(), network=str(small_file), settings=InferenceSettings(engine="keras"))
    assert np.abs(masks.astype(int) - by_keras).max() <= 1
    damaged = small_file.with_name("small-256.bin")
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"small-256.bin must have sha256 .* make it again, or use the engine keras"):
        predict_pictures(painted(), network=str(small_file), settings=InferenceSettings(stride=None))
    save_weights(build_network("unet", width=0.25, size=64), small_file, width=0.25)
    assert engine_of(small_file) == "keras"


def test_kernels_are_kept_as_the_weights_have_them(small_file):
    """They are float16 in both, and make nearly all of a file."""
    save_openvino(small_file)
    n = load_network(small_file).count_params()
    assert 2 * n < small_file.with_name("small-224.bin").stat().st_size < 2.5 * n
    assert json.loads(small_file.with_name("small.openvino.json").read_text())["largest_difference"] < 1e-6


def test_stored_masks_differ_by_a_step_at_most_and_the_fronts_are_the_same(stores, domains):
    by_keras, by_openvino = (storage.read_fronts(store).sort_values(["key", "front"]) for store in stores)
    assert (by_keras["state"] == "front").sum() >= N_SCENES - 1
    same = ["key", "front", "state", "reason", "model", "isolation"]
    assert by_keras[same].to_dict("list") == by_openvino[same].to_dict("list")
    found = by_keras["state"].to_numpy() == "front"
    apart_m = by_keras.geometry[found].hausdorff_distance(by_openvino.geometry[found], align=False)
    assert apart_m.max() < 0.01
    seen = 0
    for place in range(N_SCENES):
        pairs = [storage.read_scene_masks(store, domains[0].name, place) for store in stores]
        for mask, expected in zip(*pairs, strict=True):
            np.testing.assert_array_equal(np.isnan(mask), np.isnan(expected))
            assert np.nanmax(np.abs(mask - expected), initial=0) < 1.01 / 250
            seen += int(np.nanmax(expected, initial=0) > 0.9)
    assert seen >= N_SCENES


def test_a_store_is_gone_on_with_by_either_engine_and_each_scene_says_which_ran(stores, find, domains):
    by_keras, by_openvino = stores
    assert storage.read_store(by_keras) == storage.read_store(by_openvino)
    assert recipe_of(domains[0], KERAS) == recipe_of(domains[0], OPENVINO)
    before = contents(by_keras)
    assert sum(recompute_changed(by_keras, domains, find, settings=OPENVINO).values()) == 0
    counts = map_fronts(domains, find, by_keras, settings=OPENVINO)
    assert counts["known"] == counts["found"] == N_SCENES
    assert contents(by_keras) == before
    scene = storage.read_fronts(by_keras)["scene_id"].iloc[0]
    made = [lineage_of(store, scene)["made_by"] for store in stores]
    assert [m.pop("engine") for m in made] == ["keras", "openvino"]
    assert made[0] == made[1]


def test_a_retry_runs_the_engine_that_it_is_told(stores, tmp_path):
    store = shutil.copytree(stores[0], tmp_path / "store")
    change_chunks(str(store), lambda chunks: chunks.pop(min(chunks)))
    assert retrace_fronts(str(store), everything=True)["kept"] == 1
    assert main(["retry", str(store), "--engine", "openvino", "--cluster", "none"]) == 0
    scenes = storage.read_fronts(str(store))["scene_id"].unique()
    engines = [lineage_of(str(store), scene)["made_by"]["engine"] for scene in scenes]
    assert sorted(engines) == ["keras"] * (N_SCENES - 1) + ["openvino"]


def test_plain_images_are_traced_by_either_engine(tmp_path):
    scene = paint_scene(np.random.default_rng(3), (256, 256))
    image, lines = tmp_path / "painted.png", []
    Image.fromarray(to_eight_bit(scene.signal)).save(image)
    for engine in ("keras", "openvino"):
        out = tmp_path / f"{engine}.geojson"
        assert main(["trace", str(image), "--engine", engine, "--out", str(out)]) == 0
        lines.append(gpd.read_file(out, engine="pyogrio").geometry[0])
    assert lines[0].hausdorff_distance(lines[1]) < 0.01


def test_stores_of_before_there_were_engines_are_read_as_they_are():
    default = MapSettings(inference=InferenceSettings(engine="openvino"))
    values = json.loads(json.dumps(made_by(default)["settings"]))
    assert "engine" not in values["inference"]
    assert settings_from(values) == MapSettings() == default
    assert saved(replace(default, inference=InferenceSettings(stride=16, engine="openvino"))) != values


def test_nothing_of_a_conversion_stays_on_disk(small_file, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert predict_pictures(painted(), network=str(small_file), settings=OPENVINO.inference).any()
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.weights.h5", "temporary"]


class SilentRequest:
    """A request that leaves its output as it was, as OpenVINO's do where memory is short."""

    def __init__(self, tensor):
        self.tensor = tensor

    def get_output_tensor(self, _):
        return self.tensor

    def infer(self, *_, **__):
        return {}


def test_a_tile_that_openvino_leaves_out_in_silence_is_short_of_memory_and_no_masks_of_an_earlier_one(small_file):
    silent = OpenVinoPictures(convert(load_network(small_file)), cut_of(InferenceSettings(), 224))
    tensor = SimpleNamespace(data=np.zeros((1, 224, 224, 2), np.float32))
    silent.compiled = SimpleNamespace(create_infer_request=lambda: SilentRequest(tensor))
    with pytest.raises(SceneError, match="OpenVINO gave no masks") as told:
        predict_with(silent, painted())
    assert told.value.reason == "out_of_memory"


def test_the_number_of_pictures_does_not_change_the_memory(converted):
    converted.predict(painted())
    before = psutil.Process().memory_info().rss
    converted.predict(np.repeat(painted(), 16, axis=0))
    assert psutil.Process().memory_info().rss - before < 100e6


@pytest.mark.parametrize(("said", "expected"), [("1", 1), ("2,1", 2), (None, os.cpu_count())])
def test_it_computes_in_float32_with_as_many_threads_as_workers_of_dask_may(small_file, monkeypatch, said, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    compiled = load_predictor(small_file, OPENVINO.inference).compiled
    assert min(compiled.get_property("INFERENCE_NUM_THREADS") or os.cpu_count(), os.cpu_count()) == expected
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_nobody_is_told_that_it_is_used(converted):
    assert sys.modules["openvino_telemetry"] is None
    assert converted
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


@pytest.mark.slow
def test_workers_of_dask_map_with_it(find, domains, stores, tmp_path):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        map_fronts(domains, find, str(tmp_path / "store"), settings=OPENVINO, client=client)
        assert client.run(os.environ.get, "OMP_NUM_THREADS").popitem()[1] == "1"
    here, there = (storage.read_fronts(store) for store in (stores[1], tmp_path / "store"))
    assert here.geometry.geom_equals_exact(there.geometry, 0.01).sum() == (here["state"] == "front").sum()
    assert set(there["code"]) == set(here["code"])


@pytest.mark.parametrize("engine", ["auto", "keras", "openvino"])
def test_the_doctor_loads_the_network_as_it_would_run(small_file, engine):
    found = doctor.check_network(DEFAULT_NETWORK, engine)
    assert found.status == "ok"
    assert doctor.check_network(str(small_file.with_name("other.h5")), engine).status == "problem"


def test_one_flag_of_the_command_line_chooses_the_engine():
    call = ["map", "--catalog", "c.json", "--domains", "d.geojson", "--period", "2020", "--store", "s"]
    chosen = [settings_of(make_parser().parse_args([*call, *more])) for more in ([], ["--engine", "openvino"])]
    assert [settings.inference.engine for settings in chosen] == ["auto", "openvino"]
