"""A domain, its known termini and the land around in; a small HTML page that opens offline out."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

import geopandas as gpd
import matplotlib
from shapely.geometry import Polygon

from calfin_cloud.domains import Domain, svg_path

AROUND = 0.35  # of the side of the box is shown beyond it
SIDE_PX = 720
BARS_KM = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)
STYLE = """
:root { color-scheme: light dark; --ink: #14212b; --soft: #5a6b78; --card: #fff; --line: #dfe5ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4ebf0; --soft: #9db0be; --card: #141d25; --line: #25323d; } }
body { margin: 0 auto; max-width: 1120px; padding: 1.2rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
       background: var(--card); }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; } p { margin: .2rem 0; }
.soft { color: var(--soft); }
.sheet { display: grid; grid-template-columns: minmax(0, 3fr) minmax(240px, 1fr); gap: 1.5rem; }
svg { max-width: 100%; max-height: 80vh; margin: 0 auto; border-radius: 8px; display: block; } li { margin: .3rem 0; }
.doubt { background: #fff4e5; color: #7a3b00; border-radius: 6px; padding: .5rem .8rem; margin: .4rem 0; }
.good { background: #e6f4ea; color: #14532d; border-radius: 6px; padding: .5rem .8rem; }
.ramp { height: 10px; border-radius: 5px; } .ends { display: flex; justify-content: space-between; }
@media (max-width: 760px) { .sheet { grid-template-columns: 1fr; } }
"""


def preview_html(
    domain: Domain,
    termini: gpd.GeoDataFrame,
    land: Mapping[str, Sequence[Polygon]],
    doubts: Sequence[str],
    *,
    picture: bytes | None = None,
    picture_words: str = "",
) -> str:
    """Write the page of one domain: its box on land and ice, its known termini by date, and what may be wrong with it.

    Parameters
    ----------
    termini
        Columns `date` (text) and the line, in the CRS of the domain.
    land
        Polygons `land` and `ice` in the CRS of the domain, as `land.read_land` gives.
    doubts
        Sentences, as `glaciers.check_place` gives.
    picture
        PNG of a scene, which covers the box; `picture_words` tell of it.
    """
    left, bottom, right, top = domain.grid.boundingbox.bbox
    reach = AROUND * max(right - left, top - bottom)
    window = (left - reach, bottom - reach, right + reach, top + reach)
    lon, lat = gpd.GeoSeries([domain.polygon.centroid], crs=domain.crs).to_crs(4326).iloc[0].coords[0]
    rows, columns = domain.shape
    told = "".join(f'<p class="doubt">{html.escape(d)}</p>' for d in doubts)
    told = told or '<p class="good">No doubt about this place.</p>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,"><title>{html.escape(domain.name)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(domain.name)}</h1>
<p class="soft">{abs(lat):.3f}° {"S" if lat < 0 else "N"}, {abs(lon):.3f}° {"W" if lon < 0 else "E"} · {domain.crs} ·
{columns} x {rows} pixels of {domain.resolution_m:g} m ({(right - left) / 1e3:.1f} x {(top - bottom) / 1e3:.1f} km)</p>
<div class="sheet"><div>{_svg(domain, termini, land, window, picture)}
<p class="soft">Pink: the domain, to which every scene is cut. Coloured: known termini, by date. Up is up on the grid of
{domain.crs}, not north.</p></div>
<div><h2>Checks</h2>{told}<h2>Known termini</h2>{_termini_words(termini)}
{f"<h2>Picture</h2><p>{html.escape(picture_words)}</p>" if picture else ""}
<h2>Sources</h2><p class="soft">Termini: MEaSUREs (Joughin and others). Land: Natural Earth;
Antarctica: Greene et al. (2022). The coast is coarse: termini may seem to lie on land.</p></div></div></body></html>
"""


def _svg(
    domain: Domain,
    termini: gpd.GeoDataFrame,
    land: Mapping[str, Sequence[Polygon]],
    window: tuple[float, float, float, float],
    picture: bytes | None,
) -> str:
    left, bottom, right, top = window
    unit = (right - left) / SIDE_PX
    box = domain.grid.boundingbox
    colours = _colours(termini)
    shapes = [
        f'<path d="{svg_path(shape, left, top)}" fill="{fill}" stroke="#a9b7c0" stroke-width="{unit}"/>'
        for kind, fill in (("land", "#e3ddd0"), ("ice", "#fbfdfe"))
        for shape in land[kind]
    ]
    place = f'x="{box.left - left}" y="{top - box.top}" width="{box.span_x}" height="{box.span_y}"'
    if picture:
        data = base64.b64encode(picture).decode()
        shapes.append(f'<image {place} preserveAspectRatio="none" href="data:image/png;base64,{data}"/>')
    shapes.append(f'<rect {place} fill="none" stroke="#d6336c" stroke-width="{2 * unit}"/>')
    lines = [
        f'<path d="{svg_path(line, left, top)}" fill="none" stroke="{colour}" stroke-width="{width * unit}"/>'
        for line, ink in zip(termini.geometry, colours, strict=True)
        for colour, width in (("#000", 4), (ink, 2.2))
    ]
    return (
        f'<svg viewBox="0 0 {right - left} {top - bottom}" role="img" aria-label="Map of the box and known termini" '
        f'style="background:#cfdee8">{"".join(shapes + lines)}{_scale_bar(right - left, top - bottom, unit)}</svg>'
    )


def _scale_bar(width: float, height: float, unit: float) -> str:
    km = max([b for b in BARS_KM if b * 1e3 <= width / 4] or [BARS_KM[0]])
    x, y = 16 * unit, height - 16 * unit
    return (
        f'<path d="M{x} {y}h{km * 1e3}" stroke="#fff" stroke-width="{7 * unit}"/>'
        f'<path d="M{x} {y}h{km * 1e3}" stroke="#14212b" stroke-width="{3 * unit}"/>'
        f'<text x="{x}" y="{y - 8 * unit}" font-size="{13 * unit}" font-weight="600" fill="#14212b" stroke="#fff" '
        f'stroke-width="{3 * unit}" paint-order="stroke">{km:g} km</text>'
    )


def _colours(termini: gpd.GeoDataFrame) -> list[str]:
    """Colour of each terminus by its place among the dates."""
    rank = termini["date"].rank(method="dense")
    last = max(float(rank.max()) - 1, 1.0) if len(rank) else 1.0
    return [matplotlib.colors.to_hex(matplotlib.colormaps["plasma"](0.15 + 0.8 * (r - 1) / last)) for r in rank]


def _termini_words(termini: gpd.GeoDataFrame) -> str:
    if termini.empty:
        return "<p>None is known here.</p>"
    stops = ", ".join(matplotlib.colors.to_hex(matplotlib.colormaps["plasma"](0.15 + 0.1 * i)) for i in range(9))
    return (
        f"<p>{len(termini)} lines</p><div class='ramp' style='background:linear-gradient(90deg,{stops})'></div>"
        f"<div class='ends soft'><span>{termini['date'].min()}</span><span>{termini['date'].max()}</span></div>"
    )
