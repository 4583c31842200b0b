"""The same network in another engine: the same masks and fronts, the same store; and a missing engine is named."""

import importlib
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import geopandas as gpd
import keras
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from PIL import Image
from storing import contents

from calfin_cloud import doctor, storage
from calfin_cloud.cli import main
from calfin_cloud.cli.parser import make_parser
from calfin_cloud.cli.stores import settings_of
from calfin_cloud.domains import read_domains
from calfin_cloud.inference import InferenceSettings
from calfin_cloud.network import (
    DEFAULT_NETWORK,
    OpenVinoNetwork,
    build_network,
    load_network,
    predict_tiles,
    save_weights,
)
from calfin_cloud.pipeline import MapSettings, made_by, map_fronts, recompute_changed, retrace_fronts
from calfin_cloud.pipeline.recipes import recipe_of
from calfin_cloud.pipeline.settings import saved, settings_from
from calfin_cloud.preprocess import to_eight_bit
from calfin_cloud.results import lineage_of
from calfin_cloud.sample import paint_scene, write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import SceneError

OPENVINO = MapSettings(inference=InferenceSettings(engine="openvino"))
N_SCENES = 4


def tiles(n=3, size=224, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, size, 3)).astype(np.float32)


@pytest.fixture
def small_file(tmp_path):
    """Weights of a small network, which is converted in a second."""
    keras.utils.set_random_seed(5)
    path = tmp_path / "small.weights.h5"
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    return path


@pytest.fixture(scope="module")
def converted():
    return load_network(DEFAULT_NETWORK, engine="openvino")


