"""Methods on painted masks: every figure of the table against what one knows of the scene."""

import datetime as dt
import json
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest

from calfin_cloud.datasets import UNKNOWN, Sample, read_mohajerani2019
from calfin_cloud.evaluation import (
    compare_methods,
    describe_methods,
    edge_filter,
    join_scores,
    make_methods,
    network_method,
    score,
    score_persistence,
    score_sequences,
    summarise_scores,
    write_scores,
)
from calfin_cloud.evaluation.methods import eight_bit
from calfin_cloud.evaluation.report import worst_scenes
from calfin_cloud.figures.scores import Picture, mask_segments, scores_png
from calfin_cloud.fronts import CALFIN
from calfin_cloud.schema import SceneError

DAY = partial(dt.datetime, tzinfo=dt.UTC)


def scene(name="a", row=100, *, glacier="Crane", size=256, **more):
    """A scene with bright ice below a straight front at `row`; None: open ocean without a front."""
    front = np.zeros((size, size), bool)
    ice = np.zeros((size, size), np.uint8)
    if row is not None:
        front[row, 20:-20] = True
        ice[row:] = 1
    image = (40 + 150 * ice).astype(np.float32)
    return Sample(name, glacier, more.pop("sensor", "optical"), image, front, ice, **more)


def oracle(sample, *, shift=0, knows_ice=True):
    """Masks as a perfect network gives them, the front `shift` rows further down."""
    front = cv2.GaussianBlur(np.roll(sample.front, shift, axis=0).astype(np.float32), (0, 0), 1.0)
    front = front / max(front.max(), 1e-9)
    ice = np.roll(sample.ice, shift, axis=0).astype(np.float32)
    return front, ice if knows_ice else np.full_like(ice, 0.5)


def blind(sample):
    return np.zeros(sample.image.shape, np.float32), np.zeros(sample.image.shape, np.float32)


def invents(sample):
    """A sure front at row 200 of every scene."""
    return oracle(scene(row=200))


def row_of(scores, method="m", name="a"):
    return scores.table.loc[(method, name)]


def test_a_front_three_rows_off_is_three_pixels_and_as_many_metres_away():
    moved = row_of(score([scene(pixel_size_m=50.0)], {"m": partial(oracle, shift=3)}))
    assert moved["mean"] == pytest.approx(3, abs=0.15)
    assert moved["mean_m"] == pytest.approx(50 * moved["mean"])
    assert moved["hd95_m"] == pytest.approx(50 * moved["hd95"])
    assert moved["equidistant"] == pytest.approx(3, abs=0.4)
    assert moved["between_ends"] == pytest.approx(3, abs=0.4)  # less at the ends, where the path leaves the reference
    assert (moved["found"], moved["hit"], moved["n_fronts"], moved["n_false"]) == (1, 1, 1, 0)
    assert moved["ice_iou"] == pytest.approx(153 / 159)  # three rows are missed, three come in at the top


def test_a_perfect_method_has_no_error_whether_it_knows_the_ice_or_not():
    scores = score([scene()], {"with ice": oracle, "edge alone": partial(oracle, knows_ice=False)})
    for method in ("with ice", "edge alone"):
        row = row_of(scores, method)
        assert row["mean"] < 0.1
        assert row["front_iou"] > 0.9
        assert row["between_ends"] == 0
    assert row_of(scores, "with ice")[["ice_iou", "soft_ice_iou"]].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert row_of(scores, "edge alone")[["ice_iou", "soft_ice_iou"]].isna().all()


def test_a_scene_without_a_found_front_stays_in_every_table():
    samples = [scene("a"), scene("b", 150)]
    scores = score(samples, {"sees": oracle, "blind": blind})
    assert len(scores.table) == 4
    missed = row_of(scores, "blind")
    assert (missed["found"], missed["hit"], missed["front_iou"], missed["reason"]) == (0, 0, 0, "no_edge")
    summary = summarise_scores(scores).set_index(["method", "group", "value"]).loc[("blind", "all", "all")]
    assert summary[["n_scenes", "n_found", "detection_rate", "hit_rate"]].tolist() == [2, 0, 0, 0]
    assert summary["image_median_all"] == np.inf
    paired = compare_methods(scores).set_index("group").loc["all"]
    assert paired[["n_both", "only_a", "only_b"]].tolist() == [0, 2, 0]


