"""What is found in a scene: fronts, candidates that were rejected, or the reason why there is no front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.fronts.filters import Objection


@dataclass(frozen=True)
class Front:
    """One calving front in pixels.

    Attributes
    ----------
    line
        (n, 2) x = column, y = row, the centre of the first pixel at (0, 0).
    confidence
        Mean edge probability along the line, 0 to 1.
    traced_by
        "free", or "guided" by a known terminus of the place.
    guide_m
        Mean distance to that terminus in m; NaN where none is known.
    least
        Least edge probability along the line.
    ends
        Why a front at a known terminus ends where it does, on either side: it reaches the end of the corridor, is
        faint beyond, has turned along the fjord, or follows a wall.
    covered
        Length of all fronts of the scene by that of its known termini; NaN where none is known.

    Examples
    --------
    >>> trace = cc.trace_fronts(*step)
    >>> len(trace.fronts), trace.fronts[0].traced_by
    (1, 'free')
    """

    line: NDArray[np.float64]
    confidence: float
    traced_by: str = "free"
    guide_m: float = float("nan")
    least: float = float("nan")
    ends: str = ""
    covered: float = float("nan")


@dataclass(frozen=True)
class Rejected:
    """A candidate that is no front: its `line` as in `Front`, and what was objected."""

    line: NDArray[np.float64]
    objection: Objection


@dataclass(frozen=True)
class Trace:
    """Fronts of a scene in pixels, or why there is none.

    Attributes
    ----------
    fronts
        Of the scene, the longest first.
    reason
        Why there is none, of `schema.REASONS`; empty where there is one.
    detail
        The measured values behind the reason.
    rejected
        Candidates that were turned down, each with its line and what was objected.

    Examples
    --------
    >>> cc.trace_fronts(np.zeros((256, 256)), np.zeros((256, 256))).reason
    'no_edge'
    """

    fronts: tuple[Front, ...]
    reason: str = ""
    detail: str = ""
    rejected: tuple[Rejected, ...] = ()
