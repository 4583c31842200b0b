"""Scenes and fronts in; pictures (PNG) out: of a scene, and many of them on one sheet."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

FRONT_COLOUR = (255, 176, 0)
REFERENCE_COLOUR = (86, 180, 233)
REJECTED_COLOUR = (220, 38, 127)
"""Amber, sky blue and magenta stay apart under every form of colour blindness (Okabe and Ito 2008; IBM palette).

Magenta has a third of amber's luminance, so that a rejected candidate is told from a front in grey too.
"""

LINE_WORDS = {"lines": "calving front", "rejected": "rejected candidate", "reference": "reference front"}

HALO_PX, FRONT_PX, REFERENCE_PX = 5, 2, 2
REJECTED_HALO_PX, REJECTED_PX = 4, 2
DASH_PX, GAP_PX = 9, 9  # round ends take 2 px of each gap
REJECTED_DASH_PX, REJECTED_GAP_PX = 4, 8
MAX_PICTURES = 300
CELL_PX = 240
CAPTION_LINES, FONT_PX = 3, 11
N_GREYS, N_SHADES = 128, 42  # and three ramps of shades: 254 colours
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px

Line = NDArray[np.floating[Any]]


def scene_png(
    grey: NDArray[np.uint8],
    lines: Sequence[ArrayLike],
    *,
    rejected: Sequence[ArrayLike] = (),
    reference: Sequence[ArrayLike] = (),
    side: int = 480,
) -> bytes:
    """Draw a scene as a small palette PNG: fronts amber, rejected candidates magenta dots, references blue dashes.

    Parameters
    ----------
    grey
        Scene, (y, x) uint8.
    lines, rejected, reference
        Polylines, (n, 2) of x = column, y = row in pixels of `grey`, pixel centres at integers.
    side
        Longest side of the drawn scene in px.
    """
    index, scale = _shrink_grey(grey, side)
    for group, dash, (halo_px, width_px), ramp in (
        (reference, (DASH_PX, GAP_PX), (HALO_PX, REFERENCE_PX), 1),
        (rejected, (REJECTED_DASH_PX, REJECTED_GAP_PX), (REJECTED_HALO_PX, REJECTED_PX), 2),
        (lines, None, (HALO_PX, FRONT_PX), 0),
    ):
        scaled = [_scale_line(line, scale) for line in group]
        drawn = [part for line in scaled for part in _cut_dashes(line, *dash)] if dash else scaled
        _draw_over(index, drawn, halo_px, width_px, first_shade=N_GREYS + ramp * N_SHADES)
    picture = Image.fromarray(index)
    picture.putpalette(_palette())  # turns it into mode P
    return _encode(picture)


def contact_sheet(pictures: Sequence[tuple[str, bytes]], *, columns: int = 4) -> bytes:
    """Lay (caption, PNG of `scene_png`) pairs out on one PNG, the first `MAX_PICTURES` of them.

    Raises
    ------
    ValueError
        There is no picture, or no column.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet needs pictures and columns, got {len(pictures)} pictures, {columns} columns")
    shown = pictures[:MAX_PICTURES]
    columns = min(columns, len(shown))
    n_rows, pad, line_px = -(-len(shown) // columns), 8, 14
    step_x, step_y = CELL_PX + pad, CELL_PX + pad + CAPTION_LINES * line_px
    left_over = len(pictures) - len(shown)
    foot = _legend(columns * step_x + pad, f"and {left_over} more pictures" if left_over else "")
    sheet = Image.new("RGB", (foot.width, n_rows * step_y + pad + foot.height), "white")
    sheet.paste(foot, (0, sheet.height - foot.height))
    draw, font = ImageDraw.Draw(sheet), _font()
    for place, (caption, png) in enumerate(shown):
        x, y = pad + place % columns * step_x, pad + place // columns * step_y
        picture = open_picture(png, caption)
        picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y))
        draw.multiline_text((x, y + picture.height + 3), _wrap(caption, font), fill="#222", font=font, spacing=2)
    return _encode(sheet.quantize(palette=_palette_picture(), dither=Image.Dither.NONE))


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


