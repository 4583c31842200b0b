import csv
import json
import resource
from dataclasses import replace

import cv2
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from calfin_cloud.datasets import ICE, OCEAN, UNKNOWN, Sample
from calfin_cloud.network import (
    build_network,
    engine_of,
    load_network,
    network_id,
    save_weights,
    training_glaciers,
    weights_path,
)
from calfin_cloud.training import (
    TrainingSettings,
    average_weights,
    coarsen,
    copy_weights,
    cut_patch,
    draw_sample,
    fit,
    fitting,
    make_batch,
    masks_loss,
    melange,
    prepare,
    random_bend,
    random_patch,
    random_window,
    sea_state,
    slc_off_gaps,
    synthetic_samples,
    vary_grey,
    whole_scene,
)

TINY = TrainingSettings(width=0.03, batch=1, steps=3, leave_out=("Crane",), checkpoint_minutes=0)
QUICK = replace(TINY, architecture="unet", width=0.25)
"""A network of few layers, which takes a step, and is converted, in a fraction of the time of CALFIN's."""


def painted(glacier="Rink", sensor="optical", shape=(120, 100), row=70, seed=0):
    """A scene with ice below `row` and ocean above it."""
    rng = np.random.default_rng(seed)
    below = np.arange(shape[0])[:, None] * np.ones((1, shape[1])) >= row
    image = np.where(below, 180, 60) + rng.normal(0, 10, shape)
    front = np.zeros(shape, bool)
    front[row] = True
    ice = np.where(below, ICE, OCEAN).astype(np.uint8)
    return Sample(f"{glacier}{seed}", glacier, sensor, image.astype(np.float32), front, ice)


def curve(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def stored(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def test_loss_and_its_gradient_are_those_of_calfin(shared):
    with np.load(shared / "parity" / "loss_parity.npz") as parity:
        known = np.ones((*parity["gt"].shape[:3], 1), np.float32)
        truth = tf.constant(np.concatenate([parity["gt"], known], axis=-1))
        masks = tf.constant(parity["pr"])
        with tf.GradientTape() as tape:
            tape.watch(masks)
            loss = masks_loss(truth, masks)
        np.testing.assert_allclose(float(loss), parity["loss"], rtol=1e-5)
        np.testing.assert_allclose(tape.gradient(loss, masks).numpy(), parity["grad"], rtol=1e-5)


def test_an_unknown_ice_mask_leaves_only_the_front_in_the_loss():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, (2, 16, 16, 3)).astype(np.float32)
    masks = rng.uniform(0.1, 0.9, (2, 16, 16, 2)).astype(np.float32)
    truth[..., 2] = 0
    swapped = truth.copy()
    swapped[..., 1] = 1 - swapped[..., 1]
    assert float(masks_loss(truth, masks)) == float(masks_loss(swapped, masks))
    front_only = float(masks_loss(truth, masks, front_weight=1.0))
    np.testing.assert_allclose(float(masks_loss(truth, masks)), 25 / 26 * front_only, rtol=1e-6)


def test_a_sample_with_unknown_ice_does_not_dilute_the_others():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, (2, 16, 16, 3)).astype(np.float32)
    masks = rng.uniform(0.1, 0.9, (2, 16, 16, 2)).astype(np.float32)
    truth[0, ..., 2], truth[1, ..., 2] = 1, 0
    both = float(masks_loss(truth, masks, front_weight=1e-9))
    np.testing.assert_allclose(both, float(masks_loss(truth[:1], masks[:1], front_weight=1e-9)), rtol=1e-5)


def test_a_perfect_prediction_costs_nothing():
    truth = np.zeros((1, 16, 16, 3), np.float32)
    truth[:, 8, :, 0], truth[:, 8:, :, 1], truth[..., 2] = 1, 1, 1
    assert abs(float(ops.convert_to_numpy(masks_loss(truth, truth[..., :2])))) < 1e-5


