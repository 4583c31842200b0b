"""Paints glaciers: scenes with an exactly known front, alone (training) or as COGs in a STAC catalogue (demo, tests)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from shapely.geometry import LineString, mapping

from calfin_cloud.domains import Domain, box_grid, write_domains

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Points = NDArray[np.floating[Any]]
Kind = Literal["optical", "sar"]

TEXTURE_PX = 1024
ROUGHNESS = {"smooth": 2.2, "cloud": 1.6, "rough": 1.0, "fine": 0.4}
"""Textures by the exponent of their amplitude spectrum, 1 / frequency ** exponent."""

SLC_PERIOD_M = 990.0
"""Distance of the stripes without data along the track of Landsat 7: 33 pixels of 30 m."""


CENTRE = (-280_000.0, -1_800_000.0)
SIDE_M = 12_000.0
"""Where the sample's domain lies, EPSG:3413: some bay of north-west Greenland, within UTM zone 22."""

LANDSAT_OFFSET, LANDSAT_SCALE = -0.2, 2.75e-5
S2_OFFSET_SINCE = datetime(2022, 1, 25, tzinfo=UTC)


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
class _Glacier:
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
class _Look:
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


def paint_scene(
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    *,
    kind: Kind = "optical",
    cloudy: bool = False,
    slc_off: bool = False,
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
    pixel_m
        Pixel side in metres: how fine crevasses and icebergs appear.
    """
    if kind not in ("optical", "sar") or (kind == "sar" and (cloudy or slc_off)):
        raise ValueError(f"kind is 'optical' or 'sar', and SAR has neither clouds nor stripes; got {kind!r}")
    if min(shape) < 32:
        raise ValueError(f"a scene needs at least 32 pixels a side to show a glacier, got {shape}")
    extent = min(shape) * pixel_m
    columns, rows = np.arange(shape[1]) * pixel_m, np.arange(shape[0]) * -pixel_m
    x, y = np.meshgrid(columns, rows)
    glacier = _draw_glacier(rng, (float(columns.mean()), float(rows.mean())), extent * rng.uniform(0.09, 0.26))
    look = replace(
        _draw_look(rng, kind, glacier.half_width_m),
        position_m=extent * rng.uniform(-0.2, 0.2),
        slc_off=slc_off,
    )
    if cloudy:
        look = _with_clouds(look, x, y, rng.uniform(0.15, 0.6))
    scene, front = _paint(glacier, look, x, y, rng)
    return replace(scene, front=front * (1 / pixel_m, -1 / pixel_m))


# Drawing what to paint


def _draw_glacier(rng: np.random.Generator, centre: tuple[float, float], half_width_m: float) -> _Glacier:
    return _Glacier(
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


def _draw_look(rng: np.random.Generator, kind: Kind, half_width_m: float) -> _Look:
    sea = rng.choice(["open", "bergs", "melange", "frozen"], p=[0.3, 0.25, 0.3, 0.15])
    look = _Look(
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


def _as_radar(look: _Look, rng: np.random.Generator) -> _Look:
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


def _to_fjord(glacier: _Glacier, x: Points, y: Points) -> tuple[Floats, Floats]:
    dx, dy = x - glacier.centre[0], y - glacier.centre[1]
    cos, sin = np.cos(glacier.angle), np.sin(glacier.angle)
    s = dx * cos + dy * sin
    return s, dy * cos - dx * sin - _bend(glacier, s)


def _to_map(glacier: _Glacier, s: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    across = t + _bend(glacier, s)
    cos, sin = np.cos(glacier.angle), np.sin(glacier.angle)
    x, y = s * cos - across * sin, s * sin + across * cos
    return np.column_stack([x + glacier.centre[0], y + glacier.centre[1]])


def _bend(glacier: _Glacier, s: NDArray[np.float64]) -> NDArray[np.float64]:
    w = glacier.half_width_m
    phase = glacier.bend_phase
    return glacier.bend * w * (np.sin(s / (2.2 * w) + phase) - np.sin(phase))


def _walls(glacier: _Glacier, s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of the right and left wall from the centreline (m), at `s`."""
    w = glacier.half_width_m
    wide = 1 + glacier.opening / (1 + np.exp(-(s / w - 1.0) * 2))
    right, left = (
        w * np.maximum(wide + glacier.roughness * _curve(s / w * 90 + glacier.offset, row), 0.35) for row in (11, 500)
    )
    return right, left


def _front(glacier: _Glacier, look: _Look) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Front as `s` over `t` (m), from the right wall to the left one."""
    w = glacier.half_width_m
    t = np.linspace(-3.5 * w, 3.5 * w, 3001)
    u = t / w
    s = look.position_m + w * (
        look.bow * (1 - np.minimum(u**2, 4)) + look.embayment * _curve(u * 130 + look.offset, 77)
    )
    right, left = _walls(glacier, s)
    room = np.minimum(t + right, left - t)  # negative in the walls
    first, last = (np.flatnonzero(room[side] < 0) for side in (slice(None, 1500), slice(1501, None)))
    begin, end = first[-1], last[0] + 1501
    ends = [np.array([_zero(v[i : i + 2], room[i : i + 2]) for v in (t, s)]) for i in (begin, end - 1)]
    inner = slice(begin + 1, end)
    t, s = (np.concatenate([[ends[0][k]], v[inner], [ends[1][k]]]) for k, v in enumerate((t, s)))
    return s, t


def _zero(values: NDArray[np.float64], room: NDArray[np.float64]) -> float:
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
    """Texture where one of its pixels is `step` (x, y) metres, shifted by `at` pixels."""
    places = [y / step[1] + 2.3 * at, x / step[0] + at]
    return np.asarray(map_coordinates(table, places, order=order, mode="grid-wrap", output=np.float32))


def _curve(at: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """Rounded bays with ragged edges along one row of the textures, standard deviation about 1."""
    bays, ragged = (_texture(name)[row] for name in ("smooth", "cloud"))
    values = (bays - bays.mean()) / bays.std() + 0.16 * ragged
    return np.interp(at, np.arange(TEXTURE_PX), values, period=TEXTURE_PX)


# Painting


def _paint(
    glacier: _Glacier, look: _Look, x: Points, y: Points, rng: np.random.Generator
) -> tuple[PaintedScene, NDArray[np.float64]]:
    """Paint on the map coordinates `x`, `y` (y, x) in metres of pixels; the front comes in map coordinates."""
    pixel_m = float(np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0]))
    s, t = _to_fjord(glacier, x, y)
    front_s, front_t = _front(glacier, look)
    ahead = s - np.interp(t, front_t, front_s)  # m seaward of the front
    right, left = _walls(glacier, s)
    room = np.minimum(t + right, left - t)  # m from the nearer wall, negative on land
    lit = _lit_terrain(glacier, look, x, y, t, pixel_m)
    covered = np.clip(0.5 - ahead / pixel_m, 0, 1)
    signal = covered * _paint_ice(glacier, look, s, t, ahead, room) + (1 - covered) * _paint_sea(look, x, y, ahead)
    on_land = np.clip(0.5 - room / pixel_m, 0, 1)
    signal = signal * (1 - on_land) + lit * on_land
    fjord = room > 0
    ice = ~fjord | (ahead < 0)
    cloud = np.zeros(x.shape, dtype=bool)
    if np.isfinite(look.cloud_above):
        signal, cloud = _add_clouds(signal, look, x, y)
    signal = _add_noise(signal, look, rng)
    if look.slc_off:
        signal[_stripes(glacier, x, y)] = np.nan
    return PaintedScene(signal, np.empty((0, 2)), ice, fjord, cloud), _to_map(glacier, front_s, front_t)


def _lit_terrain(glacier: _Glacier, look: _Look, x: Points, y: Points, t: Points, pixel_m: float) -> Floats:
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
    albedo = np.where(icy | snowy, look.snow * (1 + 0.03 * rough), look.rock * (1 + 0.35 * rough))
    return np.asarray(albedo * np.clip(1 + np.where(icy, 0.3, 1) * shade, 0.12, 2.2), dtype=np.float32)


def _paint_ice(glacier: _Glacier, look: _Look, s: Points, t: Points, ahead: Points, room: Points) -> Points:
    """Glacier with flow lines, moraines, crevasses that open towards the front, and the cliff there."""
    w, at = glacier.half_width_m, glacier.offset
    flow = _cut(_texture("rough"), t, s, (12, 500), at) + _cut(_texture("cloud"), t, s, (w / 200, w / 20), at)
    cracks = _cut(_texture("fine"), t, s, (90, 18), at + look.offset)
    open_ = look.crevasses * (0.35 + np.exp(np.clip(ahead, -9 * w, 0) / w))
    facing = np.cos(look.sun - glacier.angle)
    cliff = look.cliff * (0.3 + facing) * np.exp(-(((ahead + 25) / 35) ** 2))
    shear = np.exp(-np.clip(room, 0, None) / (0.12 * w))
    dirt = sum((np.exp(-(((t / w - m) / 0.025) ** 2)) for m in glacier.moraines), np.zeros_like(s))
    if look.kind == "sar":
        return look.ice + 0.8 * flow + 1.2 * open_ * cracks + cliff + 2 * shear - 2 * dirt + 3 * (open_ - 0.35)
    return look.ice * (1 + 0.09 * flow + 0.11 * open_ * cracks - 0.25 * shear - 0.35 * dirt) + cliff


def _paint_sea(look: _Look, x: Points, y: Points, ahead: Points) -> Points:
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
    ice = look.sea_ice * (
        0.85 + 0.3 * chance / np.maximum(share, 0.05) * (1 - 0.6 * packed) + 0.03 * swell + 0.05 * brash
    )
    lit = look.sea_ice * (1.2 + 0.25 * np.cos(20 * large)) * np.where(edge < 5, 0.7, 1)
    return np.where(berg, lit, np.where(floating, ice, water))


def _with_clouds(look: _Look, x: Points, y: Points, cover: float) -> _Look:
    """Set clouds to cover that share of the map coordinates."""
    return replace(look, cloud_above=float(np.quantile(_cloud_density(look, x, y), 1 - cover)))


def _cloud_density(look: _Look, x: Points, y: Points) -> Floats:
    return _cut(_texture("cloud"), x, y, (40, 40), 3.1 * look.offset)


def _add_clouds(signal: Points, look: _Look, x: Points, y: Points) -> tuple[Points, Bools]:
    density = _cloud_density(look, x, y) - look.cloud_above
    shadow = _cloud_density(look, x + 700 * np.cos(look.sun), y + 700 * np.sin(look.sun)) - look.cloud_above
    shaded = signal * (1 - 0.5 * np.clip(2 * shadow, 0, 1))
    thick = 1 - np.exp(-np.clip(4 * density, 0, None))
    return shaded + thick * (0.55 + 0.25 * np.tanh(density) - shaded), density > 0


def _add_noise(signal: Points, look: _Look, rng: np.random.Generator) -> Floats:
    """Speckle of a gamma distribution in dB, or the sensor's noise within 0 to 1."""
    if look.kind == "sar":
        looks = look.noise**-2
        speckle = rng.standard_gamma(looks, size=signal.shape, dtype=np.float32) / looks
        return np.asarray(signal + 10 * np.log10(np.maximum(speckle, 1e-6)), dtype=np.float32)
    noisy = signal + look.noise * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.clip(noisy, 0.001, 1).astype(np.float32)


def _stripes(glacier: _Glacier, x: Points, y: Points) -> Bools:
    """Wedges of missing data across the track, 10 degrees off the rows, wider towards one edge of the swath."""
    dx, dy = x - glacier.centre[0], y - glacier.centre[1]
    tilt = np.deg2rad(10)
    across, along = dx * np.cos(tilt) - dy * np.sin(tilt), dx * np.sin(tilt) + dy * np.cos(tilt)
    width = np.clip(0.19 + 0.07 * across / 6000, 0.03, 0.42)
    return np.asarray(np.mod(along / SLC_PERIOD_M, 1) < width)


# The sample: one glacier through the years, as a catalogue


@dataclass(frozen=True)
class _Mission:
    """A satellite of the sample: its collection and grid, and the first and last day it is painted on."""

    platform: str
    collection: str
    epsg: int
    resolution_m: float
    first: str
    last: str
    is_cloudy: bool = False
    slc_off: bool = False

    @property
    def kind(self) -> Kind:
        return "sar" if self.collection == "sentinel-1-rtc" else "optical"


_L, _S1, _S2 = "landsat-c2-l2", "sentinel-1-rtc", "sentinel-2-l2a"
MISSIONS = (
    _Mission("landsat-8", _L, 32622, 30, "2013-05-01", "2023-09-30"),
    _Mission("sentinel-1a", _S1, 3413, 40, "2015-01-01", "2023-12-31"),
    _Mission("sentinel-2a", _S2, 32622, 20, "2016-05-01", "2023-09-30", is_cloudy=True),
    _Mission("landsat-7", _L, 32622, 30, "2004-05-01", "2020-09-30", slc_off=True),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "1998-09-30"),
    _Mission("landsat-7", _L, 32622, 30, "1999-08-01", "2003-05-30"),
    _Mission("landsat-5", _L, 32622, 30, "1999-05-01", "2011-09-30"),
    _Mission("sentinel-2a", _S2, 32622, 20, "2016-05-01", "2023-09-30"),
    _Mission("landsat-8", _L, 32622, 30, "2013-05-01", "2023-09-30"),
    _Mission("sentinel-1a", _S1, 3413, 40, "2015-01-01", "2023-12-31"),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "1998-09-30"),
    _Mission("landsat-5", _L, 32622, 30, "1985-05-01", "2011-09-30"),
)
"""Scenes take these in turn, again from the start after the twelfth."""


