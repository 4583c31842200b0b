"""Pictures show fronts on the right pixels; the report counts every scene, is safe to open and needs no network."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import MultiPolygon, box
from skimage.color import rgb2lab

from calfin_cloud.figures import contact_sheet, report_html, scene_figure, scene_png
from calfin_cloud.figures.pictures import (
    CELL_PX,
    FRONT_COLOUR,
    REFERENCE_COLOUR,
    REJECTED_COLOUR,
    TITLE_PX,
)
from calfin_cloud.schema import POLYGON_REASONS, REASONS, STATES

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(1)>'


def open_rgb(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def painted(picture, colour):
    """Rows and columns of pixels in exactly the full colour of a line."""
    return np.argwhere((np.abs(picture - colour) <= 1).all(axis=-1))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def table(states=("front", "front", "no_front", "failed"), **columns):
    n = len(states)
    reasons = {"front": "", "no_front": "cloudy", "failed": "unreadable"}
    return pd.DataFrame(
        {
            "domain": ["Helgafjord"] * n,
            "scene_id": [f"scene-{i}" for i in range(n)],
            "datetime": [f"2021-09-{i + 1:02d}" for i in range(n)],
            "platform": ["landsat-8"] * n,
            "state": list(states),
            "reason": [reasons[s] for s in states],
            "n_fronts": [int(s == "front") for s in states],
            "length_m": [6200.4 if s == "front" else np.nan for s in states],
            "confidence": [0.874 if s == "front" else np.nan for s in states],
            **columns,
        }
    )


def rejected_table(*scenes, **columns):
    rows = {
        "key": [f"Helgafjord/{s}" for s in scenes],
        "candidate": range(len(scenes)),
        "filter": "land ratio",
        "reason": "one_sided",
        "value": 41.2345,
        "limit": 32.0,
        "detail": "41.2 pixels of land for one of ocean",
    }
    return pd.DataFrame(rows | columns)


def polygon_table(*scenes, kind="ocean", **columns):
    rows = {
        "key": [f"Helgafjord/{s}" for s in scenes],
        "kind": kind,
        "fjord": "scene",
        "reason": "",
        "detail": "",
        "area_m2": 12.34e6,
    }
    return pd.DataFrame(rows | columns)


class Elements(HTMLParser):
    """Tags with their attributes, and the cells of the last table row by row."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def report(scenes, pictures=None, **kwargs):
    kwargs = {"title": "A run", "provenance": {"model": "calfin-tiny"}} | kwargs
    return report_html(scenes, pictures or {}, **kwargs)


def counts_of(html):
    return {state: int(n) for state, n in re.findall(r'class="count (\w+)"><b>(\d+)</b>', html)}


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
        return scene_png(grey, [line], reference=[line + 30], title="Sermeq Kujalleq, 2021-09-27")

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(draw, range(8)))
    assert set(pictures) == {draw(0)}
    assert len(pictures[0]) < 250_000
    opened = Image.open(io.BytesIO(pictures[0]))
    assert (opened.format, opened.mode, opened.size) == ("PNG", "P", (480, 480 + TITLE_PX))


def test_a_title_stands_above_the_scene_and_moves_nothing_in_it():
    grey, line = noise(300, 480), np.array([[20.0, 30.0], [400.0, 200.0]])
    titled = open_rgb(scene_png(grey, [line], title="x" * 500))
    assert (titled[TITLE_PX:] == open_rgb(scene_png(grey, [line]))).all()
    assert titled[:TITLE_PX].max() > 200


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


@given(st.lists(st.sampled_from(STATES), max_size=12))
def test_the_counts_of_the_report_add_up_to_the_scenes(states):
    html = report(table(states))
    assert counts_of(html) == {s: states.count(s) for s in STATES}
    assert f"<b>{len(states)}</b>scene" in html
    assert html.count('<td class="id">') == len(states)


