"""Labelled samples and methods go in; a table a scene and method comes out, its summary, and methods side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.measure import label
from skimage.morphology import skeletonize

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.measures import Line, between_ends, equidistant, overlaps, score_lines
from calfin_cloud.evaluation.methods import UNKNOWN_ICE, Method
from calfin_cloud.evaluation.references import WITHIN_M
from calfin_cloud.fronts import DEFAULT, Trace, TraceSettings, candidate_boxes, draw_line, extract_line, trace_fronts
from calfin_cloud.metrics import (
    compare_paired,
    shares_of,
    summarise,
)
from calfin_cloud.schema import NO_BOXES, SceneError

PERSISTENCE = "persistence"
"""Name of the front drawn for another date as a method: what a method must beat to be worth its while."""

GROUPS = ("glacier", "sensor", "platform", "season", "slc_off", "seen")
AVERAGED = ("front_iou", "ice_iou", "soft_ice_iou", "equidistant", "between_ends")


Key = tuple[str, str]  # method and scene


@dataclass(frozen=True)
class Scores:
    """What was measured, part by part or of the whole.

    Attributes
    ----------
    table
        A row a method and scene, indexed by them, whether a front was found or not.
    distances
        Distances in px between front and reference, both ways, of each method and scene with both.
    lines
        Fronts of each method and scene, each (n, 2) x, y in px.
    """

    table: pd.DataFrame
    distances: dict[Key, NDArray[np.float64]]
    lines: dict[Key, list[Line]]


def score(
    samples: Iterable[Sample],
    methods: Mapping[str, Method],
    *,
    trace: TraceSettings = DEFAULT,
    trained_on: Mapping[str, Collection[str]] | None = None,
) -> Scores:
    """Trace and measure the fronts of methods on labelled scenes, without a fjord mask, all in the same way.

    Distances are symmetric nearest-neighbour distances in px of the image (`metrics.pixel_distances`), all fronts of a
    scene together against all pieces of its reference. Scenes without a found front stay in the table. A method that
    knows no ice is traced by its edge alone, and has no overlap of ice.

    Parameters
    ----------
    samples
        Labelled scenes, no two of one name.
    methods
        By name; the first is the one that others are compared with.
    trace
        Settings of the tracing, the same for all methods.
    trained_on
        Glaciers that a method was trained on, as far as they are known.

    Returns
    -------
    Scores
        `table`: a row a method and scene; `distances` and `lines` by method and scene, in px of the image.

    Raises
    ------
    ValueError
        There is nothing to score, or two samples share a name.

    Examples
    --------
    >>> from calfin_cloud.evaluation import make_methods
    >>> scores = cc.score([sample], make_methods(["sobel"]))
    >>> scores.table.index.tolist()
    [('sobel', 'step')]
    """
    trained_on = trained_on or {}
    scored = [
        (_score_sample(sample, name, method, trace), seen_of(sample.glacier, trained_on.get(name)))
        for sample in samples
        for name, method in methods.items()
    ]
    if not scored:
        raise ValueError("there is nothing to score: name folders that hold image sets, and a method")
    rows = [row | {"seen": seen} for (row, _, _), seen in scored]
    keys = [(row["method"], row["scene"]) for row in rows]
    apart = {key: d for key, ((_, d, _), _) in zip(keys, scored, strict=True) if d is not None}
    lines = {key: of_scene for key, ((_, _, of_scene), _) in zip(keys, scored, strict=True)}
    return _checked(Scores(pd.DataFrame(rows).set_index(["method", "scene"]), apart, lines))


def join_scores(parts: Iterable[Scores]) -> Scores:
    """Join scores of some scenes or methods to those of all: what is then summarised is as if scored in one run."""
    parts = list(parts)
    table = pd.concat([part.table for part in parts])
    distances = {key: apart for part in parts for key, apart in part.distances.items()}
    return _checked(Scores(table, distances, {key: lines for part in parts for key, lines in part.lines.items()}))


def summarise_scores(scores: Scores) -> pd.DataFrame:
    """Summary of each method on all scenes and by glacier, sensor, platform, season, SLC-off, and seen in training.

    Columns `method`, `group`, `value`, those of `metrics.summarise`, the number of false fronts and the rate of scenes
    with a true one, mean overlaps, the number of scenes whose glacier the method was trained on (`n_seen`, NaN where
    that is unknown), and distances in m of the scenes whose scale is known.
    """
    rows = []
    for name, table in scores.table.groupby(level="method", sort=False):
        for group, value, part in _groups(table):
            rows.append({"method": name, "group": group, "value": value} | _summary(part, scores.distances))
    return pd.DataFrame(rows)


def compare_methods(scores: Scores) -> pd.DataFrame:
    """Compare the first method with every other one scene by scene, on all scenes and by glacier, see `compare_paired`.

    Columns `a` (the first method), `b`, `group`, `value` and those of `metrics.compare_paired`.
    """
    first, *others = scores.table.index.unique("method")
    rows = []
    for other in others:
        for group, value, part in _groups(scores.table.loc[first], by=("glacier",)):
            scenes = part.index[part["has_reference"] > 0]
            a, b = (scores.table.loc[name]["mean"].reindex(scenes) for name in (first, other))
            rows.append({"a": first, "b": other, "group": group, "value": value} | compare_paired(a, b))
    return pd.DataFrame(rows)


def score_persistence(samples: Iterable[Sample]) -> Scores:
    """Measure on each labelled scene the front that was drawn for the nearest other date of its glacier.

    Other methods must be nearer than that to be worth their while. Scenes without a date, or without another date on a
    picture of the same size, have none.
    """
    samples = list(samples)
    parts, rows = [], []
    for sample in samples:
        other = _nearest_date(sample, samples)
        line = np.zeros(sample.front.shape, dtype=bool) if other is None else skeletonize(other.front)
        pieces = label(line, connectivity=2)
        lines = [line_of(pieces == number) for number in range(1, pieces.max() + 1)]
        reason = "" if other is not None else "no_other_date"
        row, apart = score_lines(sample, PERSISTENCE, [line] if line.any() else [], reason)
        rows.append(row | {"seen": "no"})
        parts.append(((PERSISTENCE, sample.name), apart, lines))
    table = pd.DataFrame(rows).set_index(["method", "scene"])
    return _checked(Scores(table, {k: a for k, a, _ in parts if a is not None}, {k: lines for k, _, lines in parts}))


def line_of(piece: NDArray[np.bool_]) -> Line:
    """Line (n, 2) x, y in px through the pixels of one piece (y, x)."""
    return extract_line(piece.astype(np.float32))[:, ::-1].astype(float)


def _nearest_date(sample: Sample, samples: Iterable[Sample]) -> Sample | None:
    """Find the labelled scene of the same glacier and frame on the nearest other date; of two the earlier one."""
    when = sample.datetime
    apart = [
        (abs(other.datetime - when), other.datetime, other.name, other)
        for other in samples
        if when is not None
        and other.datetime is not None
        and other.datetime.date() != when.date()
        and other.glacier == sample.glacier
        and other.front.shape == sample.front.shape
        and other.front.any()
    ]
    return min(apart, key=lambda of: of[:3])[3] if apart else None


def _score_sample(
    sample: Sample, name: str, method: Method, trace: TraceSettings
) -> tuple[dict[str, Any], NDArray[np.float64] | None, list[Line]]:
    front, ice, traced = trace_sample(sample, method, trace)
    lines, reference = [f.line for f in traced.fronts], skeletonize(sample.front)
    drawn = [draw_line(np.rint(line[:, ::-1]).astype(np.intp), reference.shape) for line in lines]
    row, apart = score_lines(sample, name, drawn, traced.reason)
    row |= {"equidistant": equidistant(lines, reference), "between_ends": between_ends(front, reference)}
    return row | overlaps(sample, ice), apart, lines


def _shares(part: pd.DataFrame) -> dict[str, float]:
    """Precision, recall and F within each of `WITHIN_M`, pooled over the scenes whose scale is known."""
    scaled = part[part["drawn"].notna()]
    shares: dict[str, float] = {}
    for within in WITHIN_M:
        sums = {name: float(scaled[name].sum()) for name in ("drawn", "known")}
        sums |= {name: float(scaled[f"{name}_{within:.0f}"].sum()) for name in ("drawn_near", "known_near")}
        found = shares_of(sums) if len(scaled) else dict.fromkeys(("precision", "recall", "f"), float("nan"))
        shares |= {f"{name}_{within:.0f}": value for name, value in found.items()}
    return shares


def trace_sample(
    sample: Sample, method: Method, trace: TraceSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, Trace]:
    """Front probability, ice probability where the method knows it, and the fronts; none of a scene that it refuses."""
    try:
        front, ice = method(sample)
    except SceneError as error:
        return np.zeros(sample.image.shape, np.float32), None, Trace((), error.reason, error.message)
    knows_ice = bool((ice != UNKNOWN_ICE).any())
    trace = trace if knows_ice else edge_alone(trace)
    boxes = candidate_boxes(front, ice, front.shape, settings=trace) if trace.window.one_front else NO_BOXES
    return front, ice if knows_ice else None, trace_fronts(front, ice, boxes=boxes, settings=trace)


def edge_alone(trace: TraceSettings) -> TraceSettings:
    """Trace by the clear edge where no ice mask is known: its step asks nothing of a front; all else stays.

    Without the ice mask's step, faint edges would join everything to everything: what is not a network's probability
    is seldom 0.
    """
    line = replace(trace.line, full_contrast=None, faint_threshold=None)
    return replace(trace, line=line, candidate=replace(trace.candidate, min_contrast=0.0))


def seen_of(glacier: str, trained_on: Collection[str] | None) -> str:
    """Say whether a method was trained on a glacier: yes, no, or unknown."""
    if trained_on is None:
        return "unknown"
    return "yes" if glacier in trained_on else "no"


def _groups(table: pd.DataFrame, by: tuple[str, ...] = GROUPS) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Name of a column, its value, rows with it; the whole table first. Rows without a value are in no group."""
    yield "all", "all", table
    for group in by:
        for value, part in table[table[group] != ""].groupby(group):
            yield group, str(value), part


