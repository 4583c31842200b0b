"""Scenes, fronts and the table of a run go in; pictures (PNG) and one self-contained HTML report come out."""

from __future__ import annotations

import base64
import io
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from calfin_cloud.schema import REASONS, STATES, front_key

FRONT_COLOUR = (255, 176, 0)
REFERENCE_COLOUR = (86, 180, 233)
"""Amber and sky blue stay apart under every form of colour blindness (Okabe and Ito 2008; IBM palette)."""

HALO_PX, FRONT_PX, REFERENCE_PX = 5, 2, 2
DASH_PX, GAP_PX = 9, 9  # round ends take 2 px of each gap
TITLE_PX = 22
MAX_PICTURES = 300
CELL_PX = 240
CAPTION_LINES = 3
N_GREYS, N_SHADES = 128, 64
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px

STATE_WORDS = {"front": "front found", "no_front": "no front", "failed": "failed"}
SCENE_COLUMNS = ("domain", "scene_id", "datetime", "platform", "state", "reason", "n_fronts", "length_m", "confidence")

Line = NDArray[np.floating[Any]]


def scene_png(
    grey: NDArray[np.uint8],
    lines: Sequence[ArrayLike],
    *,
    reference: Sequence[ArrayLike] = (),
    title: str = "",
    side: int = 480,
) -> bytes:
    """Draw a scene with its fronts (amber) and reference fronts (blue, dashed) as a small palette PNG.

    Parameters
    ----------
    grey
        Scene, (y, x) uint8.
    lines, reference
        Polylines, (n, 2) of x = column, y = row in pixels of `grey`, pixel centres at integers.
    title
        Text in a strip above the scene; without it the picture is the scene alone.
    side
        Longest side of the drawn scene in px.
    """
    index, scale = _shrink_grey(grey, side)
    fronts = [_scale_line(line, scale) for line in lines]
    dashes = [dash for line in reference for dash in _cut_dashes(_scale_line(line, scale))]
    _draw_over(index, dashes, REFERENCE_PX, first_shade=N_GREYS + N_SHADES)
    _draw_over(index, fronts, FRONT_PX, first_shade=N_GREYS)
    if title:
        index = np.vstack([_title_strip(title, index.shape[1]), index])
    picture = Image.fromarray(index)
    picture.putpalette(_palette())  # turns it into mode P
    return _encode(picture)


def contact_sheet(pictures: Sequence[tuple[str, bytes]], *, columns: int = 4) -> bytes:
    """Lay (caption, PNG of `scene_png`) pairs out on one PNG, the first `MAX_PICTURES` of them."""
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet needs pictures and columns, got {len(pictures)} pictures, {columns} columns")
    shown = pictures[:MAX_PICTURES]
    columns = min(columns, len(shown))
    n_rows, pad, line_px = -(-len(shown) // columns), 8, 14
    step_x, step_y = CELL_PX + pad, CELL_PX + pad + CAPTION_LINES * line_px
    left_over = len(pictures) - len(shown)
    sheet = Image.new("RGB", (columns * step_x + pad, n_rows * step_y + pad + (line_px if left_over else 0)), "white")
    draw, font = ImageDraw.Draw(sheet), _font(11)
    for place, (caption, png) in enumerate(shown):
        x, y = pad + place % columns * step_x, pad + place // columns * step_y
        picture = _open_picture(png, caption)
        picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y))
        draw.multiline_text((x, y + picture.height + 3), _wrap(caption, font), fill="#222", font=font, spacing=2)
    if left_over:
        draw.text((pad, sheet.height - line_px - 4), f"and {left_over} more pictures", fill="#222", font=font)
    return _encode(sheet.quantize(palette=_palette_picture(), dither=Image.Dither.NONE))


