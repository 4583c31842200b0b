"""A recipe trained once without each glacier, and what is measured with these networks."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from calfin_cloud.datasets import ICE, OCEAN, Sample
from calfin_cloud.evaluation import describe_methods, folds_method, make_cases, make_methods
from calfin_cloud.network import network_id, save_weights, training_glaciers, verifier_of, weights_path
from calfin_cloud.network.weights import load_network
from calfin_cloud.training import TrainingSettings, fit, fit_folds, fold_path, synthetic_samples
from calfin_cloud.training.records import is_trained, samples_digest

TINY = TrainingSettings(architecture="unet", width=0.03, batch=1, steps=1, verifier="calfin-small-2")


def labelled(glacier, seed=0):
    """A scene with ice in its lower half and ocean above."""
    below = np.arange(100)[:, None] * np.ones((1, 90)) >= 50
    image = np.where(below, 180, 60) + np.random.default_rng(seed).normal(0, 10, below.shape)
    front = np.zeros(below.shape, bool)
    front[50] = True
    ice = np.where(below, ICE, OCEAN).astype(np.uint8)
    return Sample(f"{glacier}-{seed}", glacier, "optical", image.astype(np.float32), front, ice)


SAMPLES = [labelled("Rink"), labelled("Crane", 1), labelled("Store", 2)]


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Networks without Rink and without Crane; Store is in both."""
    tf.config.run_functions_eagerly(True)  # steps too few to be worth compiling
    folder = tmp_path_factory.mktemp("folds")
    fit_folds(SAMPLES, folder, TINY, glaciers=["Rink", "Crane"])
    yield folder
    tf.config.run_functions_eagerly(False)


def test_each_network_has_seen_all_glaciers_but_the_one_it_is_named_after(folds):
    assert training_glaciers(fold_path(folds, "Rink")) == {"Crane", "Store"}
    assert training_glaciers(fold_path(folds, "Crane")) == {"Rink", "Store"}
    assert json.loads((folds / "Rink.json").read_text())["validation"] == {"Rink": 1}


def test_a_second_call_trains_only_what_is_not_finished(folds, caplog):
    before = {path.name: path.stat().st_mtime_ns for path in folds.iterdir()}
    paths = fit_folds(SAMPLES, folds, TINY, glaciers=["Rink", "Crane"])
    assert list(paths) == ["Rink", "Crane"]
    assert [record.args[0].name for record in caplog.records] == ["Rink.weights.h5", "Crane.weights.h5"]
    assert {path.name: path.stat().st_mtime_ns for path in folds.iterdir()} == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"steps": 2}, {"leave_out": ("Store",)}])
def test_a_training_of_other_settings_or_samples_replaces_no_finished_network(folds, changes):
    settings, out, samples = replace(TINY, leave_out=("Rink",)), fold_path(folds, "Rink"), samples_digest(SAMPLES)
    before = out.read_bytes()
    assert is_trained(out, settings, samples)
    with pytest.raises(ValueError, match=rf"other settings \({next(iter(changes))} .*, now .*another name"):
        fit(SAMPLES, out, replace(settings, **changes))
    with pytest.raises(ValueError, match="belongs to other samples"):
        fit([*SAMPLES, labelled("Store", 3)], out, settings)
    redrawn = [replace(SAMPLES[0], front=np.roll(SAMPLES[0].front, 3, axis=0)), *SAMPLES[1:]]
    with pytest.raises(ValueError, match="other samples or labels"):
        fit(redrawn, out, settings)
    assert out.read_bytes() == before


def test_weights_of_which_nothing_says_how_they_were_trained_are_not_replaced(tmp_path):
    out = tmp_path / "given.weights.h5"
    out.write_bytes(b"of somebody")
    with pytest.raises(ValueError, match=r"no given\.json says how it was trained"):
        fit(SAMPLES, out, TINY)
    assert out.read_bytes() == b"of somebody"


def test_a_glacier_is_mapped_by_the_network_that_has_not_seen_it(folds):
    by_folds = folds_method(folds)
    for sample in SAMPLES[:2]:
        alone = make_methods([str(fold_path(folds, sample.glacier))])
        np.testing.assert_array_equal(by_folds(sample)[0], next(iter(alone.values()))(sample)[0])
    with pytest.raises(ValueError, match=r"without Store.*--leave-out each"):
        by_folds(SAMPLES[2])


