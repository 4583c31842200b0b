"""Pictures become masks: the same whatever the engine, the number of pictures and what Python has imported."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from calfin_cloud.network import (
    CALFIN,
    DEFAULT_NETWORK,
    ONCE,
    TILES,
    InferenceSettings,
    KerasPictures,
    build_network,
    cut_of,
    engine_of,
    graphs,
    load_network,
    load_predictor,
    predict_pictures,
    predict_with,
    save_weights,
)
from calfin_cloud.schema import SceneError

WAYS = {
    "four tiles and their transposes": TILES,
    "nine tiles": CALFIN,
    "one tile a corner, whole in x and y": InferenceSettings(stride=224, transposed=False),
    "whole and its transpose": InferenceSettings(stride=None, transposed=True),
    "whole": ONCE,
}


def pictures(n=3, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)


def by(engine, settings=None):
    settings = settings or InferenceSettings()
    return replace(settings, engine=engine)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """Weights of a small network, whose masks differ at the border of a tile and by direction."""
    keras.utils.set_random_seed(5)
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    return path


def masks_by_hand(picture, path, settings):
    """Masks of a picture as the words say it: each tile and each view on its own, in float64."""
    network = load_network(path, size=224 if settings.stride else 256)
    size = network.input_shape[1]
    of_views = []
    for view in (picture, picture.swapaxes(0, 1)) if settings.transposed else (picture,):
        total, count = np.zeros((256, 256, 2)), np.zeros((256, 256, 1))
        for row, column in cut_of(settings, size).offsets:
            window = np.s_[row : row + size, column : column + size]
            tile = (view[window] / 127.5 - 1).astype("float32")
            total[window] += np.asarray(network.predict_on_batch(tile[None]))[0]
            count[window] += 1
        of_views.append(total / count)
    if settings.transposed:
        of_views[1] = of_views[1].swapaxes(0, 1)
    return 250 * np.mean(of_views, axis=0)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_picture_s_masks_are_the_mean_of_its_tiles_masks(small_file, way, engine):
    settings = by(engine, WAYS[way])
    (picture,) = pictures(1)
    (masks,) = predict_pictures(picture[None], network=str(small_file), settings=settings)
    expected = masks_by_hand(picture, small_file, settings)
    assert np.abs(masks - expected).max() < 0.51
    assert np.ptp(expected) > 10


def test_the_original_cuts_nine_tiles_row_by_row_and_the_last_one_ends_with_the_picture():
    assert cut_of(CALFIN, 224).offsets == tuple((r, c) for r in (0, 16, 32) for c in (0, 16, 32))
    assert {row for row, _ in cut_of(InferenceSettings(stride=20), 224).offsets} == {0, 20, 32}
    with pytest.raises(ValueError, match="leave gaps"):
        cut_of(InferenceSettings(stride=100), 64)
    with pytest.raises(ValueError, match="at most 256 px"):
        cut_of(InferenceSettings(), 512)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_masks_do_not_depend_on_the_pictures_beside_them(small_file, engine):
    together = predict_pictures(pictures(3), network=str(small_file), settings=by(engine))
    alone = [predict_pictures(p[None], network=str(small_file), settings=by(engine))[0] for p in pictures(3)]
    np.testing.assert_array_equal(together, alone)
    assert predict_pictures(pictures(0), network=str(small_file), settings=by(engine)).shape == (0, 256, 256, 2)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_threads_predict_what_one_thread_predicts(small_file, engine):
    batches = [pictures(2, seed=i) for i in range(4)]
    alone = [predict_pictures(batch, network=str(small_file), settings=by(engine)) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = pool.map(lambda b: predict_pictures(b, network=str(small_file), settings=by(engine)), batches)
        np.testing.assert_array_equal(list(together), alone)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_a_network_is_loaded_once_even_by_threads_that_ask_at_once(small_file, engine):
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_predictor(small_file, by(engine)), range(4)))
    assert all(network is loaded[0] for network in loaded)


def test_weights_that_were_replaced_are_loaded_anew(tmp_path):
    path = tmp_path / "again.weights.h5"
    masks = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
        masks.append(predict_pictures(pictures(1), network=str(path)))
    assert (masks[0] != masks[1]).mean() > 0.5


@pytest.mark.parametrize(("gpus", "n", "batches"), [(0, 3, [1, 1, 1]), (1, 75, [32, 32, 32]), (1, 1, [32])])
def test_a_gpu_takes_many_pictures_at_once_in_one_number(small_file, monkeypatch, gpus, n, batches):
    monkeypatch.setattr(graphs, "count_gpus", lambda: gpus)
    seen, loaded = [], KerasPictures(load_network(small_file), cut_of(CALFIN, 224))
    loaded.predict = lambda batch: seen.append(len(batch)) or np.zeros((*batch.shape[:3], 2), np.uint8)
    assert predict_with(loaded, np.zeros((n, 256, 256, 3), np.uint8)).shape == (n, 256, 256, 2)
    assert seen == batches


@pytest.mark.parametrize("wrong", [np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 256, 256, 3), np.float32)])
def test_pictures_of_another_size_or_type_are_refused(small_file, wrong):
    with pytest.raises(ValueError, match="resize them to this size, and round"):
        predict_pictures(wrong, network=str(small_file))


def test_published_weights_of_one_channel_are_refused_with_a_way_out(shared):
    path = next(iter(sorted((shared / "data" / "mohajerani2019" / "pretrained_unet_keras_h5").glob("*.h5"))))
    with pytest.raises(ValueError, match="map with `predict_front`"):
        predict_pictures(pictures(1), network=str(path))


def test_weights_without_a_file_for_openvino_are_run_by_keras_unless_one_asks_otherwise(small_file):
    assert engine_of(small_file) == "keras"
    assert engine_of(small_file, by("openvino")) == "openvino"
    assert engine_of(DEFAULT_NETWORK) == "openvino"
    assert engine_of(DEFAULT_NETWORK, by("keras")) == "keras"
    with pytest.raises(ValueError, match=r"engine must be one of \('auto', .*\), got 'tensorrt'"):
        engine_of(DEFAULT_NETWORK, by("tensorrt"))


def run(code, **environment):
    """What a fresh Python prints, in words, and on the stream of errors."""
    call = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the tests' own process has set it
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return done.stdout.split(), done.stderr


def test_names_and_checks_of_weights_need_no_engine():
    code = """