def _cut_dashes(line: Line, dash_px: int, gap_px: int) -> Iterator[Line]:
    """Dashes of `dash_px` every `dash_px + gap_px` along the line."""
    along = np.concatenate([[0.0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
    for start in np.arange(0, along[-1], dash_px + gap_px):
        at = np.linspace(start, min(start + dash_px, along[-1]), dash_px + 1)
        yield np.stack([np.interp(at, along, line[:, i]) for i in (0, 1)], axis=1)


def _draw_over(
    index: NDArray[np.uint8], lines: Sequence[Line], halo_px: int, width_px: int, *, first_shade: int
) -> None:
    """Draw lines with a dark halo into palette indices.

    The halo is wider than the line, so that an antialiased line only ever mixes with black: its shades are a ramp.
    """
    if not lines:
        return
    halo, line = _coverage(index.shape, lines, halo_px), _coverage(index.shape, lines, width_px)
    # Every pixel darkens along its own ramp, which begins with black: greys at 0, lines drawn before at their shades.
    dark = halo > 0
    shade = index[dark].astype(int)
    black = np.where(shade < N_GREYS, 0, shade - (shade - N_GREYS) % N_SHADES)
    index[dark] = black + (shade - black) * (1 - halo[dark] / 255)
    drawn = line > 0
    index[drawn] = first_shade + line[drawn].astype(int) * (N_SHADES - 1) // 255


def _coverage(shape: tuple[int, ...], lines: Sequence[Line], width_px: int) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    fixed = [np.round(line * (1 << SUBPIXEL_BITS)).astype(np.int32) for line in lines if len(line)]
    cv2.polylines(mask, fixed, False, 255, width_px, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def _palette() -> bytes:
    """Greys, then shades from black to the colour of fronts, of references, of rejected candidates."""
    greys = np.linspace(0, 255, N_GREYS)[:, None].repeat(3, axis=1)
    colours = (FRONT_COLOUR, REFERENCE_COLOUR, REJECTED_COLOUR)
    ramps = [np.linspace(0, 1, N_SHADES)[:, None] * colour for colour in colours]
    return np.round(np.vstack([greys, *ramps])).astype(np.uint8).tobytes()


def _palette_picture() -> Image.Image:
    picture = Image.new("P", (1, 1))
    picture.putpalette(_palette())
    return picture


def _legend(width: int, note: str) -> Image.Image:
    """Foot of a contact sheet: a sample of each line as `scene_png` draws it, its words, and a note if there is one."""
    texts = [*LINE_WORDS.values(), *([note] if note else [])]
    row_px, sea, sample = 18, np.full((14, 60), 96, dtype=np.uint8), [[[4, 6.5], [55, 6.5]]]
    foot = Image.new("RGB", (width, len(texts) * row_px + 8), "white")
    draw, font = ImageDraw.Draw(foot), _font()
    for row, text in enumerate(texts):
        draw.text((8 if text == note else 76, row * row_px), text, fill="#222", font=font)
    for row, name in enumerate(LINE_WORDS):
        groups = {n: sample if n == name else [] for n in LINE_WORDS}
        drawn = scene_png(sea, groups["lines"], rejected=groups["rejected"], reference=groups["reference"], side=60)
        foot.paste(open_picture(drawn, name), (8, row * row_px))
    return foot


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same on every machine; a new one each time, since threads share none."""
    import matplotlib  # a second, which tracing need not wait for

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), FONT_PX, layout_engine=ImageFont.Layout.BASIC)


def _wrap(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """Caption in at most `CAPTION_LINES` lines, each as wide as a cell."""
    for n_letters in range(60, 8, -2):
        lines = textwrap.wrap(caption, n_letters, max_lines=CAPTION_LINES, placeholder=" …")
        if all(font.getlength(line) <= CELL_PX for line in lines):
            break
    return "\n".join(lines)


def _encode(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=4)  # a third of the time of 6, for a tenth more bytes
    return out.getvalue()


def open_picture(png: bytes, what: str) -> Image.Image:
    """Open a PNG in colour; raise a `ValueError` that names it `what` if it is none."""
    try:
        return Image.open(io.BytesIO(png)).convert("RGB")
    except OSError as error:
        raise ValueError(f"the picture of {what!r} cannot be read: {error}; draw it again with scene_png") from error