def test_a_folder_of_folds_is_a_method_that_has_seen_no_glacier(folds):
    about = describe_methods([f"folds={folds}"])["folds"]
    assert about["trained_on"] == []
    assert about["weights"] == sorted(network_id(fold_path(folds, name)) for name in ("Crane", "Rink"))


def test_an_unfinished_network_measures_nothing(folds, tmp_path):
    folder = shutil.copytree(folds, tmp_path / "folds")
    (folder / "Crane.checkpoint.npz").touch()
    with pytest.raises(ValueError, match=r"without Crane, got those without \['Rink'\]"):
        folds_method(folder)(SAMPLES[1])


def test_a_network_that_has_seen_its_glacier_is_no_fold(folds, tmp_path):
    shutil.copy(fold_path(folds, "Rink"), tmp_path / "Store.weights.h5")
    shutil.copy(folds / "Rink.json", tmp_path / "Store.json")
    with pytest.raises(ValueError, match=r"must not have seen.*\['Store'\]"):
        folds_method(tmp_path)
    (tmp_path / "Store.json").unlink()  # nobody knows what it has seen
    with pytest.raises(ValueError, match=r"\['Store'\], which have or do not say so"):
        folds_method(tmp_path)
    with pytest.raises(ValueError, match="got none"):
        folds_method(tmp_path / "nothing")


def shipped_as(path, *, trained_on):
    """The shipped network under another name, as if it had been trained on these glaciers."""
    for file in weights_path("calfin-efficient").parent.glob("calfin-efficient[-.]*"):
        shutil.copy(file, path.parent / file.name.replace("calfin-efficient", path.name.split(".")[0]))
    path.with_name(f"{path.name.split('.')[0]}.json").write_text(json.dumps({"training": dict.fromkeys(trained_on, 1)}))
    return path


def test_with_folds_no_case_of_a_calibration_was_seen_by_its_network(tmp_path):
    own = shipped_as(tmp_path / "own.weights.h5", trained_on=["Crane"])
    (tmp_path / "folds").mkdir()
    shipped_as(fold_path(tmp_path / "folds", "Crane"), trained_on=["Rink"])
    scenes = zip(("Crane", "Rink"), synthetic_samples(2, seed=5), strict=True)
    samples = [replace(sample, glacier=glacier) for glacier, sample in scenes]
    alone, together = (make_cases(samples, str(own), folds=folds) for folds in (None, tmp_path / "folds"))
    assert {(case.glacier, case.seen) for case in alone} == {("Crane", True), ("Rink", False)}
    assert {(case.glacier, case.seen) for case in together} == {("Crane", False), ("Rink", False)}


def test_one_glacier_alone_and_names_that_are_no_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two or more glaciers"):
        fit_folds(SAMPLES[:1], tmp_path, TINY)
    with pytest.raises(ValueError, match=r"\['Rnk'\].*correct the names"):
        fit_folds(SAMPLES, tmp_path, TINY, glaciers=["Rnk"])
    with pytest.raises(ValueError, match="becomes part of a path"):
        fit_folds([*SAMPLES, labelled("../Store")], tmp_path / "within", TINY)
    with pytest.raises(ValueError, match="no dot before"):
        fit_folds([*SAMPLES, labelled("St.Olaf")], tmp_path / "within", TINY)
    assert not (tmp_path / "within").exists()


def test_own_weights_keep_the_verifier_they_were_trained_for(folds, tmp_path):
    weights = fold_path(folds, "Rink")
    assert verifier_of(weights) == "calfin-small-2"
    assert network_id(weights).endswith(f"+{network_id('calfin-small-2')}")
    assert verifier_of(weights_path("calfin-small")) is None
    other = tmp_path / "other.weights.h5"
    save_weights(load_network(weights), other, width=0.03, verifier="of-my-own")
    with pytest.raises(ValueError, match=r"verifier of .*got 'of-my-own'"):
        verifier_of(other)