def write_sample(folder: str | Path, *, scenes: int = 12, seed: int = 0) -> Path:
    """Paint one glacier whose front advances and retreats; write it as a static STAC catalogue, return its path.

    Beside `catalog.json`, its collections, items and COGs (Landsat, Sentinel-2, Sentinel-1, each on its own grid) lie
    `domains.geojson` with the domain and `truth.parquet` with the true fronts (`scene_id, datetime, glacier_id,
    geometry`, EPSG:3413). The same seed writes the same bytes.

    Parameters
    ----------
    scenes
        How many. Of four or more, one in twelve is cloudy (25 to 45 % of the domain) and one has SLC-off stripes; the
        others have less than 10 % cloud.
    """
    if scenes < 1:
        raise ValueError(f"a sample needs at least one scene, got {scenes}")
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    glacier = replace(_draw_glacier(rng, CENTRE, rng.uniform(1500, 2000)), bend=rng.uniform(0, 0.5))
    domain = _sample_domain(glacier)
    items, truth = [], []
    for mission, moment in _schedule(rng, scenes):
        item, front = _write_scene(folder, glacier, domain, mission, moment, rng)
        items.append(item)
        truth.append((item.id, moment, domain.glacier_id, LineString(front)))
    table = gpd.GeoDataFrame(truth, columns=["scene_id", "datetime", "glacier_id", "geometry"], crs=domain.crs)
    table.sort_values(["datetime", "scene_id"], ignore_index=True).to_parquet(folder / "truth.parquet")
    write_domains([domain], folder / "domains.geojson")
    return _write_catalog(folder, items)


