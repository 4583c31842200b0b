"""Networks in numbers of eight bits: near the masks of float32, told apart in stores, made of training glaciers."""

import json
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import openvino
import pytest
from faults.world import paint_world

from calfin_cloud import inference
from calfin_cloud.datasets import Sample
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.inference import predict_scene, prepare_scene
from calfin_cloud.network import (
    FAST,
    InferenceSettings,
    build_network,
    is_eight_bit,
    read_openvino,
    save_openvino,
    save_weights,
    weights_path,
)
from calfin_cloud.network import predict_pictures as masks_of
from calfin_cloud.network.files import openvino_note
from calfin_cloud.opinions import predict_pictures
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.pipeline.settings import VARIANTS, code_of, made_by, recipe_of, saved, settings_from
from calfin_cloud.preprocess import to_eight_bit
from calfin_cloud.sample import paint_scene
from calfin_cloud.scenes import search_scenes
from calfin_cloud.storage import read_fronts, read_store
from calfin_cloud.training import quantise

FLOAT = replace(FAST, eight_bit=False)


def painted(n: int) -> list[np.ndarray]:
    return [to_eight_bit(paint_scene(np.random.default_rng(seed), (256, 256)).signal) for seed in range(n)]


def sample_of(glacier: str, seed: int) -> Sample:
    image = paint_scene(np.random.default_rng(seed), (256, 256)).signal
    nothing = np.zeros(image.shape, bool)
    return Sample(f"{glacier}-{seed}", glacier, "optical", image, nothing, nothing.astype(np.uint8))


@pytest.fixture
def small_file(tmp_path):
    """Weights of a small network with its file for OpenVINO and whole pictures."""
    keras.utils.set_random_seed(5)
    path = tmp_path / "small.weights.h5"
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    save_openvino(path)
    return path


@pytest.mark.parametrize("name", ["calfin-efficient", "calfin-small-2"])
def test_shipped_networks_have_masks_near_those_of_float32(name):
    pictures = np.repeat(np.stack(painted(4))[..., None], 3, axis=-1)
    assert is_eight_bit(name, FAST)
    assert not is_eight_bit(name, replace(FAST, engine="keras"))
    assert not is_eight_bit(name, InferenceSettings(eight_bit=True))  # tiles have no such file
    eight, full = (masks_of(pictures, network=name, settings=how).astype(int) for how in (FAST, FLOAT))
    assert (eight != full).any()
    assert np.abs(eight - full).mean() < 3  # of 250
    assert full[..., 0].max() > 200


@pytest.mark.parametrize("name", ["calfin-efficient", "calfin-small-2"])
def test_weights_of_sums_over_channels_leave_room_for_cpus_that_add_in_sixteen_bits(name):
    """Without VNNI pairs of products, 255 times a weight, are added in 16 bits: masks were those of no other CPU."""
    model = openvino.Core().read_model(weights_path(name).with_name(f"{name}-256-int8.xml"))
    weights = [op.data for op in model.get_ops() if op.get_type_name() == "Constant" and op.data.dtype == np.int8]
    over_channels = [w for w in weights if w.ndim < 5]  # others are of one channel each
    assert len(over_channels) > 40
    assert max(np.abs(w.astype(int)).max() for w in over_channels) * 255 * 2 < 2**15


def test_weights_without_such_a_file_run_in_full(small_file):
    pictures = np.repeat(np.stack(painted(1))[..., None], 3, axis=-1)
    assert not is_eight_bit(small_file, FAST)
    eight, full = (masks_of(pictures, network=str(small_file), settings=how) for how in (FAST, FLOAT))
    np.testing.assert_array_equal(eight, full)


def test_another_file_of_eight_bits_makes_other_masks_and_so_another_recipe(small_file):
    """Stores of `fast` did not notice that its weights had been made anew, and so drew other fronts."""
    domain = Domain("Square", box_grid((0, 0, 3000, 3000), 3413, 30.0))
    note, made = openvino_note(small_file), set()
    for mark in ("a", "b"):
        about = json.loads(note.read_text())
        about["files"]["256-int8"] = {"xml": mark * 64, "bin": mark * 64}
        note.write_text(json.dumps(about))
        how = [replace(VARIANTS[name], network=str(small_file)) for name in ("once", "fast")]
        made.add(tuple(recipe_of(domain, settings)["masks"] for settings in how))
    assert [len(set(recipes)) for recipes in zip(*made, strict=True)] == [1, 2]


