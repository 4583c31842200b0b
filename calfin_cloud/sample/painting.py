"""A random state, or a glacier and the conditions of a day, in; one synthetic scene with its exact front out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.sample.drawing import Glacier, Kind, Look, draw_glacier, draw_look, with_bare_coast
from calfin_cloud.sample.textures import Floats, Points, curve, cut_from, floes, texture, texture_at

Bools = NDArray[np.bool_]

SLC_PERIOD_M = 990.0
"""Distance of the stripes without data along the track of Landsat 7: 33 pixels of 30 m."""


@dataclass(frozen=True)
class SyntheticScene:
    """A synthetic scene and its truth, all (y, x) but the front.

    `signal` float32 is reflectance 0 to 1 or dB, NaN where missing; `front` float64 (n, 2) holds x (column) and y (row)
    in pixels, pixel centres at integers, and may leave the image; `ice` is land or ice, `fjord` where a front may lie.
    """

    signal: Floats
    front: NDArray[np.float64]
    ice: Bools
    fjord: Bools
    cloud: Bools


def paint_scene(
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    *,
    kind: Kind = "optical",
    cloudy: bool = False,
    slc_off: bool = False,
    bare: bool = False,
    pixel_m: float = 30.0,
) -> SyntheticScene:
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
    x, y = pixel_grid(shape, pixel_m)
    glacier = draw_glacier(rng, (float(x[0].mean()), float(y[:, 0].mean())), extent * rng.uniform(0.09, 0.26))
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


def pixel_grid(shape: tuple[int, int], pixel_m: float) -> tuple[Points, Points]:
    """Map coordinates x and y (y, x) in metres of the pixels of a scene, from its upper left one."""
    x, y = np.meshgrid(np.arange(shape[1]) * pixel_m, np.arange(shape[0]) * -pixel_m)
    return x, y


def pixel_side(x: Points, y: Points) -> float:
    """Side of the pixels of map coordinates (y, x), in metres."""
    return float(np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0]))


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
        w * np.maximum(wide + glacier.roughness * curve(s / w * 90 + glacier.offset, row), 0.35) for row in (11, 500)
    )
    return right, left


def _front(glacier: Glacier, look: Look) -> tuple[Points, Points]:
    """Front as `s` over `t` (m), from the right wall to the left one."""
    w = glacier.half_width_m
    t = np.linspace(-4.5 * w, 4.5 * w, 4001)  # the walls are within
    u = t / w
    bays = look.embayment * curve(u * 130 + look.offset, 77)
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


# Painting


def paint(glacier: Glacier, look: Look, x: Points, y: Points, rng: np.random.Generator) -> SyntheticScene:
    """Paint the pixels whose map coordinates are `x` and `y`, (y, x) in metres; the front is in map coordinates too."""
    pixel_m = pixel_side(x, y)
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
    return SyntheticScene(noisy, to_map(glacier, front_s, front_t), ice, fjord, cloud)


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
    height = texture_at("smooth", x, y, w / 90, at) + 1.5 * np.tanh((np.abs(t) - w) / (0.4 * w))
    rough, patchy = (texture_at(name, x, y, 15, at) for name in ("rough", "cloud"))
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
    flow = cut_from(texture("rough"), t, s, (12, 500), at) + cut_from(texture("cloud"), t, s, (w / 200, w / 20), at)
    cracks = cut_from(texture("fine"), t, s, (90, 18), at + look.offset)
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
    swell = texture_at("cloud", x, y, 25, at)
    brash = texture_at("fine", x, y, 25, at)
    chance, border = (cut_from(table, x, y, (7, 7), at, order=0) for table in floes())
    large, edge = (cut_from(table, x, y, (26, 26), at, order=0) for table in floes())
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
    return texture_at("cloud", x, y, 40, 3.1 * look.offset)


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