def _sample_domain(glacier: _Glacier) -> Domain:
    half = SIDE_M / 2
    grid = box_grid((CENTRE[0] - half, CENTRE[1] - half, CENTRE[0] + half, CENTRE[1] + half), 3413, 30.0)
    s = np.arange(-2 * half, 2 * half, 100.0)
    line = LineString(_to_map(glacier, s, np.zeros_like(s))).intersection(shapely.box(*grid.boundingbox.bbox))
    return Domain("Painted-Glacier", grid, "painted", centerline=max(shapely.get_parts(line), key=shapely.length))


def _schedule(rng: np.random.Generator, n_scenes: int) -> list[tuple[_Mission, datetime]]:
    """Missions in turn, each at a random time from May to September (radar: all year), no day twice."""
    plan: dict[str, tuple[_Mission, datetime]] = {}
    while len(plan) < n_scenes:
        mission = MISSIONS[len(plan) % len(MISSIONS)]
        if n_scenes < 4:
            mission = replace(mission, is_cloudy=False, slc_off=False)
        first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (mission.first, mission.last))
        days = int(rng.integers(0, (last - first).days))
        moment = first + timedelta(days=days, hours=14, seconds=int(rng.integers(0, 7200)))
        if mission.kind == "sar" or 5 <= moment.month <= 9:
            plan.setdefault(f"{moment:%Y%m%d}", (mission, moment))
    return list(plan.values())


