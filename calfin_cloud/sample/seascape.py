"""A synthetic glacier and a random state in; icebergs, sea ice, melange, a plume on its sea, and their truth, out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import Polygon

from calfin_cloud.sample.drawing import Glacier, Look
from calfin_cloud.sample.painting import Bools, SyntheticScene, paint, pixel_side, sea_room
from calfin_cloud.sample.textures import Floats, Points, texture_at

EXPONENT = 1.9
"""Of the power law of synthetic icebergs' areas; those of Greenland's fjords are 1.6 to 2.2."""

AREAS_M2 = (400.0, 250_000.0)
N_ICEBERGS = (60, 160)
SPACING_M = 60.0
VERTICES = 48

ICEBERG = {"nir": 0.306, "red": 0.427, "green": 0.455, "blue": 0.501}
SEA_ICE = {"nir": 0.196, "red": 0.268, "green": 0.297, "blue": 0.338}
"""Mean reflectance of icebergs and of sea ice (Fisser et al. 2024)."""

TURBIDITY = {"red": (228.1, 0.1641), "nir": (3078.9, 0.2112)}
"""A and C of Dogliotti et al. (2015), from turbidity to reflectance here."""

PLUME_TIMES, PLUME_ABOVE_FNU = 2.0, 5.0
"""The true plume is so many times, and so much, more turbid than the water around."""

LIGHT = ("nir", "red", "green", "blue")
RADAR_ABOVE_WATER_DB = {"icebergs": (6.0, 14.0), "floes": (2.0, 5.0), "melange": (4.0, 9.0)}
CROSS_BELOW_DB = 7.0


@dataclass(frozen=True)
class Floater:
    """An iceberg or a floe: `radii` around its centre, in metres of the map, at `VERTICES` angles from the x axis."""

    centre: tuple[float, float]
    radii: NDArray[np.float64]
    brightness: float  # factor of the reflectance; of radar dB above the water

    @property
    def polygon(self) -> Polygon:
        """Its outline on the map."""
        angles = np.arange(VERTICES) * 2 * np.pi / VERTICES
        x, y = self.radii * np.cos(angles), self.radii * np.sin(angles)
        return Polygon(np.column_stack([x + self.centre[0], y + self.centre[1]]))


@dataclass(frozen=True)
class Seascape:
    """What lies on the sea of one scene.

    `melange_m` is how far melange reaches from the front, `plume_fnu` how turbid the water is at the front, falling by
    `plume_m` (1/e) along the flow; `ambient_fnu` all else.
    """

    icebergs: tuple[Floater, ...]
    floes: tuple[Floater, ...]
    melange_m: float
    melange_db: float
    plume_fnu: float
    plume_m: float
    ambient_fnu: float
    noise: float


@dataclass(frozen=True)
class SyntheticSea:
    """A scene with its sea: `bands` float32 (y, x), of light in reflectance, of radar `co` and `cross` in dB.

    The truth on the pixels of the scene: `turbidity` in FNU without noise, `plume` where it is the plume's, `ice` the
    share of each pixel that is ice on the sea; `sea` is where there is sea.
    """

    scene: SyntheticScene
    bands: dict[str, Floats]
    seascape: Seascape
    sea: Bools
    ice: Floats
    turbidity: Floats
    plume: Bools


def paint_sea(
    glacier: Glacier, look: Look, x: Points, y: Points, rng: np.random.Generator, *, extent_m: float
) -> SyntheticSea:
    """Paint a scene whose sea carries a random seascape; the glacier, its front and its land are those of `paint`.

    Parameters
    ----------
    x, y
        Map coordinates of the pixels in metres, (y, x).
    extent_m
        Side of the square around the glacier in which icebergs are drawn.
    """
    calm = replace(look, melange_m=0.0, bergs=0.0)
    if look.kind == "sar":
        calm = replace(calm, water=min(look.water, -17.0))
    scene = paint(glacier, calm, x, y, rng)
    sea = draw_seascape(glacier, calm, rng, extent_m=extent_m)
    ahead, room = sea_room(glacier, calm, x, y)
    pixel_m = pixel_side(x, y)
    share = np.asarray(np.clip(0.5 + np.minimum(room, ahead) / pixel_m, 0, 1))
    turbidity = _turbidity(sea, glacier, calm, x, y, ahead)
    floats = [part for kind in (sea.floes, sea.icebergs) for part in _covered(kind, x, y, pixel_m)]
    cover = _Cover(share, turbidity, _melange(sea, calm, x, y, ahead), *floats)
    paint_bands = _radar_bands if look.kind == "sar" else _light_bands
    bands = paint_bands(scene, sea, calm, (x, y), cover, rng)
    ice = np.maximum(np.maximum(cover.bergs, cover.floes), cover.packed)
    is_sea = (room > 0) & (ahead > 0)
    above = max(PLUME_TIMES * sea.ambient_fnu, sea.ambient_fnu + PLUME_ABOVE_FNU)
    plume = is_sea & (turbidity >= above) & (ice == 0)
    bands = {name: np.where(np.isnan(scene.signal), np.nan, v).astype(np.float32) for name, v in bands.items()}
    own = replace(scene, signal=bands["co" if look.kind == "sar" else "nir"])
    return SyntheticSea(own, bands, sea, is_sea, (ice * is_sea).astype(np.float32), turbidity, plume)


def draw_seascape(glacier: Glacier, look: Look, rng: np.random.Generator, *, extent_m: float) -> Seascape:
    """Draw what lies on the sea: icebergs of a power law of areas, some floes, melange or a plume or neither."""
    has_melange, has_plume = rng.permutation([rng.random() < 0.8, False])
    melange_m = rng.uniform(700, 3000) if has_melange else 0.0
    n = int(rng.integers(*N_ICEBERGS))
    low, high = (a ** (1 - EXPONENT) for a in AREAS_M2)
    areas = np.sort((low + rng.random(n) * (high - low)) ** (1 / (1 - EXPONENT)))[::-1]
    floes = rng.uniform(4e4, 6e5, int(rng.integers(0, 5)))
    drawn = _placed(glacier, look, np.concatenate([floes, areas]), rng, extent_m=extent_m, from_m=melange_m + 200)
    kinds: tuple[list[Floater], list[Floater]] = ([], [])
    for i, floater in drawn:
        is_iceberg = i >= len(floes)
        name = "icebergs" if is_iceberg else "floes"
        bright = rng.uniform(*RADAR_ABOVE_WATER_DB[name]) if look.kind == "sar" else rng.normal(1, 0.12)
        kinds[is_iceberg].append(replace(floater, brightness=float(np.clip(bright, 0.7, 20))))
    return Seascape(
        icebergs=tuple(kinds[True]),
        floes=tuple(kinds[False]),
        melange_m=melange_m,
        melange_db=rng.uniform(*RADAR_ABOVE_WATER_DB["melange"]),
        plume_fnu=rng.uniform(25, 150) if has_plume else 0.0,
        plume_m=rng.uniform(600, 2500),
        ambient_fnu=rng.uniform(0.5, 5),
        noise=rng.uniform(0.002, 0.004),
    )


def _placed(
    glacier: Glacier,
    look: Look,
    areas: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    extent_m: float,
    from_m: float,
) -> list[tuple[int, Floater]]:
    """Place floaters on the open sea, apart from each other and from land; those without room are left out."""
    placed: list[tuple[int, Floater]] = []
    middles, reaches = np.empty((0, 2)), np.empty(0)
    for i, area in enumerate(areas):
        radii = _outline(area, rng)
        reach = float(radii.max())
        tries = np.array(glacier.centre) + rng.uniform(-extent_m / 2, extent_m / 2, (40, 2))
        ahead, room = sea_room(glacier, look, tries[:, 0], tries[:, 1])
        apart = (
            np.hypot(*(tries[:, None] - middles[None]).T).T - reaches[None]
            if len(middles)
            else np.full((40, 1), np.inf)
        )
        fits = (ahead > from_m + reach) & (room > reach + 30) & (apart.min(axis=1) > reach + SPACING_M)
        if fits.any():
            centre = tries[np.flatnonzero(fits)[0]]
            placed.append((i, Floater((float(centre[0]), float(centre[1])), radii, 1.0)))
            middles, reaches = np.vstack([middles, centre]), np.append(reaches, reach)
    return placed


def _outline(area: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Radii of a ragged, stretched blob whose polygon has that area."""
    angles = np.arange(VERTICES) * 2 * np.pi / VERTICES
    waves = sum(rng.uniform(0, 0.25 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    radii = 1 + np.asarray(waves)
    unit = 0.5 * np.sin(2 * np.pi / VERTICES) * float(np.sum(radii * np.roll(radii, -1)))
    return np.asarray(radii * np.sqrt(area / unit))


def _covered(floaters: tuple[Floater, ...], x: Points, y: Points, pixel_m: float) -> tuple[Floats, Floats]:
    """Share of each pixel that is covered by floaters, and the brightness of what covers it."""
    share, bright = np.zeros(x.shape, np.float32), np.ones(x.shape, np.float32)
    # Rows and columns change almost linearly with map coordinates, near enough to find the window of a floater.
    to_pixels = ~Affine(x[0, 1] - x[0, 0], x[1, 0] - x[0, 0], x[0, 0], y[0, 1] - y[0, 0], y[1, 0] - y[0, 0], y[0, 0])
    for of in floaters:
        column, row = to_pixels * of.centre
        half = int(of.radii.max() / pixel_m) + 4
        window = tuple(slice(max(0, int(at) - half), max(0, int(at) + half + 1)) for at in (row, column))
        dx, dy = x[window] - of.centre[0], y[window] - of.centre[1]
        if not dx.size:
            continue
        angle = np.mod(np.arctan2(dy, dx), 2 * np.pi) / (2 * np.pi) * VERTICES
        reach = np.interp(angle, np.arange(VERTICES + 1), np.append(of.radii, of.radii[0]))
        part = np.clip(0.5 + (reach - np.hypot(dx, dy)) / pixel_m, 0, 1)
        share[window] = np.maximum(share[window], part)
        bright[window] = np.where(part > 0, of.brightness, bright[window])
    return share, bright


def _melange(sea: Seascape, look: Look, x: Points, y: Points, ahead: Points) -> Floats:
    """Share of ice within the melange: densely packed, with leads, to a ragged edge."""
    if not sea.melange_m:
        return np.zeros(x.shape, np.float32)
    edge = sea.melange_m + 60 * texture_at("cloud", x, y, 25, look.offset)
    leads = np.clip(0.95 + 0.35 * texture_at("fine", x, y, 40, look.offset), 0, 1)
    return np.asarray(np.where(ahead < edge, leads, 0), dtype=np.float32)


def _turbidity(sea: Seascape, glacier: Glacier, look: Look, x: Points, y: Points, ahead: Points) -> Floats:
    """Turbidity in FNU: ambient, and a plume that spreads and thins out from the front."""
    dx, dy = x - glacier.centre[0], y - glacier.centre[1]
    across = dy * np.cos(glacier.angle) - dx * np.sin(glacier.angle)
    wide = 0.35 * glacier.half_width_m + 0.25 * np.clip(ahead, 0, None)
    ragged = np.exp(0.15 * texture_at("cloud", x, y, 30, 1.7 * look.offset))
    plume = sea.plume_fnu * np.exp(-np.clip(ahead, 0, None) / sea.plume_m) * np.exp(-((across / wide) ** 2)) * ragged
    return np.asarray(sea.ambient_fnu + plume, dtype=np.float32)


def reflectance_of(turbidity: Floats, band: str) -> Floats:
    """Water-leaving reflectance in `red` or `nir` of water of that turbidity in FNU: T = A r / (1 - r / C), solved.

    Examples
    --------
    >>> reflectance_of(np.array([5.2]), "red").round(3).tolist()
    [0.02]
    """
    a, c = TURBIDITY[band]
    return np.asarray(turbidity / (a + turbidity / c))


class _Cover(NamedTuple):
    """Share of each pixel that is sea, and its turbidity; of the sea the share that ice covers, and its brightness."""

    share: Points
    turbidity: Floats
    packed: Floats  # with melange
    floes: Floats
    dull: Floats  # floes
    bergs: Floats
    bright: Floats  # icebergs


def _light_bands(
    scene: SyntheticScene,
    sea: Seascape,
    look: Look,
    where: tuple[Points, Points],
    cover: _Cover,
    rng: np.random.Generator,
) -> dict[str, Points]:
    """Reflectance of each band."""
    share, turbidity, packed, floes, dull, bergs, bright = cover
    red, nir = reflectance_of(turbidity, "red"), reflectance_of(turbidity, "nir")
    water = {"nir": nir, "red": red, "green": 0.02 + 0.9 * red, "blue": 0.03 + 0.4 * red}
    ripples = 1 + 0.1 * texture_at("rough", *where, 30, look.offset)
    bands: dict[str, Points] = {}
    for name in LIGHT:
        level = water[name]
        for part, ice in (
            (packed, ICEBERG[name] * ripples),
            (floes, SEA_ICE[name] * dull),
            (bergs, ICEBERG[name] * bright),
        ):
            level = (1 - part) * level + part * ice
        level = level + sea.noise * rng.standard_normal(level.shape, dtype=np.float32)
        land = scene.signal if name == "nir" else np.clip(1.1 * scene.signal, 0, 1)
        bands[name] = np.where(scene.cloud, scene.signal, (1 - share) * land + share * level)
    return bands


def _radar_bands(
    scene: SyntheticScene,
    sea: Seascape,
    look: Look,
    where: tuple[Points, Points],
    cover: _Cover,
    rng: np.random.Generator,
) -> dict[str, Points]:
    """Backscatter in dB, co- and cross-polarised, with speckle."""
    share, _, packed, floes, dull, bergs, bright = cover
    swell = 0.5 * texture_at("cloud", *where, 60, look.offset)
    looks = look.noise**-2
    bands = {}
    for name, lower, gain in (("co", 0.0, 1.0), ("cross", CROSS_BELOW_DB, 0.8)):
        water = 10 ** ((look.water - lower + swell) / 10)
        above = 1 + packed * _gain(gain * sea.melange_db) + floes * _gain(gain * dull) + bergs * _gain(gain * bright)
        speckle = rng.standard_gamma(looks, size=share.shape, dtype=np.float32) / looks
        land = 10 ** ((scene.signal - lower) / 10)
        bands[name] = 10 * np.log10((1 - share) * land + share * water * above * np.maximum(speckle, 1e-6))
    return bands


def _gain(decibel: Points | float) -> Points:
    """How much is added to an intensity of 1 by dB above it."""
    return np.asarray(10 ** (np.asarray(decibel) / 10) - 1)
