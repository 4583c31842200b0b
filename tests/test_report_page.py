"""The report of a store in a real browser: a map that opens offline, and whose verdicts can be applied."""

import io
import json
import shutil
import time
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from servers.browser import browser, forget, requested
from skimage.color import rgb2lab
from storing import DOMAIN

from calfin_cloud.cli import main
from calfin_cloud.domains import read_domains, write_domains
from calfin_cloud.results import explore, reviewed_fronts
from calfin_cloud.results.settling import line_id
from calfin_cloud.sample import write_sample
from calfin_cloud.storage import (
    keep_domain,
    open_store,
    read_fronts,
    read_places,
    read_scene_grey,
    read_store_domains,
    write_flags,
)

DOUBT = ["key", "branch", "flag", "detail"]
FIRST, SECOND = "Painted-Glacier", "Other-Glacier"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of two glaciers, numbers 10 and 2, and its report."""
    folder = tmp_path_factory.mktemp("page")
    write_sample(folder / "scenes", scenes=4)
    (domain,) = read_domains(folder / "scenes" / "domains.geojson")
    east = domain.grid.translate_pix(domain.shape[1] // 5, 0)
    both = [replace(domain, glacier_id="10"), replace(domain, name=SECOND, grid=east, glacier_id="2")]
    write_domains(both, folder / "domains.geojson")
    where = ["--domains", str(folder / "domains.geojson"), "--period", "1984/2024", "--variant", "once"]
    catalog = ["--catalog", str(folder / "scenes" / "catalog.json")]
    assert main(["map", *catalog, *where, "--store", str(folder / "store"), "--cluster", "none"]) == 0
    fronts = read_fronts(str(folder / "store"))
    found = fronts[(fronts["state"] == "front") & (fronts["domain"] == FIRST)]
    doubt = pd.DataFrame([(found["key"].iloc[1], "box", "outlier", "far from its neighbours")], columns=DOUBT)
    write_flags(str(folder / "store"), found, doubt)
    report = ["report", str(folder / "store"), "--out", str(folder / "report"), "--title", "A </script> title"]
    assert main([*report, "--reference", str(folder / "scenes" / "truth.parquet")]) == 0
    return folder


def address(folder, view=""):
    return (folder / "report" / "index.html").as_uri() + view


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory):
    """The browser of all pages; to start one takes longer than most tests."""
    with browser(tmp_path_factory.mktemp("downloads")) as opened:
        yield opened


@pytest.fixture
def page(folder, one_browser, tmp_path):
    """The report as one who opens it for the first time."""
    forget(one_browser, tmp_path)
    one_browser.get(address(folder))
    settle(one_browser)
    yield one_browser
    assert one_browser.get_log("browser") == [], "the console must stay silent"
    asked = requested(one_browser)
    assert any(name.endswith("ol.js") for name in asked), "requests are seen"
    assert all(name.startswith(("file:", "data:", "blob:")) for name in asked)


@pytest.fixture
def glacier(page):
    """The page with the first glacier opened."""
    open_glacier(page)
    return page


def open_glacier(page, name=FIRST):
    page.execute_async_script(
        "const [name, done] = arguments; atlas.openGlacier(atlas.received.about.glaciers.find((g) => g.name === name))"
        ".then(done)",
        name,
    )
    settle(page)


def settle(page):
    """Wait until the map has drawn all that it has to draw."""
    page.execute_async_script(
        "const done = arguments[0]; atlas.map.map.once('rendercomplete', () => done()); atlas.map.map.render()"
    )


def text(page, id_):
    return page.find_element(By.ID, id_).text


def wait_for(path):
    """Wait until the browser has saved a file."""
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def click_on_map(page, coordinate):
    """Click on a place of the map, given in its CRS."""
    x, y = page.execute_script(
        "const [x, y] = atlas.map.map.getPixelFromCoordinate(arguments[0]), [w, h] = atlas.map.map.getSize();"
        "return [x - w / 2, y - h / 2]",
        coordinate,
    )
    ActionChains(page).move_to_element_with_offset(page.find_element(By.ID, "map"), x, y).click().perform()


def click_on_front(page, which=0):
    click_on_map(
        page,
        page.execute_script(
            "const l = atlas.state.data.fronts[arguments[0]].line; return l[Math.floor(l.length / 2)]", which
        ),
    )


def map_picture(page):
    """What the map shows, away from its buttons and cards, (y, x, colour)."""
    shown = Image.open(io.BytesIO(page.find_element(By.ID, "map").screenshot_as_png)).convert("RGB")
    width, height = shown.size
    return np.asarray(shown.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))).astype(int)


def test_the_overview_lists_all_glaciers_by_number_with_what_became_of_them(page, folder):
    assert page.title == "A </script> title"
    assert "2 glaciers, " in text(page, "summary")
    rows = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#glaciers button")]
    assert rows[0].startswith("Other Glacier\nNo. 2 · ")
    assert rows[1].startswith("Painted Glacier\nNo. 10 · 3 fronts")
    page.find_element(By.ID, "about").click()
    links = [a.get_attribute("download") for a in page.find_elements(By.CSS_SELECTOR, "#downloads a")]
    assert "fronts.geojson" in links
    assert all((folder / "report" / link).is_file() for link in links)
    assert "model" in text(page, "provenance")


def test_the_years_of_a_glacier_are_not_cut_off_in_the_narrow_frame_of_a_notebook(page):
    page.execute_script("atlas.get('side').style.width = '320px'")
    for words in page.find_elements(By.CSS_SELECTOR, "#glaciers .words"):
        wide, shown, clipped = page.execute_script(
            "const [e, s] = [arguments[0], arguments[0].querySelector('small')];"
            "return [e.scrollWidth, e.clientWidth, getComputedStyle(s).overflow]",
            words,
        )
        assert (wide <= shown, clipped) == (True, "visible")


def test_a_click_on_a_dot_opens_its_glacier_and_the_way_back_leads_to_the_list(page):
    middle = page.execute_script(
        "const b = atlas.received.about.glaciers.find((g) => g.name === arguments[0]).bounds;"
        "atlas.map.fit(b, {quick: true}); return [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2]",
        FIRST,
    )
    settle(page)
    click_on_map(page, middle)
    settle(page)
    assert text(page, "name") == "Painted Glacier"
    assert page.title == "Painted Glacier · A </script> title", "so that steps of the history can be told apart"
    assert "fronts in 4 scenes" in text(page, "numbers")
    page.find_element(By.ID, "back").click()
    assert page.find_element(By.ID, "list").is_displayed()
    assert not page.find_element(By.ID, "time").is_displayed()
    assert page.title == "A </script> title"


def test_a_glacier_is_found_by_part_of_its_name_or_by_its_number(page):
    search = page.find_element(By.ID, "search")
    search.send_keys("pAint")
    assert [b.text for b in page.find_elements(By.CSS_SELECTOR, "#glaciers b")] == ["Painted Glacier"]
    search.clear()
    search.send_keys("2")
    assert [b.text for b in page.find_elements(By.CSS_SELECTOR, "#glaciers b")] == ["Other Glacier"]
    search.send_keys("x")
    assert page.find_element(By.ID, "nothing").is_displayed()


def test_a_click_on_a_front_tells_about_it_and_lays_its_picture_below(glacier):
    click_on_front(glacier, 1)
    facts = text(glacier, "facts")
    assert "Length" in facts
    assert "outlier: far from its neighbours" in facts, "a doubt that the store keeps is told with its reason"
    score = float(facts.split("Score")[1].split()[0])
    assert 0 < score <= 0.25, "and the score is lowered"
    shown, wanted = glacier.execute_script(
        "return [atlas.layers.picture.getSource().getUrl(), atlas.state.data.pictures[atlas.state.chosen.key]]"
    )
    assert shown == wanted
    assert glacier.execute_script("return atlas.state.chosen.date") in text(glacier, "shownPicture")
    glacier.execute_script("document.querySelector('#series .dots circle').dispatchEvent(new MouseEvent('click'))")
    assert "Satellite" in text(glacier, "facts")


def test_fronts_lie_in_colour_on_the_grey_picture(glacier):
    glacier.execute_script("atlas.layers.references.setVisible(false)")
    settle(glacier)
    colours = map_picture(glacier)
    inked = (np.ptp(colours, axis=-1) > 90).sum()
    assert inked > 200
    glacier.execute_script("document.querySelector('#layers input').click()")
    settle(glacier)
    assert (np.ptp(map_picture(glacier), axis=-1) > 90).sum() == 0


def test_the_colours_of_dates_are_lighter_all_the_way_and_far_from_grey(page):
    ramp = page.execute_script("return atlas.ramp")
    lab = rgb2lab(np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in ramp]))
    assert (np.diff(lab[:, 0]) > 0).all()
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 50


def test_candidates_and_references_are_layers_of_their_own(glacier):
    counts = glacier.execute_script(
        "const {references, candidates} = atlas.layers;"
        "return [references.getSource().getFeatures().length, candidates.getSource().getFeatures().length,"
        "  references.getVisible(), candidates.getVisible(), atlas.state.data.candidates.length]"
    )
    assert counts[0] >= 4
    assert counts[1] == counts[4]
    assert counts[2:4] == [True, False]
    glacier.find_element(By.ID, "layersButton").click()
    glacier.find_elements(By.CSS_SELECTOR, "#layers input")[2].click()
    assert glacier.execute_script("return atlas.layers.candidates.getVisible()")


def test_the_online_background_asks_the_network_only_when_it_is_switched_on(folder, tmp_path):
    with browser(tmp_path) as glacier:
        glacier.get(address(folder))
        open_glacier(glacier)
        check_background(glacier)


def check_background(glacier):
    assert glacier.execute_script("return atlas.layers.online") is None
    box = glacier.find_elements(By.CSS_SELECTOR, "#layers input")[-1]
    assert not box.is_selected()
    requested(glacier)
    glacier.execute_script("arguments[0].click()", box)
    settle(glacier)
    asked = [name for name in requested(glacier) if name.startswith("http")]
    assert asked
    assert all(name.startswith("https://gibs.earthdata.nasa.gov/wmts/epsg3413/") for name in asked)


def test_the_slider_leaves_only_the_fronts_of_its_time(glacier):
    glacier.find_element(By.ID, "tab-scenes").click()
    assert len(glacier.find_elements(By.CSS_SELECTOR, "#sheet img")) == 3
    glacier.execute_script("const s = atlas.get('from'); s.value = s.max; s.dispatchEvent(new Event('input'))")
    assert len(glacier.find_elements(By.CSS_SELECTOR, "#sheet img")) == 1
    last = glacier.execute_script("return atlas.state.data.fronts.at(-1).date")
    assert text(glacier, "span") == f"{last} to {last} · 1 of 3 fronts"


def test_playing_ends_with_all_fronts(glacier):
    glacier.find_element(By.ID, "play").click()
    glacier.execute_async_script(
        "const done = arguments[0]; const look = () => atlas.get('play').getAttribute('aria-pressed') === 'false'"
        " ? done() : setTimeout(look, 50); look()"
    )
    assert "all 3 fronts" in text(glacier, "span")


def test_two_dates_lie_side_by_side_and_the_seam_parts_them(glacier):
    glacier.find_element(By.ID, "compare").click()
    keys = glacier.execute_script("return atlas.state.compare")
    assert keys[0] != keys[1]

    def seen(keys, at):
        glacier.execute_script(
            "atlas.compare(arguments[0]); const s = atlas.get('swipeAt'); s.value = arguments[1];"
            "s.dispatchEvent(new Event('input'))",
            keys,
            at,
        )
        settle(glacier)
        return map_picture(glacier)

    left, right = seen(keys, 1000), seen(keys, 0)
    assert (np.abs(left - right) > 60).mean() > 0.01, "the pictures differ"
    assert (seen(keys[::-1], 0) == left).all()
    half = seen(keys, 500)
    middle = half.shape[1] // 2
    assert np.abs(half - left)[:, : middle - 60].max() < 60, "but for the smoothing of lines"
    assert np.abs(half - right)[:, middle + 60 :].max() < 60
    glacier.find_element(By.ID, "compare").click()
    assert not glacier.find_element(By.ID, "swipe").is_displayed()


def test_two_dates_without_pictures_show_both_fronts_wherever_the_seam_is(glacier):
    glacier.execute_script(
        "atlas.state.data.pictures = {}; atlas.startCompare(); atlas.layers.references.setVisible(false)"
    )
    seen = []
    for at in (0, 1000):
        glacier.execute_script(
            "const s = atlas.get('swipeAt'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", at
        )
        settle(glacier)
        seen.append(np.ptp(map_picture(glacier), axis=-1) > 90)
    assert seen[0].sum() > 200
    assert (seen[0] == seen[1]).all()


def test_the_address_leads_to_the_same_view(folder, page, tmp_path):
    open_glacier(page)
    page.execute_script(
        "atlas.choose(atlas.state.data.fronts[2]); atlas.map.view.setRotation(0.3);"
        "atlas.map.view.setResolution(12); atlas.startCompare()"
    )
    settle(page)
    told = (
        "const {chosen, compare, glacier} = atlas.state;"
        "return [location.hash, chosen.key, compare, atlas.viewText(), glacier.name]"
    )
    before = page.execute_script(told)
    with browser(tmp_path) as other:
        other.get(address(folder, before[0]))
        settle(other)
        other.execute_async_script(
            "const done = arguments[0]; const look = () => atlas.state.compare ? done() : setTimeout(look, 50); look()"
        )
        assert other.execute_script(told) == before


def test_a_cut_address_leads_to_the_list_and_so_does_the_way_back_of_the_browser(page, folder):
    page.get("about:blank")
    page.get(address(folder, "#glacier=%D0%9"))
    settle(page)
    assert page.find_element(By.ID, "list").is_displayed()
    open_glacier(page)
    page.back()
    page.execute_async_script("setTimeout(arguments[0], 100)")
    assert page.find_element(By.ID, "list").is_displayed()
    page.get("about:blank")
    page.get(address(folder, f"#glacier={FIRST}&span=1900-01-01/1901-01-01"))
    settle(page)
    first = page.execute_script("return atlas.state.data.fronts[0].date")
    assert text(page, "span").startswith(f"{first} to {first}")


def test_a_domain_without_a_front_says_why_and_offers_nothing_to_play(one_browser, tmp_path):
    store = str(tmp_path / "store")
    open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    keep_domain(store, replace(DOMAIN, name="Isbræ-Øst"))
    assert main(["report", store, "--out", str(tmp_path / "report")]) == 0
    forget(one_browser, tmp_path)
    one_browser.get((tmp_path / "report" / "index.html").as_uri())
    settle(one_browser)
    assert text(one_browser, "reasons") == "No scene was mapped yet."
    assert one_browser.title == "Calving fronts: Isbræ Øst", "called as in its list"
    assert [one_browser.find_element(By.ID, name).is_displayed() for name in ("time", "compare")] == [False, False]
    find = "const s = atlas.get('search'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));"
    found = [
        one_browser.execute_script(f"{find} return atlas.get('glaciers').childElementCount", t)
        for t in ("ISBRAE ost", "x")
    ]
    assert found == [1, 0], "letters are found as people without them write them"


def test_all_can_be_done_with_the_keyboard(page):
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    search = page.switch_to.active_element
    assert search.get_attribute("id") == "search"
    search.send_keys("painted", Keys.ENTER)
    settle(page)
    assert page.switch_to.active_element.get_attribute("id") == "name"
    page.switch_to.active_element.send_keys(".")
    first = page.execute_script("return atlas.state.chosen.index")
    page.switch_to.active_element.send_keys(".")
    assert page.execute_script("return atlas.state.chosen.index") == first + 1
    assert page.execute_script("return atlas.state.chosen.date") in page.execute_script(
        "return atlas.get('news').textContent"
    )
    centre = page.execute_script("return atlas.map.view.getCenter()")
    chart = page.find_element(By.ID, "map")
    page.execute_script("arguments[0].focus()", chart)
    chart.send_keys(Keys.ARROW_RIGHT)
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.execute_script("return atlas.map.view.getCenter()[0]") > centre[0]


def test_every_control_and_chart_has_a_name(glacier):
    nameless = glacier.execute_script(
        "return [...document.querySelectorAll('button, input, select, [role=img]')].filter((e) =>"
        "  !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title ||"
        "    document.getElementById(e.getAttribute('aria-labelledby'))?.textContent)).map((e) => e.outerHTML)"
    )
    assert nameless == []


def test_the_map_ends_where_its_land_was_cut(page):
    for way in (1, -1):
        page.execute_script(
            "const {view} = atlas.map; view.setResolution(1e5); view.setCenter([arguments[0] * 1e7, 0])", way
        )
        settle(page)
        seen, window = page.execute_script("return [atlas.map.view.calculateExtent(), atlas.received.about.window]")
        land = page.execute_script(
            "return ol.extent.boundingExtent(atlas.received.land.land.flat().flatMap(atlas.points))"
        )
        assert (np.subtract(land, window) * [1, 1, -1, -1] >= -1).all()
        inside = np.subtract(seen, window) * [1, 1, -1, -1]
        assert (inside >= -1).all(), "no straight side of the land is ever seen"


def test_north_can_be_turned_up_on_a_polar_map(glacier):
    glacier.find_element(By.ID, "north").click()
    settle(glacier)
    east, up = glacier.execute_script(
        "const {map, view, toLonLat, toMap} = atlas.map, [lon, lat] = toLonLat(view.getCenter());"
        "const [a, b] = [view.getCenter(), toMap([lon, lat + 0.02])].map((p) => map.getPixelFromCoordinate(p));"
        "return [b[0] - a[0], a[1] - b[1]]"
    )
    assert up > 10
    assert abs(east) < 0.01 * up


def test_verdicts_of_the_page_are_applied_to_the_store(glacier, folder, tmp_path):
    glacier.execute_script("atlas.choose(atlas.state.data.fronts[0])")
    glacier.find_element(By.ID, "author").send_keys("M. Person")
    glacier.find_element(By.CSS_SELECTOR, "[data-verdict=reject]").click()
    assert "reject, by M. Person" in text(glacier, "factTable")
    glacier.execute_script("atlas.choose(atlas.state.data.fronts[1])")
    glacier.find_element(By.CSS_SELECTOR, "[data-verdict=redraw]").click()
    left, bottom, right, top = glacier.execute_script("return atlas.state.glacier.bounds")
    for share in (0.3, 0.5, 0.7):
        click_on_map(glacier, [left + share * (right - left), bottom + 0.4 * (top - bottom)])
    glacier.find_element(By.ID, "done").click()
    assert text(glacier, "save") == "Save 2 verdicts"
    glacier.find_element(By.ID, "save").click()
    wait_for(tmp_path / "verdicts.json")
    assert [v["verdict"] for v in json.loads((tmp_path / "verdicts.json").read_text())] == ["reject", "redraw"]
    shown = read_fronts(str(folder / "store")).set_index(["key", "front"])["geometry"]
    for told in json.loads((tmp_path / "verdicts.json").read_text()):
        assert told["line"] == line_id(shown[told["key"], told["front"]]), "the line that was judged is told"
    assert main(["review", str(folder / "store"), "--apply", str(tmp_path / "verdicts.json")]) == 0
    fronts = reviewed_fronts(str(folder / "store"))
    assert main(["report", str(folder / "store"), "--out", str(tmp_path / "again")]) == 0
    about = (tmp_path / "again" / "data" / "about.js").read_text()
    assert about.count('"rejected":1') == about.count('"rejected":0') == 1
    drawn = fronts[fronts["verdict"] == "redraw"].iloc[0]
    assert drawn["reviewer"] == "M. Person"
    assert drawn["quality_flag"] in (0, 3)
    points = np.asarray(drawn["geometry"].coords)
    assert points == pytest.approx(
        np.array([[left + s * (right - left), bottom + 0.4 * (top - bottom)] for s in (0.3, 0.5, 0.7)]), abs=60
    )


def test_a_front_is_redrawn_with_the_keyboard_alone(glacier):
    def press(*keys, shift=False):
        actions = ActionChains(glacier)
        actions = actions.key_down(Keys.SHIFT) if shift else actions
        for key in keys:
            actions = actions.send_keys(key)
        (actions.key_up(Keys.SHIFT) if shift else actions).perform()

    def said():
        return glacier.execute_script("return atlas.get('news').textContent")

    press(".")
    while glacier.switch_to.active_element.get_attribute("id") != "author":
        press(Keys.TAB)
    press("M. Person")
    while glacier.switch_to.active_element.get_attribute("data-verdict") != "redraw":
        press(Keys.TAB)
    begin, resolution = glacier.execute_script("return [atlas.state.chosen.line[0], atlas.map.view.getResolution()]")
    press(Keys.ENTER)
    chart = glacier.switch_to.active_element
    assert chart.get_attribute("id") == "map"
    assert "Backspace" in chart.get_attribute("aria-label"), "the keys are told where they count"
    press(Keys.ENTER)
    assert said().startswith("Point 1: ")
    assert said().endswith(" W, 0 m from the front")
    press(*[Keys.ARROW_RIGHT] * 3, Keys.ENTER)
    press(*[Keys.ARROW_LEFT] * 9, Keys.ENTER, Keys.BACKSPACE)
    assert said() == "Point taken back, 2 points left"
    press(*[Keys.ARROW_RIGHT] * 9)
    press(Keys.ARROW_DOWN, shift=True)
    press(Keys.ENTER, Keys.ENTER)
    assert glacier.switch_to.active_element.get_attribute("data-verdict") == "redraw", "one goes on where one began"
    (line,) = glacier.execute_script("return [...atlas.state.verdicts.values()].map((v) => v.line)")
    steps = (np.asarray(line) - begin) / resolution
    assert steps == pytest.approx(np.array([[0, 0], [30, 0], [30, -1]]), abs=0.1), "in pixels of the screen"
    assert text(glacier, "save") == "Save 1 verdict"


def test_the_cross_hair_stays_in_sight_and_leaves_with_the_drawing(glacier):
    glacier.execute_script("atlas.choose(atlas.state.data.fronts[0])")
    glacier.find_element(By.ID, "author").send_keys("M. Person")
    glacier.find_element(By.CSS_SELECTOR, "[data-verdict=redraw]").send_keys(Keys.ENTER)
    assert glacier.find_element(By.CLASS_NAME, "cross").is_displayed()
    glacier.execute_script("atlas.map.view.setResolution(2)")
    settle(glacier)
    ActionChains(glacier).send_keys(*[Keys.ARROW_UP] * 60).perform()
    inside = glacier.execute_script(
        "const [a, b] = ['.cross', '#map'].map((s) => document.querySelector(s).getBoundingClientRect());"
        "return a.top >= b.top && a.bottom <= b.bottom"
    )
    assert inside
    ActionChains(glacier).send_keys(Keys.ESCAPE).perform()
    assert not glacier.find_element(By.CLASS_NAME, "cross").is_displayed()
    assert glacier.find_element(By.ID, "map").get_attribute("aria-label") == "Map: arrows move it, plus and minus zoom"


def test_verdicts_that_the_store_has_are_not_offered_again(one_browser, folder, tmp_path):
    shutil.copytree(folder / "store", tmp_path / "store")
    report = ["report", str(tmp_path / "store"), "--out", str(tmp_path / "report")]
    page = (tmp_path / "report" / "index.html").as_uri()

    def opened_anew(*more):
        assert main([*report, *more]) == 0
        one_browser.get("about:blank")
        one_browser.get(page)
        settle(one_browser)

    def decide(which, verdict):
        one_browser.execute_script("atlas.choose(atlas.state.data.fronts[arguments[0]])", which)
        one_browser.find_element(By.ID, "author").clear()
        one_browser.find_element(By.ID, "author").send_keys("M. Person")
        one_browser.find_element(By.CSS_SELECTOR, f"[data-verdict={verdict}]").click()

    forget(one_browser, tmp_path)
    opened_anew()
    open_glacier(one_browser)
    decide(0, "reject")
    one_browser.find_element(By.ID, "save").click()
    wait_for(tmp_path / "verdicts.json")
    decide(1, "accept")
    assert main(["review", str(tmp_path / "store"), "--apply", str(tmp_path / "verdicts.json")]) == 0
    opened_anew("--title", "Another title")
    assert text(one_browser, "save") == "Save 1 verdict", "the one that nobody has applied"
    open_glacier(one_browser)
    one_browser.execute_script("atlas.choose(atlas.state.data.fronts[0])")
    assert "reject, by M. Person" in text(one_browser, "factTable")


def test_verdicts_of_two_windows_of_a_report_are_all_kept(glacier, folder):
    def decide(which):
        glacier.execute_script("atlas.choose(atlas.state.data.fronts[arguments[0]])", which)
        glacier.find_element(By.ID, "author").send_keys("M. Person")
        glacier.find_element(By.CSS_SELECTOR, "[data-verdict=accept]").click()

    first = glacier.current_window_handle
    glacier.switch_to.new_window("window")
    glacier.get(address(folder))
    settle(glacier)
    open_glacier(glacier)
    decide(0)
    glacier.close()
    glacier.switch_to.window(first)
    decide(1)
    assert text(glacier, "save") == "Save 2 verdicts"


def test_nothing_is_decided_without_a_name_and_escape_ends_a_drawing(glacier):
    glacier.execute_script("atlas.choose(atlas.state.data.fronts[0])")
    glacier.find_element(By.CSS_SELECTOR, "[data-verdict=accept]").click()
    assert not glacier.find_element(By.ID, "save").is_displayed()
    assert glacier.switch_to.active_element.get_attribute("id") == "author"
    glacier.switch_to.active_element.send_keys("M. Person")
    for is_kept in (True, False):  # the same button again takes the verdict back
        glacier.find_element(By.CSS_SELECTOR, "[data-verdict=accept]").click()
        assert glacier.find_element(By.ID, "save").is_displayed() == is_kept
    assert "none yet" in text(glacier, "factTable")
    glacier.find_element(By.CSS_SELECTOR, "[data-verdict=redraw]").click()
    assert glacier.find_element(By.ID, "drawing").is_displayed()
    ActionChains(glacier).send_keys(Keys.ESCAPE).perform()
    assert not glacier.find_element(By.ID, "drawing").is_displayed()
    assert not glacier.find_element(By.ID, "save").is_displayed()


def test_ten_thousand_fronts_of_one_glacier_are_drawn_and_found(glacier):
    glacier.execute_script(
        "const d = atlas.state.data; for (let i = 0; d.fronts.length < 10000; i++) { const f = d.fronts[i % 3];"
        "  const line = f.line.map(([x, y]) => [x + i / 10, y]);"
        "  d.fronts.push({...f, key: 'k' + i, index: d.fronts.length, line}); }"
        "d.byKey = d3.group(d.fronts, (f) => f.key); atlas.drawGlacier(d); atlas.redrawFronts();"
    )
    settle(glacier)
    click_on_front(glacier, 2)
    assert glacier.execute_script("return atlas.state.chosen !== null")


@pytest.mark.parametrize("name", [None, FIRST])
def test_the_page_fits_a_phone(folder, tmp_path, name):
    with browser(tmp_path, width=390, height=844, phone=True) as opened:
        opened.get(address(folder))
        settle(opened)
        if name:
            open_glacier(opened, name)
            assert text(opened, "shownPicture").startswith("Painted Glacier"), "the panel with the name lies below"
            opened.find_element(By.ID, "compare").click()
        wide, shown = opened.execute_script(
            "const e = document.documentElement;"
            "return [e.scrollWidth - e.clientWidth, document.getElementById('map').getBoundingClientRect().height]"
        )
        assert wide <= 0
        assert shown > 400


@pytest.mark.parametrize("size", [(960, 540), (844, 390)])
def test_nothing_of_the_map_is_cut_off_at_twice_the_size_or_on_a_phone_that_lies(folder, one_browser, tmp_path, size):
    forget(one_browser, tmp_path)
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": False}
    one_browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        one_browser.get(address(folder))
        settle(one_browser)
        open_glacier(one_browser)
        one_browser.find_element(By.ID, "layersButton").click()
        cut = one_browser.execute_script(
            "const m = document.querySelector('main').getBoundingClientRect();"
            "return [...document.querySelectorAll('#tools button, #layers')].map((e) => e.getBoundingClientRect())"
            "  .filter((r) => r.bottom > m.bottom || r.right > m.right).length"
        )
        assert cut == 0
    finally:
        one_browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_long_number_of_a_glacier_stays_in_its_line_and_does_not_turn_the_next_words(page):
    page.execute_script("document.querySelector('#glaciers small span').textContent = '\\u202e' + 'z'.repeat(200)")
    first, second, words = page.execute_script(
        "const s = [...document.querySelectorAll('#glaciers li:first-child small span')];"
        "return [...s.slice(0, 2), s[0].closest('.words')].map((e) => e.getBoundingClientRect().toJSON())"
    )
    assert first["right"] <= words["right"] + 1
    assert second["top"] >= first["bottom"] - 1


def test_one_date_has_its_year_and_nothing_to_play(glacier):
    glacier.execute_script(
        "const {data} = atlas.state; data.fronts.splice(1); data.byKey = d3.group(data.fronts, (f) => f.key);"
        "data.positions.forEach((b) => b.points.splice(1)); atlas.showTime()"
    )
    ticks = [tick.text for tick in glacier.find_elements(By.CSS_SELECTOR, "#series .axis g:first-child .tick text")]
    year = glacier.execute_script("return atlas.state.data.fronts[0].date.slice(0, 4)")
    assert ticks[0].endswith(year)
    assert not glacier.find_element(By.ID, "play").is_enabled()
    assert not glacier.find_element(By.ID, "from").is_displayed()


def test_on_paper_the_list_is_whole_and_the_map_shows_what_it_showed(page):
    told = "const {view, map} = atlas.map; return [view.getResolution(), view.calculateExtent(map.getSize())]"
    before = page.execute_script(told)
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    _, extent = page.execute_script(told)
    wider = np.subtract(before[1], extent) * [1, 1, -1, -1]
    assert (wider >= -1).all()
    assert not page.find_element(By.ID, "search").is_displayed()
    cut = page.execute_script("const s = atlas.get('side'); return s.scrollHeight - s.clientHeight")
    assert cut <= 0
    page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert page.execute_script(told) == [pytest.approx(before[0]), pytest.approx(before[1])]


def test_the_chosen_tab_is_seen_in_the_colours_of_high_contrast(glacier):
    features = [{"name": "forced-colors", "value": "active"}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    glacier.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        colours = glacier.execute_script(
            "return ['tab-front', 'tab-scenes', 'ramp'].map((id) => getComputedStyle(atlas.get(id)))"
            "  .map((s) => [s.backgroundColor, s.backgroundImage.slice(0, 6)])"
        )
        assert colours[0] != colours[1]
        assert colours[2][1] == "linear", "the colours of dates are told"
    finally:
        calm = [
            {"name": "prefers-reduced-motion", "value": "reduce"},
            {"name": "prefers-color-scheme", "value": "light"},
        ]
        glacier.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": calm})


def test_the_page_is_dark_where_the_system_is_and_light_on_demand(folder, tmp_path):
    with browser(tmp_path, dark=True) as opened:
        opened.get(address(folder))
        settle(opened)
        assert brightness(opened) < 60
        opened.find_element(By.ID, "theme").click()
        settle(opened)
        assert brightness(opened) > 200


def brightness(page):
    return np.asarray(Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("L")).mean()


def test_the_page_forbids_scripts_of_others_and_requests(folder):
    html = (folder / "report" / "index.html").read_text()
    policy = html.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' file:"
    assert "http" not in policy.replace("https://gibs.earthdata.nasa.gov", "")
    assert "unsafe" not in policy


def test_the_downloaded_fronts_are_in_longitude_and_latitude(folder):
    content = json.loads((folder / "report" / "fronts.geojson").read_text())
    assert "crs" not in content, "RFC 7946 has no crs"
    table = gpd.read_file(folder / "report" / "fronts.geojson")
    stored = read_fronts(str(folder / "store"))
    stored = stored[stored["state"] == "front"].set_index("key")
    back = table.set_index("key").to_crs(stored.crs)
    assert set(back.index) == set(stored.index)
    apart = [back.loc[key, "geometry"].hausdorff_distance(stored.loc[key, "geometry"]) for key in stored.index]
    assert max(apart) < 30 / 2 + 1, "simplified by half a pixel, rounded to a metre"
    assert table.get_coordinates().shape[0] < stored.get_coordinates().shape[0] / 4
    everything = pd.read_csv(folder / "report" / "scenes.csv")
    assert set(table["key"] + table["front"].astype(str)) <= set(everything["key"] + everything["front"].astype(str))


def test_pictures_are_small_and_show_what_the_scene_shows(folder):
    pictures = sorted((folder / "report" / "pictures").rglob("*.avif"))
    assert len(pictures) > 3
    store = str(folder / "store")
    domains, fronts = read_store_domains(store), read_fronts(store)
    for path in pictures:
        domain = domains[int(path.parent.name)].name
        by_time = fronts[fronts["domain"] == domain].drop_duplicates("key").sort_values("datetime")
        place = read_places(store, domain)[by_time["scene_id"].iloc[int(path.stem)]]
        grey, shown = read_scene_grey(store, domain, place), np.asarray(Image.open(path).convert("L"))
        assert shown.shape == grey.shape
        assert np.abs(shown.astype(int) - grey).mean() < 8, "grey levels of 256"
        assert path.stat().st_size < grey.size / 10, "bytes"


def test_scenes_are_named_once_in_the_data_of_a_glacier(folder):
    for path in (folder / "report" / "data").glob("0*.js"):
        names = json.loads(path.read_text().partition(", ")[2].removesuffix(");\n"))["scenes"]
        assert names
        assert {name: path.read_text().count(name) for name in names} == dict.fromkeys(names, 1)


def test_the_map_of_a_notebook_is_the_whole_page_in_a_frame_of_its_own(folder, tmp_path):
    shown = explore(folder / "store", references=folder / "scenes" / "truth.parquet")
    (tmp_path / "cell.html").write_text(f"<meta charset=utf-8>{shown._repr_html_()}", encoding="utf-8")
    with browser(tmp_path) as opened:
        opened.get((tmp_path / "cell.html").as_uri())
        opened.switch_to.frame(opened.find_element(By.TAG_NAME, "iframe"))
        opened.set_script_timeout(30)
        settle(opened)
        open_glacier(opened)
        assert text(opened, "name") == FIRST.replace("-", " ")
        assert opened.execute_script("return atlas.state.data.references.length") > 0
        assert opened.execute_script("return atlas.map.map.getView().getProjection().getCode()") == "EPSG:3413"
        assert opened.get_log("browser") == []
        assert all(name.startswith(("file:", "data:", "blob:", "about:")) for name in requested(opened))
