"""Synthetic scenes of conditions that are hard for a network: the same for ever, with their true fronts."""

import json

import numpy as np
import pytest

from calfin_cloud.cli import main
from calfin_cloud.evaluation import adverse_samples
from calfin_cloud.sample import ADVERSE_CASES, paint_adverse


@pytest.mark.parametrize("case", ADVERSE_CASES)
def test_an_adverse_scene_is_the_same_each_time_and_shows_its_front(case):
    scene, again = paint_adverse(case, 3), paint_adverse(case, 3)
    np.testing.assert_array_equal(scene.signal, again.signal)
    inside = ((scene.front > 0) & (scene.front < 320)).all(axis=1)
    assert inside.mean() > 0.3
    assert not np.array_equal(scene.signal, paint_adverse(case, 4).signal)


def test_an_adverse_case_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"case must be one of .* got 'fog'"):
        paint_adverse("fog", 0)


def test_adverse_samples_are_scored_by_case():
    samples = list(adverse_samples(1))
    assert [sample.glacier for sample in samples] == list(ADVERSE_CASES)
    assert {sample.sensor for sample in samples} == {"optical", "sar"}
    assert all(sample.front.any() for sample in samples)


@pytest.mark.slow  # edges are traced in 33 scenes
def test_adverse_scenes_have_a_table_of_their_own(shared, tmp_path, capsys):
    data = str(shared / "data" / "mohajerani2019")
    words = ["evaluate", "--data", data, "--glaciers", "Kangerlussuaq", "--network", "sobel", "--adverse", "1"]
    assert main([*words, "--json", "--out", str(tmp_path)]) == 0
    real, synthetic = json.loads(capsys.readouterr().out)
    scenes = [{(row["method"], row["value"]): row["n_scenes"] for row in part["summary"]} for part in (real, synthetic)]
    assert scenes[0]["sobel", "Kangerlussuaq"] == scenes[0]["persistence", "Kangerlussuaq"] == 23
    assert {scenes[1]["sobel", case] for case in ADVERSE_CASES} == {1}
    assert (tmp_path / "scores.md").is_file()
    assert (tmp_path / "adverse" / "scores.md").is_file()


def test_adverse_scenes_are_scored_without_any_images_of_your_own(tmp_path, capsys):
    words = ["evaluate", "--network", "sobel", "--out", str(tmp_path)]
    assert main([*words, "--adverse", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["summary"]
    assert {row["value"] for row in rows if row["group"] == "glacier"} == set(ADVERSE_CASES)
    assert main(words) == 2
    assert "give --data FOLDER with labelled images, --adverse N, or both" in capsys.readouterr().err
