"""A few drawn fronts of a place become a network of that place, or a refusal that says why."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import geopandas as gpd
import keras
import numpy as np
import pandas as pd
import pytest
from shapely.affinity import translate
from shapely.geometry import mapping
from storing import map_sample

from calfin_cloud.cli import main
from calfin_cloud.cli.adapting import keep_adapted
from calfin_cloud.cli.parser import make_parser
from calfin_cloud.datasets import ICE, OCEAN, UNKNOWN
from calfin_cloud.fronts import calibration_beside
from calfin_cloud.metrics import compare_paired, line_distances
from calfin_cloud.network import (
    DEFAULT_NETWORK,
    build_network,
    load_network,
    network_id,
    save_weights,
    training_glaciers,
    verifier_of,
)
from calfin_cloud.network.files import openvino_file
from calfin_cloud.results import apply_verdicts, labelled_samples, usable_fronts
from calfin_cloud.storage import read_fronts
from calfin_cloud.training import TrainingSettings, adapt, adapting, fit, split_in_time, synthetic_samples
from calfin_cloud.training.adapting import decoder_network, is_better, trial_table

TIME = "2026-01-31T12:00:00Z"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return map_sample(tmp_path_factory.mktemp("adapted"), scenes=10)


@pytest.fixture
def store(mapped, tmp_path):
    shutil.copytree(mapped / "store", tmp_path / "store")
    return str(tmp_path / "store")


@pytest.fixture(scope="module")
def truth(mapped):
    return mapped / "scenes" / "truth.parquet"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Weights that see no front anywhere, of a network that learns in seconds."""
    keras.utils.set_random_seed(3)
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    network = build_network("unet", width=0.25)
    network.get_layer("masks").bias.assign([-6.0, 0.0])
    save_weights(network, path, width=0.25, verifier="calfin-small-2")
    path.with_name("tiny.json").write_text(json.dumps({"training": {"Store": 1}}))
    return str(path)


