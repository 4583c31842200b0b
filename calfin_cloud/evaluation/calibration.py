"""Traced fronts with their true distances go in; what turns doubt into half-widths comes out, and how well it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, nnls
from scipy.spatial import cKDTree
from scipy.stats import norm
from skimage.morphology import skeletonize

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.methods import Method, folds_method, network_method
from calfin_cloud.evaluation.scores import trace_sample
from calfin_cloud.fronts import DEFAULT, TraceSettings
from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.fronts.uncertainty import Calibration, Level, front_features, vertex_features
from calfin_cloud.network import network_id, training_glaciers

LEVELS = (0.68, 0.95)
GOOD_PX = 2.5
"""Mean distance in px of a 256 px frame below which a front is good."""

NEAR_PX = 0.3  # added to distances before the logarithm: drawn on pixels, the truth is not known better
SHRINK = 0.02  # of the ridge that lets correlated features share an effect, instead of one taking it all
N_VERTEX_BINS, N_FRONT_BINS = 12, 1  # of doubt, in which what it leaves open is told apart: vertices are many
LEAST_FRONTS, N_POINTS, N_CURVE_BINS, N_FOLDS = 4, 24, 10, 5
SMALLEST = 1e-3  # px, or a logarithm: what is less counts as this much
LARGEST_LEVEL = 0.999  # a quantile that few cases can still be asked for
WORST = 0.2  # share of the fronts that are dropped by their score

Floats = NDArray[np.float64]


class Truths(NamedTuple):
    """Of vertices or fronts: features (n, feature), distances (n,) in px of a 256 px frame, names of glaciers (n,)."""

    features: Floats
    distances: Floats
    glaciers: NDArray[np.str_]

    @property
    def weights(self) -> Floats:
        """Weights (n,), those of a glacier adding up to 1: the next case will be of a glacier, not of an image."""
        _, which, n = np.unique(self.glaciers, return_inverse=True, return_counts=True)
        return np.asarray(1 / n[which])


class Case(NamedTuple):
    """One traced front of a labelled scene.

    `seen`: whether the network was trained on its glacier; `features`: (n, feature) of its vertices; `distances`: (n,)
    to the nearest hand-drawn pixel, in px of a 256 px frame; `whole`: `fronts.uncertainty.FRONT_FEATURES`; `apart`: its
    symmetric mean distance, that of a front which its scene's other fronts leave a part of the reference to.
    """

    scene: str
    glacier: str
    seen: bool
    features: Floats
    distances: Floats
    whole: Floats
    apart: float


def make_cases(
    samples: Iterable[Sample], network: str, *, folds: Path | str | None = None, trace: TraceSettings = DEFAULT
) -> list[Case]:
    """Map and trace labelled scenes with a network, given by name or path, and measure every front's vertices.

    Fronts are traced as they are scored, without a fjord mask. Glaciers of an unknown training count as not seen. With
    `folds`, a folder of `training.fit_folds`, those that the network was trained on are mapped by the one of the same
    recipe that has not seen them.

    Raises
    ------
    ValueError
        The folder has no network without such a glacier.
    """
    trained_on = training_glaciers(network) or frozenset()
    of_known = of_others = network_method(network, trace=trace)
    if folds is not None:
        of_known = folds_method(folds, trace=trace)
    cases: list[Case] = []
    for sample in samples:
        is_known = sample.glacier in trained_on
        method = of_known if is_known else of_others
        cases += cases_of(sample, method, seen=is_known and folds is None, trace=trace)
    return cases


def cases_of(sample: Sample, method: Method, *, seen: bool, trace: TraceSettings = DEFAULT) -> Iterator[Case]:
    """Yield the fronts that a method gives of one labelled scene; none of one refused or without a known ice mask."""
    reference = np.argwhere(skeletonize(sample.front))
    if not len(reference):
        return
    front, ice, traced = trace_sample(sample, method, trace)
    if ice is None:
        return
    nearest, scale, lines = cKDTree(reference), scale_of(front.shape), [found.line for found in traced.fronts]
    back = np.array([cKDTree(line[:, ::-1]).query(reference)[0] for line in lines]) / scale
    for n, line in enumerate(lines):
        distances = nearest.query(line[:, ::-1])[0] / scale
        of_vertices = vertex_features(line, front, ice)
        whole = front_features(of_vertices, line, front, [*lines[:n], *lines[n + 1 :]])
        apart = float(np.concatenate([distances, back[n][back.argmin(axis=0) == n]]).mean())
        yield Case(sample.name, sample.glacier, seen, of_vertices, distances, whole, apart)


def unseen_of(cases: Sequence[Case]) -> list[Case]:
    """Cases of glaciers that the network was not trained on; all where there are none."""
    return [case for case in cases if not case.seen] or list(cases)


def fit_calibration(cases: Sequence[Case], *, network: str = "") -> Calibration:
    """Fit doubt and half-widths to traced fronts.

    The weights of the features come from all cases. How far a doubt reaches comes from glaciers that the network was
    not trained on, if there are any: on other glaciers the network errs less than it will elsewhere. How much glaciers
    differ from each other comes from all of them, and widens what is stated of a new one. In all of this each glacier
    counts alike, however many images it has.

    Parameters
    ----------
    network
        By name or path, for the hash that ties the calibration to its weights; without it, to none.

    Raises
    ------
    ValueError
        There are too few traced fronts.
    """
    unseen = unseen_of(cases)
    if len(unseen) < LEAST_FRONTS:
        raise ValueError(f"at least {LEAST_FRONTS} traced fronts are needed, got {len(unseen)}: give more scenes")
    truths, names = _fronts(unseen), {case.glacier for case in unseen}
    vertex = _fit_level(_vertices(cases), names, N_VERTEX_BINS)
    front = _fit_level(_fronts(cases), names, N_FRONT_BINS)
    slope, offset = _fit_score(front.doubt(truths.features), truths)
    about = {"weights_from": _counted(cases), "half_widths_from": _counted(unseen)}
    return Calibration(network_id(network) if network else "", vertex, front, GOOD_PX, slope, offset, about)


def check_calibration(cases: Sequence[Case], calibration: Calibration) -> pd.DataFrame:
    """Say how well a calibration holds, by glacier and for `all`: a row each.

    Columns for `vertex` and for `front` (its symmetric mean distance), all lengths in px of a 256 px frame: `n`;
    `inside68` and `inside95`, the shares of truths inside the stated half-widths; `sigma`, the median of the stated
    68 % ones; `mean` distance, what it is (`kept`) without the worst fifth by doubt, and without the fifth truly worst
    (`best`).
    """
    return _table([_stated(cases, calibration)])


def check_left_out(cases: Sequence[Case], *, by: Literal["glacier", "scene"] = "glacier") -> pd.DataFrame:
    """Check a calibration on glaciers it was not made with, or on a fifth of the scenes at a time; rows as above.

    Only glaciers are checked that the network was not trained on, if there are any. Left out of the table is what
    leaves too few fronts for a calibration without it: with one glacier, all.
    """
    unseen = unseen_of(cases)
    names = sorted({getattr(case, by) for case in unseen})
    folds = [{name} for name in names] if by == "glacier" else [set(names[i::N_FOLDS]) for i in range(N_FOLDS)]
    parts = []
    for fold in filter(None, folds):
        others = [case for case in cases if getattr(case, by) not in fold]
        if len(unseen_of(others)) >= LEAST_FRONTS:
            held_out = [case for case in unseen if getattr(case, by) in fold]
            parts.append(_stated(held_out, fit_calibration(others)))
    return _table(parts)


def reliability(cases: Sequence[Case], calibration: Calibration) -> pd.DataFrame:
    """Set what is stated against what is observed, in bins of as many cases each, for `figures.reliability_png`.

    Columns `kind`, `stated`, `observed`, `n`. Kinds `68` and `95`: the mean half-width stated of vertices and the one
    that held so many truths, in px of a 256 px frame; `score`: the mean score of fronts and the share of good ones.
    """
    stated = _stated(cases, calibration)
    vertices, fronts = (stated[what].sort_values("doubt", kind="stable") for what in ("vertex", "front"))
    rows: list[tuple[str, float, float, int]] = []
    for kind, level in zip(("68", "95"), LEVELS, strict=True):
        for part in _bins(vertices, N_CURVE_BINS):
            held = float(part["distance"].quantile(level))
            rows.append((kind, float(part[f"half{kind}"].mean()), held, len(part)))
    for part in _bins(fronts, N_CURVE_BINS // 2):
        is_good = part["distance"] < calibration.good_px
        rows.append(
            ("score", float(calibration.score(part["doubt"].to_numpy()).mean()), float(is_good.mean()), len(part))
        )
    return pd.DataFrame(rows, columns=["kind", "stated", "observed", "n"])


def _stated(cases: Sequence[Case], calibration: Calibration) -> dict[str, pd.DataFrame]:
    """Set `half68`, `half95` and `doubt` of every vertex and every front beside its true `distance` and `glacier`."""
    glaciers = np.array([case.glacier for case in cases])
    n_vertices = [len(case.distances) for case in cases]
    stated = {}
    for what, level, truths, names in (
        ("vertex", calibration.vertex, _vertices(cases), np.repeat(glaciers, n_vertices)),
        ("front", calibration.front, _fronts(cases), glaciers),
    ):
        doubt = level.doubt(truths.features)
        half68, half95 = level.half_widths(doubt)
        columns = {"distance": truths.distances, "doubt": doubt, "half68": half68, "half95": half95}
        stated[what] = pd.DataFrame({"glacier": names} | columns)
    return stated


def _table(parts: Sequence[dict[str, pd.DataFrame]]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame()
    tables = []
    for what in ("vertex", "front"):
        stated = pd.concat([part[what] for part in parts], ignore_index=True)
        groups = [*stated.groupby("glacier"), ("all", stated)]
        table = pd.DataFrame([_held(part) for _, part in groups], index=[name for name, _ in groups])
        tables.append(table.add_prefix(f"{what}_"))
    return pd.concat(tables, axis=1).rename_axis("glacier")


def _held(stated: pd.DataFrame) -> dict[str, float]:
    distance = stated["distance"].to_numpy()
    n_kept = len(distance) - round(WORST * len(distance))
    return {
        "n": float(len(distance)),
        "inside68": float((distance <= stated["half68"]).mean()),
        "inside95": float((distance <= stated["half95"]).mean()),
        "sigma": float(stated["half68"].median()),
        "mean": float(distance.mean()),
        "kept": float(distance[np.argsort(stated["doubt"], kind="stable")[:n_kept]].mean()),
        "best": float(np.sort(distance)[:n_kept].mean()),
    }


def _bins(stated: pd.DataFrame, n_bins: int) -> list[pd.DataFrame]:
    """Cut a table in rows of as many each, as far as they go."""
    places = np.array_split(np.arange(len(stated)), n_bins)
    return [stated.iloc[place] for place in places if len(place)]


def _vertices(cases: Sequence[Case]) -> Truths:
    """Features and distances of all vertices."""
    glaciers = np.repeat([case.glacier for case in cases], [len(case.distances) for case in cases])
    features = np.concatenate([case.features for case in cases])
    return Truths(features, np.concatenate([case.distances for case in cases]), glaciers)


def _fronts(cases: Sequence[Case]) -> Truths:
    """Features and symmetric mean distances of fronts."""
    features, distances = np.array([case.whole for case in cases]), np.array([case.apart for case in cases])
    return Truths(features, distances, np.array([case.glacier for case in cases]))


def _fit_level(truths: Truths, unseen: set[str], n_bins: int) -> Level:
    """Fit the logarithm of distances by features with weights of no negative one, then the half-widths by doubt."""
    features, distances, share = truths.features, truths.distances, truths.weights / truths.weights.sum()
    mean, target = share @ features, np.log(distances + NEAR_PX)
    spread = np.sqrt(share @ (features - mean) ** 2) + 1e-9
    constant = float(share @ target)
    root = np.sqrt(share)
    system = np.vstack([root[:, None] * (features - mean) / spread, np.sqrt(SHRINK) * np.eye(len(mean))])
    weights = nnls(system, np.append(root * (target - constant), np.zeros(len(mean))))[0] / spread
    constant -= float(weights @ mean)
    is_good = distances < GOOD_PX
    good = np.average(features[is_good], axis=0, weights=share[is_good]) if is_good.any() else mean
    doubts, halves = _half_widths(features @ weights + constant, truths, unseen, n_bins)
    return Level(_numbers(weights), _numbers(good), round(constant, 6), _numbers(doubts), *map(_numbers, halves))


def _half_widths(doubt: Floats, truths: Truths, unseen: set[str], n_bins: int) -> tuple[Floats, list[Floats]]:
    """Doubts (n,) over the range of all cases, and the half-width at each level for each of them, which rises with it.

    What a doubt leaves open, as a logarithm, is that of a glacier and that of a case within it: the first is normal,
    the second as the unseen glaciers show it at such doubts. A half-width is the quantile of both together.
    """
    left = np.log(truths.distances + NEAR_PX) - doubt
    names, which, n = np.unique(truths.glaciers, return_inverse=True, return_counts=True)
    means, is_unseen = np.bincount(which, left) / n, np.isin(names, list(unseen))
    rows = np.flatnonzero(is_unseen[which])
    within, between = left - means[which], max(_between(means, is_unseen), SMALLEST)
    bins = _alike(rows[np.argsort(doubt[rows], kind="stable")], truths.weights, n_bins)
    middles = [np.average(doubt[part], weights=truths.weights[part]) for part in bins]
    doubts = np.linspace(doubt.min(), doubt.max(), N_POINTS)
    usual, halves = doubts + means[is_unseen].mean(), []
    for level in LEVELS:
        of_bins = [_quantile(within[part], truths.weights[part], between, level) for part in bins]
        half = np.exp(usual + np.interp(doubts, middles, of_bins)) - NEAR_PX
        halves.append(np.maximum.accumulate(np.maximum(half, SMALLEST)))
    return doubts, halves


def _alike(order: NDArray[np.intp], weights: Floats, n_bins: int) -> list[NDArray[np.intp]]:
    """Cut places in their order into parts of equal weight."""
    passed = np.cumsum(weights[order])
    parts = np.split(order, np.searchsorted(passed, np.arange(1, n_bins) / n_bins * passed[-1]))
    return [part for part in parts if len(part)]


def _quantile(within: Floats, weights: Floats, between: float, level: float) -> float:
    """Quantile of a sum: one of the cases, by their weights, and a normal deviate of the glacier."""
    wanted, share = _of_new(level, len(within)), weights / weights.sum()
    reach = np.abs(within).max() + 10 * between
    return float(brentq(lambda x: share @ norm.cdf((x - within) / between) - wanted, -reach, reach))


def _between(means: Floats, is_unseen: NDArray[np.bool_]) -> float:
    """Deviation of a new glacier's mean from that of the unseen ones; glaciers trained on vary about their own mean.

    0 where there are too few glaciers to tell.
    """
    groups = [group for group in (means[is_unseen], means[~is_unseen]) if len(group)]
    freedom = len(means) - len(groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return float(np.sqrt(squares / freedom * (1 + 1 / is_unseen.sum()))) if freedom else 0.0


def _of_new(level: float, n_cases: int) -> float:
    """Quantile of n cases that holds a new one with probability `level` (split conformal, Papadopoulos et al. 2002)."""
    return min(level * (n_cases + 1) / n_cases, LARGEST_LEVEL)


def _fit_score(doubt: Floats, truths: Truths) -> tuple[float, float]:
    """Slope, not negative, and offset of the logistic curve of good fronts by doubt; likelihood with a weak prior."""
    sign = np.where(truths.distances < GOOD_PX, 1.0, -1.0)
    weights = truths.weights / truths.weights.mean()

    def cost(p: Floats) -> float:
        return float(weights @ np.logaddexp(0, -sign * (p[1] - p[0] * doubt)) + SHRINK * p[0] ** 2)

    slope, offset = minimize(cost, np.array([1.0, 0.0]), bounds=[(0, None), (None, None)]).x
    return round(float(slope), 6), round(float(offset), 6)


def _counted(cases: Sequence[Case]) -> dict[str, int]:
    glaciers = [case.glacier for case in cases]
    return {name: glaciers.count(name) for name in sorted(set(glaciers))}


def _numbers(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
