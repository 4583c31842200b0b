import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest

from calfin_cloud import network as room
from calfin_cloud.network import (
    SHIPPED,
    AlignCornersResize,
    calfin_network,
    interpolation_matrix,
    load_network,
    network_id,
    predict_tiles,
    read_weights,
    save_weights,
)

NARROW = 0.03


def seeded(layer, array, shape):
    """Values of the parity recipe: a generator seeded by the name of the array."""
    rng = np.random.default_rng(zlib.crc32(f"{layer}/{array}".encode()))
    if array in ("kernel", "depthwise_kernel"):
        fan_in = shape[0] * shape[1] * (shape[2] if array == "kernel" else 1)
        return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype("float32")
    if array == "gamma":
        return rng.uniform(0.8, 1.2, shape).astype("float32")
    if array == "moving_variance":
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    return rng.normal(0, 0.1, shape).astype("float32")


def keras_2_name(layer, array):
    return "depthwise_kernel" if array == "kernel" and layer.endswith("_depthwise") else array


def write_keras_2(path, network, *, below="", width=None):
    """A weights file as Keras 2 writes it, filled by the recipe."""
    with h5py.File(path, "w") as file:
        if width:
            file.attrs["width"] = width
        if below:
            file.create_dataset("optimizer_weights/Adam/iterations:0", data=np.int64(7))
        for layer in network.layers:
            group = file.create_group(f"{below}/{layer.name}")
            group.attrs["weight_names"] = [f"{layer.name}/{w.name}:0".encode() for w in layer.weights]
            for w in layer.weights:
                name = keras_2_name(layer.name, w.name)
                group[f"{layer.name}/{name}:0"] = seeded(layer.name, name, tuple(w.shape))
    return path


@pytest.fixture(scope="module")
def narrow():
    keras.utils.set_random_seed(5)
    return calfin_network(width=NARROW, size=64)


@pytest.fixture
def narrow_file(narrow, tmp_path):
    path = tmp_path / "narrow.weights.h5"
    save_weights(narrow, path, width=NARROW)
    return path


@pytest.fixture(scope="module")
def original():
    return calfin_network()


def tiles(n=3, size=64, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, size, 3)).astype(np.float32)


def test_the_full_width_has_exactly_the_parameters_of_the_original(original):
    assert original.count_params() == 29_458_201
    assert sum(int(np.prod(w.shape)) for w in original.trainable_weights) == 29_316_387
    assert sum(bool(layer.weights) for layer in original.layers) == 201
    assert sum(len(layer.weights) for layer in original.layers) == 502


def test_55_ordinary_kernels_are_regularised_and_no_depthwise_one(original):
    regularised = [layer.name for layer in original.layers if getattr(layer, "kernel_regularizer", None)]
    assert len(regularised) == 55
    assert not any(isinstance(original.get_layer(name), keras.layers.DepthwiseConv2D) for name in regularised)
    assert not any(getattr(layer, "depthwise_regularizer", None) for layer in original.layers)


def test_weights_of_the_original_in_a_full_model_file_give_its_probabilities(original, shared, tmp_path):
    path = write_keras_2(tmp_path / "cfm_weights_e17.h5", original, below="/model_weights")
    x = np.random.default_rng(2021).uniform(-1, 1, (2, 224, 224, 3)).astype("float32")
    with np.load(shared / "parity" / "calfin_nn_reference_output.npz") as reference:
        np.testing.assert_allclose(predict_tiles(load_network(path), x), reference["probabilities"], atol=1e-4)


def test_weights_of_the_original_are_read_from_the_root_too(narrow, tmp_path):
    network = calfin_network(width=NARROW, size=64)
    for below in ("", "/model_weights"):
        read_weights(network, write_keras_2(tmp_path / "weights.h5", narrow, below=below))
        for layer in network.layers:
            for w in layer.weights:
                expected = seeded(layer.name, keras_2_name(layer.name, w.name), tuple(w.shape))
                np.testing.assert_array_equal(np.asarray(w), expected)
                w.assign(0 * w)


def test_saved_weights_give_the_same_masks_again(narrow, narrow_file):
    again = load_network(narrow_file, size=64)
    np.testing.assert_allclose(predict_tiles(again, tiles()), predict_tiles(narrow, tiles()), atol=1e-2)


def test_weights_fit_every_size_of_input(narrow_file):
    assert load_network(narrow_file, size=96).output_shape == (None, 96, 96, 2)


def test_a_keras_model_file_gives_the_same_masks_again(narrow, tmp_path):
    narrow.save(tmp_path / "narrow.keras")
    again = load_network(tmp_path / "narrow.keras")
    np.testing.assert_allclose(predict_tiles(again, tiles()), predict_tiles(narrow, tiles()), atol=1e-6)