def test_a_scene_that_a_method_refuses_is_a_missed_front_with_its_reason():
    def refuses(sample):
        raise SceneError("flat", "all valid pixels are equal")

    row = row_of(score([scene()], {"m": refuses}))
    assert (row["found"], row["reason"], row["has_reference"]) == (0, "flat", 1)


def test_false_fronts_are_counted_where_there_is_a_front_and_where_there_is_none():
    scores = score([scene("a"), scene("ocean", None)], {"m": invents})
    assert row_of(scores)[["n_false", "found", "hit"]].tolist() == [1, 1, 0]
    ocean = row_of(scores, name="ocean")
    assert ocean[["has_reference", "found", "n_false", "n_points"]].tolist() == [0, 1, 1, 0]
    summary = summarise_scores(scores).iloc[0]
    assert summary[["false_fronts", "n_false", "detection_rate", "hit_rate"]].tolist() == [1, 2, 1, 0]


def test_all_fronts_of_a_scene_count_against_all_pieces_of_its_reference():
    sample = scene(row=60)
    sample.front[160, 20:-20] = True
    sample.ice[160:] = 0
    both = row_of(score([sample], {"m": oracle}))
    assert (both["n_fronts"], both["n_false"]) == (2, 0)
    assert both["mean"] < 0.1
    assert np.isnan(both["equidistant"])  # which piece would its points belong to?
    assert both["between_ends"] == 0


def test_pixels_of_unknown_ice_do_not_count():
    sample = scene()
    sample.ice[:50] = UNKNOWN
    flooded = partial(lambda s: (oracle(s)[0], np.where(np.arange(256)[:, None] < 50, 1.0, s.ice == 1)))
    assert row_of(score([sample], {"m": flooded}))["ice_iou"] == 1


def test_scores_of_parts_joined_are_those_of_the_whole():
    samples = [scene(str(i), 60 + 10 * i, glacier=f"G{i % 2}", pixel_size_m=30.0 + i) for i in range(6)]
    methods = {"near": partial(oracle, shift=2), "far": partial(oracle, shift=6)}
    whole = score(samples, methods)
    by_scene = join_scores([score(samples[:4], methods), score(samples[4:], methods)])
    by_method = join_scores([score(samples, {name: method}) for name, method in methods.items()])
    for parts in (by_scene, by_method):
        pd.testing.assert_frame_equal(summarise_scores(parts), summarise_scores(whole), rtol=1e-12)
        pd.testing.assert_frame_equal(compare_methods(parts), compare_methods(whole), rtol=1e-12)


def test_two_scenes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="more than once"):
        score([scene("a"), scene("a")], {"m": blind})
    part = score([scene("a")], {"m": blind})
    with pytest.raises(ValueError, match="more than once"):
        join_scores([part, part])


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="nothing to score"):
        score([], {"m": blind})


def test_groups_are_glacier_sensor_platform_season_slc_off_and_seen_in_training():
    samples = [
        scene("a", platform="LE07", datetime=DAY(2003, 5, 31)),
        scene("b", platform="LE07", datetime=DAY(2003, 6, 1)),
        scene("c", glacier="SI", sensor="sar", platform="ERS", datetime=DAY(2004, 1, 5), is_southern=True),
        scene("d"),
    ]
    summary = summarise_scores(score(samples, {"m": blind}, trained_on={"m": {"SI"}}))
    counts = summary.set_index(["group", "value"])["n_scenes"].to_dict()
    assert counts == {
        ("all", "all"): 4,
        ("glacier", "Crane"): 3,
        ("glacier", "SI"): 1,
        ("sensor", "optical"): 3,
        ("sensor", "sar"): 1,
        ("platform", "ERS"): 1,
        ("platform", "LE07"): 2,
        ("season", "spring"): 1,
        ("season", "summer"): 2,
        ("slc_off", "no"): 2,
        ("slc_off", "yes"): 1,
        ("seen", "no"): 3,
        ("seen", "yes"): 1,
    }
    assert summary["n_seen"].iloc[0] == 1
    assert np.isnan(summarise_scores(score(samples, {"m": blind}))["n_seen"].iloc[0])