def test_the_file_is_made_of_training_glaciers_alone_and_noted(small_file):
    with pytest.raises(
        ValueError, match=r"measured on training glaciers, got none beside \['Crane', 'Kangerlussuaq'\]"
    ):
        quantise(small_file, [sample_of("Crane", 0)])
    made = quantise(
        small_file, [sample_of("Crane", 0), *(sample_of("Sverdrup", n) for n in range(1, 5))], per_glacier=3
    )
    assert made.name == "small-256-int8.xml"
    assert json.loads(small_file.with_name("small.openvino.json").read_text())["files"].keys() == {
        "224",
        "256",
        "256-int8",
    }
    assert is_eight_bit(small_file, FAST)
    pictures = np.repeat(np.stack(painted(1))[..., None], 3, axis=-1)
    eight, full = (masks_of(pictures, network=str(small_file), settings=how).astype(int) for how in (FAST, FLOAT))
    assert 0 < np.abs(eight - full).max() < 25
    damaged = made.with_suffix(".bin")
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"small-256-int8.bin must have sha256"):
        read_openvino(small_file, 256, eight_bit=True)


def test_weights_that_have_no_file_for_openvino_are_refused(tmp_path):
    path = tmp_path / "bare.weights.h5"
    save_weights(build_network("unet", width=0.25, size=64), path, width=0.25)
    with pytest.raises(ValueError, match=r"no file for OpenVINO and whole pictures: make it by save_openvino"):
        quantise(path, [sample_of("Sverdrup", 1)])


def test_what_the_verifier_saw_of_the_scene_counts_for_its_windows(monkeypatch):
    """The verifier sees one picture, the scene, and not the windows around its fronts."""
    scene = np.stack([paint_scene(np.random.default_rng(3), (600, 600)).signal, np.zeros((600, 600), np.float32)])
    shown = []

    def count(pictures, verify, optical, **more):
        shown.append((len(pictures), int(np.sum(verify))))
        return predict_pictures(pictures, verify, optical, **more)

    monkeypatch.setattr(inference, "predict_pictures", count)
    channels = prepare_scene(scene, 30.0, "optical")
    for settings in (FLOAT, replace(FLOAT, verify_windows=True)):
        masks, boxes = predict_scene(channels, network="calfin-efficient", settings=settings)
        assert len(boxes) == 1
        assert np.nanmax(masks[0]) > 0.9
    assert shown == [(1, 1), (1, 0), (1, 1), (1, 1)]


def test_a_fast_store_says_so_and_one_made_before_is_read_as_it_was(tmp_path):
    folder = paint_world(tmp_path / "painted", 2, seed=3)
    domains, fast = read_domains(folder / "domains.geojson"), VARIANTS["fast"]
    find = partial(search_scenes, folder / "catalog.json", period="1984/2030")
    map_fronts(domains, find, str(tmp_path / "store"), settings=fast)
    assert settings_from(read_store(str(tmp_path / "store"))["settings"]) == fast
    assert code_of(fast).endswith(" openvino int8")
    assert set(read_fronts(str(tmp_path / "store"))["code"]) == {code_of(fast)}
    assert made_by(fast)["settings"]["inference"]["eight_bit"]
    tiles = VARIANTS["tiles"]
    before = saved(tiles)
    assert before["inference"].keys() == {"stride", "transposed", "square_pixels"}
    assert settings_from(before) == tiles
    before["inference"]["optical_whole"] = True  # as a store says that was made before pictures were turned
    assert settings_from(before).inference == InferenceSettings(turned=False)
    once, fast_recipe = (recipe_of(domains[0], VARIANTS[name]) for name in ("once", "fast"))
    assert once["masks"] != fast_recipe["masks"]
    assert once["fronts"] == fast_recipe["fronts"]