def _look_at(glacier: _Glacier, domain: Domain, mission: _Mission, moment: datetime, rng: np.random.Generator) -> _Look:
    """Front and conditions of one day. The sea stays darker than the ice, so that a person sees each front."""
    w = glacier.half_width_m
    look = _draw_look(rng, mission.kind, w)
    years = (moment - datetime(1985, 1, 1, tzinfo=UTC)).days / 365.25
    cycles = 0.3 * np.sin(years * 2 * np.pi / 11) + 0.08 * np.sin(2 * np.pi * years)
    darker = look.ice - 4 if mission.kind == "sar" else 0.6 * look.ice
    look = replace(
        look,
        position_m=w * (0.6 - 1.2 * years / 39 + cycles),
        sea_ice=min(look.sea_ice, darker),
        water=min(look.water, darker),
        melange_m=min(look.melange_m, 2 * w),
        slc_off=mission.slc_off,
    )
    cover = rng.uniform(0.25, 0.45) if mission.is_cloudy else rng.choice([0.0, rng.uniform(0.02, 0.07)])
    return _with_clouds(look, *_map_points(domain.grid), cover) if mission.kind == "optical" and cover else look


def _map_points(grid: GeoBox) -> tuple[Points, Points]:
    """EPSG:3413 coordinates of the grid's pixel centres, each (y, x)."""
    x, y = np.meshgrid(grid.coordinates["x"].values, grid.coordinates["y"].values)
    if grid.crs == 3413:
        return x, y
    x, y = Transformer.from_crs(str(grid.crs), 3413, always_xy=True).transform(x, y)
    return x, y


