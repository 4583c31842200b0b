import hashlib
import json
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import h5py
import keras
import numpy as np
import pytest

from calfin_cloud.network import (
    ARCHITECTURES,
    ENCODERS,
    PUBLISHED_GLACIERS,
    SHIPPED,
    AlignCornersResize,
    build_network,
    calfin_network,
    efficient_network,
    interpolation_matrix,
    load_network,
    network_id,
    predict_front,
    preprocess_grey,
    read_weights,
    save_weights,
    training_glaciers,
    unet_network,
    weights_path,
)
from calfin_cloud.training import masks_loss

NARROW, SMALL = 0.03, 0.25

SOURCE_FEATURES = (-1.6392, -2.6081, 1.5429, -2.0508, 1.725, 5.0561)


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
def small():
    """A network of few layers, for what is the same of all: it is built and predicts in a tenth of the time."""
    keras.utils.set_random_seed(5)
    return build_network("unet", width=SMALL, size=64)


@pytest.fixture
def small_file(small, tmp_path):
    path = tmp_path / "small.weights.h5"
    save_weights(small, path, width=SMALL)
    return path


@pytest.fixture(scope="module")
def efficient():
    return efficient_network(size=64)


@pytest.fixture(scope="module")
def original():
    return calfin_network()


def tiles(n=3, size=64, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, size, 3)).astype(np.float32)


def predict(network, batch):
    """Masks of a batch, without the graph of `predict_on_batch`, which takes longer to build than a few batches do."""
    return keras.ops.convert_to_numpy(network(batch, training=False))


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
        np.testing.assert_allclose(predict(load_network(path), x), reference["probabilities"], atol=1e-4)


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
    np.testing.assert_allclose(predict(again, tiles()), predict(narrow, tiles()), atol=1e-2)


def test_weights_fit_every_size_of_input(narrow_file):
    assert load_network(narrow_file, size=96).output_shape == (None, 96, 96, 2)


def test_a_keras_model_file_gives_the_same_masks_again(narrow, tmp_path):
    narrow.save(tmp_path / "narrow.keras")
    again = load_network(tmp_path / "narrow.keras")
    np.testing.assert_allclose(predict(again, tiles()), predict(narrow, tiles()), atol=1e-6)


def test_a_keras_model_file_with_code_in_it_is_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="Lambda"):
        load_network(tmp_path / "code.keras")


def test_a_network_is_loaded_once_even_by_threads_that_ask_at_once(small_file):
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: load_network(small_file, size=64), range(4)))
    assert all(network is networks[0] for network in networks)


