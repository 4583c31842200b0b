"""The constants of tracing, as values that are saved with the results."""

from __future__ import annotations

from dataclasses import dataclass, replace

FRAME = 256
"""Side in px of the frame that all lengths below are meant for; larger images are scaled by their longer side."""


@dataclass(frozen=True)
class TraceSettings:
    """What decides a front. Lengths are in pixels of a 256 px frame.

    The defaults were chosen on the images of Kangerlussuaq (optical) and Crane (radar), the limits of length,
    confidence and contrast on painted scenes too; `CALFIN` holds the released constants of the path.

    Attributes
    ----------
    edge_threshold
        Probability above which a pixel belongs to the edge that is thinned to a skeleton (calfin-method 6.2).
    max_width_px
        Widest edge; broader parts are blobs, not lines. None thins whatever there is, as the original does.
    path_zero, path_power
        A link of length d is worth z^p - d^p: gaps must be repaid by collected pixels (6.2).
    zero_probability
        Edge probability at which a pixel is worth nothing; None counts all pixels alike, as the original does.
    full_contrast
        Step of the ice mask from which a pixel's probability counts in full, less in proportion; None: always in full.
    max_gap_px
        Longest gap that a front bridges; None bridges what the path weights allow, as the original does.
    must_return
        With a fjord mask, a front must lead away from the walls and back, as in the original; otherwise just away.
    border_px
        Edges this close to the scene's border or to missing data are no fronts, nor are those that run along them
        at up to three times the distance.
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
        Least step of the ice mask (0 to 1) across a front of confidence 1/2; in proportion to 1 - confidence, so that a
        sure edge needs a tenth of it.
    side_px
        Width of the Gaussian through which the ice mask is seen for its step.
    smooth_px
        Window of the Savitzky-Golay filter of order 3 along a front (6.5).
    window_ratio
        Side of a second-pass window as a multiple of the front's longer side (6.4).
    """

    edge_threshold: float = 0.33
    max_width_px: float | None = 16.0
    path_zero: float = 5.0
    path_power: float = 1.5
    zero_probability: float | None = 0.25
    full_contrast: float | None = 0.3
    max_gap_px: float | None = 16.0
    must_return: bool = False
    border_px: float = 2.0
    min_length_px: float = 16.0
    min_share: float = 0.3
    max_fronts: int = 4
    apart_px: float = 8.0
    min_confidence: float = 0.65
    min_contrast: float = 0.2
    side_px: float = 10.0
    smooth_px: float = 9.0
    window_ratio: float = 2.5


CALFIN = TraceSettings(max_width_px=None, zero_probability=None, full_contrast=None, max_gap_px=None, must_return=True)
"""The path of the release: every skeleton pixel counts alike and a gap may have any length (calfin-method 6.1, 6.2)."""

BAUMHOER = replace(CALFIN, path_zero=10.0, path_power=1.45, window_ratio=1.75)
"""The release's path for the radar scenes of Baumhoer (calfin-method 6.1)."""