def _scene_grid(domain: Domain, mission: _Mission) -> GeoBox:
    """Grid of the satellite around the domain and 900 m beyond; Landsat's pixels have their centres on its lines."""
    box = domain.polygon.buffer(900, join_style="mitre")
    bounds = gpd.GeoSeries([shapely.segmentize(box, 500)], crs=domain.crs).to_crs(mission.epsg).total_bounds
    grid = box_grid(bounds, mission.epsg, mission.resolution_m)
    return grid.translate_pix(0.5, 0.5) if mission.collection == _L else grid


def _write_scene(
    folder: Path, glacier: _Glacier, domain: Domain, mission: _Mission, moment: datetime, rng: np.random.Generator
) -> tuple[pystac.Item, NDArray[np.float64]]:
    """Paint and write one scene; return its item and its front (EPSG:3413)."""
    grid = _scene_grid(domain, mission)
    look = _look_at(glacier, domain, mission, moment, rng)
    scene, front = _paint(glacier, look, *_map_points(grid), rng)
    item = _item(mission, moment, grid)
    if mission.kind == "optical":
        item.properties["eo:cloud_cover"] = round(100 * float(scene.cloud.mean()), 2)
    place = folder / mission.collection / item.id
    place.mkdir(parents=True, exist_ok=True)
    for key, (values, nodata, band) in _layers(mission, moment, scene).items():
        name = f"{item.id}_{key}.tif"
        _write_cog(place / name, values, nodata, grid)
        roles = ["data"] if band else ["cloud", "data"]
        bands = {"raster:bands": [{"nodata": nodata, "data_type": str(values.dtype), **band}]}
        item.add_asset(key, pystac.Asset(f"./{name}", media_type=pystac.MediaType.COG, roles=roles, extra_fields=bands))
    return item, front


