"""Doubt about painted fronts, and half-widths against errors that one knows."""

import io
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from calfin_cloud.cli import main
from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.calibration import (
    GOOD_PX,
    check_calibration,
    check_left_out,
    fit_calibration,
    reliability,
)
from calfin_cloud.evaluation.cases import Case, cases_of, known_termini
from calfin_cloud.figures.reliability import reliability_png
from calfin_cloud.fronts import Guide
from calfin_cloud.fronts.uncertainty import (
    FEATURES,
    FRONT_FEATURES,
    Calibration,
    Level,
    calibration_beside,
    read_calibration,
    uncertainty_of,
    vertex_features,
    write_calibration,
)
from calfin_cloud.network import build_network, save_weights
from calfin_cloud.schema import SceneError
from calfin_cloud.training import synthetic_samples

NAMES = list(FEATURES)


def masks(size=256, *, row=None, width_px=1.5, height=1.0):
    """Front probability as a Gaussian ridge along a row, ice below it; lengths in px of a 256 px frame."""
    scale = size / 256
    row = size // 2 if row is None else row
    off = (np.arange(size)[:, None] - row) / scale * np.ones(size)
    return height * np.exp(-((off / width_px) ** 2) / 2), np.clip(off / 4 + 0.5, 0, 1)


def straight(size=256, row=None):
    """A line along the row, from a sixth of the columns to five."""
    x = np.arange(size // 6, size * 5 // 6, dtype=float)
    return np.column_stack([x, np.full(len(x), float(size // 2 if row is None else row))])


def by_hand(**weights):
    """A calibration whose half-widths are exp(doubt) and three times that, for doubts from -5 to 5."""
    doubts = tuple(np.linspace(-5, 5, 21))
    values = tuple(float(weights.get(name, 0.0)) for name in NAMES)
    half = np.exp(doubts)
    halves = (0.0, doubts, tuple(half), tuple(3 * half))
    vertex = Level(values, (0.0,) * len(NAMES), *halves)
    of_front = (*values, *(float(weights.get(name, 0.0)) for name in ("left", "short")))
    front = Level(of_front, (0.0,) * len(FRONT_FEATURES), *halves)
    return Calibration("net@1", vertex, front, GOOD_PX, 1.0, 0.0, {})


def noisy_cases(n_fronts=200, *, seed=0, glacier="Crane", seen=False, factor=1.0):
    """Fronts whose error is normal with a spread of exp(3 x faint), times a factor of each front that nothing tells."""
    rng = np.random.default_rng(seed)
    cases = []
    for n in range(n_fronts):
        features = rng.random((40, len(NAMES)))
        features[:, 0] = rng.random() + 0.1 * rng.random(40)
        spread = factor * np.exp(3 * features[:, 0] + 0.5 * rng.normal())
        distances = np.abs(rng.normal(0, spread))
        whole = np.append(features.mean(axis=0), [0.0, 0.0])
        cases.append(Case(f"{glacier}{n}", glacier, seen, features, distances, whole, float(distances.mean())))
    return cases


@pytest.fixture(scope="module")
def fitted():
    return fit_calibration(noisy_cases())


def middle(line, front, ice):
    return dict(zip(NAMES, vertex_features(line, front, ice)[len(line) // 2], strict=True))


def test_a_wide_ridge_is_wider_and_a_low_one_fainter_than_a_sharp_one():
    sharp, wide, low = (
        middle(straight(), *masks(**how)) for how in ({}, {"width_px": 5}, {"height": 0.5, "width_px": 1.5})
    )
    assert np.exp(sharp["wide"]) == pytest.approx(1.5, rel=0.1)
    assert np.exp(wide["wide"]) == pytest.approx(5, rel=0.05)
    assert (sharp["faint"], low["faint"]) == (pytest.approx(0.03, abs=0.03), pytest.approx(0.51, abs=0.02))
    assert wide["haze"] > sharp["haze"]


def test_the_stated_sigma_follows_the_width_of_the_ridge():
    sigmas = [uncertainty_of(straight(), *masks(width_px=w), by_hand(wide=1)).vertex_sigma_px[100] for w in (1.5, 3, 5)]
    assert sigmas == pytest.approx([1.5, 3, 5], rel=0.1)


def test_ice_on_both_sides_is_flat_and_a_step_is_not():
    front, ice = masks()
    assert middle(straight(), front, ice)["flat"] < 0.2
    assert middle(straight(), front, np.full_like(ice, 0.5))["flat"] == pytest.approx(1)


def test_a_corner_is_told_beyond_it_and_not_before():
    x = np.arange(150.0)
    bent = np.column_stack([np.minimum(x, 100), 50 + np.maximum(x - 100, 0)])
    corner = vertex_features(bent, *masks())[:, NAMES.index("corner")]
    assert corner[120:].min() > 0.08  # radians a px; a right angle over the dozen px of the smoothing
    assert corner[30:75].max() < 0.01


def test_ends_are_doubted_more_than_the_middle():
    end = vertex_features(straight(), *masks())[:, NAMES.index("end")]
    assert end[0] == end[-1] == 1
    assert end[len(end) // 2] < 0.01


def test_a_scene_of_twice_the_size_has_twice_the_half_widths_in_px():
    small, large = (
        uncertainty_of(straight(size), *masks(size), by_hand(wide=1, faint=1, flat=1)) for size in (256, 512)
    )
    assert large.sigma_px == pytest.approx(2 * small.sigma_px, rel=0.02)
    assert large.vertex_sigma_px[170] == pytest.approx(2 * small.vertex_sigma_px[85], rel=0.02)
    assert large.score == pytest.approx(small.score, abs=0.01)


def test_features_do_not_depend_on_where_the_vertices_lie():
    line = straight()
    every = vertex_features(line, *masks())
    few = vertex_features(np.concatenate([line[:1], line[5:-1:5], line[-1:]]), *masks())
    assert few[1:-1] == pytest.approx(every[5:-1:5], abs=1e-6)


def test_missing_data_raises_the_doubt_and_leaves_it_finite():
    front, ice = masks()
    front[:, :128], ice[:, :128] = np.nan, np.nan
    features = vertex_features(straight(), front, ice)
    assert np.isfinite(features).all()
    assert features[10, 0] == 1
    assert features[-20, 0] < 0.1
    no_ice = vertex_features(straight(), front, np.full_like(ice, np.nan))
    assert (no_ice[:, NAMES.index("flat")] == 1).all()


def test_without_a_calibration_nothing_is_stated():
    nothing = uncertainty_of(straight(), *masks(), None)
    assert nothing.vertex_sigma_px.shape == (len(straight()),)
    assert np.isnan([*nothing.vertex_sigma_px, nothing.sigma_px, nothing.half95_px, nothing.score]).all()
    assert nothing.reasons == ""


def test_the_costliest_reason_is_named_first_and_what_costs_nothing_is_not():
    faint = uncertainty_of(straight(), *masks(height=0.4), by_hand(faint=2, flat=0.5))
    assert faint.reasons.startswith("the edge is faint (×3.")
    assert "undecided" not in faint.reasons
    assert uncertainty_of(straight(), *masks(), by_hand(faint=0.1)).reasons == ""


@given(a=st.floats(-6, 6), b=st.floats(-6, 6))
def test_more_doubt_is_never_a_narrower_interval_nor_a_better_score(fitted, a, b):
    low, high = min(a, b), max(a, b)
    for level in (fitted.vertex, fitted.front):
        (s_low, s_high), (w_low, w_high) = level.half_widths(np.array([low, high]))
        assert s_low <= s_high
        assert w_low <= w_high
        assert s_low <= w_low
    better, worse = fitted.score(np.array([low, high]))
    assert 0 <= worse <= better <= 1


def test_intervals_hold_known_noise_in_new_cases_and_the_score_finds_the_worst(fitted):
    new = [case for seed in range(1, 6) for case in noisy_cases(seed=seed)]
    held = check_calibration(new, fitted).loc["all"]
    for what in ("vertex", "front"):
        assert 0.63 < held[f"{what}_inside68"] < 0.73
        assert 0.92 < held[f"{what}_inside95"] < 0.985
        assert held[f"{what}_best"] <= held[f"{what}_kept"] < 0.7 * held[f"{what}_mean"]


def test_only_what_raises_the_error_gets_a_weight(fitted):
    assert 2 < fitted.vertex.weights[0] < 3  # the offset in the logarithm takes some of the three
    assert min(fitted.vertex.weights + fitted.front.weights) >= 0
    assert max(fitted.vertex.weights[1:]) < 0.1


def test_half_widths_come_from_glaciers_that_were_not_trained_on():
    easy = noisy_cases(seed=2, glacier="JAC", seen=True, factor=0.1)
    calibration = fit_calibration([*noisy_cases(), *easy])
    assert 0.63 < check_calibration(noisy_cases(), calibration).loc["Crane", "vertex_inside68"] < 0.73
    assert check_calibration(easy, calibration).loc["JAC", "vertex_inside68"] > 0.99
    assert calibration.about["half_widths_from"] == {"Crane": 200}
    assert calibration.about["weights_from"] == {"Crane": 200, "JAC": 200}


def test_a_glacier_with_more_images_does_not_outvote_another():
    few, many = noisy_cases(), noisy_cases(seed=3, glacier="Jorge", factor=4.0)
    once, thrice = fit_calibration([*few, *many]), fit_calibration([*few, *many * 3])
    for level in ("vertex", "front"):
        for what in ("weights", "doubts", "half68", "half95"):
            values = (getattr(getattr(c, level), what) for c in (thrice, once))
            assert next(values) == pytest.approx(next(values), rel=0.05, abs=0.02)
    assert (thrice.slope, thrice.offset) == pytest.approx((once.slope, once.offset), rel=0.02)


def test_a_glacier_left_out_is_not_held_by_the_intervals_of_an_easier_one():
    cases = [*noisy_cases(), *noisy_cases(seed=3, glacier="Jorge", factor=4.0)]
    held = check_left_out(cases)
    assert held.loc["Jorge", "vertex_inside68"] < 0.4
    assert held.loc["Crane", "vertex_inside68"] > 0.95
    by_scene = check_left_out(noisy_cases(), by="scene")
    assert 0.6 < by_scene.loc["Crane", "vertex_inside68"] < 0.75
    assert by_scene.loc["all", "front_n"] == 200


def glaciers(seed, *, spread, n_seen=5, n_unseen=2, factor=0.7):
    """Fronts of several glaciers whose errors differ by a factor of each; those of glaciers trained on are smaller."""
    factors = np.exp(np.random.default_rng(seed).normal(0, spread, n_seen + n_unseen))
    seen = [
        noisy_cases(60, seed=100 * seed + n, glacier=f"seen {n}", seen=True, factor=factor * factors[n])
        for n in range(n_seen)
    ]
    unseen = [
        noisy_cases(60, seed=100 * seed + n, glacier=f"unseen {n}", factor=factors[n])
        for n in range(n_seen, n_seen + n_unseen)
    ]
    return [case for cases in (*seen, *unseen) for case in cases]


def test_a_glacier_never_seen_is_held_where_glaciers_differ():
    held = [check_left_out(glaciers(seed, spread=0.3)).loc["all"] for seed in range(10)]
    for what in ("vertex", "front"):
        assert 0.6 < np.mean([of[f"{what}_inside68"] for of in held]) < 0.78
        assert 0.92 < np.mean([of[f"{what}_inside95"] for of in held]) < 0.99  # two unseen ones: on the careful side


def test_of_seven_glaciers_each_is_held_by_what_the_other_six_show():
    held = [check_left_out(glaciers(seed, spread=0.8, n_seen=0, n_unseen=7)).loc["all"] for seed in range(3)]
    assert 0.62 < np.mean([of["front_inside68"] for of in held]) < 0.78
    assert 0.92 < np.mean([of["front_inside95"] for of in held]) < 0.98


def test_the_more_glaciers_differ_the_less_is_stated_of_a_new_one():
    alike, apart = (fit_calibration(glaciers(1, spread=spread)).front for spread in (0.0, 0.6))
    ratio = [np.array(level.half95) / np.array(level.half68) for level in (alike, apart)]
    assert ratio[1].mean() > 1.2 * ratio[0].mean()


def test_the_fewer_glaciers_there_are_the_less_is_stated_of_a_new_one():
    factors = np.array([0.5, 1.0, 2.0])
    few, many = (
        fit_calibration([c for n, f in enumerate(of) for c in noisy_cases(60, seed=n, glacier=f"{n}", factor=f)]).front
        for of in (factors, np.tile(factors, 4))
    )
    assert few.half95[10] > 1.5 * many.half95[10]


def test_fronts_along_a_known_terminus_have_half_widths_of_their_own(tmp_path):
    free = noisy_cases()
    guided = [case._replace(guided=True) for case in noisy_cases(seed=1, factor=0.1)]
    calibration = fit_calibration([*free, *guided])
    assert replace(calibration.of("free"), guided=None) == fit_calibration(free)
    assert calibration.of("guided") == fit_calibration([case._replace(guided=False) for case in guided])
    line, (front, ice) = straight(), masks()
    stated = {by: uncertainty_of(line, front, ice, calibration, traced_by=by).sigma_px for by in ("free", "guided")}
    assert stated["guided"] < 0.5 * stated["free"]
    write_calibration(tmp_path / "net.calibration.json", calibration)
    assert read_calibration(tmp_path / "net.calibration.json", network="") == calibration
    few = fit_calibration([*free, *guided[:3]])
    assert few.of("guided") == few


def test_the_front_of_another_year_stands_for_a_known_terminus():
    dates = {"a": "2010-07-01", "b": "2010-08-01", "c": "2012-07-01", "d": "2015-07-01", "e": None}
    samples = [
        replace(sample(100 + 5 * n), name=name, datetime=date and datetime.fromisoformat(date + "T00:00+00:00"))
        for n, (name, date) in enumerate(dates.items())
    ]
    known = known_termini(samples)
    assert {name: guides[0].line[0, 1] for name, guides in known.items()} == {"a": 110, "b": 110, "c": 105, "d": 110}
    assert known["c"][0].years == pytest.approx(1.9, abs=0.05)
    assert [line[0, 1] for line in known["c"][0].other_dates] == [100, 115]
    assert known_termini([samples[0], replace(samples[3], glacier="Rink")]) == {}


def test_a_scene_with_a_known_terminus_gives_free_and_guided_cases():
    free, guided = cases_of(sample(), off_by_three, seen=False, guides=[guide_at(130)])
    assert (free.guided, guided.guided) == (False, True)
    assert guided.distances[5:-5] == pytest.approx(np.full(len(guided.distances) - 10, 3), abs=0.5)
    assert len(list(cases_of(sample(), off_by_three, seen=False, guides=[guide_at(20)]))) == 1  # out of its reach


def guide_at(row):
    return Guide(np.column_stack([np.arange(40.0, 216.0), np.full(176, float(row))]), (), 2.0, 30.0)


def test_one_glacier_alone_is_calibrated_but_cannot_be_checked_without_itself():
    cases = [case for case in noisy_cases() if case.glacier == "Crane"]
    assert check_left_out(cases, by="glacier").empty
    assert len(check_left_out(cases, by="scene"))
    assert check_left_out(cases[:3], by="scene").empty


def test_a_network_trained_on_all_glaciers_is_checked_on_them():
    cases = [case._replace(seen=True) for case in noisy_cases()]
    assert check_left_out(cases, by="scene").loc["all", "front_n"] == 200


def label_scenes(folder, glacier, *, count=5):
    """Write synthetic scenes and where their ice lies into a folder, in the layout of CALFIN."""
    for n, scene in enumerate(synthetic_samples(count, seed=3)):
        name = folder / f"{glacier}_LC08_L1TP_2015-07-0{n + 1}"
        grey = np.interp(scene.image, (scene.image.min(), scene.image.max()), (1, 255))
        Image.fromarray(np.uint8(grey)).save(f"{name}.png")
        Image.fromarray(np.uint8(255 * scene.ice)).save(f"{name}_mask.png")


def test_a_network_that_finds_no_front_is_told_from_labels_without_one(tmp_path, capsys):
    label_scenes(tmp_path, "Elsewhere", count=2)
    network = build_network("unet", width=0.25)
    network.get_layer("masks").bias.assign([-6.0, 0.0])
    save_weights(network, tmp_path / "blind.weights.h5", width=0.25)
    call = ["calibrate", "--data", str(tmp_path), "--network", str(tmp_path / "blind.weights.h5")]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert "no front to calibrate on in 2 labelled scenes (2 with a drawn one)" in said
    assert "blind.weights.h5 finds none; `calfin evaluate` with the same --data and --network says why" in said
    for mask in tmp_path.glob("*_mask.png"):
        Image.fromarray(np.zeros_like(Image.open(mask))).save(mask)
    assert main(call) == 2
    assert "(0 with a drawn one): none of the labels has one" in capsys.readouterr().err


@pytest.mark.parametrize(("glacier", "is_told"), [("Sverdrup", True), ("Elsewhere", False)])
def test_half_widths_of_glaciers_that_a_network_was_trained_on_are_called_too_small(tmp_path, capsys, glacier, is_told):
    label_scenes(tmp_path, glacier)
    call = ["calibrate", "--data", str(tmp_path), "--network", "calfin-small-2", "--out", str(tmp_path / "own.json")]
    assert main(call) == 0
    assert ("was trained on Sverdrup, and on others it errs more" in capsys.readouterr().err) is is_told


def test_too_few_fronts_are_refused():
    with pytest.raises(ValueError, match="at least 4 traced fronts are needed, got 2"):
        fit_calibration(noisy_cases(2))


def test_a_calibration_survives_its_file_and_belongs_to_one_network(fitted, tmp_path):
    path = calibration_beside(tmp_path / "net.weights.h5")
    assert path.name == "net.calibration.json"
    assert read_calibration(path, network="net@1") is None
    write_calibration(path, by_hand(faint=1))
    assert read_calibration(path, network="net@1") == by_hand(faint=1)
    with pytest.raises(ValueError, match="must be made for net@2"):
        read_calibration(path, network="net@2")
    write_calibration(path, fitted)
    assert read_calibration(path, network="") == fitted


@pytest.mark.parametrize("content", ['{"network": "net@1", "vert', "[1, 2]", '{"network": "net@1"}'])
def test_a_damaged_calibration_is_named(tmp_path, content):
    path = calibration_beside(tmp_path / "net.weights.h5")
    path.write_text(content)
    with pytest.raises(ValueError, match=r"net\.calibration\.json .*(again|restore|anew)"):
        read_calibration(path, network="net@1")


def test_an_edge_that_no_front_follows_raises_the_doubt_about_a_front_and_one_that_is_followed_does_not():
    front, ice = masks()
    front[:, 128:] = front[:, :42] = 0  # there is no more of it
    front[60:63, 140:200] = 0.9
    line, further = straight()[:86], np.column_stack([np.arange(140.0, 200.0), np.full(60, 61.0)])
    alone = uncertainty_of(line, front, ice, by_hand(left=2))
    both = uncertainty_of(line, front, ice, by_hand(left=2), others=[further])
    assert alone.sigma_px > 1.5 * both.sigma_px
    assert alone.score < both.score
    assert alone.reasons.startswith("an edge is seen elsewhere that no front follows")
    assert both.reasons == ""


def test_a_missing_flank_is_part_of_the_distance_of_a_front():
    def half(sample):
        front, ice = off_by_three(sample)
        front[:, 128:] = 0
        return front, ice

    (case,) = cases_of(sample(), half, seen=False)
    assert case.distances.mean() < 4
    assert case.apart > 15  # the other half of the reference is up to 90 px away


def test_a_line_of_one_vertex_is_refused():
    with pytest.raises(ValueError, match="two or more vertices"):
        vertex_features(straight()[:1], *masks())


def sample(row=120):
    front = np.zeros((256, 256), bool)
    if row is not None:
        front[row, 40:216] = True
    return Sample("a", "Crane", "sar", np.zeros((256, 256), np.float32), front, np.zeros((256, 256), np.uint8))


def off_by_three(_):
    front, ice = masks(row=123)
    front[:, :40], front[:, 216:] = 0, 0
    return front.astype(np.float32), ice.astype(np.float32)


def test_a_case_holds_the_distance_of_every_vertex_to_the_drawn_front():
    (case,) = cases_of(sample(), off_by_three, seen=False)
    assert case.distances[5:-5] == pytest.approx(np.full(len(case.distances) - 10, 3), abs=0.1)  # ends are smoothed
    assert case.features.shape == (len(case.distances), len(NAMES))


def test_scenes_refused_or_without_a_drawn_front_give_no_case():
    def refuse(_):
        raise SceneError("flat", "a single grey level")

    assert list(cases_of(sample(), refuse, seen=False)) == []
    assert list(cases_of(sample(None), off_by_three, seen=False)) == []


def test_the_curve_of_a_calibrated_network_lies_on_the_diagonal(fitted):
    curve = reliability(noisy_cases(seed=4), fitted)
    widths = curve[curve["kind"] != "score"]
    assert np.log(widths["observed"] / widths["stated"]).abs().mean() < np.log(1.25)
    assert np.log(widths["stated"]).max() > np.log(widths["stated"]).min() + np.log(20)
    score = curve[curve["kind"] == "score"]
    assert (score["observed"] - score["stated"]).abs().max() < 0.25
    assert curve.groupby("kind")["n"].sum().to_dict() == {"68": 8000, "95": 8000, "score": 200}


def test_the_reliability_plot_is_a_picture_with_points_of_both_levels(fitted):
    png = reliability_png(reliability(noisy_cases(), fitted), title="net")
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    for colour in ((255, 176, 0), (86, 180, 233)):
        assert (picture == colour).all(axis=1).sum() > 200


def test_reasons_are_told_beside_good_fronts(fitted):
    good = np.concatenate([c.features for c in noisy_cases() if c.distances.mean() < GOOD_PX])
    assert fitted.front.good[0] == pytest.approx(good[:, 0].mean(), abs=0.02)
    assert fitted.front.good[0] < 0.3  # where all cases have 0.55