def test_scenes_of_a_foreign_catalogue_cannot_put_markup_into_the_report():
    scenes = table(("front", "failed"))
    scenes["scene_id"] = [HOSTILE, "bad\x00\ud800\u202etext"]
    scenes["platform"] = HOSTILE
    scenes.loc[1, "reason"] = HOSTILE
    pictures = {f"Helgafjord/{HOSTILE}": scene_png(noise(64, 64), [])}
    words = dict.fromkeys(("filter", "reason", "detail"), HOSTILE + "\u202e")
    html = report(
        scenes,
        pictures,
        title=HOSTILE,
        provenance={HOSTILE: {"a": [HOSTILE]}},
        rejected=rejected_table(HOSTILE, **words),
        polygons=polygon_table(HOSTILE, reason=HOSTILE, detail=HOSTILE + "\x00"),
    )
    html.encode("utf-8")
    found = Elements(html)
    assert not {"script", "iframe", "object", "embed", "form", "a"} & {tag for tag, _ in found.tags}
    assert not [a for _, attrs in found.tags for a in attrs if a.startswith("on")]
    assert len([tag for tag, _ in found.tags if tag == "img"]) == 1
    assert HOSTILE in "".join(found.text)
    assert "\u202e" not in html


def test_the_report_refers_to_nothing_outside_itself():
    html = report(table(), {"Helgafjord/scene-0": scene_png(noise(64, 64), [])})
    for _, attrs in Elements(html).tags:
        for name in {"src", "href", "srcset", "data", "action", "poster", "background"} & set(attrs):
            assert attrs[name].startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_a_scene_without_a_picture_is_shown_as_such():
    broken = {"Helgafjord/scene-0": scene_png(noise(64, 64), []), "Helgafjord/scene-1": b"\x89PNG broken"}
    html = report(table(), broken)
    assert html.count("<img ") == 1
    assert html.count(">its picture cannot be read<") == 1
    assert html.count(">no picture<") == 2


def test_pictures_beyond_the_limit_are_counted_and_failures_crowd_none_out(monkeypatch):
    monkeypatch.setattr("calfin_cloud.figures.report.MAX_PICTURES", 2)
    scenes = table(["failed"] * 5 + ["front"] * 4)
    png = scene_png(noise(64, 64), [])
    html = report(scenes, {f"Helgafjord/scene-{i}": png for i in range(5, 9)})
    assert html.count("<img ") == 2
    assert html.count("<figure>") == 4
    assert "5 more scenes are in the table" in html
    assert html.count('<td class="id">') == 9


def test_reasons_are_words_and_distances_have_units():
    scenes = table(distance_m=[30.0, 50.04, np.nan, np.nan], **{"m_to_2021-09-27": [1.25, 2.0, np.nan, np.nan]})
    text = " ".join("".join(Elements(report(scenes)).text).split())
    assert REASONS["cloudy"] in text
    assert REASONS["unreadable"] in text
    assert "Distance to reference (m)" in text
    assert "distance to reference of 2021-09-27: 2.0 m" in text
    assert "Median distance to reference: 40.0 m, over 2 scenes" in text
    assert "length: 6,200 m" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def text_of(html):
    return " ".join("".join(Elements(html).text).split())


def test_a_scene_lists_its_rejected_candidates_and_no_others():
    rejected = rejected_table("scene-0", "scene-2", "scene-2", filter=["length", "border", "land ratio"])
    found = Elements(report(table(), rejected=rejected))
    assert sum(tag == "details" for tag, _ in found.tags) == 4  # two scenes, each with a card and a row
    text = " ".join("".join(found.text).split())
    card = text[text.index("scene-2") : text.index("scene-3")]
    assert "2 rejected candidates" in card
    assert card.index("border") < card.index("land ratio")
    assert "length" not in card
    for part in ("41.2", "32", REASONS["one_sided"], "41.2 pixels of land for one of ocean"):
        assert part in card
    assert "1 rejected candidate " in text[text.index("scene-0") : text.index("scene-1")]


