"""Scores go in; `scores.csv`, `scores.json`, a readable `scores.md` and pictures of the worst scenes come out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skimage.morphology import skeletonize

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.measures import REACH_PX
from calfin_cloud.evaluation.methods import eight_bit
from calfin_cloud.evaluation.scores import Scores, compare_methods, summarise_scores
from calfin_cloud.figures.scores import Picture, scores_png
from calfin_cloud.whole_files import write_whole_file

N_WORST = 10
DIGITS = 4
SECTIONS = ("all", "glacier", "sensor", "season", "slc_off")
"""Groups of the summary that are printed; all are in the JSON."""

DEFINITIONS = {
    "distance": "symmetric nearest-neighbour distance in px of the image (Cheng et al. 2021), no fjord mask; all "
    "fronts of a scene against all pieces of its reference; in m where the scale is known",
    "image": "mean or median over images of their mean distance; pooled: over all points of all images; HD95: mean "
    "over images of the 95th percentile",
    "found": "images with a front among those that have one; the others stay in the table, leave the distances, and "
    "are infinitely far in the median of all",
    "true": f"images with a front most of which lies within {REACH_PX:g} px of a 256 px frame of the reference; other "
    "fronts are false",
    "equidistant": "mean distance in px of 1000 points of equal index (Mohajerani et al. 2019) where the reference is "
    "one piece, here without a cut at the fjord walls: it decides nothing",
    "between ends": "mean distance in px of the cheapest path through the front probability from end to end of each "
    "piece of the reference: what a method is worth where the fjord walls are known",
    "overlaps": "front IoU of lines 3 px wide, a missed front has 0; ice IoU of the thresholded mask; CALFIN's: mean "
    "probability inside the true ice, blind to ocean taken for ice",
    "ice": "a method that knows no ice is traced by its edge alone, with the same limits but that on the step of the "
    "ice mask",
    "persistence": "the front drawn for the nearest other date of the glacier, scored like a method, which others must "
    "beat to be worth their while",
    "reconciled": "fronts that all dates of a glacier together support (`calfin reconcile`), of the method's own masks",
    "precision, recall": "share of the drawn length within 150 m and 300 m of the reference, and of the reference so "
    "near to what is drawn, pooled over images whose scale is known, missed fronts among them; F: their harmonic mean",
    "intervals": "95 %, bootstrap over images",
    "seen": "images whose glacier the method was trained on; its figures there are no test of it",
}


def write_scores(
    scores: Scores, samples: Iterable[Sample], out: str | Path, *, about: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Write all scores into a folder, and return the path of the readable table.

    `scores.csv` has a row a scene and method, `scores.json` the definitions, the methods, the summary and their paired
    comparison, `scores.md` the same to read, `worst.png` the ten worst scenes of the first method.

    Parameters
    ----------
    scores
        What `score` returns.
    samples
        Those that were scored, for the pictures.
    out
        Folder to write into; it is made.
    about
        What is to be said of each method by name, such as `describe_methods` gives.

    Returns
    -------
    Path
        `scores.md`.

    Raises
    ------
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> from calfin_cloud.evaluation import make_methods
    >>> cc.write_scores(cc.score([sample], make_methods(["sobel"])), [sample], "scores").name
    'scores.md'
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    summary, paired, worst = summarise_scores(scores), compare_methods(scores), worst_scenes(scores)
    write_whole_file(out / "scores.csv", scores.table.reset_index().to_csv(index=False))
    written = {
        "definitions": DEFINITIONS,
        "methods": dict(about or {}),
        "summary": _records(summary),
        "paired": _records(paired),
        "worst": _records(worst),
    }
    write_whole_file(out / "scores.json", json.dumps(written, indent=1, allow_nan=False) + "\n")
    by_name = {sample.name: sample for sample in samples}
    pictures = [_picture(row, by_name[row["scene"]], scores) for _, row in worst.iterrows()]
    if pictures:
        write_whole_file(out / "worst.png", scores_png(pictures))
    path = out / "scores.md"
    write_whole_file(path, _markdown(summary, paired, worst, dict(about or {})))
    return path


def worst_scenes(scores: Scores, n: int = N_WORST) -> pd.DataFrame:
    """Worst scenes of the first method: missed fronts and fronts where there is none, then the largest distances."""
    method = scores.table.index.unique("method")[0]
    table = scores.table.loc[method].reset_index()
    wrong = table["mean"].fillna(np.inf).where((table["has_reference"] > 0) | (table["found"] > 0))
    order = wrong.dropna().sort_values(ascending=False, kind="stable").index[:n]
    worst = table.loc[order, ["scene", "glacier", "date", "n_fronts", "n_false", "reason", "mean", "hd95"]]
    worst.insert(0, "method", method)
    return pd.DataFrame(worst.reset_index(drop=True))


def _picture(row: pd.Series, sample: Sample, scores: Scores) -> Picture:
    apart = "no front found: " + str(row["reason"]) if np.isnan(row["mean"]) else f"{row['mean']:.1f} px"
    lines = scores.lines[(str(row["method"]), sample.name)]
    return Picture(f"{apart}  {sample.name}", eight_bit(sample.image), lines, skeletonize(sample.front))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table for JSON, which knows neither NaN nor infinity."""
    return [
        {
            str(name): (round(value, DIGITS) if np.isfinite(value) else None) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def _markdown(
    summary: pd.DataFrame, paired: pd.DataFrame, worst: pd.DataFrame, about: Mapping[str, Mapping[str, Any]]
) -> str:
    parts = ["# Scores", "\n".join(f"* {name}: {text}." for name, text in DEFINITIONS.items())]
    if about:
        rows = [[name, of["weights"] or "none", _glaciers(of["trained_on"])] for name, of in about.items()]
        parts += ["## Methods", _table(["method", "weights", "trained on"], rows)]
    for group in SECTIONS:
        part = summary[summary["group"] == group].sort_values("value", kind="stable")
        parts += [
            "## All scenes" if group == "all" else f"## By {group.replace('_', '-')}",
            _table(["", "method", *COLUMNS], [[r["value"], r["method"], *_cells(r)] for _, r in part.iterrows()]),
        ]
    if len(paired):
        parts += ["## Paired, image by image", _table(PAIRED, [_paired_cells(row) for _, row in paired.iterrows()])]
    columns = ["scene", "fronts (false)", "mean px", "HD95 px", "reason"]
    rows = [
        [r["scene"], f"{r['n_fronts']:.0f} ({r['n_false']:.0f})", _number(r["mean"]), _number(r["hd95"]), r["reason"]]
        for _, r in worst.iterrows()
    ]
    parts += [f"## Worst scenes of {worst['method'].iloc[0]}" if len(worst) else "## No scene is wrong"]
    return "\n\n".join([*parts, _table(columns, rows)]) + "\n"


COLUMNS = (
    "found",
    "true",
    "false fronts",
    "image mean px",
    "image median px (of all)",
    "pooled mean px",
    "pooled median px",
    "HD95 px",
    "image mean, pooled median, HD95 m",
    "precision, recall, F within 150 m",
    "precision, recall, F within 300 m",
    "equidistant px",
    "between ends px",
    "front IoU",
    "ice IoU (CALFIN's)",
    "seen in training",
)

PAIRED = (
    "methods",
    "on",
    "found by both",
    "only by the first",
    "only by the second",
    "by neither",
    "difference of image means px",
    "relative",
    "first is closer in",
)


def _cells(row: pd.Series) -> list[str]:
    metres = [_number(row[name], 0) for name in ("image_mean_m", "pooled_median_m", "hd95_m")]
    return [
        f"{row['n_found']:.0f} of {row['n_referenced']:.0f}",
        f"{row['hit_rate']:.0%}" if row["n_referenced"] else "",
        f"{row['n_false']:.0f} of {row['n_fronts']:.0f}",
        _with_interval(row, "image_mean"),
        f"{_with_interval(row, 'image_median')}; {_number(row['image_median_all'])}",
        _with_interval(row, "pooled_mean"),
        _with_interval(row, "pooled_median"),
        _with_interval(row, "hd95", 1),
        " / ".join(metres) if row["n_scaled"] else "",
        *(_shares(row, within) for within in (150, 300)),
        _number(row["equidistant"]),
        _number(row["between_ends"]),
        _number(row["front_iou"], 3),
        f"{_number(row['ice_iou'], 3)} ({_number(row['soft_ice_iou'], 3)})" if row["ice_iou"] > 0 else "",
        "unknown" if np.isnan(row["n_seen"]) else f"{row['n_seen']:.0f} of {row['n_scenes']:.0f}",
    ]


def _shares(row: pd.Series, within: int) -> str:
    """Precision, recall and F; precision has a dash where nothing is drawn, all are blank where no scale is known."""
    values = [_number(row[f"{name}_{within}"]) or "–" for name in ("precision", "recall", "f")]
    return " / ".join(values) if set(values) != {"–"} else ""


def _paired_cells(row: pd.Series) -> list[str]:
    counts = [f"{row[name]:.0f}" for name in ("n_both", "only_a", "only_b", "neither")]
    relative = [f"{100 * row[name]:+.0f}" for name in ("relative", "relative_low", "relative_high")]
    return [
        f"{row['a']} − {row['b']}",
        str(row["value"]),
        *counts,
        _with_interval(row, "difference"),
        f"{relative[0]} % ({relative[1]} to {relative[2]})" if np.isfinite(row["relative_low"]) else "",
        f"{row['a_is_closer']:.0f} of {row['n_scenes']:.0f}",
    ]


def _with_interval(row: pd.Series, name: str, digits: int = 2) -> str:
    value, low, high = (_number(row[f"{name}{end}"], digits) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})" if low else value


def _number(value: float, digits: int = 2) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.{digits}f}" if np.isfinite(value) else "missed"


def _glaciers(names: Iterable[str] | None) -> str:
    return "unknown" if names is None else ", ".join(names) or "nothing"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(columns)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
