"""The constants of tracing, as values that are saved with the results."""

from __future__ import annotations

from dataclasses import dataclass

FRAME = 256
"""Side in px of the frame that all lengths below are meant for; other sizes are scaled by their longer side."""


@dataclass(frozen=True)
class TraceSettings:
    """What decides a front. Lengths are in pixels of a 256 px frame.

    Attributes
    ----------
    edge_threshold
        Probability above which a pixel belongs to the edge that is thinned to a skeleton (calfin-method 6.2).
    path_zero, path_power
        A link of length d is worth z^p - d^p: gaps must be repaid by collected pixels (6.2).
    zero_probability
        Edge probability at which a pixel is worth nothing; None counts all pixels alike, as the original does.
    max_gap_px
        Longest gap that a front bridges; None bridges what the path weights allow, as the original does.
    border_px
        Edges this close to the scene's border or to missing data are no fronts.
    min_length_px
        Shortest front.
    min_share
        Shortest further front of a scene, as a share of its longest.
    max_fronts
        Most fronts in a scene.
    apart_px
        Least distance between two fronts of a scene.
    min_confidence
        Least mean edge probability along a front.
    min_contrast
        Least difference of the ice mask between the two sides of a front.
    side_px
        How far to either side of a front the ice mask is read.
    smooth_px
        Window of the Savitzky-Golay filter of order 3 along a front (6.5).
    window_ratio
        Side of a second-pass window as a multiple of the front's longer side (6.4).
    """

    edge_threshold: float = 0.33
    path_zero: float = 5.0
    path_power: float = 1.5
    zero_probability: float | None = 0.25
    max_gap_px: float | None = 16.0
    border_px: float = 2.0
    min_length_px: float = 12.0
    min_share: float = 0.3
    max_fronts: int = 4
    apart_px: float = 8.0
    min_confidence: float = 0.5
    min_contrast: float = 0.15
    side_px: float = 6.0
    smooth_px: float = 9.0
    window_ratio: float = 2.5