def test_the_first_method_is_compared_with_every_other_by_glacier_too():
    samples = [scene(str(i), 60 + 10 * i, glacier=f"G{i % 2}") for i in range(6)]
    paired = compare_methods(score(samples, {"a": partial(oracle, shift=1), "b": partial(oracle, shift=4), "c": blind}))
    assert paired[["a", "b", "value"]].to_numpy().tolist() == [
        ["a", other, value] for other in ("b", "c") for value in ("all", "G0", "G1")
    ]
    first = paired.iloc[0]
    assert first["difference"] == pytest.approx(-3, abs=0.2)
    assert first["difference_high"] < 0
    assert first["a_is_closer"] == 6


def test_written_scores_are_a_row_a_scene_and_method_valid_json_a_readable_table_and_a_picture(tmp_path):
    samples = [scene("a", pixel_size_m=50.0, datetime=DAY(2014, 7, 1)), scene("b", 150), scene("c", None)]
    scores = score(samples, {"near": partial(oracle, shift=2), "blind": blind}, trained_on={"near": ["Crane"]})
    about = {"near": {"weights": "near@123", "trained_on": ["Crane"]}, "blind": {"weights": None, "trained_on": None}}
    path = write_scores(scores, samples, tmp_path / "out", about=about)
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert len(table) == 6
    assert set(table["method"]) == {"near", "blind"}
    written = json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
    assert written["methods"] == about
    assert written["summary"][0]["n_scenes"] == 3
    assert written["paired"][0]["only_a"] == 2
    text = path.read_text()
    for words in (
        "near@123",
        "## By glacier",
        "## Paired",
        "near − blind",
        "2 of 2",
        "3 of 3",
        "unknown",
        "– / 0.00 / 0.00",
    ):
        assert words in text
    assert "nan" not in text
    picture = cv2.imread(str(tmp_path / "out" / "worst.png"))
    assert picture is not None
    assert (picture.std(axis=-1) > 30).any()  # there is colour


def test_the_worst_scenes_are_the_missed_ones_and_then_the_farthest():
    def uneven(sample):
        return blind(sample) if sample.name == "missed" else oracle(sample, shift=int(sample.name))

    names = ["1", "missed", "7", "4"]
    worst = worst_scenes(score([scene(name, 80 + i) for i, name in enumerate(names)], {"m": uneven, "n": blind}), 3)
    assert worst["scene"].tolist() == ["missed", "7", "4"]
    assert set(worst["method"]) == {"m"}


def test_segments_of_a_mask_join_every_pair_of_touching_pixels_once():
    mask = np.zeros((6, 7), bool)
    mask[2, 1:4] = mask[3, 4] = mask[0, 6] = True
    got = {tuple(map(tuple, segment)) for segment in mask_segments(mask)}
    assert got == {((1, 2), (2, 2)), ((2, 2), (3, 2)), ((3, 2), (4, 3))}
    assert mask_segments(np.zeros((4, 4), bool)) == []


def test_a_sheet_shows_front_and_reference_in_two_colours():
    reference = np.zeros((64, 64), bool)
    reference[20, 5:60] = True
    line = [(5, 40), (60, 40)]
    png = scores_png([Picture("far", np.full((64, 64), 90, np.uint8), [line], reference)])
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:248].astype(int)  # without a legend
    blue = (picture[..., 0] - picture[..., 2] > 80).any(axis=1)
    amber = (picture[..., 2] - picture[..., 0] > 80).any(axis=1)
    assert np.flatnonzero(blue).mean() < 110 < np.flatnonzero(amber).mean()


def test_the_edge_filter_finds_the_only_edge_of_a_scene():
    sample = scene(row=120)
    front, ice = edge_filter(sample)
    assert front[119:121].min() > 0.9
    assert (np.delete(front, np.s_[116:124], axis=0) == 0).all()
    assert (ice == 0.5).all()
    sample.image[:60] = np.nan
    assert np.isnan(edge_filter(sample)[0][:50]).all()


def test_eight_bit_images_stay_as_they_are_and_others_are_stretched():
    stored = np.array([[0, 7], [255, np.nan]], np.float32)
    assert eight_bit(stored).tolist() == [[0, 7], [255, 0]]
    decibels = np.linspace(-30, 0, 400, dtype=np.float32).reshape(20, 20)
    assert (eight_bit(decibels).min(), eight_bit(decibels).max()) == (1, 255)


