"""Traced fronts with their true distances go in; what turns doubt into half-widths comes out, and how well it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, nnls
from scipy.stats import norm
from scipy.stats import t as student_t

from calfin_cloud.evaluation.cases import Case
from calfin_cloud.fronts.uncertainty import Calibration, Level
from calfin_cloud.network import network_id
from calfin_cloud.schema import GOOD_PX

LEVELS = (0.68, 0.95)
NEAR_PX = 0.3  # added to distances before the logarithm: drawn on pixels, the truth is not known better
SHRINK = 0.02  # of the ridge that lets correlated features share an effect, instead of one taking it all
N_VERTEX_BINS, N_FRONT_BINS = 12, 1  # of doubt, in which what it leaves open is told apart: vertices are many
LEAST_FRONTS, N_POINTS, N_CURVE_BINS, N_FOLDS = 4, 24, 10, 5
LEAST_FREEDOM = 4  # of Student's distribution: with fewer its tails would state kilometres of every front
SMALLEST = 1e-3  # px, or a logarithm: what is less counts as this much
LARGEST_LEVEL = 0.999  # a quantile that few cases can still be asked for
WORST = 0.2  # share of the fronts that are dropped by their score

Floats = NDArray[np.float64]
Distribution = Any  # one of scipy.stats, frozen


@dataclass(frozen=True)
class Truths:
    """Of vertices or fronts: features (n, feature), distances (n,) in px of a 256 px frame, names of glaciers (n,)."""

    features: Floats
    distances: Floats
    glaciers: NDArray[np.str_]

    @cached_property
    def weights(self) -> Floats:
        """Weights (n,), those of a glacier adding up to 1: the next case will be of a glacier, not of an image."""
        _, which, n = np.unique(self.glaciers, return_inverse=True, return_counts=True)
        return np.asarray(1 / n[which])


def unseen_of(cases: Sequence[Case]) -> list[Case]:
    """Cases of glaciers that the network was not trained on; all where there are none."""
    return [case for case in cases if not case.seen] or list(cases)


def fit_calibration(cases: Sequence[Case], *, network: str = "") -> Calibration:
    """Fit doubt and half-widths to traced fronts.

    The weights of the features come from all cases. How far a doubt reaches comes from glaciers that the network was
    not trained on, if there are any: on other glaciers the network errs less than it will elsewhere. How much glaciers
    differ from each other comes from all of them, and widens what is stated of a new one. In all of this each glacier
    counts alike, however many images it has.

    Fronts traced along known termini get a calibration of their own, within the other, where there are enough of them.

    Parameters
    ----------
    network
        By name or path, for the hash that ties the calibration to its weights; without it, to none.

    Raises
    ------
    ValueError
        There are too few traced fronts.
    """
    free, guided = ([case for case in cases if case.guided == is_guided] for is_guided in (False, True))
    calibration = _fit(free, network)
    return replace(calibration, guided=_fit(guided, network)) if _are_enough(guided) else calibration


def _are_enough(cases: Sequence[Case]) -> bool:
    return len(unseen_of(cases)) >= LEAST_FRONTS


def _fit(cases: Sequence[Case], network: str) -> Calibration:
    """Fit a calibration to fronts that were traced alike."""
    unseen = unseen_of(cases)
    if not _are_enough(cases):
        raise ValueError(f"at least {LEAST_FRONTS} traced fronts are needed, got {len(unseen)}: give more scenes")
    truths, names = _fronts(unseen), {case.glacier for case in unseen}
    vertex = _fit_level(_vertices(cases), names, N_VERTEX_BINS)
    front = _fit_level(_fronts(cases), names, N_FRONT_BINS)
    slope, offset = _fit_score(front.doubt(truths.features), truths)
    about = {"weights_from": _counted(cases), "half_widths_from": _counted(unseen)}
    return Calibration(network_id(network) if network else "", vertex, front, GOOD_PX, slope, offset, about)


def check_calibration(cases: Sequence[Case], calibration: Calibration) -> pd.DataFrame:
    """Say how well a calibration holds for fronts that were traced alike, by glacier and for `all`: a row each.

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
        if _are_enough(others):
            held_out = [case for case in unseen if getattr(case, by) in fold]
            parts.append(_stated(held_out, _fit(others, "")))
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

    What a doubt leaves open, as a logarithm, is that of a glacier and that of a case within it: the first is normal, of
    a deviation that is estimated, the second as the unseen glaciers show it at such doubts. A half-width is the
    quantile of both together.
    """
    left = np.log(truths.distances + NEAR_PX) - doubt
    names, which, n = np.unique(truths.glaciers, return_inverse=True, return_counts=True)
    means, is_unseen = np.bincount(which, left) / n, np.isin(names, list(unseen))
    rows = np.flatnonzero(is_unseen[which])
    within, between = left - means[which], _between(means, is_unseen)
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


def _quantile(within: Floats, weights: Floats, between: Distribution, level: float) -> float:
    """Quantile of a sum: one of the cases, by their weights, and a deviation of the glacier."""
    wanted, share = _of_new(level, len(within)), weights / weights.sum()
    reach = np.abs(within).max() + between.ppf(LARGEST_LEVEL) + SMALLEST
    return float(brentq(lambda x: share @ between.cdf(x - within) - wanted, -reach, reach))


def _between(means: Floats, is_unseen: NDArray[np.bool_]) -> Distribution:
    """Distribution of a new glacier's mean about that of the unseen ones; those trained on vary about their own mean.

    Student's, since few glaciers say little of how far apart glaciers are; of no fewer degrees of freedom than
    `LEAST_FREEDOM`. Where one glacier alone cannot tell, it is none.
    """
    groups = [group for group in (means[is_unseen], means[~is_unseen]) if len(group)]
    freedom = len(means) - len(groups)
    if not freedom:
        return norm(scale=SMALLEST)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    deviation = float(np.sqrt(squares / freedom * (1 + 1 / is_unseen.sum())))
    return student_t(max(freedom, LEAST_FREEDOM), scale=max(deviation, SMALLEST))


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