@pytest.fixture(scope="module")
def find(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted")
    write_sample(folder, scenes=N_SCENES, seed=3)
    return partial(search_scenes, folder / "catalog.json", period="1984/2030")


@pytest.fixture(scope="module")
def domains(find):
    return read_domains(find.args[0].with_name("domains.geojson"))


@pytest.fixture(scope="module")
def stores(find, domains, tmp_path_factory):
    """The painted scenes mapped by each engine."""
    folder = tmp_path_factory.mktemp("stores")
    for name, settings in (("keras", MapSettings()), ("openvino", OPENVINO)):
        map_fronts(domains, find, str(folder / name), settings=settings)
    return str(folder / "keras"), str(folder / "openvino")


def test_masks_of_the_default_network_are_the_same_up_to_rounding(converted):
    masks = predict_tiles(converted, tiles(9))
    expected = predict_tiles(load_network(DEFAULT_NETWORK), tiles(9))
    assert masks.dtype == np.float32
    assert np.abs(masks - expected).max() < 1e-4
    assert expected.std() > 0.01


def test_a_keras_model_file_is_converted_too(tmp_path):
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same", activation="sigmoid")(inputs))
    model.save(tmp_path / "other.keras")
    masks = predict_tiles(load_network(tmp_path / "other.keras", engine="openvino"), tiles(size=64))
    np.testing.assert_allclose(masks, predict_tiles(load_network(tmp_path / "other.keras"), tiles(size=64)), atol=1e-5)


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
    assert recipe_of(domains[0], MapSettings()) == recipe_of(domains[0], OPENVINO)
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
    next(iter(sorted(store.glob("masks/*/masks/c/*/0/0/0")))).unlink()
    assert retrace_fronts(str(store))["failed"] == 1
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
    values = json.loads(json.dumps(made_by(OPENVINO)["settings"]))
    assert "engine" not in values["inference"]
    assert settings_from(values) == MapSettings() == OPENVINO
    assert saved(replace(OPENVINO, inference=InferenceSettings(stride=16, engine="openvino"))) != values


def test_nothing_of_the_conversion_stays_on_disk(small_file, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    network = load_network(small_file, size=64, engine="openvino")
    assert list(temporary.iterdir()) == []
    assert predict_tiles(network, tiles(2, 64)).shape == (2, 64, 64, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.weights.h5", "temporary"]


def test_a_network_is_converted_once_even_by_threads_that_ask_at_once(small_file):
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: load_network(small_file, size=64, engine="openvino"), range(4)))
    assert all(network is networks[0] for network in networks)
    assert load_network(small_file, size=64) is not networks[0]


def test_threads_predict_what_one_thread_predicts(converted):
    batches = [tiles(8, seed=i) for i in range(6)]
    alone = [predict_tiles(converted, batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda batch: predict_tiles(converted, batch), batches))
    np.testing.assert_array_equal(together, alone)


def test_a_result_stays_as_it_is_when_the_next_batch_is_predicted(converted):
    first = converted.predict_on_batch(tiles(8))
    kept = first.copy()
    converted.predict_on_batch(tiles(8, seed=2))
    np.testing.assert_array_equal(first, kept)


class SilentRequest:
    """A request that leaves its output as it was, as OpenVINO's do where memory is short."""

    def __init__(self, tensor):
        self.tensor = tensor

    def get_output_tensor(self, _):
        return self.tensor

    def infer(self, *_, **__):
        return {}


def test_a_batch_that_openvino_leaves_out_in_silence_is_short_of_memory_and_no_masks_of_an_earlier_one(converted):
    compiled = SimpleNamespace(create_infer_request=lambda: SilentRequest(SimpleNamespace(data=np.zeros((1, 2, 2, 2)))))
    silent = OpenVinoNetwork(compiled, converted.input_shape)
    with pytest.raises(SceneError, match="OpenVINO gave no masks") as told:
        predict_tiles(silent, tiles(8))
    assert told.value.reason == "out_of_memory"


def test_the_number_of_tiles_changes_neither_masks_nor_memory(converted):
    whole = converted.predict_on_batch(tiles(8))
    before = psutil.Process().memory_info().rss
    parts = np.concatenate([converted.predict_on_batch(tiles(8)[i:j]) for i, j in ((0, 1), (1, 3), (3, 8))])
    np.testing.assert_array_equal(parts, whole)
    converted.predict_on_batch(tiles(64))
    assert psutil.Process().memory_info().rss - before < 200e6  # tiles and masks are 64 MB; eight at once took 160 more


def test_tiles_of_another_size_are_refused(converted):
    with pytest.raises(ValueError, match="cut them to this size"):
        predict_tiles(converted, tiles(1, size=96))


@pytest.mark.parametrize(("said", "expected"), [("1", 1), ("2,1", 2), (None, os.cpu_count())])
def test_it_computes_in_float32_with_as_many_threads_as_workers_of_dask_may(small_file, monkeypatch, said, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    compiled = load_network(small_file, size=64, engine="openvino").compiled
    assert min(compiled.get_property("INFERENCE_NUM_THREADS") or os.cpu_count(), os.cpu_count()) == expected
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_nobody_is_told_that_it_is_used(converted):
    assert sys.modules["openvino_telemetry"] is None
    assert converted
    assert sys.modules["openvino.tools.ovc.convert_impl"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.slow
def test_workers_of_dask_map_with_it(find, domains, stores, tmp_path):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        map_fronts(domains, find, str(tmp_path / "store"), settings=OPENVINO, client=client)
        assert client.run(os.environ.get, "OMP_NUM_THREADS").popitem()[1] == "1"
    here, there = (storage.read_fronts(store) for store in (stores[1], tmp_path / "store"))
    assert here.geometry.geom_equals_exact(there.geometry, 0.01).sum() == (here["state"] == "front").sum()
    assert set(there["code"]) == set(here["code"])


@pytest.fixture
def without_the_extra(monkeypatch):
    real = importlib.import_module

    def refuse(name, *more):
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'")
        return real(name, *more)

    monkeypatch.setattr("calfin_cloud.network.engines.import_module", refuse)


@pytest.mark.usefixtures("without_the_extra")
def test_a_missing_extra_is_named_before_any_scene_is_touched(small_file, find, domains, tmp_path):
    settings = replace(OPENVINO, network=str(small_file))
    with pytest.raises(ValueError, match=r"calfin-cloud\[openvino\]"):
        map_fronts(domains, find, str(tmp_path / "store"), settings=settings)
    assert not (tmp_path / "store").exists()
    found = doctor.check_network(str(small_file), "openvino")
    assert (found.status, "calfin-cloud[openvino]" in found.detail) == ("problem", True)


def test_an_unknown_engine_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"engine must be one of \('keras', .*\), got 'tensorrt'"):
        load_network(DEFAULT_NETWORK, engine="tensorrt")


def test_one_flag_of_the_command_line_chooses_the_engine():
    call = ["map", "--catalog", "c.json", "--domains", "d.geojson", "--period", "2020", "--store", "s"]
    chosen = [settings_of(make_parser().parse_args([*call, *more])) for more in ([], ["--engine", "openvino"])]
    assert [settings.inference.engine for settings in chosen] == ["keras", "openvino"]