def report_html(
    scenes: pd.DataFrame, pictures: Mapping[str, bytes], *, title: str, provenance: Mapping[str, object]
) -> str:
    """Write the report of a run as one HTML page that opens offline: counts, pictures, table, provenance.

    Parameters
    ----------
    scenes
        A row a scene with `SCENE_COLUMNS` (`datetime` as text) and any further numeric columns; names ending in `_m`
        are metres, `m_to_DATE` and `distance_m` distances to reference fronts.
    pictures
        PNG of each scene by `domain/scene_id`; the first `MAX_PICTURES` are embedded, the rest are counted.
    provenance
        What made the run: model, code, settings, CRS; nested mappings and dataclasses are spread out.
    """
    missing = [c for c in SCENE_COLUMNS if c not in scenes.columns]
    unknown = sorted({str(s) for s in scenes["state"]} - set(STATES)) if "state" in scenes else []
    if missing or unknown:
        raise ValueError(
            f"scenes lack the columns {missing} or have the unknown states {unknown}; "
            f"expected the columns {SCENE_COLUMNS} and the states {STATES}"
        )
    numbers = _number_columns(scenes)
    rows = [_report_row(row, numbers) for row in scenes.to_dict("records")]
    cards, n_left_out = _cards(rows, pictures)
    return _TEMPLATE.render(
        title=_clean(title),
        n_scenes=len(rows),
        states=[(s, STATE_WORDS[s], sum(row["state"] == s for row in rows)) for s in STATES],
        reasons=_count_reasons(rows),
        medians=_medians(scenes),
        headers=[_header(c) for c in numbers],
        rows=rows,
        cards=cards,
        n_left_out=n_left_out,
        provenance=[(_clean(k), _clean(v)) for k, v in _flatten(provenance)],
        front_colour=_hex(FRONT_COLOUR),
        reference_colour=_hex(REFERENCE_COLOUR),
    )


def scene_figure(
    grey: NDArray[np.uint8],
    lines: Sequence[ArrayLike],
    *,
    reference: Sequence[ArrayLike] = (),
    extent_km: tuple[float, float, float, float] | None = None,
    title: str = "",
) -> bytes:
    """Draw one scene for print: front (solid), reference (dashed), legend, and scale bar and axes where they are known.

    `lines` and `reference` are as in `scene_png`; `extent_km` is left, right, bottom, top of the scene's outer edges in
    map coordinates.
    """
    n_rows, n_columns = grey.shape
    left, right, bottom, top = extent_km or (-0.5, n_columns - 0.5, n_rows - 0.5, -0.5)
    per_px = np.array([(right - left) / n_columns, (bottom - top) / n_rows])
    figure = Figure(figsize=(6.4, 6.4 * n_rows / n_columns + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top), interpolation="antialiased")
    for group, colour, style, label in (
        (lines, FRONT_COLOUR, "-", "calving front"),
        (reference, REFERENCE_COLOUR, "--", "reference front"),
    ):
        for i, line in enumerate(group):
            x, y = (np.array([left, top]) + (_check_line(line) + 0.5) * per_px).T
            axes.plot(x, y, "-", color="black", linewidth=3.6, alpha=0.75, solid_capstyle="round")
            axes.plot(x, y, style, color=_hex(colour), linewidth=1.8, label="" if i else label)
    if len(lines) or len(reference):
        axes.legend(loc="upper right", facecolor="0.15", labelcolor="white", framealpha=0.8)
    _dress_axes(axes, extent_km, title)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _dress_axes(axes: Axes, extent_km: tuple[float, float, float, float] | None, title: str) -> None:
    """Title, and with an extent axes in km and a scale bar of about a quarter of the width."""
    axes.set_title(title, fontsize=11)
    if extent_km is None:
        axes.set_axis_off()
        return
    left, right, bottom, top = extent_km
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="easting (km)", ylabel="northing (km)")
    axes.ticklabel_format(useOffset=False, style="plain")
    width = right - left
    bar = max(n for n in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if n <= max(width / 4, 0.1))
    x, y = left + 0.05 * width, bottom + 0.06 * (top - bottom)
    axes.plot([x, x + bar], [y, y], color="black", linewidth=6, solid_capstyle="butt")
    axes.plot([x, x + bar], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axes.annotate(
        f"{bar:g} km", (x + bar / 2, y), (0, 5), textcoords="offset points", ha="center", va="bottom", color="white",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "0.1", "edgecolor": "none", "alpha": 0.6},
    )  # fmt: skip