def test_what_a_filter_could_not_measure_is_a_dash():
    text = text_of(report(table(), rejected=rejected_table("scene-0", value=np.nan)))
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert "land ratio– 32" in text


def test_areas_stand_beside_their_scene_and_what_is_missing_says_why():
    polygons = pd.concat(
        [
            polygon_table("scene-0"),
            polygon_table("scene-0", kind="ice", area_m2=7.0e6, detail="1 of 2 fronts left out"),
            *(polygon_table("scene-1", kind=k, reason="no_ocean", area_m2=np.nan) for k in ("ocean", "ice")),
        ]
    )
    text = text_of(report(table(), polygons=polygons))
    assert "ocean: 12.3 km²" in text
    assert "ice: 7.0 km²" in text
    assert "Ocean (km²)" in text
    assert text.count("polygons: 1 of 2 fronts left out") == 2  # card and row
    assert text.count(f"no polygons, since {POLYGON_REASONS['no_ocean']}") == 2
    assert "km²" not in text_of(report(table(), polygons=polygons[polygons["reason"] != ""]))


def test_provenance_is_spread_out():
    html = report(
        table(), provenance={"settings": {"trace": {"min_length_m": 300, "nodes": (1, 2)}}, "crs": "EPSG:3413"}
    )
    assert "settings.trace.min_length_m" in html
    assert "[1, 2]" in html
    assert "EPSG:3413" in html


def test_a_table_without_its_columns_or_with_unknown_states_is_refused():
    with pytest.raises(ValueError, match="lack the columns"):
        report(table().drop(columns="platform"))
    with pytest.raises(ValueError, match=r"rejected candidates lack the columns \['limit'\]"):
        report(table(), rejected=rejected_table("scene-0").drop(columns="limit"))
    with pytest.raises(ValueError, match=r"polygons lack the columns \['kind'\]"):
        report(table(), polygons=polygon_table("scene-0").drop(columns="kind"))
    with pytest.raises(ValueError, match="lost"):
        report(table().assign(state="lost"))


def test_a_figure_for_print_shows_front_reference_and_scale_bar():
    line = np.array([[20.0, 50.0], [180.0, 60.0]])
    draw = {"reference": [line + 20], "title": "Helgafjord"}
    plain = open_rgb(scene_figure(noise(120, 200), [line], **draw))
    in_km = scene_figure(noise(120, 200), [line], extent_km=(300, 306, -2000, -1996.4), **draw)
    assert in_km == scene_figure(noise(120, 200), [line], extent_km=(300, 306, -2000, -1996.4), **draw)
    for picture in (plain, open_rgb(in_km)):
        assert len(painted(picture, FRONT_COLOUR)) > 500
        assert len(painted(picture, REFERENCE_COLOUR)) > 300


def test_a_figure_for_print_shows_rejected_candidates_and_tints_polygons_but_not_their_holes():
    grey, line = np.full((200, 200), 128, np.uint8), np.array([[20.0, 100.0], [180.0, 100.0]])
    sea = MultiPolygon([box(0, 0, 199, 80) - box(90, 20, 110, 60)])
    inland = MultiPolygon([box(0, 120, 199, 199)])
    draw = {"rejected": [line], "polygons": {"ocean": sea, "ice": inland}}
    picture = open_rgb(scene_figure(grey, [], **draw))
    assert len(painted(picture, REJECTED_COLOUR)) > 200
    height, width = picture.shape[:2]
    hole, water = picture[height // 5, width // 2], picture[height // 5, width // 4]
    assert np.ptp(hole) == 0
    assert water[2] > water[0] + 20
    with pytest.raises(ValueError, match=r"kinds \['ice', 'ocean'\], got 'land'"):
        scene_figure(grey, [], polygons={"land": sea})
