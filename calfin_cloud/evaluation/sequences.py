"""Dated labelled images of a glacier in one frame: what their fronts are when all dates are asked, scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.measures import score_lines
from calfin_cloud.evaluation.methods import Method
from calfin_cloud.evaluation.scores import Scores, seen_of, trace_sample
from calfin_cloud.fronts import (
    DEFAULT,
    Chosen,
    Dated,
    SequenceSettings,
    TraceSettings,
    draw_line,
    reconcile_scenes,
)
from calfin_cloud.schema import from_levels, to_levels

SCALE_M = 100.0
"""Side of a pixel where the scale of a set is lost, such as of caffe256: it decides how far a front may have moved."""


def score_sequences(
    samples: Iterable[Sample],
    name: str,
    method: Method,
    *,
    trace: TraceSettings = DEFAULT,
    settings: SequenceSettings | None = None,
    trained_on: Collection[str] | None = None,
) -> Scores:
    """Score the fronts that `fronts.reconcile_scenes` chooses of all dated images of each glacier, as `name`.

    Images of a glacier are one sequence where they have the same size, since then they have the same frame in the known
    sets. Those without a date are left out.

    Raises
    ------
    ValueError
        No image has a date.
    """
    sequences: dict[tuple[str, tuple[int, ...]], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.datetime is not None:
            sequences[sample.glacier, sample.image.shape].append(sample)
    rows, distances, lines = [], {}, {}
    for (glacier, _), of_glacier in sequences.items():
        ordered = sorted(of_glacier, key=lambda sample: (sample.datetime, sample.name))
        for sample, chosen in zip(ordered, _reconciled(ordered, method, trace, settings), strict=True):
            found = [c.front.line for c in chosen if c.front is not None]
            drawn = [draw_line(np.rint(line[:, ::-1]).astype(np.intp), sample.front.shape) for line in found]
            reason = "" if found else "out_of_sequence" if chosen else "no_front"
            row, apart = score_lines(sample, name, drawn, reason)
            rows.append(row | {"seen": seen_of(glacier, trained_on)})
            lines[name, sample.name] = found
            if apart is not None:
                distances[name, sample.name] = apart
    if not rows:
        raise ValueError("no image has a date, so there is no sequence: give sets with dates in their names")
    return Scores(pd.DataFrame(rows).set_index(["method", "scene"]), distances, lines)


def _reconciled(
    samples: Sequence[Sample], method: Method, trace: TraceSettings, settings: SequenceSettings | None
) -> list[list[Chosen]]:
    """Trace each image of a sequence by itself, then ask all of them."""
    masks: list[NDArray[Any]] = []
    dated = []
    for sample in samples:
        front, ice, traced = trace_sample(sample, method, trace)
        ice = np.full_like(front, np.nan) if ice is None else ice
        masks.append(np.stack([to_levels(front), to_levels(ice)]))
        when = sample.datetime.date()  # type: ignore[union-attr]
        dated.append(Dated(when, [f.line for f in traced.fronts], [r.line for r in traced.rejected]))
    metres = samples[0].pixel_size_m or SCALE_M
    return reconcile_scenes(dated, lambda n: from_levels(masks[n]), metres, settings=settings, trace=trace)