def test_a_keras_model_file_with_code_in_it_is_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="Lambda"):
        load_network(tmp_path / "code.keras")


def test_a_network_is_loaded_once_even_by_threads_that_ask_at_once(narrow_file):
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: load_network(narrow_file, size=64), range(4)))
    assert all(network is networks[0] for network in networks)


def test_threads_predict_what_one_thread_predicts(narrow):
    batches = [tiles(2, seed=i) for i in range(6)]
    alone = [predict_tiles(narrow, batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda batch: predict_tiles(narrow, batch), batches))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_many_tiles_go_through_in_chunks(narrow, monkeypatch):
    whole = predict_tiles(narrow, tiles(5))
    monkeypatch.setattr(room, "CHUNK_TILES", 2)
    np.testing.assert_allclose(predict_tiles(narrow, tiles(5)), whole, atol=1e-6)
    assert whole.shape == (5, 64, 64, 2)
    assert whole.dtype == np.float32
    assert predict_tiles(narrow, tiles(0)).shape == (0, 64, 64, 2)


def test_masks_do_not_depend_on_the_number_of_tiles_asked_for_before(tmp_path):
    path = tmp_path / "narrow.weights.h5"
    save_weights(calfin_network(width=0.05), path, width=0.05)
    wanted = np.random.default_rng(3).uniform(-1, 1, (8, 224, 224, 3)).astype("float32")
    first = predict_tiles(load_network(path), wanted)
    for n in (3, 16, 9, 1):
        predict_tiles(load_network(path), np.repeat(wanted, 2, axis=0)[:n])
    np.testing.assert_array_equal(predict_tiles(load_network(path), wanted), first)


def test_tiles_of_another_size_are_refused(narrow):
    with pytest.raises(ValueError, match="cut them to this size"):
        predict_tiles(narrow, tiles(1, size=96))


def test_a_wrong_hash_is_refused_and_the_right_one_accepted(narrow_file):
    sha256 = hashlib.sha256(narrow_file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="do not use this file"):
        load_network(narrow_file, sha256="0" * 64, size=64)
    assert load_network(narrow_file, sha256=sha256.upper(), size=64)
    assert network_id(narrow_file) == f"narrow@{sha256[:12]}"


def test_a_missing_layer_is_named(narrow, narrow_file):
    with h5py.File(narrow_file, "a") as file:
        del file["aspp3_depthwise"]
    with pytest.raises(ValueError, match="lacks the layer aspp3_depthwise"):
        read_weights(narrow, narrow_file)


def test_a_missing_array_is_named(narrow, narrow_file):
    with h5py.File(narrow_file, "a") as file:
        del file["aspp0_BN/aspp0_BN/beta:0"]
    with pytest.raises(ValueError, match=r"beta of layer aspp0_BN must have shape .*, got nothing"):
        read_weights(narrow, narrow_file)


def test_weights_of_another_width_are_refused(narrow_file):
    with pytest.raises(ValueError, match="another network or width"):
        read_weights(calfin_network(width=0.1, size=64), narrow_file)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "broken.h5").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="no HDF5 file"):
        load_network(tmp_path / "broken.h5")


@pytest.mark.parametrize("name", ["no-such-network", "weights.pkl", "/etc/hostname"])
def test_unknown_names_and_other_files_are_refused(name):
    with pytest.raises(ValueError, match=r"must be one of .* or a \.keras or \.h5 file"):
        load_network(name)


@pytest.mark.parametrize("size", [200, 32])
def test_sizes_that_cannot_be_halved_are_refused(size):
    with pytest.raises(ValueError, match="multiple of 32"):
        calfin_network(size=size)


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ValueError, match="width"):
        calfin_network(width=0)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_weights_load_by_name(name):
    assert network_id(name) == f"{name}@{SHIPPED[name].sha256[:12]}"
    masks = predict_tiles(load_network(name), tiles(1, size=224))
    assert np.isfinite(masks).all()
    assert masks.min() >= 0
    assert masks.max() <= 1


def test_resize_keeps_corners_and_agrees_with_linear_interpolation():
    values = np.random.default_rng(0).random((2, 7, 5, 3)).astype(np.float32)
    resized = keras.ops.convert_to_numpy(AlignCornersResize(13, 9)(values))
    rows = np.stack([np.interp(np.linspace(0, 6, 13), np.arange(7), values[1, :, c, 2]) for c in range(5)], axis=1)
    expected = np.stack([np.interp(np.linspace(0, 4, 9), np.arange(5), row) for row in rows])
    np.testing.assert_allclose(resized[1, ..., 2], expected, atol=1e-6)
    np.testing.assert_allclose(interpolation_matrix(7, 14).sum(axis=1), 1, atol=1e-6)
