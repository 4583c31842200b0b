"""Pictures show fronts on the right pixels, in colours that stay apart for every eye."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2lab

from calfin_cloud.figures import contact_sheet, scene_png
from calfin_cloud.figures.pictures import (
    CELL_PX,
    FRONT_COLOUR,
    REFERENCE_COLOUR,
    REJECTED_COLOUR,
)


def open_rgb(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def painted(picture, colour):
    """Rows and columns of pixels in exactly the full colour of a line."""
    return np.argwhere((np.abs(picture - colour) <= 1).all(axis=-1))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize(("shape", "side"), [((60, 80), 480), ((1000, 1600), 480), ((480, 300), 480), ((97, 701), 333)])
def test_a_front_lies_on_the_pixels_it_was_traced_on(shape, side):
    height, width = shape
    column, row = width // 3, height // 2
    grey = np.zeros(shape, np.uint8)
    across = open_rgb(scene_png(grey, [np.array([[0, row], [width - 1, row]])], side=side))
    down = open_rgb(scene_png(grey, [np.array([[column, 0], [column, height - 1]])], side=side))
    scale_y, scale_x = across.shape[0] / height, across.shape[1] / width
    assert max(across.shape) == side
    row_drawn = np.average(np.arange(across.shape[0]), weights=across.sum(axis=(1, 2)))
    column_drawn = np.average(np.arange(down.shape[1]), weights=down.sum(axis=(0, 2)))
    assert abs(row_drawn - ((row + 0.5) * scale_y - 0.5)) <= 0.25
    assert abs(column_drawn - ((column + 0.5) * scale_x - 0.5)) <= 0.25


@pytest.mark.parametrize("side", [90, 480])
def test_a_line_around_a_bright_pixel_stays_around_it(side):
    grey = np.zeros((240, 240), np.uint8)
    grey[150:162, 60:72] = 255
    middle = np.array([[65.5, 155.5], [65.5, 155.5]])
    dot = painted(open_rgb(scene_png(grey, [middle], side=side)), FRONT_COLOUR).mean(axis=0)
    bright = np.argwhere(open_rgb(scene_png(grey, [], side=side))[..., 0] > 127).mean(axis=0)
    assert np.abs(dot - bright).max() <= 0.5


def test_the_reference_is_dashed_and_the_front_lies_over_it():
    grey = np.full((480, 480), 200, np.uint8)
    line = np.array([[10.0, 240.0], [470.0, 240.0]])
    dashed = painted(open_rgb(scene_png(grey, [], reference=[line])), REFERENCE_COLOUR)
    covered = 1 - len(np.unique(dashed[:, 1])) / 460
    assert 0.2 < covered < 0.6
    both = open_rgb(scene_png(grey, [line], reference=[line]))
    assert len(np.unique(painted(both, FRONT_COLOUR)[:, 1])) >= 460
    assert len(painted(both, REFERENCE_COLOUR)) == 0


def test_a_rejected_candidate_is_dotted_and_a_front_lies_over_it():
    grey = np.full((480, 480), 200, np.uint8)
    line = np.array([[10.0, 240.0], [470.0, 240.0]])
    dotted = painted(open_rgb(scene_png(grey, [], rejected=[line])), REJECTED_COLOUR)
    solid = painted(open_rgb(scene_png(grey, [line])), FRONT_COLOUR)
    assert 0.2 < len(np.unique(dotted[:, 1])) / len(np.unique(solid[:, 1])) < 0.7
    both = open_rgb(scene_png(grey, [line], rejected=[line]))
    assert len(np.unique(painted(both, FRONT_COLOUR)[:, 1])) >= 460
    assert len(painted(both, REJECTED_COLOUR)) == 0


def test_lines_that_cross_make_no_bright_pixels():
    grey = np.zeros((240, 240), np.uint8)
    flat, steep = np.array([[0.0, 120.0], [239.0, 120.0]]), np.array([[100.0, 0.0], [140.0, 239.0]])
    picture = open_rgb(scene_png(grey, [steep], reference=[flat], rejected=[flat + 9], side=240))
    assert (picture.min(axis=-1) <= min(REFERENCE_COLOUR)).all()  # a grey is never brighter than the lines' darkest


def seen_with(deficiency, colour):
    """CIELAB of a colour as the eye sees it; matrices of complete deficiency after Machado et al. 2009, linear RGB."""
    matrices = {
        "none": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    srgb = np.divide(colour, 255)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrices[deficiency]) @ linear, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("deficiency", ["none", "protan", "deutan", "tritan"])
def test_fronts_rejected_candidates_and_references_differ_for_every_eye_and_in_grey(deficiency):
    front, rejected, reference = (seen_with(deficiency, c) for c in (FRONT_COLOUR, REJECTED_COLOUR, REFERENCE_COLOUR))
    for one, other in ((front, rejected), (front, reference), (rejected, reference)):
        assert np.linalg.norm(one - other) > 30
    assert front[0] - rejected[0] > 20


def test_a_front_is_set_off_from_bright_ice_by_a_dark_halo():
    picture = open_rgb(scene_png(np.full((480, 480), 255, np.uint8), [np.array([[0, 240], [479, 240]])]))
    rows = np.unique(painted(picture, FRONT_COLOUR)[:, 0])
    assert picture[rows.min() - 2 : rows.min(), 240].max(axis=1).min() < 120
    assert (picture[:200] == 255).all()
    assert (picture[280:] == 255).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 200), st.integers(0, 5))
def test_any_scene_and_line_give_a_picture_of_its_proportions(height, width, side, seed):
    lines = [np.random.default_rng(seed).uniform(-20, 320, (seed, 2))]
    size = Image.open(io.BytesIO(scene_png(noise(height, width, seed), lines, reference=lines, side=side))).size
    assert max(size) == side
    assert min(size) == max(1, round(min(height, width) * side / max(height, width)))


def test_a_picture_is_small_even_of_pure_noise_and_the_same_from_every_thread():
    grey, line = noise(1200, 1200), np.random.default_rng(1).uniform(0, 1200, (40, 2))

    def draw(_):
        return scene_png(grey, [line], reference=[line + 30])

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(draw, range(8)))
    assert set(pictures) == {draw(0)}
    assert len(pictures[0]) < 250_000
    opened = Image.open(io.BytesIO(pictures[0]))
    assert (opened.format, opened.mode, opened.size) == ("PNG", "P", (480, 480))


@pytest.mark.parametrize("grey", [np.zeros((64, 64)), np.zeros((64, 64, 3), np.uint8), np.zeros((0, 64), np.uint8)])
def test_what_is_no_grey_scene_is_refused(grey):
    with pytest.raises(ValueError, match=r"must be \(y, x\) uint8, got"):
        scene_png(grey, [])


@pytest.mark.parametrize("line", [np.zeros(4), np.zeros((4, 3)), np.array([[0, np.nan], [1, 1]])])
def test_what_is_no_line_is_refused(line):
    with pytest.raises(ValueError, match=r"finite \(n, 2\)"):
        scene_png(noise(64, 64), [line])


def test_a_contact_sheet_shows_every_picture_in_its_place():
    bright, dark = (scene_png(np.full((100, 100), v, np.uint8), []) for v in (200, 40))
    sheet = open_rgb(contact_sheet([("bright", bright), ("dark", dark), ("x" * 200, bright)], columns=2))
    step = CELL_PX + 8
    assert np.abs(sheet[100, 100] - 200).max() <= 6
    assert np.abs(sheet[100, 100 + step] - 40).max() <= 6
    assert np.abs(sheet[100 + step + 42, 100] - 200).max() <= 6
    assert sheet[100 + step + 42, 100 + step].min() > 245
    assert sheet[8 + CELL_PX : 8 + CELL_PX + 16, 8:80].min() < 100


def test_a_contact_sheet_explains_its_lines():
    sheet = open_rgb(contact_sheet([("plain", scene_png(np.full((100, 100), 60, np.uint8), []))]))
    rows = [painted(sheet, c)[:, 0] for c in (FRONT_COLOUR, REJECTED_COLOUR, REFERENCE_COLOUR)]
    assert all(len(found) > 10 for found in rows)
    assert rows[0].max() < rows[1].min() <= rows[1].max() < rows[2].min()
    assert sheet[CELL_PX + 60 :, 76:150].min() < 100


def test_a_contact_sheet_counts_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr("calfin_cloud.figures.pictures.MAX_PICTURES", 2)
    pictures = [(str(i), scene_png(noise(64, 64, i), [])) for i in range(3)]
    two, three = (Image.open(io.BytesIO(contact_sheet(pictures[:n]))) for n in (2, 3))
    assert three.width == two.width
    assert three.height > two.height


def test_a_contact_sheet_of_nothing_or_of_a_broken_picture_is_refused():
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([])
    with pytest.raises(ValueError, match="picture of 'a' cannot be read"):
        contact_sheet([("a", b"no picture")])