def _summary(part: pd.DataFrame, distances: Mapping[Key, NDArray[np.float64]]) -> dict[str, float]:
    summary = summarise(part, distances)
    referenced = part[part["has_reference"] > 0]
    summary |= {"n_fronts": float(part["n_fronts"].sum()), "n_false": float(part["n_false"].sum())}
    summary["hit_rate"] = float(referenced["hit"].mean()) if len(referenced) else float("nan")
    summary |= {name: float(part[name].mean()) for name in AVERAGED}
    summary |= _shares(part)
    summary["n_seen"] = float((part["seen"] == "yes").sum()) if (part["seen"] != "unknown").all() else float("nan")
    scaled = part[part["pixel_size_m"].notna() & (part["n_points"] > 0)]
    metres = scaled["pixel_size_m"]
    pooled = [distances[key] * size for key, size in metres.items()]  # type: ignore[index]
    points = float(scaled["n_points"].sum())
    return summary | {
        "n_scaled": float(len(scaled)),
        "image_mean_m": float(scaled["mean_m"].mean()),
        "pooled_mean_m": float((scaled["sum"] * metres).sum()) / points if points else float("nan"),
        "pooled_median_m": float(np.median(np.concatenate(pooled))) if pooled else float("nan"),
        "hd95_m": float(scaled["hd95_m"].mean()),
    }


def _checked(scores: Scores) -> Scores:
    twice = scores.table.index[scores.table.index.duplicated()].unique().tolist()
    if twice:
        raise ValueError(f"scenes must have a name of their own, got {twice[:3]} more than once: give each folder once")
    return scores