def _layers(
    mission: _Mission, moment: datetime, scene: PaintedScene
) -> dict[str, tuple[NDArray[Any], float, dict[str, float]]]:
    """Asset key to numbers as the agency writes them, their nodata, and their scale and offset."""
    missing = np.isnan(scene.signal)
    if mission.kind == "sar":
        power = np.where(missing, -32768, 10 ** (scene.signal / 10)).astype(np.float32)
        return {"hh": (power, -32768, {"spatial_resolution": mission.resolution_m})}
    is_landsat = mission.collection == _L
    offset = LANDSAT_OFFSET if is_landsat else -0.1 if moment >= S2_OFFSET_SINCE else 0.0
    scale = LANDSAT_SCALE if is_landsat else 1e-4
    numbers = np.where(missing, 0, np.rint((scene.signal - offset) / scale)).astype(np.uint16)
    # Fill, cloud, snow or ice, water: bit patterns of QA_PIXEL, classes of SCL
    fill, cloud, frozen, water = (1, 22280, 30048, 21952) if is_landsat else (0, 9, 11, 6)
    quality = np.select([missing, scene.cloud, scene.ice], [fill, cloud, frozen], water)
    bands = {"scale": scale, "offset": offset, "spatial_resolution": mission.resolution_m}
    if is_landsat:
        return {"nir08": (numbers, 0, bands), "qa_pixel": (quality.astype(np.uint16), 1, {})}
    return {"nir": (numbers, 0, bands), "scl": (quality.astype(np.uint8), 0, {})}


def _write_cog(path: Path, values: NDArray[Any], nodata: float, grid: GeoBox) -> None:
    height, width = values.shape
    profile = {"driver": "COG", "count": 1, "dtype": values.dtype, "nodata": nodata, "width": width, "height": height}
    with rasterio.open(
        path, "w", crs=f"EPSG:{grid.crs.epsg}", transform=grid.transform, blocksize=256, compress="deflate", **profile
    ) as file:
        file.write(values, 1)


def _item(mission: _Mission, moment: datetime, grid: GeoBox) -> pystac.Item:
    footprint = shapely.geometry.shape(grid.extent.to_crs("EPSG:4326", resolution=1000).json)
    properties = {
        "platform": mission.platform,
        "instruments": _INSTRUMENTS[mission.platform],
        "gsd": mission.resolution_m,
        "proj:epsg": mission.epsg,
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform)[:6],
    }
    if mission.collection == _S2:
        properties["s2:processing_baseline"] = "04.00" if moment >= S2_OFFSET_SINCE else "02.14"
    return pystac.Item(
        _scene_id(mission, moment), mapping(footprint), list(footprint.bounds), moment, properties,
        collection=mission.collection,
    )  # fmt: skip


_INSTRUMENTS = {
    "landsat-5": ["tm"],
    "landsat-7": ["etm+"],
    "landsat-8": ["oli", "tirs"],
    "sentinel-1a": ["c-sar"],
    "sentinel-2a": ["msi"],
}


def _scene_id(mission: _Mission, moment: datetime) -> str:
    """Id as the agency would give it; path, tile and orbit are the painter's."""
    if mission.collection == _L:
        code = {"landsat-5": "LT05", "landsat-7": "LE07", "landsat-8": "LC08"}[mission.platform]
        return f"{code}_L2SP_016008_{moment:%Y%m%d}_02_T1"
    if mission.collection == _S2:
        return f"S2A_MSIL2A_{moment:%Y%m%dT%H%M%S}_R068_T22XDF_{moment + timedelta(hours=9):%Y%m%dT%H%M%S}"
    orbit = 4000 + (moment - datetime(2015, 1, 1, tzinfo=UTC)).days * 14
    end = moment + timedelta(seconds=60)
    return f"S1A_EW_GRDM_1SDH_{moment:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}_{orbit:06d}_{orbit * 9 % 0xFFFFFF:06X}_rtc"


def _write_catalog(folder: Path, items: list[pystac.Item]) -> Path:
    catalog = pystac.Catalog("calfin-sample", "Painted scenes of one painted glacier, with exactly known fronts")
    for name in sorted({str(item.collection_id) for item in items}):
        members = sorted((i for i in items if i.collection_id == name), key=lambda i: i.id)
        collection = pystac.Collection(
            name, f"Painted scenes in the form of {name}", pystac.Extent.from_items(members), license="CC0-1.0"
        )
        catalog.add_child(collection)
        collection.add_items(members)
    catalog.normalize_and_save(str(folder), catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"