@pytest.mark.parametrize("side", [60, 120, 240])
def test_front_is_three_pixels_wide_at_every_scale(side):
    prepared = prepare(painted(shape=(side, side), row=side // 2))
    _, masks = cut_patch(np.zeros((side, side, 3), np.float32), prepared, whole_scene((side, side)), border=False)
    assert set(masks[..., 0].sum(axis=0)) <= {2, 3, 4}


def test_a_wide_drawn_line_is_thinned_first():
    sample = painted()
    wide = sample.front.copy()
    wide[68:73] = True
    prepared = prepare(replace(sample, front=wide))
    assert set(prepared.front_pixels[5:-5, 0]) == {70}


def test_masks_follow_the_image_through_every_window():
    prepared = prepare(painted())
    rng = np.random.default_rng(11)
    for _ in range(20):
        channels = np.repeat(prepared.grey[..., None], 3, axis=-1).astype(np.float32)
        patch, masks = cut_patch(channels, prepared, random_window(prepared, rng), border=True)
        away = (masks[..., 0] == 0) & (masks[..., 2] == 1) & (patch[..., 0] > 0)
        agree = (patch[..., 0] > 128) == (masks[..., 1] == 1)
        assert agree[away].mean() > 0.97


def test_a_bent_patch_bends_image_and_masks_alike_and_folds_nothing():
    prepared = prepare(painted(shape=(256, 256), row=130))
    channels = np.repeat(prepared.grey[..., None], 3, axis=-1).astype(np.float32)
    window = whole_scene((256, 256))
    straight, _ = cut_patch(channels, prepared, window, border=True)
    for seed in range(10):
        bend = random_bend(np.random.default_rng(seed))
        assert max(np.abs(np.diff(bend, axis=axis)).max() for axis in (1, 2)) < 1 / 3
        patch, masks = cut_patch(channels, prepared, window, border=True, bend=bend)
        assert np.abs(patch - straight).mean() > 1
        away = (masks[..., 0] == 0) & (masks[..., 2] == 1) & (patch[..., 0] > 0)
        assert ((patch[..., 0] > 128) == (masks[..., 1] == 1))[away].mean() > 0.97
        assert set(masks[30:-30, 30:-30, 0].sum(axis=0)) <= {0, 1, 2, 3, 4, 5}


def test_outside_the_scene_the_ice_is_unknown_and_no_front_is_drawn():
    prepared = prepare(painted())
    far = whole_scene(prepared.grey.shape) + np.array([[0, 0, 1000], [0, 0, 1000]])
    patch, masks = cut_patch(np.full((120, 100, 3), 9, np.float32), prepared, far, border=True)
    assert not patch.any()
    assert not masks.any()


def test_unknown_ice_stays_unknown():
    sample = painted()
    prepared = prepare(replace(sample, ice=np.full_like(sample.ice, UNKNOWN)))
    assert not random_patch(prepared, np.random.default_rng(0))[1][..., 1:].any()


def test_melange_lies_on_the_known_sea_before_the_front_and_hides_no_front():
    sample = painted(shape=(256, 256), row=160)
    ice, image = sample.ice.copy(), sample.image.copy()
    ice[:20], image[:, 200:] = UNKNOWN, np.nan
    prepared = prepare(replace(sample, ice=ice, image=image))
    steps = []
    for seed in range(30):
        grey = melange(prepared, np.random.default_rng(seed))
        changed = grey != prepared.grey
        assert not changed[prepared.ice != OCEAN].any()
        assert not changed[prepared.grey == 0].any()
        assert (grey[prepared.grey > 0] > 0).all()
        assert np.array_equal(grey, melange(prepared, np.random.default_rng(seed)))
        away = prepared.distance[changed]
        assert away.size == 0 or away.max() < 60 * 3
        steps.append(float(grey[161:180, :200].mean()) - float(grey[140:159, :200].mean()))
    bare = float(prepared.grey[161:180, :200].mean()) - float(prepared.grey[140:159, :200].mean())
    assert min(steps) > 0.1 * bare
    assert np.median(steps) < 0.8 * bare


def test_the_sea_of_another_day_is_darker_or_brighter_and_nothing_else_changes():
    sample = painted(shape=(256, 256), row=160)
    image = sample.image.copy()
    image[:, 200:] = np.nan
    prepared = prepare(replace(sample, image=image, rock=np.zeros_like(sample.ice)))
    sea = (prepared.ice == OCEAN) & (prepared.grey > 0)
    levels = []
    for seed in range(20):
        grey = sea_state(prepared, np.random.default_rng(seed))
        assert np.array_equal(grey[~sea], prepared.grey[~sea])
        assert (grey[sea] > 0).all()
        levels.append(float(np.median(grey[sea])))
    assert min(levels) < 30
    assert max(levels) > 100
    undrawn = prepared._replace(sample=sample)
    np.testing.assert_array_equal(sea_state(undrawn, np.random.default_rng(0)), prepared.grey)


def test_coarser_pixels_keep_the_mean_and_what_is_missing():
    rng = np.random.default_rng(0)
    grey = rng.integers(1, 256, (120, 90)).astype(np.uint8)
    grey[:, :10] = 0
    coarse = coarsen(grey, 3.0)
    np.testing.assert_array_equal(coarse == 0, grey == 0)
    assert abs(coarse[:, 20:].mean() - grey[:, 20:].mean()) < 3
    assert coarse[:, 20:].std() < 0.5 * grey[:, 20:].std()


def test_without_known_sea_there_is_no_melange():
    sample = painted()
    prepared = prepare(replace(sample, ice=np.full_like(sample.ice, UNKNOWN)))
    np.testing.assert_array_equal(melange(prepared, np.random.default_rng(0)), prepared.grey)


def test_missing_pixels_stay_missing_and_others_never_become_it():
    grey = np.full((80, 80), 100, np.uint8)
    grey[:30] = 0
    for seed in range(20):
        varied = vary_grey(grey, "sar", np.random.default_rng(seed))
        assert not varied[:30].any()
        assert varied[30:].all()


def test_gaps_of_landsat_7_are_stripes_not_everything():
    shares = [slc_off_gaps((200, 200), np.random.default_rng(seed)).mean() for seed in range(20)]
    assert 0 < max(shares) < 0.5


def test_a_batch_depends_on_seed_and_step_alone():
    samples = [prepare(painted(seed=i)) for i in range(3)]
    for i, (patches, masks) in enumerate([make_batch(samples, TINY, 7), make_batch(samples, replace(TINY, seed=1), 7)]):
        again = make_batch(samples, replace(TINY, seed=1) if i else TINY, 7)
        np.testing.assert_array_equal(patches, again[0])
        np.testing.assert_array_equal(masks, again[1])
    assert np.abs(make_batch(samples, TINY, 7)[0] - make_batch(samples, TINY, 8)[0]).max() > 0.1
    assert patches.shape == (1, 224, 224, 3)
    assert -1 <= patches.min() < patches.max() <= 1


def test_a_rare_sensor_is_drawn_as_often_as_a_common_one():
    samples = [prepare(painted(seed=i)) for i in range(8)] + [prepare(painted("JAC", "sar"))]
    rng = np.random.default_rng(0)
    share = np.mean([draw_sample(samples, rng).sample.sensor == "sar" for _ in range(400)])
    assert 0.4 < share < 0.6


def test_learning_rate_rises_falls_and_ends_at_zero():
    rates = [TINY.rate(progress) for progress in np.linspace(0, 1, 101)]
    assert rates[0] < 0.1 * TINY.learning_rate
    np.testing.assert_allclose(max(rates), TINY.learning_rate)
    assert rates[-1] < 1e-9
    assert (np.diff(rates[4:]) <= 0).all()


def test_the_run_ends_with_steps_or_minutes_whichever_comes_first():
    both = replace(TINY, steps=100, minutes=1.0)
    assert both.progress(50, 15.0) == 0.5
    assert both.progress(10, 45.0) == 0.75
    assert both.progress(500, 0.0) == 1.0


def test_settings_that_never_end_are_refused():
    with pytest.raises(ValueError, match="steps or minutes"):
        TrainingSettings()
    numbers = ({"minutes": float("nan")}, {"learning_rate": float("inf")}, {"synthetic": -1}, {"seed": -1})
    for wrong in (*numbers, {"batch": 0}, {"minutes": -1.0}, {"steps": 0}, {"front_weight": 1.5}):
        with pytest.raises(ValueError, match="correct them"):
            replace(TINY, **wrong)


@pytest.mark.usefixtures("eager")
def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    samples = [painted(seed=i) for i in range(2)] + [painted("JAC", "sar"), painted("Crane", "sar")]
    two = replace(QUICK, steps=2)
    whole = stored(fit(samples, tmp_path / "whole.weights.h5", two))
    real = fitting.make_batch

    def make_batch_until_the_power_fails(samples, settings, step):
        if step == 1:
            raise OSError("power failed")
        return real(samples, settings, step)

    out = tmp_path / "parts.weights.h5"
    monkeypatch.setattr(fitting, "make_batch", make_batch_until_the_power_fails)
    with pytest.raises(OSError, match="power failed"):
        fit(samples, out, two)
    assert out.is_file()  # what was learned so far is usable
    monkeypatch.setattr(fitting, "make_batch", real)
    with pytest.raises(ValueError, match="belongs to other samples"):
        fit([*samples, painted(seed=9)], out, two)
    parts = stored(fit(samples, out, two))
    assert parts.keys() == whole.keys()
    assert engine_of(out) == "openvino"  # it maps without Keras
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name].astype(np.float32), values.astype(np.float32), atol=2e-3, err_msg=name)

    rows = curve(tmp_path / "parts.csv")
    assert [row["step"] for row in rows] == ["1", "2"]
    assert {"loss", "Crane_front", "Crane_ice"} <= rows[0].keys()
    about = json.loads((tmp_path / "parts.json").read_text())
    assert about["settings"]["seed"] == 2021
    assert about["training"] == {"JAC": 1, "Rink": 2}
    assert about["validation"] == {"Crane": 1}
    assert not list(tmp_path.glob("*.npz"))
    assert load_network(out).output_shape == (None, 224, 224, 2)


