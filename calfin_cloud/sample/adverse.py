"""A case's name and a number in; one synthetic scene of conditions that are hard for a network out, with its front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from calfin_cloud.sample.drawing import Glacier, Kind, Look, draw_glacier, draw_look
from calfin_cloud.sample.painting import SyntheticScene, paint, pixel_grid, with_clouds

ADVERSE_SEED = 2024
"""First part of the seed of every scene: the sets are the same for ever, and no training draws from it."""

SHAPE = (320, 320)
"""Rows and columns of a scene."""

Rng = np.random.Generator
Conditions = Callable[[Glacier, Look, Rng], tuple[Glacier, Look]]


@dataclass(frozen=True)
class _Case:
    """What an adverse case is painted with; `cover` is the share of clouds."""

    kind: Kind
    change: Conditions
    pixel_m: tuple[float, float] = (15.0, 60.0)
    cover: tuple[float, float] | None = None


def _shadow(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """Lower the sun: steep shading, little snow on dark rock, the sun behind the glacier in half of the scenes."""
    behind = glacier.angle + np.pi + rng.uniform(-0.5, 0.5)
    return glacier, replace(look, relief=rng.uniform(1.8, 3.0), sun=behind if rng.random() < 0.5 else look.sun)


def _unclear(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """No cliff, and a sea of floes nearly as bright as the glacier."""
    sea_ice = look.ice * rng.uniform(0.8, 1.0)
    return glacier, replace(look, cliff=0.0, sea_ice=sea_ice, bergs=rng.uniform(0.3, 0.7), crevasses=0.3)


def _tongue(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """Let an ice tongue float: the middle of the front far ahead of its ends, in a fjord that opens."""
    return replace(glacier, opening=rng.uniform(0.8, 2.0)), replace(look, bow=rng.uniform(0.9, 1.6))


def _as_it_is(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    return glacier, look


def _slc_off(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    return glacier, replace(look, slc_off=True)


def _melange(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """Dense melange before the front, as bright as the glacier."""
    reach = glacier.half_width_m * rng.uniform(1.5, 4)
    return glacier, replace(look, melange_m=reach, sea_ice=look.ice * rng.uniform(0.8, 1.1), bergs=rng.uniform(0, 0.3))


def _winter(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """Fast ice to the horizon, snow on the land, low contrast."""
    snow = rng.uniform(0.7, 0.95)
    ice = snow * rng.uniform(0.8, 1.0)
    frozen = replace(look, melange_m=1e6, bergs=rng.uniform(0, 0.1), sea_ice=snow * rng.uniform(0.75, 1.0))
    return glacier, replace(frozen, snow=snow, ice=ice, snow_cover=rng.uniform(0.7, 0.95), relief=rng.uniform(0.5, 2))


def _shelf(glacier: Glacier, look: Look, rng: Rng) -> tuple[Glacier, Look]:
    """Make a shelf of it: smooth ice without moraines beside land that carries ice, a nearly straight edge."""
    wide = replace(glacier, opening=rng.uniform(1, 3), land_ice=-0.3, moraines=(), bend=0.0)
    smooth = replace(look, bow=rng.uniform(-0.1, 0.1), embayment=rng.uniform(0.02, 0.06), crevasses=0.1)
    return wide, replace(smooth, snow_cover=0.95, ice=look.snow * rng.uniform(0.9, 1.0))


_CASES = {
    "shadow": _Case("optical", _shadow),
    "unclear": _Case("optical", _unclear),
    "tongue": _Case("optical", _tongue),
    "slc-off": _Case("optical", _slc_off, (30.0, 30.0)),
    "cloud": _Case("optical", _as_it_is, cover=(0.15, 0.45)),
    "coarse-sar": _Case("sar", _as_it_is, (80.0, 120.0)),
    "melange": _Case("optical", _melange),
    "melange-sar": _Case("sar", _melange),
    "winter": _Case("optical", _winter),
    "shelf": _Case("optical", _shelf),
}

ADVERSE_CASES = tuple(_CASES)
"""Names of the cases that `paint_adverse` knows."""


def paint_adverse(case: str, number: int, *, seed: int = ADVERSE_SEED) -> SyntheticScene:
    """Paint one scene of a case of `ADVERSE_CASES`, numbered from 0 on; the same number gives the same bytes.

    Another `seed` gives other scenes, such as a training may draw from.

    Examples
    --------
    >>> paint_adverse("melange", 0).signal.shape
    (320, 320)
    """
    if case not in _CASES:
        raise ValueError(f"case must be one of {ADVERSE_CASES}, got {case!r}: correct the name")
    of = _CASES[case]
    rng = np.random.default_rng((seed, ADVERSE_CASES.index(case), number))
    pixel_m = float(rng.uniform(*of.pixel_m))
    x, y = pixel_grid(SHAPE, pixel_m)
    extent = min(SHAPE) * pixel_m
    glacier = draw_glacier(rng, (float(x.mean()), float(y.mean())), extent * rng.uniform(0.09, 0.22))
    look = replace(draw_look(rng, of.kind, glacier.half_width_m), position_m=extent * rng.uniform(-0.15, 0.15))
    glacier, look = of.change(glacier, look, rng)
    if of.cover:
        look = with_clouds(look, x, y, rng.uniform(*of.cover))
    scene = paint(glacier, look, x, y, rng)
    return replace(scene, front=scene.front * (1 / pixel_m, -1 / pixel_m))