import sys
from calfin_cloud import network
network.network_id(network.DEFAULT_NETWORK), network.InferenceSettings(), network.engine_of(network.DEFAULT_NETWORK)
print(*({"keras", "tensorflow", "openvino"} & set(sys.modules)))
"""
    assert run(code) == ([], "")


def test_shipped_weights_predict_without_keras_and_tensorflow():
    code = """
import sys, numpy as np
from calfin_cloud.network import DEFAULT_NETWORK, predict_pictures
print(predict_pictures(np.zeros((1, 256, 256, 3), np.uint8), network=DEFAULT_NETWORK).shape[-1])
print(*({"keras", "tensorflow"} & set(sys.modules)))
"""
    assert run(code) == (["3"], "")


def test_without_keras_what_needs_it_says_so_and_all_else_works(tmp_path):
    Image.fromarray(np.arange(1, 4097).reshape(64, 64).astype(np.uint8)).save(tmp_path / "grey.png")
    code = """
import os, sys
sys.modules["keras"] = None
from calfin_cloud.cli import main
trace = ["trace", os.environ["IMAGE"], "--out", os.environ["IMAGE"] + ".geojson"]
print(main(trace), main([*trace, "--engine", "keras"]), main(["train", "--data", ".", "--out", "."]))
"""
    said, told = run(code, IMAGE=str(tmp_path / "grey.png"))
    assert said[-3:] == ["0", "2", "2"]
    assert told.count("need Keras and TensorFlow, which are not here") == 2


def test_tensorflow_starts_in_silence_also_in_processes_that_others_start():
    code = """
import subprocess, sys, os, calfin_cloud.cli
from calfin_cloud.network import build_network
build_network("unet", size=64).predict_on_batch(__import__("numpy").zeros((1, 64, 64, 3)))
print("tensorflow" in sys.modules, "said", file=sys.stderr)
if len(sys.argv) == 1:
    sys.exit(subprocess.run([sys.executable, "-c", os.environ["CODE"], "child"]).returncode)
"""
    assert run(code, CODE=code) == ([], "True said\n" * 2)


class ShortOfMemory:
    """A network whose device holds `most` pictures."""

    masks, at_once = 2, 8

    def __init__(self, most, error):
        self.most, self.error, self.seen = most, error, []

    def predict(self, batch):
        self.seen.append(len(batch))
        if len(batch) > self.most:
            raise self.error
        return batch[..., :2]


class XlaRuntimeError(RuntimeError):
    """What JAX raises, which is not installed here."""


ERRORS = [
    tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,224,224,64]"),
    XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 GiB."),
    MemoryError("Unable to allocate 1.5 GiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("most", [4, 1])
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(most, error):
    short = ShortOfMemory(most, error)
    np.testing.assert_array_equal(predict_with(short, pictures(11)), pictures(11)[..., :2])
    assert short.seen[0] == 8
    assert max(n for n in short.seen if n <= most) == (most if most == 1 else 4)


def test_a_picture_that_does_not_fit_into_memory_is_a_scene_s_error_that_says_so():
    with pytest.raises(SceneError, match="not even one picture") as told:
        predict_with(ShortOfMemory(0, ERRORS[0]), pictures(3))
    assert told.value.reason == "out_of_memory"


def test_any_other_error_of_the_network_is_raised_as_it_is():
    short = ShortOfMemory(0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        predict_with(short, pictures(3))
    assert short.seen == [8]