def _shrink_grey(grey: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Scene resized to `side` px as indices of the greys, and its scale in x and y."""
    if grey.ndim != 2 or grey.dtype != np.uint8 or not grey.size:
        raise ValueError(f"grey must be (y, x) uint8, got {grey.shape} {grey.dtype}; pass one channel of the scene")
    height, width = grey.shape
    ratio = side / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    resized = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
    return resized // (256 // N_GREYS), np.array([size[0] / width, size[1] / height])


def _check_line(line: ArrayLike) -> Line:
    points = np.asarray(line, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"a line must be finite (n, 2) of x, y in pixels, got shape {points.shape}; drop its gaps")
    return points


def _scale_line(line: ArrayLike, scale: NDArray[np.float64]) -> Line:
    """Line in pixels of the resized scene: resizing keeps the image's outer edges in place, not its pixel centres."""
    return (_check_line(line) + 0.5) * scale - 0.5


def _cut_dashes(line: Line) -> Iterator[Line]:
    """Dashes of `DASH_PX` every `DASH_PX + GAP_PX` along the line."""
    along = np.concatenate([[0.0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
    for start in np.arange(0, along[-1], DASH_PX + GAP_PX):
        at = np.linspace(start, min(start + DASH_PX, along[-1]), DASH_PX + 1)
        yield np.stack([np.interp(at, along, line[:, i]) for i in (0, 1)], axis=1)


def _draw_over(index: NDArray[np.uint8], lines: Sequence[Line], width_px: int, *, first_shade: int) -> None:
    """Draw lines with a dark halo into palette indices.

    The halo is wider than the line, so that an antialiased line only ever mixes with black: its shades are a ramp.
    """
    if not lines:
        return
    halo, line = _coverage(index.shape, lines, HALO_PX), _coverage(index.shape, lines, width_px)
    index[:] = (index * (1 - halo / 255)).astype(np.uint8)
    drawn = line > 0
    index[drawn] = first_shade + line[drawn].astype(int) * (N_SHADES - 1) // 255


def _coverage(shape: tuple[int, ...], lines: Sequence[Line], width_px: int) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    fixed = [np.round(line * (1 << SUBPIXEL_BITS)).astype(np.int32) for line in lines if len(line)]
    cv2.polylines(mask, fixed, False, 255, width_px, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def _palette() -> bytes:
    """Greys, then black to the front's colour, then black to the reference's colour."""
    greys = np.linspace(0, 255, N_GREYS)[:, None].repeat(3, axis=1)
    ramps = [np.linspace(0, 1, N_SHADES)[:, None] * colour for colour in (FRONT_COLOUR, REFERENCE_COLOUR)]
    return np.round(np.vstack([greys, *ramps])).astype(np.uint8).tobytes()


def _palette_picture() -> Image.Image:
    picture = Image.new("P", (1, 1))
    picture.putpalette(_palette())
    return picture


def _title_strip(title: str, width: int) -> NDArray[np.uint8]:
    strip = Image.new("L", (width, TITLE_PX), 16)
    font = _font(13)
    while len(title) > 1 and font.getlength(title) > width - 10:
        title = title.removesuffix("…")[:-1] + "…"
    ImageDraw.Draw(strip).text((5, 3), title, fill=255, font=font)
    return np.asarray(strip) // (256 // N_GREYS)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same on every machine; a new one each time, since threads share none."""
    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _wrap(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """Caption in at most `CAPTION_LINES` lines, each as wide as a cell."""
    for n_letters in range(60, 8, -2):
        lines = textwrap.wrap(caption, n_letters, max_lines=CAPTION_LINES, placeholder=" …")
        if all(font.getlength(line) <= CELL_PX for line in lines):
            break
    return "\n".join(lines)


def _encode(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=6)
    return out.getvalue()


def _open_picture(png: bytes, what: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(png)).convert("RGB")
    except OSError as error:
        raise ValueError(f"the picture of {what!r} cannot be read: {error}; draw it again with scene_png") from error


def _thumbnail_uri(png: bytes, what: str) -> str:
    """Picture as a data URI: JPEG of a third of the PNG's size, full colour resolution to keep the thin lines."""
    out = io.BytesIO()
    _open_picture(png, what).save(out, "JPEG", quality=80, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _number_columns(scenes: pd.DataFrame) -> list[str]:
    further = scenes.select_dtypes("number").columns
    return ["n_fronts", "length_m", "confidence", *(c for c in further if c not in SCENE_COLUMNS)]


def _report_row(row: Mapping[Any, Any], numbers: Sequence[str]) -> dict[str, Any]:
    reason = "" if pd.isna(row["reason"]) else str(row["reason"])
    words = REASONS.get(reason, reason) if reason or row["state"] == "front" else "no reason was recorded"
    texts = {k: "–" if pd.isna(row[k]) else _clean(row[k]) for k in ("domain", "scene_id", "datetime", "platform")}
    return {
        **texts,
        "key": front_key(row["domain"], row["scene_id"]),
        "state": row["state"],
        "state_words": STATE_WORDS[row["state"]],
        "reason": _clean(words),
        "numbers": [_number(c, row[c]) for c in numbers],
        "facts": [_fact(c, row[c]) for c in numbers if not pd.isna(row[c]) and row[c]],
    }


def _cards(rows: Sequence[dict[str, Any]], pictures: Mapping[str, bytes]) -> tuple[list[dict[str, Any]], int]:
    """Cards of the contact sheet in the order of the table, and the number of scenes left out of it.

    Scenes with and without a picture are limited apart, so that failures never crowd out the pictures.
    """
    cards = []
    n_shown = {True: 0, False: 0}
    for row in rows:
        png = pictures.get(row["key"])
        n_shown[png is not None] += 1
        if n_shown[png is not None] > MAX_PICTURES:
            continue
        try:
            picture = (
                {"uri": _thumbnail_uri(png, row["key"]), "missing": ""}
                if png is not None
                else {"missing": "no picture"}
            )
        except ValueError:
            picture = {"missing": "its picture cannot be read"}
        cards.append({**row, **picture})
    return cards, len(rows) - len(cards)


def _count_reasons(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """State, its words, reason and number of scenes: by state, the most frequent reason first."""
    counts = Counter((row["state"], row["state_words"], row["reason"]) for row in rows)
    return sorted(((*what, n) for what, n in counts.items()), key=lambda line: (STATES.index(line[0]), -line[3]))


def _medians(scenes: pd.DataFrame) -> list[str]:
    """Sentences on the distances to reference fronts: median and number of scenes."""
    columns = [c for c in _number_columns(scenes) if c.startswith("m_to_") or c == "distance_m"]
    return [
        f"Median {_fact(c, float(scenes[c].median()))}, over {scenes[c].count()} scenes with a front and a reference"
        for c in columns
        if scenes[c].notna().any()
    ]


def _label(column: str) -> tuple[str, str]:
    """Name of a column in words, and its unit."""
    if column.startswith("m_to_"):
        return f"distance to reference of {column.removeprefix('m_to_')}", "m"
    units = {"_m": "m", "_px": "px", "_deg": "°", "_days": "days"}
    suffix = next((s for s in units if column.endswith(s)), "")
    words = {"distance_m": "distance to reference", "n_fronts": "fronts"}
    return words.get(column, column.removesuffix(suffix).replace("_", " ")), units.get(suffix, "")


def _header(column: str) -> str:
    words, unit = _label(column)
    return f"{words} ({unit})" if unit else words


def _fact(column: str, value: float) -> str:
    words, unit = _label(column)
    return f"{words}: {_number(column, value)}\N{NO-BREAK SPACE}{unit}".rstrip()


def _number(column: str, value: float) -> str:
    """Value as text: lengths in whole metres, other measures in tenths, shares in hundredths."""
    if pd.isna(value):
        return "–"
    whole = column in ("length_m", "n_fronts") or isinstance(value, int | np.integer)
    return f"{value:,.{0 if whole else 1 if _label(column)[1] else 2}f}"


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        nested = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(nested, Mapping):
            yield from _flatten(nested, f"{name}.")
        else:
            yield name, json.dumps(nested, default=str) if isinstance(nested, list | tuple | dict) else nested


def _clean(value: object) -> str:
    """Text that every browser and UTF-8 file takes: control characters and lone surrogates become a mark."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


_TEMPLATE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --front: #0072b2; --no_front: #e69f00; --failed: #882255; --rule: #d5dbe1; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 1rem; background: #fff; color: #1b242c;
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .75rem; }
.counts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; }
.count { border: 1px solid var(--rule); border-top: 5px solid #1b242c; border-radius: 6px; padding: .5rem .8rem; }
.count b { display: block; font-size: 1.8rem; line-height: 1.2; }
.count.front { border-top-color: var(--front); } .count.no_front { border-top-color: var(--no_front); }
.count.failed { border-top-color: var(--failed); }
.state { display: inline-block; border-radius: 4px; padding: 0 .45em; font-size: .85em; font-weight: 600;
         white-space: nowrap; color: #fff; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.state.front { background: var(--front); } .state.no_front { background: var(--no_front); color: #1b242c; }
.state.failed { background: var(--failed); }
.box { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; overflow-wrap: normal; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { background: #f1f4f7; vertical-align: bottom; } tr:last-child td { border-bottom: 0; }
td.id { min-width: 12rem; max-width: 22rem; overflow-wrap: anywhere; } td.words { min-width: 8rem; }
td.date { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide th.number { min-width: 5rem; } .wide td.words { min-width: 11rem; }
.narrow { width: auto; } .narrow th { white-space: nowrap; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; break-inside: avoid; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #1b242c; }
.none { aspect-ratio: 1; display: grid; place-items: center; background: #f1f4f7; color: #55626e; }
figcaption { padding: .5rem .7rem .7rem; font-size: .85rem; } figcaption b { display: block; font-size: .8rem; }
@media (max-width: 40rem) { .counts { grid-template-columns: 1fr 1fr; } }
.key { display: inline-block; width: 2.2em; height: 0; border-top: 4px solid {{ front_colour }}; vertical-align: middle;
       outline: 2px solid #000; outline-offset: 0; margin: 0 .35em 0 0; }
.key.reference { border-top: 4px dashed {{ reference_colour }}; background: #000; margin-left: 1.2em; }
.quiet { color: #55626e; }
@media print { body { max-width: none; font-size: 11pt; padding: 0; } .box { overflow: visible; border: 0; }
  .sheet { grid-template-columns: repeat(4, 1fr); gap: .4rem; } table { font-size: 7pt; }
  thead { display: table-header-group; }
  th, td { padding: .15rem .25rem; min-width: 0 !important; } tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<section class="counts" aria-label="Scenes by state">
<div class="count"><b>{{ n_scenes }}</b>scene{{ "" if n_scenes == 1 else "s" }}</div>
{% for state, words, n in states %}
<div class="count {{ state }}"><b>{{ n }}</b>{{ words }}</div>
{% endfor %}
</section>
{% for sentence in medians %}
<p>{{ sentence }}.</p>
{% endfor %}
{% if reasons %}
<h2>Why</h2>
<div class="box"><table>
<thead><tr><th>State</th><th>Reason</th><th class="number">Scenes</th></tr></thead>
<tbody>
{% for state, words, reason, n in reasons %}
<tr>
<td><span class="state {{ state }}">{{ words }}</span></td>
<td class="words">{{ reason }}</td><td class="number">{{ n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
<h2>Pictures</h2>
<p class="quiet"><span class="key"></span>calving front
<span class="key reference"></span>reference front, where drawn</p>
<section class="sheet">
{% for card in cards %}
<figure>
{% if card.missing %}
<div class="none">{{ card.missing }}</div>
{% else %}
<img src="{{ card.uri }}" alt="{{ card.state_words }} in scene {{ card.scene_id }}" loading="lazy">
{% endif %}
<figcaption><b>{{ card.scene_id }}</b>{{ card.domain }}, {{ card.datetime }}<br>
<span class="state {{ card.state }}">{{ card.state_words }}</span> {{ card.reason }}
{% for fact in card.facts %}<br><span class="quiet">{{ fact }}</span>
{% endfor %}</figcaption>
</figure>
{% endfor %}
</section>
{% if n_left_out %}
<p>{{ n_left_out }} more scene{{ " is" if n_left_out == 1 else "s are" }} in the table without a picture here.</p>
{% endif %}
<h2>All scenes</h2>
<div class="box" tabindex="0" role="region" aria-label="Table of all scenes"><table class="wide">
<thead><tr><th>Domain</th><th>Scene</th><th>Date</th><th>Platform</th><th>State</th><th>Reason</th>
{% for header in headers %}<th class="number">{{ header[0] | upper }}{{ header[1:] }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.domain }}</td><td class="id">{{ row.scene_id }}</td><td class="date">{{ row.datetime }}</td>
<td>{{ row.platform }}</td>
<td><span class="state {{ row.state }}">{{ row.state_words }}</span></td><td class="words">{{ row.reason }}</td>
{% for number in row.numbers %}<td class="number">{{ number }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<h2>Provenance</h2>
<div class="box"><table class="narrow">
{% for name, value in provenance %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
</body>
</html>
"""
)
