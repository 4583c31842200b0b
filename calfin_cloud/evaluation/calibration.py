"""Traced fronts with their true distances go in; what turns doubt into half-widths comes out, and how well it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize, nnls
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.methods import Method, network_method
from calfin_cloud.fronts import DEFAULT, TraceSettings, candidate_boxes, trace_fronts
from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.fronts.uncertainty import Calibration, Level, vertex_features
from calfin_cloud.network import network_id, training_glaciers
from calfin_cloud.schema import SceneError

LEVELS = (0.68, 0.95)
GOOD_PX = 2.5
"""Mean distance in px of a 256 px frame below which a front is good."""

NEAR_PX = 0.3  # added to distances before the logarithm: half the pixel grid's own error tells no front from another
SHRINK = 0.02  # of the ridge that keeps correlated features from sharing one effect with all the weight on one
N_VERTEX_BINS, N_FRONT_BINS, N_CURVE_BINS = 12, 6, 10
WORST = 0.2  # share of the fronts that are dropped by their score

Floats = NDArray[np.float64]


class Case(NamedTuple):
    """One traced front of a labelled scene.

    `seen`: whether the network was trained on its glacier; `features`: (n, feature) of its vertices; `distances`: (n,)
    to the nearest hand-drawn pixel, in px of a 256 px frame.
    """

    scene: str
    glacier: str
    seen: bool
    features: Floats
    distances: Floats


def make_cases(samples: Iterable[Sample], network: str, *, trace: TraceSettings = DEFAULT) -> list[Case]:
    """Map and trace labelled scenes with a network, given by name or path, and measure every front's vertices.

    Fronts are traced as they are scored, without a fjord mask. Glaciers of an unknown training count as not seen.
    """
    trained_on = training_glaciers(network) or frozenset()
    method = network_method(network, trace=trace)
    return [
        case for sample in samples for case in cases_of(sample, method, seen=sample.glacier in trained_on, trace=trace)
    ]


def cases_of(sample: Sample, method: Method, *, seen: bool, trace: TraceSettings = DEFAULT) -> Iterator[Case]:
    """Yield the fronts that a method gives of one labelled scene; none of a scene that it refuses or without a front."""
    reference = np.argwhere(skeletonize(sample.front))
    if not len(reference):
        return
    try:
        front, ice = method(sample)
    except SceneError:
        return
    boxes = candidate_boxes(front, ice, front.shape, settings=trace)
    nearest = cKDTree(reference)
    for found in trace_fronts(front, ice, boxes=boxes, settings=trace).fronts:
        distances = nearest.query(found.line[:, ::-1])[0] / scale_of(front.shape)
        yield Case(sample.name, sample.glacier, seen, vertex_features(found.line, front, ice), distances)


def fit_calibration(cases: Sequence[Case], *, network: str = "") -> Calibration:
    """Fit doubt and half-widths to traced fronts, each of which counts alike, whatever its length.

    The weights of the features come from all cases. How far a doubt reaches comes from glaciers that the network was not
    trained on, if there are any: on the others it errs less than it will elsewhere.

    Parameters
    ----------
    network
        By name or path, for the hash that ties the calibration to its weights; without it, to none.
    """
    unseen = [case for case in cases if not case.seen] or list(cases)
    if len(unseen) < N_FRONT_BINS:
        raise ValueError(f"at least {N_FRONT_BINS} traced fronts are needed, got {len(unseen)}: give more scenes")
    vertex = _fit_level(_vertices(cases), _vertices(unseen), N_VERTEX_BINS)
    front = _fit_level(_fronts(cases), _fronts(unseen), N_FRONT_BINS)
    features, distances, _ = _fronts(unseen)
    slope, offset = _fit_score(front.doubt(features), distances < GOOD_PX)
    about = {"weights_from": _counted(cases), "half_widths_from": _counted(unseen)}
    return Calibration(network_id(network) if network else "", vertex, front, GOOD_PX, slope, offset, about)


def check_calibration(cases: Sequence[Case], calibration: Calibration) -> pd.DataFrame:
    """Say how well a calibration holds, by glacier and for `all`: a row each.

    Columns: `n_fronts`, `n_vertices`; `vertex_68`, `vertex_95`, `front_68`, `front_95`: shares of truths inside the
    stated half-widths; `sigma`, `front_sigma`: medians of the stated 68 % half-widths; `mean`: mean over fronts of their
    mean distance, `kept`: that without the worst fifth by score, `best`: without the fifth that is truly worst;
    `vertex_mean`, `vertex_kept`, `vertex_best`: the same of vertices. All lengths in px of a 256 px frame.
    """
    glaciers = sorted({case.glacier for case in cases})
    parts = [(name, [case for case in cases if case.glacier == name]) for name in glaciers]
    rows = [{"glacier": name} | _held(part, calibration) for name, part in [*parts, ("all", list(cases))]]
    return pd.DataFrame(rows).set_index("glacier")


def check_left_out(cases: Sequence[Case]) -> pd.DataFrame:
    """Check each glacier that the network has not seen by a calibration made without it; rows as `check_calibration`."""
    glaciers = sorted({case.glacier for case in cases if not case.seen})
    rows = {}
    for name in glaciers:
        of_it = [case for case in cases if case.glacier == name]
        rows[name] = _held(of_it, fit_calibration([case for case in cases if case.glacier != name]))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("glacier")


def reliability(cases: Sequence[Case], calibration: Calibration) -> pd.DataFrame:
    """Set what is stated against what is observed, in bins of as many cases each, for `figures.reliability_png`.

    Columns `kind`, `stated`, `observed`, `n`. Kinds `68` and `95`: the half-width stated of vertices (mean of a bin) and
    the one that held so many truths, in px of a 256 px frame; `score`: the mean score of fronts and the share of good
    ones.
    """
    features, distances, _ = _vertices(cases)
    doubt = calibration.vertex.doubt(features)
    rows = []
    for level, stated in zip(LEVELS, calibration.vertex.half_widths(doubt), strict=True):
        for part in np.array_split(np.argsort(stated, kind="stable"), N_CURVE_BINS):
            rows.append((f"{level:.0%}"[:-1], stated[part].mean(), np.quantile(distances[part], level), len(part)))
    features, distances, _ = _fronts(cases)
    score = calibration.score(calibration.front.doubt(features))
    for part in np.array_split(np.argsort(score), N_CURVE_BINS // 2):
        rows.append(("score", score[part].mean(), (distances[part] < calibration.good_px).mean(), len(part)))
    return pd.DataFrame(rows, columns=["kind", "stated", "observed", "n"])


def _vertices(cases: Sequence[Case]) -> tuple[Floats, Floats, Floats]:
    """Features (n, feature), distances (n,) and weights (n,) of all vertices, those of a front weighing 1 together."""
    share = [np.full(len(case.distances), 1 / len(case.distances)) for case in cases]
    return (
        np.concatenate([case.features for case in cases]),
        np.concatenate([case.distances for case in cases]),
        np.concatenate(share),
    )


def _fronts(cases: Sequence[Case]) -> tuple[Floats, Floats, Floats]:
    """Mean features (n, feature), mean distances (n,) and equal weights (n,) of fronts."""
    features = np.array([case.features.mean(axis=0) for case in cases])
    return features, np.array([case.distances.mean() for case in cases]), np.ones(len(cases))


def _fit_level(every: tuple[Floats, Floats, Floats], unseen: tuple[Floats, Floats, Floats], n_bins: int) -> Level:
    """Fit the logarithm of distances by features with weights of no negative one, then the half-widths by doubt."""
    features, distances, share = every
    share = share / share.sum()
    typical = share @ features
    spread = np.sqrt(share @ (features - typical) ** 2) + 1e-9
    target = np.log(distances + NEAR_PX)
    constant = float(share @ target)
    root = np.sqrt(share)
    system = np.vstack([root[:, None] * (features - typical) / spread, np.sqrt(SHRINK) * np.eye(len(typical))])
    weights = nnls(system, np.append(root * (target - constant), np.zeros(len(typical))))[0] / spread
    constant -= float(weights @ typical)
    doubts, halves = _half_widths(unseen[0] @ weights + constant, unseen[1], unseen[2], n_bins)
    return Level(_numbers(weights), _numbers(typical), round(constant, 6), _numbers(doubts), *map(_numbers, halves))


def _half_widths(doubt: Floats, distances: Floats, share: Floats, n_bins: int) -> tuple[Floats, list[Floats]]:
    """Mean doubt of bins of equal weight, and the quantile of their distances at each level, made to rise with it."""
    order = np.argsort(doubt, kind="stable")
    passed = np.cumsum(share[order])
    bins = np.split(order, np.searchsorted(passed, np.arange(1, n_bins) / n_bins * passed[-1]))
    bins = [part for part in bins if len(part)]
    quantiles = [
        [np.quantile(distances[p], level, weights=share[p], method="inverted_cdf") for p in bins] for level in LEVELS
    ]
    rising = [np.exp(isotonic_regression(np.log(np.maximum(q, 1e-3))).x) for q in quantiles]
    return np.array([np.average(doubt[p], weights=share[p]) for p in bins]), rising


def _fit_score(doubt: Floats, is_good: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope, not negative, and offset of the logistic curve of good fronts by doubt; likelihood with a weak prior."""
    sign = np.where(is_good, 1.0, -1.0)

    def cost(p: Floats) -> float:
        return float(np.logaddexp(0, -sign * (p[1] - p[0] * doubt)).sum() + SHRINK * p[0] ** 2)

    slope, offset = minimize(cost, np.array([1.0, 0.0]), bounds=[(0, None), (None, None)]).x
    return round(float(slope), 6), round(float(offset), 6)


