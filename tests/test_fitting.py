"""What a step of a training does: its patches, its optimiser, the average of its weights."""

from collections import Counter
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calfin_cloud.datasets import ICE, OCEAN, UNKNOWN, Sample
from calfin_cloud.training import CALFIN, TrainingSettings, cut_patch, make_batch, prepare, squeeze
from calfin_cloud.training.batches import prepare_sources, round_slots
from calfin_cloud.training.calfin_augmentation import add_noise, ice_edge, knows_ice, sharpen
from calfin_cloud.training.fitting import averaged_weights, make_optimizer, trainable_network

TINY = TrainingSettings(width=0.03, batch=2, steps=3, architecture="unet")


def sample(shape=(200, 150), seed=0):
    """A scene whose upper part is ocean."""
    rng = np.random.default_rng(seed)
    below = np.broadcast_to(np.arange(shape[0])[:, None] >= shape[0] // 2, shape)
    front = np.zeros(shape, bool)
    front[shape[0] // 2] = True
    image = np.where(below, 180, 60) + rng.normal(0, 10, shape)
    ice = np.where(below, ICE, OCEAN).astype(np.uint8)
    return Sample(f"Rink{seed}", "Rink", "optical", image.astype(np.float32), front, ice)


def batch_of_noise(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (2, 224, 224, 3)).astype("float32"), rng.integers(0, 2, (2, 224, 224, 3)).astype(
        "float32"
    )


def test_the_optimiser_takes_the_steps_of_the_method():
    gradients = np.random.default_rng(0).normal(size=(6, 3)).astype("float32") * [1, 1e-3, 1e-6]
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer = make_optimizer(CALFIN)
    expected, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for i, gradient in enumerate(gradients):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        if i % 2:
            mean, t = gradients[i - 1 : i + 1].mean(axis=0), i // 2 + 1
            m, v = 0.9 * m + 0.1 * mean, 0.999 * v + 0.001 * mean**2
            expected -= 1e-4 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=2e-4)


@pytest.mark.usefixtures("eager")
def test_the_average_of_the_weights_is_lent_and_then_given_back():
    keras.utils.set_random_seed(1)
    network = trainable_network(replace(TINY, ema=0.75))
    average = None
    for seed in range(3):
        network.train_on_batch(*batch_of_noise(seed))
        own = [np.array(v) for v in network.trainable_variables]
        average = own if average is None else [0.75 * a + 0.25 * w for a, w in zip(average, own, strict=True)]
        with averaged_weights(network):
            for variable, expected in zip(network.trainable_variables, average, strict=True):
                np.testing.assert_allclose(np.asarray(variable), expected, atol=1e-6)
        for variable, expected in zip(network.trainable_variables, own, strict=True):
            np.testing.assert_array_equal(np.asarray(variable), expected)
    assert max(np.abs(a - w).max() for a, w in zip(average, own, strict=True)) > 1e-4


def test_without_an_average_the_network_keeps_its_weights():
    network = trainable_network(TINY)
    before = [np.array(v) for v in network.trainable_variables]
    with averaged_weights(network):
        for variable, expected in zip(network.trainable_variables, before, strict=True):
            np.testing.assert_array_equal(np.asarray(variable), expected)


def test_bfloat16_is_for_computing_not_for_weights_or_probabilities():
    network = trainable_network(replace(TINY, mixed_precision=True))
    assert {layer.compute_dtype for layer in network.layers[:-1]} == {"bfloat16"}
    assert {str(variable.dtype) for variable in network.weights} == {"float32"}
    masks = network.predict_on_batch(batch_of_noise(0)[0])
    assert masks.dtype == np.float32


def test_a_round_is_sixteen_images_and_its_last_batch_is_dropped():
    drawn = [list(round_slots(40, CALFIN, step)) for step in range(7)]
    assert {len(batch) for batch in drawn} == {8}
    images = Counter(index for batch in drawn for index, _ in batch)
    assert len(images) == 16
    assert max(images.values()) <= 4
    patches = {rng.random() for batch in drawn for _, rng in batch}
    assert len(patches) == 56
    following = {index for index, _ in round_slots(40, CALFIN, 7)}
    assert not following & images.keys()  # 16 more of the 40


@given(st.integers(1, 60), st.integers(0, 50), st.integers(1, 63))
def test_rounds_know_only_the_samples_there_are(n_samples, step, batch):
    indices = [index for index, _ in round_slots(n_samples, replace(CALFIN, batch=batch), step)]
    assert len(indices) == batch
    assert all(0 <= index < n_samples for index in indices)


def test_a_batch_of_the_release_depends_on_seed_and_step_alone():
    sources = prepare_sources([prepare(sample(seed=i)) for i in range(3)], CALFIN)
    patches, masks = make_batch(sources, CALFIN, 11)
    again = make_batch(sources, CALFIN, 11)
    np.testing.assert_array_equal(patches, again[0])
    np.testing.assert_array_equal(masks, again[1])
    assert patches.shape == masks.shape == (8, 224, 224, 3)
    assert -1 <= patches.min() < patches.max() <= 1
    assert np.abs(patches - make_batch(sources, replace(CALFIN, seed=1), 11)[0]).max() > 0.1


def test_a_front_drawn_before_augmentation_widens_with_the_zoom_one_drawn_after_does_not():
    prepared = prepare(sample(shape=(256, 256)))
    window = np.array([[0.25, 0, 100.1], [0, 0.25, 100.1]])  # four times enlarged, the front in it
    widths = {}
    for label in ("before", "after"):
        _, masks = cut_patch(np.zeros((256, 256, 3), np.float32), prepared, window, border=True, label=label)
        widths[label] = set(masks[..., 0].sum(axis=0))
    assert widths["before"] == {12}
    assert widths["after"] <= {2, 3, 4}


def test_an_edge_is_that_of_the_ice_where_it_is_drawn_else_the_drawn_front():
    known = prepare(sample(shape=(256, 256)))
    assert knows_ice(known)
    assert set(np.flatnonzero(squeeze(known).edge[:, 100])) <= set(range(125, 131))
    only_front = replace(known.sample, ice=np.full_like(known.ice, UNKNOWN))
    frame = squeeze(prepare(only_front))
    assert not knows_ice(prepare(only_front))
    assert list(np.flatnonzero(frame.edge[:, 100])) == [127, 128, 129]


def test_the_border_of_the_unknown_is_no_edge():
    ice = sample(shape=(256, 256)).ice.copy()
    ice[:, :60] = UNKNOWN
    ice[200:] = UNKNOWN
    edge = ice_edge(ice)
    assert edge[:, 70:].any(axis=0).all()
    assert not edge[:, :60].any()
    assert not edge[140:].any()
    assert not ice_edge(np.full((256, 256), UNKNOWN, np.uint8)).any()


def test_sharpening_keeps_flat_ground_and_steepens_a_step():
    flat = np.full((9, 9, 3), 90, np.uint8)
    np.testing.assert_array_equal(sharpen(flat, 0.3, 1.0), flat)
    step = np.repeat(np.where(np.arange(9) < 4, 90, 120).astype(np.uint8)[None, :, None], 9, axis=0).repeat(3, axis=2)
    sharp = sharpen(step, 0.3, 1.0).astype(int)
    assert sharp[4, 4, 0] - sharp[4, 3, 0] == 30 + 2 * round(0.3 * 3 * 30)  # each side moves by alpha x 3 neighbours


def test_noise_is_that_of_its_sigma_and_the_same_in_all_channels():
    noisy = add_noise(np.full((200, 200, 3), 128, np.uint8), 8.0, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy[..., 0], noisy[..., 2])
    assert abs(noisy[..., 0].std() - 8) < 0.2
    dark = add_noise(np.zeros((50, 50, 3), np.uint8), 8.0, np.random.default_rng(0))
    assert dark.max() < 60  # nothing wraps round to white


@pytest.mark.parametrize(
    "wrong",
    [
        {"accumulate": 0},
        {"ema": 1.0},
        {"schedule": "cosine"},
        {"label": "never"},
        {"augmentation": "none"},
        {"sampling": "all"},
        {"sampling": "rounds", "batch": 64},
        {"warmup": 1.0},
        {"learning_rate": 0.0},
        {"verifier": "of-my-own"},  # its weights could not be used
        {"rock": True},
        {"rock": True, "architecture": "efficient", "augmentation": "release"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected .* correct them"):
        replace(TINY, **wrong)
