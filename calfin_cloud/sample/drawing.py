"""A random state in; a glacier, and the conditions of a day that shows it, out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calfin_cloud.sample.textures import TEXTURE_PX

Kind = Literal["optical", "sar"]


@dataclass(frozen=True)
class Glacier:
    """What stays from scene to scene: the fjord, in map coordinates (m), and where its textures are cut out.

    The fjord has coordinates of its own: `s` along the flow, seaward, and `t` across, to the left of the flow.
    """

    centre: tuple[float, float]
    angle: float  # direction of the flow, radians against the x axis
    half_width_m: float
    bend: float  # sideways shift of the centreline, in half widths, over one wavelength
    bend_phase: float
    opening: float  # widening of the fjord seaward, in half widths
    roughness: float  # of the walls
    offset: float  # where the textures are cut out, in texture pixels
    land_ice: float  # level of terrain above which land carries ice
    moraines: tuple[float, ...]  # across the flow, in half widths


@dataclass(frozen=True)
class Look:
    """What changes from scene to scene: front, light, season, sea and clouds."""

    kind: Kind
    position_m: float  # of the front, along the flow
    bow: float  # of the front, in half widths, positive if its middle is ahead
    embayment: float  # amplitude of the front's fractal part, in half widths
    offset: float
    sun: float  # direction towards the sun, or the radar, radians
    relief: float  # strength of the shading
    ice: float  # mean of glacier, snow, rock, water: reflectance or dB
    snow: float
    rock: float
    water: float
    snow_cover: float  # 0 to 1
    crevasses: float
    cliff: float  # contrast of the ice cliff
    sea_ice: float  # reflectance or dB of melange and floes
    melange_m: float  # how far the melange reaches from the front
    bergs: float  # share of the open water with icebergs and floes
    cloud_above: float  # level of the cloud texture; above is cloud
    slc_off: bool
    noise: float
    mottle: float = 0.35  # contrast of bare land


def draw_glacier(rng: np.random.Generator, centre: tuple[float, float], half_width_m: float) -> Glacier:
    """Draw a random fjord with its glacier around `centre`."""
    return Glacier(
        centre=centre,
        angle=rng.uniform(0, 2 * np.pi),
        half_width_m=half_width_m,
        bend=rng.uniform(0, 0.9),
        bend_phase=rng.uniform(0, 2 * np.pi),
        opening=rng.choice([0.0, rng.uniform(0, 1.5)]),
        roughness=rng.uniform(0.08, 0.35),
        offset=rng.uniform(0, TEXTURE_PX),
        land_ice=rng.uniform(-0.3, 2.0),
        moraines=tuple(rng.uniform(-0.8, 0.8, rng.integers(0, 4))),
    )


def draw_look(rng: np.random.Generator, kind: Kind, half_width_m: float) -> Look:
    """Draw random conditions without clouds or stripes, the front at the glacier's centre."""
    sea = rng.choice(["open", "bergs", "melange", "frozen"], p=[0.3, 0.25, 0.3, 0.15])
    look = Look(
        kind=kind,
        position_m=0.0,
        bow=rng.uniform(-0.45, 0.35),
        embayment=rng.uniform(0.03, 0.16),
        offset=rng.uniform(0, TEXTURE_PX),
        sun=rng.uniform(0, 2 * np.pi),
        relief=rng.uniform(0.5, 1.3),
        ice=rng.uniform(0.3, 0.75),
        snow=rng.uniform(0.55, 0.95),
        rock=rng.uniform(0.04, 0.25),
        water=rng.uniform(0.005, 0.08),
        snow_cover=rng.choice([rng.uniform(0, 0.4), rng.uniform(0.4, 0.95)], p=[0.7, 0.3]),
        crevasses=rng.uniform(0.3, 1.2),
        cliff=rng.uniform(0.0, 0.3),
        sea_ice=rng.uniform(0.3, 0.8),
        melange_m={"open": 0.0, "bergs": 0.0, "frozen": 1e6}.get(sea, half_width_m * rng.uniform(0.4, 4)),
        bergs=0.0 if sea == "open" else rng.uniform(0.01, 0.3),
        cloud_above=np.inf,
        slc_off=False,
        noise=rng.uniform(0.003, 0.02),
    )
    return look if kind == "optical" else _as_radar(look, rng)


def with_bare_coast(glacier: Glacier, look: Look, rng: np.random.Generator) -> tuple[Glacier, Look]:
    """Give a glacier a wide mouth and coasts that are as bright and as smooth as its ice, mostly beside open water."""
    wide = replace(glacier, opening=rng.uniform(0, 3), land_ice=rng.uniform(0.5, 2.0))
    bare = replace(look, snow_cover=rng.uniform(0, 0.3), mottle=rng.uniform(0.02, 0.35))
    if rng.random() < 0.7:
        bare = replace(bare, melange_m=0.0, bergs=rng.choice([0.0, rng.uniform(0, 0.1)]))
    if look.kind == "sar":
        return wide, replace(bare, rock=look.ice + rng.uniform(-4, 3), relief=rng.uniform(0.3, 3))
    return wide, replace(bare, rock=look.ice * rng.uniform(0.5, 1.3), relief=rng.uniform(0.05, 0.8))


def _as_radar(look: Look, rng: np.random.Generator) -> Look:
    """Levels in dB; calm water is dark, rough water nearly as bright as ice."""
    return replace(
        look,
        relief=rng.uniform(2, 5),
        ice=rng.uniform(-14, -5),
        snow=rng.uniform(-12, -4),
        rock=rng.uniform(-16, -9),
        water=rng.uniform(-26, -13),
        sea_ice=rng.uniform(-15, -6),
        cliff=rng.uniform(1, 8),
        noise=rng.uniform(0.15, 0.5),
    )