def test_threads_predict_what_one_thread_predicts(small):
    batches = [tiles(2, seed=i) for i in range(6)]
    alone = [predict(small, batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(small.predict_on_batch, batches))
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("architecture", ["calfin", "efficient"])
def test_in_bfloat16_the_masks_are_nearly_the_same(architecture, tmp_path):
    path = tmp_path / "narrow.weights.h5"
    width = 1.0 if architecture == "efficient" else 0.1
    keras.utils.set_random_seed(4)
    save_weights(build_network(architecture, width=width, size=64), path, width=width)
    masks = predict(load_network(path, size=64), tiles())
    rounded = load_network(path, size=64, in_bfloat16=True)
    assert {layer.compute_dtype for layer in rounded.layers[:-1]} == {"bfloat16"}
    half = predict(rounded, tiles())
    assert half.dtype == np.float32
    assert 0 < np.abs(half - masks).max() < 0.02


def test_a_keras_model_file_keeps_its_own_precision(small, tmp_path):
    keras.Model(small.input, small.output).save(tmp_path / "whole.keras")
    with pytest.raises(ValueError, match="keeps its own precision"):
        load_network(tmp_path / "whole.keras", in_bfloat16=True)


def test_a_wrong_hash_is_refused_and_the_right_one_accepted(small_file):
    sha256 = hashlib.sha256(small_file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="do not use this file"):
        load_network(small_file, sha256="0" * 64, size=64)
    assert load_network(small_file, sha256=sha256.upper(), size=64)
    assert network_id(small_file) == f"small@{sha256[:12]}"


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


def test_weights_of_another_width_are_refused(small_file):
    with pytest.raises(ValueError, match="another network or width"):
        read_weights(build_network("unet", width=0.5, size=64), small_file)


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
    parts = [name, SHIPPED[name].verifier] if SHIPPED[name].verifier else [name]
    assert network_id(name) == "+".join(f"{part}@{SHIPPED[part].sha256[:12]}" for part in parts)
    masks = predict(load_network(name), tiles(1, size=224))
    assert np.isfinite(masks).all()
    assert masks.min() >= 0
    assert masks.max() <= 1


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_encoder_maps_nothing_for_want_of_the_rest(name):
    with pytest.raises(ValueError, match="lacks the layer up0_conv1"):
        load_network(name)


def test_the_shipped_encoder_gives_the_features_of_its_source():
    """The reference is the PyTorch port that the weights were taken from, on the same noise, before rounding."""
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype("float32").transpose(0, 2, 3, 1)
    network = read_weights(efficient_network(), weights_path("efficientnet-lite0"), is_part=True)
    encoder = keras.Model(network.input, network.get_layer("block15_project_BN").output)
    features = predict(encoder, noise)
    assert features.shape == (1, 7, 7, 320)
    np.testing.assert_allclose(features[0, 3, 3, :6], SOURCE_FEATURES, atol=0.03)


def test_an_encoder_leaves_the_other_layers_as_they_are(efficient):
    before = np.array(efficient.get_layer("up0_conv1_conv").kernel)
    read_weights(efficient, weights_path("efficientnet-lite0"), is_part=True)
    np.testing.assert_array_equal(np.asarray(efficient.get_layer("up0_conv1_conv").kernel), before)


def test_layers_of_another_network_are_no_part_of_this_one(efficient, narrow_file):
    with pytest.raises(ValueError, match="belong to another network"):
        read_weights(efficient, narrow_file, is_part=True)


def test_a_mask_of_rock_is_there_where_it_was_learnt(tmp_path):
    network = build_network("efficient", size=64, rock=True)
    assert network.output_shape == (None, 64, 64, 3)
    path = tmp_path / "rocky.weights.h5"
    save_weights(network, path, width=1.0)
    mapped = predict(load_network(path, size=64), tiles())
    np.testing.assert_allclose(mapped, predict(network, tiles()), atol=1e-2)


def test_masks_stay_float32_in_mixed_precision():
    network = build_network("efficient", size=64, rock=True, mixed_precision=True)
    assert {network.get_layer(name).compute_dtype for name in ("masks", "rock")} == {"float32"}
    assert network.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_the_efficient_network_has_decoders_of_any_width_and_sizes_that_can_be_halved():
    whole, half = efficient_network(size=96), efficient_network(width=0.5, size=64)
    filters = [network.get_layer("up0_conv1_conv").kernel.shape[-1] for network in (whole, half)]
    assert filters == [128, 64]
    assert half.get_layer("stem_conv").kernel.shape == whole.get_layer("stem_conv").kernel.shape
    odd = efficient_network(width=0.7, size=64)  # in eights: 90, 67, 45, 22 and 11 otherwise
    assert [odd.get_layer(f"up{n}_conv1_conv").kernel.shape[-1] for n in range(5)] == [88, 64, 48, 24, 8]
    with pytest.raises(ValueError, match="width must be positive"):
        efficient_network(width=0)
    with pytest.raises(ValueError, match="multiple of 32"):
        efficient_network(size=200)
    assert whole.output_shape == (None, 96, 96, 2)


def test_weights_of_keras_3_s_own_layout_are_refused_with_a_way_out(small, tmp_path):
    small.save_weights(tmp_path / "keras3.weights.h5")
    with pytest.raises(ValueError, match=r"Keras 3 itself wrote them; then save the whole model as \.keras"):
        load_network(tmp_path / "keras3.weights.h5")


def published_files(shared):
    return sorted((shared / "data" / "mohajerani2019" / "pretrained_unet_keras_h5").glob("*.h5"))


@pytest.fixture(scope="module")
def grey(shared):
    """A scene of Sverdrup as it is stored: (300, 200) uint8."""
    folder = shared / "data" / "mohajerani2019" / "train" / "images"
    return cv2.imread(str(next(iter(sorted(folder.glob("*.png"))))), cv2.IMREAD_UNCHANGED)[..., 0].copy()


@pytest.mark.parametrize("number", range(6))
def test_published_unets_give_what_keras_makes_of_the_whole_file(number, shared, grey):
    path = published_files(shared)[number]
    keras_own = keras.models.load_model(path, compile=False)
    rows, columns = keras_own.input_shape[1:3]
    window = np.s_[(300 - rows) // 2 :, (200 - columns) // 2 :]
    crop = preprocess_grey(grey)[window][:rows, :columns]
    expected = 1 - np.asarray(keras_own.predict_on_batch(crop[None, ..., None])).reshape(rows, columns)
    network = load_network(path)
    got = predict_front(network, grey)[window][:rows, :columns]
    inside = np.s_[11:-11, 11:-11]  # further out our own sees beyond the crop
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-6)
    assert network.count_params() == keras_own.count_params() == 102_791
    assert got[inside].max() > 0.9


def test_published_unets_take_scenes_of_odd_sides_and_nothing_but_8_bit_grey(shared, grey):
    network = load_network(published_files(shared)[0])
    whole, odd = predict_front(network, grey), predict_front(network, grey[:255, :151])
    assert odd.shape == (255, 151)
    assert whole.shape == grey.shape
    with pytest.raises(ValueError, match="expected grey"):
        predict_front(network, grey.astype("float32"))


def test_published_weights_with_a_wrong_hash_are_refused(shared):
    with pytest.raises(ValueError, match="do not use this file"):
        load_network(published_files(shared)[0], sha256="1" * 64)


def test_a_published_file_with_a_layer_missing_is_refused(shared, tmp_path):
    path = tmp_path / "broken.h5"
    shutil.copyfile(published_files(shared)[0], path)
    path.chmod(0o644)
    with h5py.File(path, "a") as file:
        del file["model_weights/conv2d_14"]
    with pytest.raises(ValueError, match="lacks the layer"):
        load_network(path)


def test_preprocessing_of_the_published_unets_spreads_grey_over_the_whole_range(grey):
    prepared = preprocess_grey(grey)
    assert (prepared.dtype, prepared.min(), prepared.max()) == (np.float32, 0, 1)
    np.testing.assert_allclose(preprocess_grey((grey // 2).astype("uint8")).mean(), prepared.mean(), atol=0.05)


@pytest.mark.parametrize(("architecture", "n"), [("efficient", 4_019_826), ("unet", 104_244), ("unet-4", 1_948_596)])
def test_every_architecture_takes_and_gives_the_same_and_is_read_again(architecture, n, tmp_path):
    network = build_network(architecture, size=64)
    assert network.count_params() == n
    path = tmp_path / f"{architecture}.weights.h5"
    save_weights(network, path, width=1.0)
    again = load_network(path, size=64)
    assert again.name == network.name == architecture
    masks = predict(again, tiles())
    assert masks.shape == (3, 64, 64, 2)
    np.testing.assert_allclose(masks, predict(network, tiles()), atol=1e-2)
    assert set(ARCHITECTURES) == {"calfin", "efficient", "unet", "unet-4"}


def test_a_file_without_a_note_of_its_architecture_is_calfin_s(narrow_file):
    with h5py.File(narrow_file, "a") as file:
        assert file.attrs.pop("architecture") == "calfin"
    assert load_network(narrow_file, size=64).name == "calfin"


def test_unknown_architectures_are_refused_when_built_read_and_saved(narrow_file, tmp_path):
    with pytest.raises(ValueError, match="architecture must be one of"):
        build_network("vit")
    with h5py.File(narrow_file, "a") as file:
        file.attrs["architecture"] = "vit"
    with pytest.raises(ValueError, match="architecture must be one of"):
        load_network(narrow_file)
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="make it with build_network"):
        save_weights(keras.Model(inputs, keras.layers.Dense(1)(inputs), name="other"), tmp_path / "x.h5", width=1)


def test_the_unet_learns_with_the_loss_of_calfin():
    keras.utils.set_random_seed(1)
    network = build_network("unet", size=64)
    network.compile(optimizer=keras.optimizers.Adam(3e-3), loss=masks_loss)
    network.jit_compile = False
    truth = np.zeros((4, 64, 64, 3), np.float32)
    truth[:, 30:33, :, 0], truth[:, 32:, :, 1], truth[..., 2] = 1, 1, 1
    patches = np.repeat(truth[..., 1:2] - 0.5, 3, axis=-1)
    losses = [float(network.train_on_batch(patches, truth)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("wrong", [{"size": 225}, {"levels": 1}, {"size": 100, "levels": 4}])
def test_unets_of_sides_that_cannot_be_halved_are_refused(wrong):
    with pytest.raises(ValueError, match="each level after the first halves"):
        unet_network(**wrong)


def test_weights_that_were_replaced_are_loaded_anew(small_file):
    before = predict(load_network(small_file, size=64), tiles())
    save_weights(build_network("unet", width=SMALL, size=64), small_file, width=SMALL)
    assert np.abs(predict(load_network(small_file, size=64), tiles()) - before).max() > 1e-3


def test_glaciers_of_the_training_are_those_noted_beside_the_weights_or_published(small_file, shared):
    assert training_glaciers(small_file) is None
    note = {"training": {"SI": 121}, "started_from": {"training": {"JAC": 2}}}
    small_file.with_name("small.json").write_text(json.dumps(note))
    assert training_glaciers(small_file) == {"SI", "JAC"}
    assert training_glaciers(published_files(shared)[5]) == PUBLISHED_GLACIERS
    assert not {"Kangerlussuaq", "Crane"} & training_glaciers("calfin-small")


def test_resize_keeps_corners_and_agrees_with_linear_interpolation():
    values = np.random.default_rng(0).random((2, 7, 5, 3)).astype(np.float32)
    resized = keras.ops.convert_to_numpy(AlignCornersResize(13, 9)(values))
    rows = np.stack([np.interp(np.linspace(0, 6, 13), np.arange(7), values[1, :, c, 2]) for c in range(5)], axis=1)
    expected = np.stack([np.interp(np.linspace(0, 4, 9), np.arange(5), row) for row in rows])
    np.testing.assert_allclose(resized[1, ..., 2], expected, atol=1e-6)
    np.testing.assert_allclose(interpolation_matrix(7, 14).sum(axis=1), 1, atol=1e-6)