@pytest.fixture(scope="module")
def here():
    """Three painted scenes of a glacier."""
    return [replace(sample, glacier="Here") for sample in synthetic_samples(3, seed=1)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """One patch a batch: how many they are changes the time of a step, and not what is tested."""
    monkeypatch.setattr(adapting, "BATCH", 1)


def verdict(front, what, **more):
    return {"key": front["key"], "front": int(front["front"]), "verdict": what, "author": "M", "time": TIME, **more}


def test_scenes_whose_fronts_a_person_vouches_for_become_samples_of_the_stored_pictures(store):
    fronts = read_fronts(store).query("state == 'front'")
    accepted, redrawn, rejected = (row for _, row in fronts.iloc[:3].iterrows())
    moved = translate(redrawn["geometry"], 300, 0)
    verdicts = [
        verdict(accepted, "accept"),
        verdict(redrawn, "redraw", geometry=mapping(moved)),
        verdict(rejected, "reject"),
    ]
    apply_verdicts(store, verdicts)
    samples = labelled_samples(store)
    assert {s.name for s in samples} == {accepted["key"], redrawn["key"]}
    assert [s.datetime for s in samples] == sorted(s.datetime for s in samples)
    sample = next(s for s in samples if s.name == redrawn["key"])
    # Ice and ocean lie on either side of the line as drawn.
    assert sample.glacier == redrawn["domain"]
    assert sample.pixel_size_m == pytest.approx(30.28, abs=0.01)  # 30 m of the map, on the ground
    assert {OCEAN, ICE} <= set(np.unique(sample.ice)) <= {OCEAN, ICE, UNKNOWN}
    seen = ~np.isnan(sample.image)
    assert seen.mean() > 0.7
    assert sample.image[seen].min() >= 1
    drawn = usable_fronts(store).set_index("key").loc[redrawn["key"], "geometry"]
    assert line_distances(drawn, moved).max() < 1e-6
    assert abs(sample.front.sum() * 30 - moved.length) < 0.35 * moved.length


def test_drawn_lines_in_any_crs_find_their_scenes(store, truth, tmp_path):
    lines = gpd.read_parquet(truth)
    samples = labelled_samples(store, lines=truth)
    assert len(samples) >= 8
    lines.to_crs(4326).to_file(tmp_path / "lonlat.gpkg")
    again = labelled_samples(store, lines=tmp_path / "lonlat.gpkg")
    assert [s.name for s in again] == [s.name for s in samples]
    assert np.mean([(a.front == b.front).mean() for a, b in zip(samples, again, strict=True)]) > 0.999
    undated = lines.assign(scene_id="", datetime=lines["datetime"] + pd.Timedelta(days=2))
    undated.to_file(tmp_path / "later.gpkg")
    assert len(labelled_samples(store, lines=tmp_path / "later.gpkg", days=2)) >= len(samples)
    with pytest.raises(ValueError, match="within 1 days of a scene: check its dates and its CRS"):
        labelled_samples(store, lines=tmp_path / "later.gpkg", days=1)


def test_of_fronts_drawn_for_several_dates_a_scene_has_those_of_the_nearest(store, truth, tmp_path):
    lines = gpd.read_parquet(truth).assign(scene_id="")
    weeks = [
        lines.assign(geometry=lines.translate(300 * n, 0), datetime=lines["datetime"] + pd.Timedelta(days=7 * n))
        for n in range(3)
    ]
    pd.concat(weeks[:1]).to_parquet(tmp_path / "one.parquet")
    pd.concat(weeks).to_parquet(tmp_path / "three.parquet")
    one, three = (labelled_samples(store, lines=tmp_path / f"{name}.parquet", days=20) for name in ("one", "three"))
    assert [s.name for s in one] == [s.name for s in three]
    assert all((a.front == b.front).all() for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("kind", ["no verdict", "wrong CRS", "no CRS", "unknown domain", "no pictures"])
def test_labels_that_cannot_be_are_refused_with_what_to_do(store, truth, tmp_path, kind):
    lines, words, more = truth, "", {}
    if kind == "no verdict":
        lines, words = None, "no scene whose fronts were all accepted or redrawn"
    elif kind == "wrong CRS":
        lines = tmp_path / "there.gpkg"
        gpd.read_parquet(truth).set_crs(3031, allow_override=True).to_file(lines)
        words = "check its dates and its CRS"
    elif kind == "no CRS":
        lines = tmp_path / "bare.parquet"
        gpd.read_parquet(truth).set_crs(None, allow_override=True).to_parquet(lines)
        words = "has no CRS"
    elif kind == "unknown domain":
        more, words = {"domains": ["Nowhere"]}, r"no domain \['Nowhere'\]"
    else:
        for array in (tmp_path / "store" / "masks").glob("*/grey"):
            shutil.rmtree(array)
        words = "keeps no picture of the"
    with pytest.raises(ValueError, match=words):
        labelled_samples(store, lines=lines, **more)


def test_too_few_fronts_are_refused_before_anything_is_trained(store, truth, tmp_path, capsys):
    gpd.read_parquet(truth).iloc[:4].to_parquet(tmp_path / "four.parquet")
    call = ["adapt", store, "--lines", str(tmp_path / "four.parquet"), "--out", str(tmp_path / "out")]
    assert main(call) == 2
    assert "at least 5 labelled scenes are needed, got" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("eager")
def test_a_network_that_gets_no_better_on_held_out_scenes_is_not_written(store, truth, tiny, tmp_path, capsys):
    gpd.read_parquet(truth).iloc[:6].to_parquet(tmp_path / "six.parquet")
    call = ["adapt", store, "--lines", str(tmp_path / "six.parquet"), "--out", str(tmp_path / "out")]
    assert main([*call, "--network", tiny, "--steps", "1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["weights"] is None
    assert told["trial"]["n_scenes"] >= 5
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.usefixtures("eager")
def test_only_the_last_layers_learn_and_a_strong_anchor_holds_them(tiny):
    batch = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype("float32"), np.ones((1, 224, 224, 5), "f4")
    moved = {}
    for strength in (0.0, 1e3):
        how = {"architecture": "unet", "width": 0.25, "start": tiny, "steps": 5, "batch": 1, "learning_rate": 1e-3}
        network = decoder_network(TrainingSettings(**how, anchor=strength))
        before = {w.path: np.array(w) for w in network.weights}
        for _ in range(5):
            network.train_on_batch(*batch)
        apart = {path: float(np.abs(np.array(w) - before[path]).mean()) for path, w in _by_path(network).items()}
        assert {path.split("/")[0] for path, by in apart.items() if by > 0} <= {
            "up0_conv1",
            "up0_conv2",
            "features",
            "masks",
        }
        moved[strength] = sum(apart.values())
    assert 0 < moved[1e3] < moved[0.0] / 2


def _by_path(network):
    return {w.path: w for w in network.weights}


def test_adapted_weights_say_where_they_are_from_and_keep_the_verifier(here, tiny, tmp_path):
    weights = adapt(here, tmp_path / "here.weights.h5", start=tiny, steps=1)
    assert training_glaciers(weights) == {"Here", "Store"}
    assert verifier_of(weights) == "calfin-small-2"
    assert network_id(weights).endswith("+" + network_id("calfin-small-2"))
    assert json.loads((tmp_path / "here.json").read_text())["settings"]["start"] == network_id(tiny)


@pytest.mark.usefixtures("eager")
def test_of_what_weights_have_moved_a_share_is_kept(here, tiny, tmp_path):
    how = {"start": tiny, "steps": 4, "learning_rate": 0.02}
    paths = [adapt(here, tmp_path / f"{share}.weights.h5", share=share / 4, **how) for share in (4, 1)]
    before, whole, part = ([np.array(w) for w in load_network(path).weights] for path in (tiny, *paths))
    moved = max(np.abs(b - a).max() for a, b in zip(before, whole, strict=True))
    assert moved > 0.01
    for start, end, kept in zip(before, whole, part, strict=True):
        rounding = 1e-3 * np.abs(start).max()  # of float16
        np.testing.assert_allclose(kept, 0.75 * start + 0.25 * end, atol=rounding + 0.02 * moved)
    assert json.loads((tmp_path / "1.json").read_text())["settings"]["share"] == 0.25


@pytest.mark.usefixtures("eager")
def test_the_default_network_is_adapted_and_keeps_its_verifier(here, tmp_path):
    weights = adapt(here[:2], tmp_path / "here.weights.h5", steps=1)
    assert verifier_of(weights) == verifier_of(DEFAULT_NETWORK)
    assert openvino_file(weights, 224).is_file()


@pytest.mark.usefixtures("eager")
def test_a_training_that_keeps_a_share_resumes_to_the_same_weights(here, tiny, tmp_path):
    how = {"architecture": "unet", "width": 0.25, "batch": 1, "learning_rate": 0.02, "leave_out": ()}
    settings = TrainingSettings(**how, start=tiny, steps=3, share=0.25, anchor=0.01, checkpoint_minutes=1e-9)

    def batch(settings, step):
        rng = np.random.default_rng(step)
        return rng.uniform(-1, 1, (1, 224, 224, 3)).astype("f4"), np.ones((1, 224, 224, 5), "f4")

    def until_the_power_fails(settings, step):
        if step == 2:
            raise OSError("power failed")
        return batch(settings, step)

    whole = fit(here[:1], tmp_path / "whole.weights.h5", settings, batch_of=batch)
    with pytest.raises(OSError, match="power failed"):
        fit(here[:1], tmp_path / "parts.weights.h5", settings, batch_of=until_the_power_fails)
    parts = fit(here[:1], tmp_path / "parts.weights.h5", settings, batch_of=batch)
    for expected, got in zip(load_network(whole).weights, load_network(parts).weights, strict=True):
        np.testing.assert_allclose(np.array(got), np.array(expected), atol=2e-3)


def test_a_share_that_is_none_is_refused_before_anything_is_trained(tiny, tmp_path):
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=r"share .*, expected in \(0, 1\]"):
            adapt([], tmp_path / "here.weights.h5", start=tiny, share=share)
    with pytest.raises(ValueError, match=r"share 0\.5 of weights that start from random ones"):
        TrainingSettings(steps=1, share=0.5)
    assert not list(tmp_path.iterdir())


def test_each_scene_is_held_out_once_with_its_neighbours_in_time():
    samples = list(synthetic_samples(8, seed=0))
    parts = split_in_time(samples)
    assert [s.name for _, held_out in parts for s in held_out] == [s.name for s in samples]
    for learnt, held_out in parts:
        assert len(learnt) + len(held_out) == 8
        assert not {s.name for s in learnt} & {s.name for s in held_out}


@pytest.mark.usefixtures("eager")
def test_kept_weights_have_a_card_of_their_place_and_no_calibration_from_few_fronts(here, tiny, tmp_path):
    when = datetime(2019, 7, 4, tzinfo=UTC)
    samples = [replace(sample, glacier="St.Olaf", datetime=when) for sample in here]
    call = ["adapt", "my store", "--out", str(tmp_path), "--network", tiny, "--steps", "1"]
    rows = {("before", "a"): (9.0, 270.0), ("before", "b"): (np.nan, np.nan)}
    rows |= {("adapted", "a"): (2.0, 60.0), ("adapted", "b"): (3.0, 90.0)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "mean_m"])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["method", "scene"])
    compared = compare_paired(table.loc["adapted"]["mean"], table.loc["before"]["mean"].fillna(10.0))
    assert is_better(compared)
    weights, path, told = keep_adapted(make_parser().parse_args(call), samples, [], trial_table(table, compared))
    card = path.read_text()
    assert (weights.name, path.name) == ("St-Olaf.weights.h5", "St-Olaf.md")
    assert "one place: **St.Olaf**" in card
    assert f"`{network_id(weights)}`" in card  # as the fronts that they draw say
    assert "3 scenes with drawn or accepted fronts: 2019-07-04" in card
    assert "calfin adapt 'my store' --out" in card
    assert "| fronts found in 2 scenes | 1 | 2 |" in card
    assert "| mean distance, px | 9 | 2.5 |" in card
    assert "No calibration" in told
    assert told in card
    assert not calibration_beside(weights).exists()


def test_a_name_with_a_dot_is_refused_since_files_beside_it_would_mix(here, tiny, tmp_path):
    with pytest.raises(ValueError, match="no dot before"):
        adapt(here, tmp_path / "a.b.weights.h5", start=tiny, steps=1)


def test_a_trial_that_is_only_a_little_better_on_average_is_not_better():
    before, adapted = pd.Series([1.0, 9.0, 2.0, 2.0, 2.0]), pd.Series([2.0, 2.0, 2.5, 2.5, 2.5])
    compared = compare_paired(adapted, before)
    assert compared["difference"] < 0
    assert not is_better(compared)