def test_methods_are_made_by_name_with_labels_of_their_own(shared):
    folder = shared / "data" / "mohajerani2019" / "pretrained_unet_keras_h5"
    names = ["calfin-small", f"unet={sorted(folder.glob('*.h5'))[0]}", "sobel"]
    methods, about = make_methods(names), describe_methods(names)
    assert list(methods) == list(about) == ["calfin-small", "unet", "sobel"]
    assert about["unet"]["trained_on"] == ["Jakobshavn", "Kangerlussuaq", "Sverdrup"]
    assert about["sobel"] == {"weights": None, "trained_on": []}
    assert not {"Kangerlussuaq", "Crane"} & set(about["calfin-small"]["trained_on"])
    front, ice = methods["unet"](scene())
    assert (front.shape, ice.min(), ice.max()) == ((256, 256), 0.5, 0.5)
    with pytest.raises(ValueError, match="two methods are called 'sobel'"):
        make_methods(["sobel", "sobel=calfin-small"])
    with pytest.raises(ValueError, match="must be one of"):
        make_methods(["calfin-smal"])


def test_the_shipped_network_finds_the_front_of_a_real_glacier_that_it_never_saw(shared):
    sample = next(s for s in read_mohajerani2019(shared / "data" / "mohajerani2019") if s.glacier == "Kangerlussuaq")
    scores = score([sample], {"ours": network_method("calfin-small"), "sobel": edge_filter})
    assert row_of(scores, "ours", sample.name)["hit"] == 1
    assert row_of(scores, "ours", sample.name)["mean"] < row_of(scores, "sobel", sample.name)["mean"]


def test_settings_that_trace_windows_work_on_masks_alone():
    assert row_of(score([scene()], {"m": oracle}, trace=CALFIN))["mean"] < 2


def test_persistence_is_the_front_drawn_for_the_nearest_other_date():
    days = {"a": (DAY(2010, 1, 1), 100), "b": (DAY(2010, 2, 1), 104), "c": (DAY(2012, 1, 1), 140)}
    scenes = [scene(name, row, datetime=when, pixel_size_m=50.0) for name, (when, row) in days.items()]
    scores = score_persistence([*scenes, scene("alone", 90, glacier="Jorge", datetime=DAY(2010, 1, 1))])
    assert [row_of(scores, "persistence", name)["mean"] for name in "abc"] == pytest.approx([4, 4, 36])
    assert np.isnan(row_of(scores, "persistence", "alone")["mean"])
    assert row_of(scores, "persistence", "alone")["reason"] == "no_other_date"


def test_precision_and_recall_are_shares_of_lengths_and_a_missed_front_has_found_nothing():
    scenes = [scene("a", pixel_size_m=50.0), scene("b", pixel_size_m=50.0), scene("c")]  # the scale of c is lost
    missed = score([scenes[1]], {"m": blind})
    scores = join_scores([score([scenes[0], scenes[2]], {"m": partial(oracle, shift=4)}), missed])
    summary = summarise_scores(scores).iloc[0]  # 200 m off, on half of the known length
    assert (summary["precision_150"], summary["recall_150"], summary["f_150"]) == (0, 0, 0)
    assert summary["precision_300"] == pytest.approx(1, abs=0.05)
    assert summary["recall_300"] == pytest.approx(0.5, abs=0.05)
    assert summary["f_300"] == pytest.approx(2 / 3, abs=0.05)


def test_a_sequence_is_scored_without_the_date_whose_front_all_others_speak_against():
    dates = [DAY(2010, month, 1) for month in range(1, 8)]
    scenes = [scene(f"s{n}", 100, datetime=when) for n, when in enumerate(dates)]
    wrong = lambda s: oracle(s, shift=90 if s.name == "s3" else 0)  # noqa: E731
    alone, asked = score(scenes, {"m": wrong}), score_sequences(scenes, "m", wrong, trained_on=())
    assert row_of(alone, name="s3")["mean"] > 80
    assert row_of(asked, name="s3")["reason"] == "out_of_sequence"
    assert asked.table["n_false"].sum() == 0
    with pytest.raises(ValueError, match="no image has a date"):
        score_sequences([scene()], "m", wrong)
