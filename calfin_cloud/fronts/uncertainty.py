"""A traced front and its masks in; how far off each vertex and the front may be, how good it is, and why, out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates, uniform_filter1d
from scipy.special import expit

from calfin_cloud.fronts.ice_contrast import ice_step, step_at
from calfin_cloud.fronts.lines import length_of, normals_of, scale_of
from calfin_cloud.resampling import distance_inside
from calfin_cloud.whole_files import read_json, write_whole_file

FEATURES = {
    "faint": "the edge is faint",
    "wide": "the edge is wide, or another runs beside it",
    "flat": "the ice mask has no sharp step",
    "haze": "the edge around it is undecided",
    "end": "much of it lies near its ends",
    "corner": "it turns a corner, as where a front meets a coast",
}
"""What raises the doubt about a vertex: name, and what is said of a front that has much of it."""

FRONT_FEATURES = FEATURES | {
    "left": "an edge is seen elsewhere that no front follows",
    "short": "all fronts together are shorter than the known terminus",
}
"""The same of a whole front, and what tells that a flank, or a tributary, is missing."""

ALONG_PX = 15  # lengths in px of a 256 px frame: to both sides of a vertex along the line
WIDTH_PX, HAZE_PX = 20, 30  # to both sides across the line
NEAR_END_PX = 10.0
FOLLOWED_PX, EDGE_PX = 8, 3  # an edge so near to a front is followed by it; width of an edge
REACH = 1.5  # lengths of a front, beyond which an edge says nothing of it: a scene may be of any size
STEP_PX = 4.0  # of the Gaussian through which the ice mask is seen
DIRECTION_PX, COURSE_PX = 2.0, 5.0  # of the Gaussians through which a line is seen for its direction and its corners
LEAST_COVERED = 0.05  # of a terminus; what is shorter is as doubtful
LEAST = 1e-4  # probability of an edge anywhere, so that a vertex without one has the greatest width
WORTH_SAYING = 1.1  # factor on the expected distance below which a feature is no reason


@dataclass(frozen=True)
class Level:
    """From features to half-widths, of vertices or of whole fronts; half-widths in px of a 256 px frame.

    Those of vertices are one-way distances to the truth, those of fronts the mean of both ways: from the front to the
    truth, and from what of the truth is nearest to this front, of all fronts of its scene, to the front.

    Attributes
    ----------
    weights
        Of each of `FEATURES`, or of `FRONT_FEATURES`, none negative: none of them makes a front surer.
    good
        Mean of each feature where the calibration's fronts were good, beside which reasons are told.
    constant
        Added to the weighted sum: the `doubt`, on the scale of the logarithm of a distance.
    doubts, half68, half95
        Half-widths that held the truth in 68 % and 95 % of the cases of such a doubt; linear in between in their
        logarithms, the outermost ones beyond.
    """

    weights: tuple[float, ...]
    good: tuple[float, ...]
    constant: float
    doubts: tuple[float, ...]
    half68: tuple[float, ...]
    half95: tuple[float, ...]

    def doubt(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Doubt (...) of features (..., feature)."""
        return np.asarray(features @ np.array(self.weights) + self.constant, dtype=np.float64)

    def half_widths(self, doubt: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """68 % and 95 % half-widths of each doubt."""
        sure, wide = (np.exp(np.interp(doubt, self.doubts, np.log(h))) for h in (self.half68, self.half95))
        return sure, wide


@dataclass(frozen=True)
class Calibration:
    """What the uncertainty of one network's fronts is read from.

    Attributes
    ----------
    network
        Name and hash of its weights (`network.network_id`).
    vertex, front
        Of single vertices, and of a front's symmetric mean distance.
    good_px, slope, offset
        The score is the probability that a front's symmetric mean distance is below `good_px`: logistic(offset -
        slope * doubt).
    about
        What it was made from: glaciers, numbers of fronts.
    guided
        The same of fronts that were traced along a known terminus; None where they are calibrated as all others.
    """

    network: str
    vertex: Level
    front: Level
    good_px: float
    slope: float
    offset: float
    about: dict[str, Any]
    guided: Calibration | None = None

    def of(self, traced_by: str) -> Calibration:
        """Calibration of fronts that were traced so: along a terminus or fronts of other dates, or `free`."""
        return self.guided if self.guided and traced_by != "free" else self

    def score(self, doubt: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score, 0 to 1, of each doubt about a front."""
        return np.asarray(expit(self.offset - self.slope * doubt))


class Uncertainty(NamedTuple):
    """How far a front may be off, in px of the image; all NaN without a calibration.

    `vertex_sigma_px`: (n,) half-widths that hold the truth in 68 % of the cases; `sigma_px`, `half95_px`: those that do
    in 68 % and 95 % of them for the front's symmetric mean distance; `score`: 0 to 1, comparable across sensors;
    `reasons`: what raises the doubt above that about good fronts, empty if nothing does.
    """

    vertex_sigma_px: NDArray[np.float64]
    sigma_px: float
    half95_px: float
    score: float
    reasons: str


def uncertainty_of(
    line: NDArray[np.floating],
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    calibration: Calibration | None,
    *,
    others: Sequence[NDArray[np.floating]] = (),
    traced_by: str = "free",
    covered: float = float("nan"),
) -> Uncertainty:
    """Tell how sure a front (n, 2) x, y in px is, from the masks (y, x) that it was traced from; NaN = missing.

    `others` are the further fronts of the scene: an edge that they follow is not missing. A front `traced_by` a known
    terminus, `guided`, is surer than a `free` one of the same looks; less so where the fronts of the scene are only
    `covered` times as long as its known termini.
    """
    if calibration is None:
        return Uncertainty(np.full(len(line), np.nan), np.nan, np.nan, np.nan, "")
    calibration = calibration.of(traced_by)
    features, scale = vertex_features(line, front, ice), scale_of(front.shape)
    of_front = front_features(features, line, front, others, covered)
    doubt = calibration.front.doubt(of_front)
    vertex_sigma, _ = calibration.vertex.half_widths(calibration.vertex.doubt(features))
    sigma, half95 = calibration.front.half_widths(doubt)
    return Uncertainty(
        vertex_sigma * scale,
        float(sigma * scale),
        float(half95 * scale),
        float(calibration.score(doubt)),
        reasons_of(of_front, calibration.front),
    )


def reasons_of(features: NDArray[np.floating], level: Level) -> str:
    """Say what makes a front worse than good ones, the costliest first, and by which factor the expected distance."""
    factors = np.exp(np.array(level.weights) * (features - np.array(level.good)))
    words = list(FRONT_FEATURES.values())
    costly = [i for i in np.argsort(-factors) if factors[i] >= WORTH_SAYING]
    return "; ".join(f"{words[i]} (×{factors[i]:.1f})" for i in costly)


def front_features(
    of_vertices: NDArray[np.floating],
    line: NDArray[np.floating],
    front: NDArray[np.floating],
    others: Sequence[NDArray[np.floating]] = (),
    covered: float = float("nan"),
) -> NDArray[np.float64]:
    """`FRONT_FEATURES` (feature,) of a front (n, 2) x, y: the mean of those of its vertices, what is left, what lacks.

    `left` is the length of the edge in the front mask (y, x) that no front of the scene follows, within `REACH` lengths
    of the line, as a share of its length, as log(1 + share). `short` is log(1 / `covered`), where the fronts of a scene
    are shorter than its known termini, else 0.
    """
    scale = scale_of(front.shape)
    length = max(length_of(line), 1.0)
    apart = from_line = distance_inside(undrawn([line, *others], front.shape))
    if others:
        from_line = distance_inside(undrawn([line], front.shape))
    is_left = (apart > FOLLOWED_PX * scale) & (from_line < REACH * length)
    unseen = float(np.nan_to_num(front[is_left]).sum()) / (EDGE_PX * scale)
    short = 0.0 if np.isnan(covered) else -np.log(np.clip(covered, LEAST_COVERED, 1))
    return np.append(of_vertices.mean(axis=0), [np.log1p(unseen / length), short])


def undrawn(lines: Sequence[NDArray[np.floating]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels (y, x) that none of the lines (n, 2) x, y runs through."""
    free = np.ones(shape, dtype=np.uint8)
    cv2.polylines(free, [np.rint(line).astype(np.int32) for line in lines], isClosed=False, color=0)
    return free.view(np.bool_)


def vertex_features(
    line: NDArray[np.floating], front: NDArray[np.floating], ice: NDArray[np.floating]
) -> NDArray[np.float64]:
    """`FEATURES` (n, feature) of the vertices (n, 2) x, y of a line, from the masks (y, x) that it was traced from.

    They are measured every px of a 256 px frame along the line, so that they do not depend on where its vertices lie.

    Raises
    ------
    ValueError
        The line has fewer than two vertices, or the masks differ in shape.
    """
    if line.ndim != 2 or line.shape[1:] != (2,) or len(line) < 2 or front.shape != ice.shape:
        raise ValueError(
            f"a line (n, 2) of two or more vertices and masks of one shape are needed, got {line.shape}, {front.shape} "
            f"and {ice.shape}: give a traced front with its masks"
        )
    scale = scale_of(front.shape)
    course = np.asarray(line, dtype=float)[:, ::-1] / scale
    at = np.append(0, np.cumsum(np.hypot(*np.diff(course, axis=0).T)))
    even = np.linspace(0, at[-1], max(int(at[-1]) + 1, 2))
    points = np.column_stack([np.interp(even, at, axis) for axis in course.T])
    measured = _across(points, front, scale) | _course(points, even) | {"flat": _flat(points, ice, scale)}
    return np.column_stack([np.interp(at, even, measured[name]) for name in FEATURES])


def calibration_beside(weights: Path | str) -> Path:
    """Path of the calibration of a weights file: `<name>.calibration.json` beside it."""
    path = Path(weights)
    return path.with_name(f"{path.name.split('.')[0]}.calibration.json")


def write_calibration(path: Path | str, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    write_whole_file(path, json.dumps(asdict(calibration), indent=1) + "\n")


def read_calibration(path: Path | str, *, network: str) -> Calibration | None:
    """Read the calibration of a network (`name@hash`); None where there is no such file.

    Raises
    ------
    ValueError
        It is no calibration, or was made for other weights or of other features: its intervals would hold nothing.
    """
    if not Path(path).is_file():
        return None
    try:
        calibration = _calibration(read_json(path))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no calibration ({error}): calibrate anew, or remove the file") from error
    n_weights = [len(level.weights) for level in (calibration.vertex, calibration.front)]
    expected = [len(FEATURES), len(FRONT_FEATURES)]
    if calibration.network != network or n_weights != expected:
        raise ValueError(
            f"{path} must be made for {network} with {expected} features of vertices and fronts, got "
            f"{calibration.network} with {n_weights}: calibrate these weights anew, or remove the file"
        )
    return calibration


def _calibration(stored: dict[str, Any]) -> Calibration:
    values = stored | {name: _level(stored[name]) for name in ("vertex", "front")}
    guided = stored.get("guided")
    return Calibration(**(values | {"guided": _calibration(guided) if guided else None}))


def _level(stored: dict[str, Any]) -> Level:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return Level(**values)


def _across(points: NDArray[np.float64], front: NDArray[np.floating], scale: float) -> dict[str, NDArray[np.float64]]:
    """Measure the edge probability across a line: points (m, 2) row, column, 1 px of a 256 px frame apart."""
    offsets = np.arange(-HAZE_PX, HAZE_PX + 1)
    places = (points[:, None] + offsets[:, None] * normals_of(points, DIRECTION_PX)[:, None]) * scale
    edge = map_coordinates(np.where(np.isnan(front), 0, front), np.moveaxis(places, -1, 0), order=1, mode="constant")
    near = np.abs(offsets) <= WIDTH_PX
    mass = edge[:, near] + LEAST
    return {
        "faint": 1 - uniform_filter1d(edge[:, HAZE_PX], 2 * ALONG_PX + 1, mode="nearest"),
        "wide": np.log((mass * offsets[near] ** 2).sum(axis=1) / mass.sum(axis=1)) / 2,
        "haze": np.full(len(points), np.minimum(edge, 1 - edge).mean()),
    }


def _course(points: NDArray[np.float64], even: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Measure how near the ends are, and the sharpest turn (radians a px) between each point and the middle."""
    along = np.gradient(gaussian_filter1d(points, COURSE_PX, axis=0, mode="nearest"), axis=0)
    turn = np.abs(np.gradient(np.unwrap(np.arctan2(along[:, 0], along[:, 1]))))
    middle = len(turn) // 2
    before, after = np.maximum.accumulate(turn[middle::-1])[::-1], np.maximum.accumulate(turn[middle:])
    return {
        "end": np.exp(-np.minimum(even, even[-1] - even) / NEAR_END_PX),
        "corner": np.append(before, after[1:]),
    }


def _flat(points: NDArray[np.float64], ice: NDArray[np.floating], scale: float) -> NDArray[np.float64]:
    """How much the ice mask's step across the line falls short of one from 1 to 0."""
    places = points * scale
    step = (step_at(ice_step(ice, STEP_PX, around=places), places) * normals_of(points, DIRECTION_PX)).sum(axis=1)
    return np.asarray(1 - np.minimum(np.abs(step), 1))