@pytest.mark.usefixtures("eager")
def test_a_training_that_ended_while_its_first_weights_were_written_goes_on_by_the_same_call(tmp_path):
    samples, out = [painted(), painted("Crane", "sar")], tmp_path / "net.weights.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # room for a note, and for no weights
    try:
        with pytest.raises(OSError, match=r"net\.weights\.h5"):
            fit(samples, out, QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.is_file()
    fit(samples, out, QUICK)
    assert json.loads((tmp_path / "net.json").read_text())["finished"]


@pytest.mark.usefixtures("eager")
def test_a_training_may_start_from_an_encoder_and_learn_rock(tmp_path):
    settings = replace(
        TINY, architecture="efficient", width=1.0, steps=1, learning_rate=1e-12, start="efficientnet-lite0", rock=True
    )
    sample = painted()
    rocky = replace(sample, rock=(sample.ice == ICE).astype(np.uint8))
    trained = stored(fit([rocky], tmp_path / "next.weights.h5", replace(settings, leave_out=None)))
    encoder = stored(weights_path("efficientnet-lite0"))
    for name, values in encoder.items():
        if "kernel" in name:
            np.testing.assert_allclose(trained[name], values, atol=1e-4, err_msg=name)
    assert {"masks/masks/kernel:0", "rock/rock/kernel:0"} <= trained.keys() - encoder.keys()
    assert load_network(tmp_path / "next.weights.h5").output_shape == (None, 224, 224, 3)


def test_rock_follows_the_image_and_costs_only_where_it_is_known():
    sample = painted()
    rock = np.full_like(sample.ice, UNKNOWN)
    rock[:, :50] = sample.ice[:, :50] == ICE
    prepared = prepare(replace(sample, rock=rock))
    window = whole_scene(prepared.grey.shape)
    _, truth = cut_patch(np.zeros((120, 100, 3), np.float32), prepared, window, border=False)
    assert truth[..., 4].mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(truth[..., 3], truth[..., 1] * truth[..., 4])
    masks = truth[None, ..., [0, 1, 3]].copy()
    whole = float(masks_loss(truth[None], masks))
    masks[..., 2][truth[None, ..., 4] == 0] = 1  # wrong, perhaps, where nobody knows
    assert float(masks_loss(truth[None], masks)) == pytest.approx(whole)
    masks[..., 2] = 1 - truth[..., 3]
    assert float(masks_loss(truth[None], masks)) > whole + 0.1
    assert float(masks_loss(truth[None], masks[..., :2])) == pytest.approx(whole, abs=1e-5)


@pytest.mark.usefixtures("eager")
def test_a_training_may_start_from_weights_and_add_painted_scenes(tmp_path):
    keras.utils.set_random_seed(8)
    start = tmp_path / "start.weights.h5"
    save_weights(build_network(QUICK.architecture, width=QUICK.width), start, width=QUICK.width)
    (tmp_path / "start.json").write_text(json.dumps({"training": {"Jorge": 3}}))
    settings = replace(QUICK, steps=1, learning_rate=1e-12, start=str(start), synthetic=2, leave_out=None)
    trained = stored(fit([painted()], tmp_path / "next.weights.h5", settings))
    kernels = {name: values for name, values in stored(start).items() if "kernel" in name}
    for name, values in kernels.items():
        np.testing.assert_allclose(trained[name], values, atol=1e-4, err_msg=name)
    about = json.loads((tmp_path / "next.json").read_text())
    assert about["training"] == {"Rink": 1, "synthetic": 2}
    assert about["settings"]["start"] == network_id(start)
    assert training_glaciers(tmp_path / "next.weights.h5") == {"Rink", "synthetic", "Jorge"}


def test_the_mean_of_two_trainings_is_their_mean_and_notes_what_both_saw(tmp_path):
    network = build_network(QUICK.architecture, width=QUICK.width, size=64)
    for name, value, glacier in (("a", 1.0, "Rink"), ("b", 3.0, "Store")):
        for weight in network.weights:
            weight.assign(np.full(weight.shape, value))
        save_weights(network, tmp_path / f"{name}.weights.h5", width=QUICK.width)
        before = {"started_from": {"training": ["Jorge"]}} if name == "b" else {}
        (tmp_path / f"{name}.json").write_text(json.dumps({"training": {glacier: 1}} | before))
    files = [tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"]
    mean = load_network(average_weights(files, tmp_path / "c.weights.h5"), size=64)
    assert {float(value) for weight in mean.weights for value in np.unique(weight)} == {2.0}
    assert training_glaciers(tmp_path / "c.weights.h5") == {"Rink", "Store", "Jorge"}
    assert sorted(json.loads((tmp_path / "c.json").read_text())["mean_of"]) == [network_id(file) for file in files]


def test_other_networks_and_weights_of_unknown_origin_have_no_mean(tmp_path):
    for name, width in (("a", 0.25), ("b", 0.5)):
        save_weights(
            build_network(QUICK.architecture, width=width, size=64), tmp_path / f"{name}.weights.h5", width=width
        )
    a, b, out = (tmp_path / f"{name}.weights.h5" for name in "abc")
    with pytest.raises(ValueError, match=r"a\.json must lie beside"):
        average_weights([a, b], out)
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold the network of"):
        average_weights([a, b], out)
    with pytest.raises(ValueError, match="two or more weights"):
        average_weights([a], out)
    assert not out.exists()


@pytest.mark.usefixtures("eager")
def test_a_damaged_note_beside_weights_is_named(tmp_path):
    out = fit([painted(), painted("Crane", "sar")], tmp_path / "net.weights.h5", QUICK)
    for name, read in {"net.json": training_glaciers, "net.openvino.json": engine_of}.items():
        (tmp_path / name).write_text((tmp_path / name).read_text()[:60])
        with pytest.raises(ValueError, match=rf"{name} is no JSON"):
            read(out)


@pytest.mark.usefixtures("eager")
def test_a_training_that_diverges_ends_and_writes_no_weights(tmp_path):
    settings = replace(QUICK, learning_rate=1e30, steps=9, checkpoint_minutes=60)
    with pytest.raises(ValueError, match="is nan: take a lower learning rate"):
        fit([painted(), painted("Crane", "sar")], tmp_path / "net.weights.h5", settings)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_map_nothing(tmp_path):
    network = build_network("unet", width=0.25)
    network.get_layer("masks").bias.assign([np.nan, 0.0])
    save_weights(network, tmp_path / "net.weights.h5", width=0.25)
    with pytest.raises(ValueError, match=r"net\.weights\.h5: bias of layer masks holds values that are no numbers"):
        load_network(tmp_path / "net.weights.h5")


def test_weights_of_another_width_are_no_start():
    with pytest.raises(ValueError, match="give the same width"):
        copy_weights(*(build_network(QUICK.architecture, width=width, size=64) for width in (0.25, 0.5)))


def test_painted_scenes_know_their_front_and_all_their_ice():
    samples = list(synthetic_samples(4, seed=3))
    assert [sample.sensor for sample in samples] == ["optical", "sar"] * 2
    for sample in samples:
        beside = cv2.dilate(sample.front.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert sample.front.sum() > 20
        assert {OCEAN, ICE} == set(np.unique(sample.ice[beside]))
    again = next(synthetic_samples(1, seed=3))
    np.testing.assert_array_equal(again.image, samples[0].image)


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, monkeypatch):
    samples = [painted(), painted("Crane", "sar")]
    out = tmp_path / "net.weights.h5"
    np.savez(tmp_path / "net.checkpoint.npz", settings="{}", step=1, elapsed_s=1.0)
    with pytest.raises(ValueError, match="belongs to other settings"):
        fit(samples, out, QUICK)


def test_weights_without_their_suffix_and_trainings_without_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.weights\.h5"):
        fit([painted()], tmp_path / "net.h5", TINY)
    with pytest.raises(ValueError, match="names every glacier"):
        fit([painted("Crane", "sar")], tmp_path / "net.weights.h5", TINY)


def test_a_seed_gives_the_same_first_weights():
    first = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        first.append(np.asarray(build_network(QUICK.architecture, width=QUICK.width).weights[0]))
    np.testing.assert_array_equal(*first)
