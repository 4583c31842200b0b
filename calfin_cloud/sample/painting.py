"""A random state, or a glacier and the conditions of a day, in; one painted scene with its exact front out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Points = NDArray[Any]  # floats; scipy gives float32, coordinates are float64
Kind = Literal["optical", "sar"]

TEXTURE_PX = 1024
ROUGHNESS = {"smooth": 2.2, "cloud": 1.6, "rough": 1.0, "fine": 0.4}
"""Textures by the exponent of their amplitude spectrum, 1 / frequency ** exponent."""

SLC_PERIOD_M = 990.0
"""Distance of the stripes without data along the track of Landsat 7: 33 pixels of 30 m."""


@dataclass(frozen=True)
class PaintedScene:
    """A painted scene and its truth, all (y, x) but the front.

    `signal` float32 is reflectance 0 to 1 or dB, NaN where missing; `front` float64 (n, 2) holds x (column) and y (row)
    in pixels, pixel centres at integers, and may leave the image; `ice` is land or ice, `fjord` where a front may lie.
    """

    signal: Floats
    front: NDArray[np.float64]
    ice: Bools
    fjord: Bools
    cloud: Bools


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


def paint_scene(
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    *,
    kind: Kind = "optical",
    cloudy: bool = False,
    slc_off: bool = False,
    bare: bool = False,
    pixel_m: float = 30.0,
) -> PaintedScene:
    """Paint a random glacier as a satellite sees it; the same generator state gives the same bytes.

    Parameters
    ----------
    shape
        Rows and columns.
    kind
        `optical` gives near-infrared reflectance, 0 to 1; `sar` backscatter in dB with speckle.
    cloudy, slc_off
        Cover 15 to 60 % with clouds, leave out stripes as Landsat 7 does since 2003 (both optical only).
    bare
        Give the fjord bare coasts as bright as the ice, and a wide mouth of mostly open water: brightness alone
        does not tell the front from a coast there.
    pixel_m
        Pixel side in metres: how fine crevasses and icebergs appear.

    Raises
    ------
    ValueError
        `kind` is neither optical nor sar, or the scene is smaller than 32 px a side.
    """
    if kind not in ("optical", "sar") or (kind == "sar" and (cloudy or slc_off)):
        raise ValueError(f"kind is 'optical' or 'sar', and SAR has neither clouds nor stripes; got {kind!r}")
    if min(shape) < 32:
        raise ValueError(f"a scene needs at least 32 pixels a side to show a glacier, got {shape}")
    extent = min(shape) * pixel_m
    columns, rows = np.arange(shape[1]) * pixel_m, np.arange(shape[0]) * -pixel_m
    x, y = np.meshgrid(columns, rows)
    glacier = draw_glacier(rng, (float(columns.mean()), float(rows.mean())), extent * rng.uniform(0.09, 0.26))
    look = replace(
        draw_look(rng, kind, glacier.half_width_m),
        position_m=extent * rng.uniform(-0.2, 0.2),
        slc_off=slc_off,
    )
    if bare:
        glacier, look = with_bare_coast(glacier, look, rng)
    if cloudy:
        look = with_clouds(look, x, y, rng.uniform(0.15, 0.6))
    scene = paint(glacier, look, x, y, rng)
    return replace(scene, front=scene.front * (1 / pixel_m, -1 / pixel_m))


# Drawing what to paint


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


# Geometry: map coordinates and the fjord's own


def _to_fjord(glacier: Glacier, x: Points, y: Points) -> tuple[Points, Points]:
    dx, dy = x - glacier.centre[0], y - glacier.centre[1]
    cos, sin = np.cos(glacier.angle), np.sin(glacier.angle)
    s = dx * cos + dy * sin
    return s, dy * cos - dx * sin - _bend(glacier, s)


def to_map(glacier: Glacier, s: Points, t: Points) -> NDArray[np.float64]:
    """Turn distances along and across the flow (m) into map coordinates, (n, 2)."""
    across = t + _bend(glacier, s)
    cos, sin = np.cos(glacier.angle), np.sin(glacier.angle)
    x, y = s * cos - across * sin, s * sin + across * cos
    return np.column_stack([x + glacier.centre[0], y + glacier.centre[1]])


def _bend(glacier: Glacier, s: Points) -> Points:
    w = glacier.half_width_m
    phase = glacier.bend_phase
    return np.asarray(glacier.bend * w * (np.sin(s / (2.2 * w) + phase) - np.sin(phase)))


def _walls(glacier: Glacier, s: Points) -> tuple[Points, Points]:
    """Distance of the right and left wall from the centreline (m), at `s`."""
    w = glacier.half_width_m
    wide = 1 + glacier.opening / (1 + np.exp(-(s / w - 1.0) * 2))
    right, left = (
        w * np.maximum(wide + glacier.roughness * _curve(s / w * 90 + glacier.offset, row), 0.35) for row in (11, 500)
    )
    return right, left


def _front(glacier: Glacier, look: Look) -> tuple[Points, Points]:
    """Front as `s` over `t` (m), from the right wall to the left one."""
    w = glacier.half_width_m
    t = np.linspace(-4.5 * w, 4.5 * w, 4001)  # the walls are within
    u = t / w
    bays = look.embayment * _curve(u * 130 + look.offset, 77)
    s = look.position_m + w * (look.bow * (1 - np.minimum(u**2, 4)) + bays)
    right, left = _walls(glacier, s)
    room = np.minimum(t + right, left - t)  # negative in the walls
    first, last = (np.flatnonzero(room[side] < 0) for side in (slice(None, 2000), slice(2001, None)))
    begin, end = first[-1], last[0] + 2001
    ends = [np.array([_zero(v[i : i + 2], room[i : i + 2]) for v in (t, s)]) for i in (begin, end - 1)]
    inner = slice(begin + 1, end)
    t, s = (np.concatenate([[ends[0][k]], v[inner], [ends[1][k]]]) for k, v in enumerate((t, s)))
    return s, t


def _zero(values: Points, room: Points) -> float:
    """Interpolate two values to where `room` is zero."""
    return float(values[0] - room[0] * (values[1] - values[0]) / (room[1] - room[0]))


# Textures: the same at the same map coordinates, whatever the grid


@lru_cache(maxsize=8)
def _texture(name: str) -> Floats:
    """Periodic fractal noise of mean 0 and standard deviation 1, (TEXTURE_PX, TEXTURE_PX)."""
    rng = np.random.default_rng(sorted(ROUGHNESS).index(name))
    frequency = np.hypot(np.fft.fftfreq(TEXTURE_PX)[:, None], np.fft.rfftfreq(TEXTURE_PX))
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((TEXTURE_PX, TEXTURE_PX)))
    noise = np.fft.irfft2(white / frequency ** ROUGHNESS[name])
    return np.asarray(noise / noise.std(), dtype=np.float32)


@lru_cache(maxsize=1)
def _floes() -> tuple[Floats, Floats]:
    """Periodic Voronoi cells: a random number 0 to 1 for each cell, and the distance to its border (texture pixels)."""
    rng = np.random.default_rng(7)
    points = rng.uniform(0, TEXTURE_PX, (6000, 2))
    rows, columns = np.mgrid[:TEXTURE_PX, :TEXTURE_PX]
    distance, cell = cKDTree(points, boxsize=TEXTURE_PX).query(np.column_stack([rows.ravel(), columns.ravel()]), k=2)
    border = (distance[:, 1] - distance[:, 0]).reshape(rows.shape)
    return rng.uniform(size=6000)[cell[:, 0]].reshape(rows.shape).astype(np.float32), border.astype(np.float32)


def _cut(table: Floats, x: Points, y: Points, step: tuple[float, float], at: float, order: int = 1) -> Floats:
    """Cut from a texture of which one pixel is `step` (x, y) metres, shifted by `at` pixels."""
    places = [y / step[1] + 2.3 * at, x / step[0] + at]
    return np.asarray(map_coordinates(table, places, order=order, mode="grid-wrap", output=np.float32))


def texture_at(name: str, x: Points, y: Points, step_m: float, at: float) -> Floats:
    """Fractal noise of mean 0 and standard deviation 1 at map coordinates; `name` is of `ROUGHNESS`."""
    return _cut(_texture(name), x, y, (step_m, step_m), at)


def _curve(at: Points, row: int) -> Points:
    """Noise of rounded bays with ragged edges, along one row of the textures; standard deviation about 1."""
    bays, ragged = (_texture(name)[row] for name in ("smooth", "cloud"))
    values = (bays - bays.mean()) / bays.std() + 0.16 * ragged
    return np.asarray(np.interp(at, np.arange(TEXTURE_PX), values, period=TEXTURE_PX))


# Painting


def paint(glacier: Glacier, look: Look, x: Points, y: Points, rng: np.random.Generator) -> PaintedScene:
    """Paint the pixels whose map coordinates are `x` and `y`, (y, x) in metres; the front is in map coordinates too."""
    pixel_m = float(np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0]))
    s, t = _to_fjord(glacier, x, y)
    front_s, front_t = _front(glacier, look)
    ahead, room = sea_room(glacier, look, x, y)
    lit = _lit_terrain(glacier, look, x, y, t, pixel_m)
    covered = np.clip(0.5 - ahead / pixel_m, 0, 1)
    frozen, sea = _paint_ice(glacier, look, s, t, ahead, room), _paint_sea(look, x, y, ahead)
    # With the light behind it, the cliff throws its shadow on the sea and the ice itself stays bright.
    shadow = max(-np.cos(look.sun - glacier.angle), 0) * np.exp(-((ahead / 45) ** 2))
    sea = sea - look.cliff * shadow if look.kind == "sar" else sea * (1 - 0.6 * shadow)
    signal = covered * frozen + (1 - covered) * sea
    on_land = np.clip(0.5 - room / pixel_m, 0, 1)
    signal = signal * (1 - on_land) + lit * on_land
    fjord = room > 0
    ice = ~fjord | (ahead < 0)
    cloud = np.zeros(x.shape, dtype=bool)
    if np.isfinite(look.cloud_above):
        signal, cloud = _add_clouds(signal, look, x, y)
    noisy = _add_noise(signal, look, rng)
    if look.slc_off:
        noisy[_stripes(glacier, x, y)] = np.nan
    return PaintedScene(noisy, to_map(glacier, front_s, front_t), ice, fjord, cloud)


def sea_room(glacier: Glacier, look: Look, x: Points, y: Points) -> tuple[Points, Points]:
    """Metres seaward of the front, and from the nearer wall (negative on land), at map coordinates."""
    s, t = _to_fjord(glacier, x, y)
    front_s, front_t = _front(glacier, look)
    right, left = _walls(glacier, s)
    return s - np.interp(t, front_t, front_s), np.minimum(t + right, left - t)


def _lit_terrain(glacier: Glacier, look: Look, x: Points, y: Points, t: Points, pixel_m: float) -> Floats:
    """Rock, snow and ice on land, lit by the sun or the radar."""
    w, at = glacier.half_width_m, glacier.offset
    # The ramp follows the mean wall: its ragged edge would rule the slopes across the flow.
    height = _cut(_texture("smooth"), x, y, (w / 90, w / 90), at) + 1.5 * np.tanh((np.abs(t) - w) / (0.4 * w))
    rough, patchy = (_cut(_texture(name), x, y, (15, 15), at) for name in ("rough", "cloud"))
    # A slope of one height unit in half a fjord's width is steep.
    down, right = np.gradient((height + 0.02 * rough) * (w / 2 / pixel_m))
    shade = look.relief * 0.6 * (down * np.sin(look.sun) - right * np.cos(look.sun))
    snowy = height - 0.5 * np.hypot(down, right) + 0.3 * patchy > 3.2 - 4.5 * look.snow_cover
    icy = height > glacier.land_ice + 1.5
    if look.kind == "sar":
        level = np.where(icy | snowy, look.snow, look.rock + 0.8 * rough) + np.clip(3 * shade, -16, 9)
        return np.asarray(np.where(shade < -2.2, look.water - 4, level), dtype=np.float32)
    albedo = np.where(icy | snowy, look.snow * (1 + 0.03 * rough), look.rock * (1 + look.mottle * rough))
    return np.asarray(albedo * np.clip(1 + np.where(icy, 0.3, 1) * shade, 0.12, 2.2), dtype=np.float32)


def _paint_ice(glacier: Glacier, look: Look, s: Points, t: Points, ahead: Points, room: Points) -> Points:
    """Glacier with flow lines, moraines, crevasses that open towards the front, and the cliff there."""
    w, at = glacier.half_width_m, glacier.offset
    flow = _cut(_texture("rough"), t, s, (12, 500), at) + _cut(_texture("cloud"), t, s, (w / 200, w / 20), at)
    cracks = _cut(_texture("fine"), t, s, (90, 18), at + look.offset)
    opened = look.crevasses * (0.35 + np.exp(np.clip(ahead, -9 * w, 0) / w))
    facing = max(0.3 + np.cos(look.sun - glacier.angle), 0)
    cliff = look.cliff * facing * np.exp(-(((ahead + 25) / 35) ** 2))
    shear = np.exp(-np.clip(room, 0, None) / (0.12 * w))
    dirt = sum((np.exp(-(((t / w - m) / 0.025) ** 2)) for m in glacier.moraines), np.zeros_like(s))
    if look.kind == "sar":
        level = look.ice + cliff + 3 * (opened - 0.35)
        return np.asarray(level + 0.8 * flow + 1.2 * opened * cracks + 2 * shear - 2 * dirt)
    return np.asarray(look.ice * (1 + 0.09 * flow + 0.11 * opened * cracks - 0.25 * shear - 0.35 * dirt) + cliff)


def _paint_sea(look: Look, x: Points, y: Points, ahead: Points) -> Points:
    """Water, melange that thins out seaward, floes and icebergs."""
    at = look.offset
    swell = _cut(_texture("cloud"), x, y, (25, 25), at)
    brash = _cut(_texture("fine"), x, y, (25, 25), at)
    chance, border = (_cut(table, x, y, (7, 7), at, order=0) for table in _floes())
    large, edge = (_cut(table, x, y, (26, 26), at, order=0) for table in _floes())
    reach = look.melange_m * (1 + 0.25 * swell)
    packed = np.where(look.melange_m > 0, 1 / (1 + np.exp(np.clip((ahead - reach) / 250, -30, 30))), 0)
    share = np.clip(packed * 1.1 + look.bergs * np.exp(swell - 1), 0, 1)
    floating = (chance < share) & (border > 2 * (1 - packed))
    berg = (large < 0.5 * look.bergs * (0.3 + packed)) & (edge > 3)
    if look.kind == "sar":
        water = look.water + 1.2 * swell
        ice = look.sea_ice + 5 * (chance / np.maximum(share, 0.05) - 0.5) + 1.5 * swell + 0.8 * brash
        return np.where(berg, look.sea_ice + 5 - 9 * (edge < 5), np.where(floating, ice, water))
    water = look.water * (1 + 0.25 * swell) + 0.25 * look.sea_ice * packed
    pieces = 0.3 * (1 - 0.6 * packed) * chance / np.maximum(share, 0.05)
    ice = look.sea_ice * (0.85 + pieces + 0.03 * swell + 0.05 * brash)
    lit = look.sea_ice * (1.2 + 0.25 * np.cos(20 * large)) * np.where(edge < 5, 0.7, 1)
    return np.where(berg, lit, np.where(floating, ice, water))


def with_clouds(look: Look, x: Points, y: Points, cover: float) -> Look:
    """Set clouds to cover that share of the map coordinates."""
    return replace(look, cloud_above=float(np.quantile(_cloud_density(look, x, y), 1 - cover)))


def _cloud_density(look: Look, x: Points, y: Points) -> Floats:
    return _cut(_texture("cloud"), x, y, (40, 40), 3.1 * look.offset)


def _add_clouds(signal: Points, look: Look, x: Points, y: Points) -> tuple[Points, Bools]:
    density = _cloud_density(look, x, y) - look.cloud_above
    shadow = _cloud_density(look, x + 700 * np.cos(look.sun), y + 700 * np.sin(look.sun)) - look.cloud_above
    shaded = signal * (1 - 0.5 * np.clip(2 * shadow, 0, 1))
    thick = 1 - np.exp(-np.clip(4 * density, 0, None))
    return shaded + thick * (0.55 + 0.25 * np.tanh(density) - shaded), density > 0


def _add_noise(signal: Points, look: Look, rng: np.random.Generator) -> Floats:
    """Speckle of a gamma distribution in dB, or the sensor's noise within 0 to 1."""
    if look.kind == "sar":
        looks = look.noise**-2
        speckle = rng.standard_gamma(looks, size=signal.shape, dtype=np.float32) / looks
        return np.asarray(signal + 10 * np.log10(np.maximum(speckle, 1e-6)), dtype=np.float32)
    noisy = signal + look.noise * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.clip(noisy, 0.001, 1).astype(np.float32))


def _stripes(glacier: Glacier, x: Points, y: Points) -> Bools:
    """Wedges of missing data across the track, 10 degrees off the rows, wider towards one edge of the swath."""
    dx, dy = x - glacier.centre[0], y - glacier.centre[1]
    tilt = np.deg2rad(10)
    across, along = dx * np.cos(tilt) - dy * np.sin(tilt), dx * np.sin(tilt) + dy * np.cos(tilt)
    width = np.clip(0.19 + 0.07 * across / 6000, 0.03, 0.42)
    return np.asarray(np.mod(along / SLC_PERIOD_M, 1) < width)
