"""Labelled scenes in; their traced fronts, free and along the front of another date, with true distances out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import label
from skimage.morphology import skeletonize

from calfin_cloud.datasets import Sample
from calfin_cloud.evaluation.measures import Line
from calfin_cloud.evaluation.methods import Method, folds_method, network_method
from calfin_cloud.evaluation.scores import line_of, trace_sample
from calfin_cloud.evaluation.sequences import SCALE_M
from calfin_cloud.fronts import DEFAULT, Front, Guide, Place, TraceSettings, trace_placed
from calfin_cloud.fronts.lines import length_of, scale_of
from calfin_cloud.fronts.uncertainty import front_features, vertex_features
from calfin_cloud.network import InferenceSettings, training_glaciers
from calfin_cloud.termini import DAYS_A_YEAR

LEAST_DAYS = 365
"""A front drawn so long before or after a scene stands for a terminus that is known beforehand."""

LEAST_PX = 10.0
"""Length in px of a 256 px frame from which a drawn piece is a terminus."""

Floats = NDArray[np.float64]


class Case(NamedTuple):
    """One traced front of a labelled scene.

    `seen`: whether the network was trained on its glacier; `features`: (n, feature) of its vertices; `distances`: (n,)
    to the nearest hand-drawn pixel, in px of a 256 px frame; `whole`: `fronts.uncertainty.FRONT_FEATURES`; `apart`: its
    symmetric mean distance, that of a front which its scene's other fronts leave a part of the reference to; `guided`:
    whether it was traced along a known terminus.
    """

    scene: str
    glacier: str
    seen: bool
    features: Floats
    distances: Floats
    whole: Floats
    apart: float
    guided: bool = False


def make_cases(
    samples: Iterable[Sample],
    network: str,
    *,
    folds: Path | str | None = None,
    trace: TraceSettings = DEFAULT,
    settings: InferenceSettings | None = None,
    known: Mapping[str, Sequence[Guide]] | None = None,
) -> list[Case]:
    """Map and trace labelled scenes with a network, given by name or path, and measure every front's vertices.

    Fronts are traced as they are scored, without a fjord mask; scenes with termini in `known` (`known_termini`) once
    more along these. Glaciers of an unknown training count as not seen. With `folds`, a folder of `training.fit_folds`,
    those that the network was trained on are mapped by the one of the same recipe that has not seen them.

    Raises
    ------
    ValueError
        The folder has no network without such a glacier.
    """
    trained_on = training_glaciers(network) or frozenset()
    of_known = of_others = network_method(network, trace=trace, settings=settings)
    if folds is not None:
        of_known = folds_method(folds, trace=trace, settings=settings)
    cases: list[Case] = []
    for sample in samples:
        is_known = sample.glacier in trained_on
        method = of_known if is_known else of_others
        guides = (known or {}).get(sample.name, ())
        cases += cases_of(sample, method, seen=is_known and folds is None, trace=trace, guides=guides)
    return cases


def cases_of(
    sample: Sample,
    method: Method,
    *,
    seen: bool,
    trace: TraceSettings = DEFAULT,
    guides: Sequence[Guide] = (),
) -> Iterator[Case]:
    """Yield the fronts that a method gives of one labelled scene; none of one refused or without a known ice mask.

    With `guides` those follow that are traced along them.
    """
    reference = np.argwhere(skeletonize(sample.front))
    if not len(reference):
        return
    front, ice, traced = trace_sample(sample, method, trace)
    if ice is None:
        return
    ways = [traced.fronts]
    if guides:
        placed = trace_placed(front, ice, place=Place(tuple(guides)), settings=trace)
        ways.append(placed.fronts)
    for guided, fronts in enumerate(ways):
        for n, measured in enumerate(_measured(fronts, reference, front, ice)):
            if not guided or fronts[n].traced_by == "guided":
                yield Case(sample.name, sample.glacier, seen, *measured, bool(guided))


def known_termini(samples: Iterable[Sample]) -> dict[str, tuple[Guide, ...]]:
    """Termini of labelled scenes, by scene: the fronts drawn of the same glacier and frame a year before or after.

    The nearest date guides; all others a year away say where fjord walls are. Scenes without such a date have none.
    """
    dated = [sample for sample in samples if sample.datetime is not None and sample.front.any()]
    lines = {sample.name: _pieces(sample) for sample in dated}
    known: dict[str, tuple[Guide, ...]] = {}
    for sample in dated:
        others = [
            (abs((other.datetime - sample.datetime).days), other.name)  # type: ignore[operator]
            for other in dated
            if other.glacier == sample.glacier and other.front.shape == sample.front.shape and lines[other.name]
        ]
        away = sorted(other for other in others if other[0] >= LEAST_DAYS)
        if away:
            (days, nearest), *rest = away
            further = tuple(line for _, name in rest for line in lines[name])
            metres = sample.pixel_size_m or SCALE_M
            known[sample.name] = tuple(
                Guide(line, _near(line, further), days / DAYS_A_YEAR, metres) for line in lines[nearest]
            )
    return known


def _pieces(sample: Sample) -> list[Line]:
    """Lines (n, 2) x, y in px of the pieces of a drawn front."""
    pieces = label(skeletonize(sample.front), connectivity=2)
    lines = [line_of(pieces == number) for number in range(1, pieces.max() + 1)]
    return [line for line in lines if len(line) >= LEAST_PX * scale_of(sample.front.shape)]


def _near(line: Line, others: Sequence[Line]) -> tuple[Line, ...]:
    """Lines of other dates that belong to the same terminus: their middles are within its length, as in a domain."""
    middle, length = line.mean(axis=0), length_of(line)
    return tuple(other for other in others if float(np.hypot(*(other.mean(axis=0) - middle))) < length)


def _measured(
    fronts: Sequence[Front], reference: NDArray[np.intp], front: NDArray[np.float32], ice: NDArray[np.float32]
) -> Iterator[tuple[Floats, Floats, Floats, float]]:
    """Yield features and distances of the vertices of each front of a scene, and those of the whole front."""
    nearest, scale, lines = cKDTree(reference), scale_of(front.shape), [found.line for found in fronts]
    back = np.array([cKDTree(line[:, ::-1]).query(reference)[0] for line in lines]) / scale
    for n, line in enumerate(lines):
        distances = nearest.query(line[:, ::-1])[0] / scale
        of_vertices = vertex_features(line, front, ice)
        whole = front_features(of_vertices, line, front, [*lines[:n], *lines[n + 1 :]], fronts[n].covered)
        apart = float(np.concatenate([distances, back[n][back.argmin(axis=0) == n]]).mean())
        yield of_vertices, distances, whole, apart
