"""The recipe of the release, and what else a training may be asked for: accumulation, averaged weights, bfloat16."""

import csv
from dataclasses import replace

import cv2
import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from calfin_cloud.datasets import ICE, OCEAN, Sample
from calfin_cloud.training import CALFIN, RECIPES, TrainingSettings, batches, fit, prepare
from calfin_cloud.training.calfin_augmentation import draw_move, moved, release_patch, squeeze
from calfin_cloud.training.fitting import make_optimizer

TINY = TrainingSettings(width=0.03, batch=1, steps=4, leave_out=("Crane",), checkpoint_minutes=0)


def painted(glacier="Rink", sensor="optical", shape=(300, 260), seed=0):
    """A scene of noise with ice below a wavy line, which is its front."""
    rng = np.random.default_rng(seed)
    columns = np.arange(shape[1])
    rows = np.rint(shape[0] * (0.5 + 0.12 * np.sin(columns / 40 + seed))).astype(int)
    ice = np.where(np.arange(shape[0])[:, None] >= rows, ICE, OCEAN).astype(np.uint8)
    front = np.zeros(shape, np.uint8)
    cv2.polylines(front, [np.column_stack([columns, rows])[:, None].astype(np.int32)], isClosed=False, color=1)
    image = np.where(ice == ICE, 180, 60) + rng.normal(0, 10, shape)
    return Sample(f"{glacier}-{seed}", glacier, sensor, image.astype(np.float32), front > 0, ice)


def test_the_recipe_of_the_release_holds_the_constants_of_the_method():
    assert RECIPES["calfin"] is CALFIN
    assert (CALFIN.width, CALFIN.batch, CALFIN.accumulate, CALFIN.learning_rate) == (1.0, 8, 2, 1e-4)
    assert (CALFIN.schedule, CALFIN.label, CALFIN.augmentation) == ("constant", "before", "release")
    assert CALFIN.front_weight == 25 / 26
    assert CALFIN.rate(0.0) == CALFIN.rate(0.5) == CALFIN.rate(1.0) == 1e-4


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["before", "after"]))
def test_the_labelled_front_stays_on_the_edge_of_the_ice_whatever_the_patch(seed, label):
    frame = squeeze(prepare(painted(seed=seed % 3)))
    _, masks = release_patch(frame, np.random.default_rng(seed), label=label)
    front, ice = masks[..., 0] > 0, masks[..., 1] > 0
    assert masks.shape == (224, 224, 3)
    away = np.where(ice, distance_transform_edt(ice), distance_transform_edt(~ice))
    inner = np.zeros_like(front)
    inner[30:-30, 30:-30] = True  # a rotation brings in ocean at the corners, whose edge is no front
    assert (away[front & inner] <= 3).all()
    edge = (away <= 1) & inner
    assert front[edge].mean() > 0.9


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_image_and_mask_are_moved_alike(seed):
    move = draw_move(np.random.default_rng(seed))
    y, x = np.mgrid[:256, :256].astype(np.float32)
    rows, columns = moved(y, move, cv2.INTER_NEAREST, outside=-1), moved(x, move, cv2.INTER_NEAREST, outside=-1)
    assert rows.shape == (224, 224)
    inside = rows >= 0
    assert inside.mean() > 0.9
    stamped = np.stack([y, x], axis=-1)[rows[inside].astype(int), columns[inside].astype(int)]
    np.testing.assert_array_equal(stamped, np.column_stack([rows[inside], columns[inside]]))
    assert len(np.unique(rows[inside] * 256 + columns[inside])) > 0.85 * inside.sum()  # a turn, no fold


def test_all_kinds_of_crops_turns_and_flips_are_drawn_as_often_as_the_method_says():
    moves = [draw_move(np.random.default_rng(seed)) for seed in range(3000)]
    assert np.mean([m.is_transposed for m in moves]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([m.flip is not None for m in moves]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([m.quarter_turns > 0 for m in moves]) == pytest.approx(0.5 * 0.75, abs=0.04)
    assert np.mean([m.angle_deg == 0 for m in moves]) == pytest.approx(0.3, abs=0.04)
    assert 6 < max(abs(m.angle_deg) for m in moves) <= 12


def test_two_accumulated_steps_move_the_weights_as_their_mean_gradient():
    variable, plain = keras.Variable([1.0, -2.0]), keras.Variable([1.0, -2.0])
    gradients = [np.array([0.3, -0.1], "float32"), np.array([0.1, 0.5], "float32")]
    accumulated, single = make_optimizer(replace(TINY, accumulate=2)), make_optimizer(TINY)
    for gradient in gradients:
        accumulated.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    single.apply([keras.ops.convert_to_tensor(np.mean(gradients, axis=0))], [plain])
    np.testing.assert_allclose(np.asarray(variable), np.asarray(plain), rtol=1e-6)
    assert not np.allclose(np.asarray(variable), [1.0, -2.0])


@pytest.mark.slow  # tests/test_training.py has a smaller one
@pytest.mark.usefixtures("eager")
def test_a_training_with_accumulation_and_averaged_weights_resumes_to_the_same_weights(tmp_path, monkeypatch):
    how = replace(TINY, accumulate=2, ema=0.9, augmentation="release", label="before", sampling="rounds")
    samples = [painted(seed=i) for i in range(2)] + [painted("Crane", "sar")]
    whole = stored(fit(samples, tmp_path / "whole.weights.h5", how))
    real = batches.make_batch

    def until_the_power_fails(samples, settings, step):
        if step == 3:
            raise OSError("power failed")
        return real(samples, settings, step)

    monkeypatch.setattr(batches, "make_batch", until_the_power_fails)
    out = tmp_path / "parts.weights.h5"
    with pytest.raises(OSError, match="power failed"):
        fit(samples, out, how)
    monkeypatch.setattr(batches, "make_batch", real)
    parts = stored(fit(samples, out, how))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, atol=2e-3, err_msg=name)
    with (tmp_path / "whole.csv").open() as file:
        assert {row["learning_rate"] for row in csv.DictReader(file)} != {""}


@pytest.mark.usefixtures("eager")
def test_a_step_in_bfloat16_learns_and_saves_weights_in_float32(tmp_path):
    how = replace(TINY, architecture="unet", width=0.25, steps=1, mixed_precision=True)
    out = fit([painted(), painted("Crane", "sar")], tmp_path / "half.weights.h5", how)
    weights = stored(out)
    assert all(np.isfinite(values).all() for values in weights.values())
    assert keras.config.dtype_policy().name == "float32"


def stored(path):
    """Arrays of a weights file by name."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: np.asarray(item, "float32")} if hasattr(item, "shape") else {})
        )
    return arrays
