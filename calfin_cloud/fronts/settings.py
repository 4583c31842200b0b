"""The constants of tracing, a settings object a step, as values that are saved with the results.

The defaults of each object are those of the release (calfin-method 6.1); `DEFAULT` is what traces fronts where nothing
else is asked for. Lengths are in pixels of a 256 px frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

FRAME = 256
"""Side in px of the frame that all lengths below are meant for; larger images are scaled by their longer side."""


@dataclass(frozen=True)
class LineSettings:
    """From the edge to ordered lines (6.2).

    Attributes
    ----------
    edge_threshold
        Probability above which a pixel belongs to the edge that is thinned to a skeleton.
    faint_threshold
        Fainter pixels belong to the edge too where they touch it; None: they do not.
    path_zero, path_power
        A link of length d is worth z^p - d^p: gaps must be repaid by collected pixels.
    zero_probability
        Edge probability at which a pixel is worth nothing; None counts all pixels alike.
    full_contrast
        Step of the ice mask from which a pixel's probability counts in full, less in proportion; None: always in full.
    max_gap_px
        Longest gap that a line bridges; None bridges what the path weights allow.
    max_width_px
        Widest edge; broader parts are blobs, not lines. None thins whatever there is.
    border_px
        Edges this close to the scene's border or to missing data are not looked at.
    max_lines
        Most lines in a scene, each `apart_px` away from those before it.
    """

    edge_threshold: float = 0.33
    faint_threshold: float | None = None
    path_zero: float = 5.0
    path_power: float = 1.5
    zero_probability: float | None = None
    full_contrast: float | None = None
    max_gap_px: float | None = None
    max_width_px: float | None = None
    border_px: float = 0.0
    max_lines: int = 1
    apart_px: float = 8.0


@dataclass(frozen=True)
class IsolationSettings:
    """From a line to its runs away from the fjord's walls (6.3).

    Attributes
    ----------
    must_return
        A front must lead away from the walls and back; otherwise just away.
    longest_run
        Of the runs of a line through one region take the longest, not the first.
    """

    must_return: bool = True
    longest_run: bool = False


@dataclass(frozen=True)
class WindowSettings:
    """The second pass (6.4, steps 1, 4 and 5).

    Attributes
    ----------
    ratio
        Side of a window as a multiple of the candidate's longer side.
    square
        A window is as narrow as the scene on both sides, if it is on one.
    one_front
        Trace every window in a frame of its own and keep at most one front; otherwise trace the scene as a whole.
    """

    ratio: float = 2.5
    square: bool = True
    one_front: bool = True


@dataclass(frozen=True)
class FilterSettings:
    """What a second-pass window must show before its front is believed (6.4, step 3).

    Attributes
    ----------
    edge_probability, min_edge_px
        The pixels with this much edge, divided by the 3 px of its width, make at least such a length.
    ice_probability, max_land_ratio
        Pixels with this much ice are at most so many times those without.
    min_edge_confidence
        Least mean distance of the edge probability from 1/2, doubled, where there is any edge at all.
    max_imbalance
        Largest difference from 1/2 of the mean ice probability around the edge, away from the walls.
    """

    edge_probability: float = 0.25
    min_edge_px: float = FRAME / 8
    ice_probability: float = 0.5
    max_land_ratio: float = 32.0
    min_edge_confidence: float = 0.525
    max_imbalance: float = 0.13


@dataclass(frozen=True)
class CandidateSettings:
    """What a single line must show; the release asks for nothing here.

    Attributes
    ----------
    min_length_px
        Shortest front.
    min_border_px
        Least median distance to the scene's border and to missing data.
    min_confidence
        Least mean edge probability along a front.
    min_contrast
        Least step of the ice mask (0 to 1) across a front of confidence 1/2; in proportion to 1 - confidence, so that a
        sure edge needs a tenth of it.
    side_px
        Width of the Gaussian through which the ice mask is seen for its step.
    min_share
        Shortest further front of a scene, as a share of its longest.
    """

    min_length_px: float = 0.0
    min_border_px: float = 0.0
    min_confidence: float = 0.0
    min_contrast: float = 0.0
    side_px: float = 10.0
    min_share: float = 0.0


@dataclass(frozen=True)
class VertexSettings:
    """From pixels to vertices (6.5).

    Attributes
    ----------
    fill_gaps
        A bridged gap has a vertex at every pixel, as the rest of the line has; otherwise none.
    smooth_px
        Window of the Savitzky-Golay filter of order 3.
    ridge_px
        Vertices move across the line to the crest of the edge probability, at most so far; 0 leaves them on pixels.
    at_corner
        Pixel indices are upper left corners, as the release has it: half a pixel of the window too far up and left.
    """

    fill_gaps: bool = False
    smooth_px: float = 9.0
    ridge_px: float = 0.0
    at_corner: bool = True


@dataclass(frozen=True)
class GuideSettings:
    """Fronts at a place whose termini are known: the cheapest path across a corridor along one of them.

    Chosen on the ten glaciers of Uummannaq (Sentinel-1, 100 m) and on Harald Moltke Bræ (Landsat 8, 30 m).

    Attributes
    ----------
    width_m, doublings
        Half-width of the first corridor, and how often it is doubled until a path is sure.
    rate_m
        Metres a year that a front may have moved since, beyond the first half-width; no corridor is wider.
    fan_deg
        By how much the ends of the corridor open outwards away from the line, whose ends lie on the fjord's walls.
    smooth_share, smooth_width
        The line is smoothed by a Gaussian of so much of its length, or of the corridor's half-width if that is more.
    cost
        Added to the front probability, whose inverse is the cost of a pixel.
    ridge_px
        Gaussian, in px of a 256 px frame, through which the direction of an edge is seen.
    along_deg, across_deg
        An edge that is turned against the line by less than the first counts in full, by more than the second least.
    least_weight
        What is left of the probability of an edge across the line, or along a wall: soft, for a front may bend.
    faint
        Support below which an end is trimmed.
    credible, least_cover
        Least mean support of a front, and least share of the terminus that it lies beside.
    sure, sure_cover, lean
        From which on no wider corridor is tried, and the share of vertices that may lie on the corridor's border.
    wall_m, wall_span_m, wall_beyond_m, wall_deg
        Ends of termini of several dates, at least `wall_span_m` apart, show a wall, which goes on beyond them; edges
        as near to it and as parallel follow it.
    flank_from, flank_to, flank_m, contrary
        An unseen flank between these shares of the terminus is drawn on at the same distance from it, if the seen part
        still stands within `flank_m` of it and the network sees less than `contrary` there.
    crest_px
        Vertices move to the crest of the probability, at most so far, in px of a 256 px frame.
    """

    width_m: float = 1500.0
    doublings: int = 2
    rate_m: float = 250.0
    fan_deg: float = 35.0
    smooth_share: float = 0.05
    smooth_width: float = 0.3
    cost: float = 0.03
    ridge_px: float = 2.0
    along_deg: float = 35.0
    across_deg: float = 65.0
    least_weight: float = 0.15
    faint: float = 0.25
    credible: float = 0.3
    least_cover: float = 0.5
    sure: float = 0.5
    sure_cover: float = 0.7
    lean: float = 0.03
    wall_m: float = 300.0
    wall_span_m: float = 500.0
    wall_beyond_m: float = 1500.0
    wall_deg: float = 30.0
    flank_from: float = 0.25
    flank_to: float = 0.65
    flank_m: float = 500.0
    contrary: float = 0.15
    crest_px: float = 3.0


@dataclass(frozen=True)
class MapWeights:
    """What maps of ice and ocean are worth for a free trace: an edge far from both is a coast, or lies on land.

    A guided trace does without them: on the same scenes they made it no better.

    Attributes
    ----------
    near_m, far_m
        Distances from glacier ice up to which an edge counts in full, and from which on least.
    open_m
        Out at sea, so far from its coast, it counts in full too: a glacier may have advanced.
    least_weight
        What is left elsewhere.
    """

    near_m: float = 300.0
    far_m: float = 700.0
    open_m: float = 500.0
    least_weight: float = 0.1


@dataclass(frozen=True)
class TraceSettings:
    """What decides a front: the settings of every step. Defaults are CALFIN's release; `fronts.DEFAULT` is what runs.

    Attributes
    ----------
    line
        From the edge to ordered lines.
    isolation
        From a line to its runs away from the walls.
    window
        Windows of the second pass.
    filter
        What a window must show; None lets all pass.
    candidate
        What a line must show.
    vertex
        From pixels to vertices.
    guide
        How known termini guide; None: they do not.
    maps
        What maps of ice and ocean are worth; None: nothing.

    Examples
    --------
    >>> from dataclasses import replace
    >>> settings = cc.TraceSettings()
    >>> replace(settings, line=replace(settings.line, max_gap_px=20.0)).line.max_gap_px
    20.0
    """

    line: LineSettings = field(default_factory=LineSettings)
    isolation: IsolationSettings = field(default_factory=IsolationSettings)
    window: WindowSettings = field(default_factory=WindowSettings)
    filter: FilterSettings | None = field(default_factory=FilterSettings)
    candidate: CandidateSettings = field(default_factory=CandidateSettings)
    vertex: VertexSettings = field(default_factory=VertexSettings)
    guide: GuideSettings | None = None
    maps: MapWeights | None = None


CALFIN = TraceSettings()
"""The release for Landsat: production and validation set (6.1)."""

MOHAJERANI = TraceSettings(
    filter=FilterSettings(min_edge_confidence=0.575, ice_probability=0.25, max_land_ratio=64, max_imbalance=1.0)
)
"""The release for the Landsat scenes of Mohajerani (6.1)."""

ZHANG = TraceSettings(
    window=WindowSettings(ratio=2.25),
    filter=FilterSettings(ice_probability=0.25, max_land_ratio=512, max_imbalance=1.0),
)
"""The release for the TerraSAR-X scenes of Zhang (6.1)."""

BAUMHOER = TraceSettings(
    line=LineSettings(path_zero=10.0, path_power=1.45),
    window=WindowSettings(ratio=1.75),
    filter=FilterSettings(min_edge_confidence=0.575, ice_probability=0.25),
)
"""The release for the Sentinel-1 scenes of Baumhoer (6.1)."""

DEFAULT = TraceSettings(
    line=replace(
        CALFIN.line,
        faint_threshold=0.05,
        zero_probability=0.1,
        full_contrast=0.3,
        max_gap_px=16.0,
        max_width_px=24.0,
        border_px=2.0,
        max_lines=4,
    ),
    isolation=IsolationSettings(must_return=False, longest_run=True),
    window=replace(CALFIN.window, square=False, one_front=False),
    filter=None,
    candidate=CandidateSettings(
        min_length_px=12.0, min_border_px=6.0, min_confidence=0.55, min_contrast=0.2, min_share=0.2
    ),
    vertex=VertexSettings(fill_gaps=True, at_corner=False),
    guide=GuideSettings(),
    maps=MapWeights(),
)
"""Several fronts in a scene, with or without a fjord mask.

Chosen on the images of Kangerlussuaq (optical) and Crane (radar), the limits of length, confidence and contrast on
synthetic scenes too.
"""

VARIANTS = {"default": DEFAULT, "calfin": CALFIN, "mohajerani": MOHAJERANI, "zhang": ZHANG, "baumhoer": BAUMHOER}
"""Settings by name."""