def _held(cases: Sequence[Case], calibration: Calibration) -> dict[str, float]:
    row: dict[str, float] = {"n_fronts": len(cases), "n_vertices": sum(len(case.distances) for case in cases)}
    errors: dict[str, float] = {}
    for name, prefix, (features, distances, _) in (
        ("vertex", "vertex_", _vertices(cases)),
        ("front", "", _fronts(cases)),
    ):
        level: Level = getattr(calibration, name)
        doubt = level.doubt(features)
        sure, wide = level.half_widths(doubt)
        row |= {f"{name}_68": float((distances <= sure).mean()), f"{name}_95": float((distances <= wide).mean())}
        row |= {"sigma" if name == "vertex" else "front_sigma": float(np.median(sure))}
        errors |= {f"{prefix}{what}": value for what, value in _dropped(distances, doubt).items()}
    return row | errors


def _dropped(distances: Floats, doubt: Floats) -> dict[str, float]:
    """Mean distance of all, without the fifth of the greatest doubt, and without that of the greatest distance."""
    n_kept = len(distances) - round(WORST * len(distances))
    kept = distances[np.argsort(doubt, kind="stable")[:n_kept]]
    return {"mean": float(distances.mean()), "kept": float(kept.mean()), "best": float(np.sort(distances)[:n_kept].mean())}


def _counted(cases: Sequence[Case]) -> dict[str, Any]:
    glaciers = [case.glacier for case in cases]
    return {name: glaciers.count(name) for name in sorted(set(glaciers))}


def _numbers(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
