"""The report of a store in a real browser: it opens offline, is quick, and verdicts made in it can be applied."""

import io
import json
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from servers.browser import browser

from calfin_cloud.cli import main
from calfin_cloud.results import reviewed_fronts
from calfin_cloud.sample import write_sample
from calfin_cloud.storage import read_fronts, write_flags

DOUBT = ["key", "branch", "flag", "detail"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_sample(folder / "scenes", scenes=4)
    where = ["--domains", str(folder / "scenes" / "domains.geojson"), "--period", "1984/2024"]
    catalog = ["--catalog", str(folder / "scenes" / "catalog.json")]
    assert main(["map", *catalog, *where, "--store", str(folder / "store"), "--cluster", "none"]) == 0
    fronts = read_fronts(str(folder / "store"))
    found = fronts[fronts["state"] == "front"]
    doubt = pd.DataFrame([(found["key"].iloc[1], "box", "outlier", "far from its neighbours")], columns=DOUBT)
    write_flags(str(folder / "store"), found, doubt)
    assert main(["report", str(folder / "store"), "--out", str(folder / "report"), "--title", "A </script> title"]) == 0
    return folder


@pytest.fixture
def page(folder, tmp_path):
    with browser(tmp_path) as opened:
        opened.get((folder / "report" / "index.html").as_uri())
        yield opened
        assert opened.get_log("browser") == [], "the console must stay silent"
        names = opened.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
        assert all(name.startswith(("file:", "data:", "blob:")) for name in names)


def text(page, id_):
    return page.find_element(By.ID, id_).text


def click_on_front(page, which=0):
    """Click on the middle of a front on the map."""
    x, y = page.execute_script(
        "const l = domain.fronts[arguments[0]].line, i = 2 * Math.floor(l.length / 4);"
        "const b = $('map').getBoundingClientRect();"
        "return [l[i] / domain.size[0] * b.width - b.width / 2, l[i + 1] / domain.size[1] * b.height - b.height / 2]",
        which,
    )
    ActionChains(page).move_to_element_with_offset(page.find_element(By.ID, "map"), x, y).click().perform()


def test_the_page_shows_title_fronts_series_scenes_and_downloads(page, folder):
    assert page.title == "A </script> title"
    assert "Painted-Glacier (3)" in text(page, "domain")
    assert len(page.find_elements(By.CSS_SELECTOR, "#series circle")) == 6  # a box and a centreline
    assert len(page.find_elements(By.CSS_SELECTOR, "#sheet img")) == 3
    assert "clouds cover too much" in text(page, "without")
    links = [a.get_attribute("download") for a in page.find_elements(By.CSS_SELECTOR, "#downloads a")]
    assert all((folder / "report" / link).is_file() for link in links)
    assert "fronts.geojson" in links
    page.execute_script("return new Promise(r => image.complete ? r() : image.addEventListener('load', r))")
    shown = Image.open(io.BytesIO(page.find_element(By.ID, "map").screenshot_as_png)).convert("RGB")
    colours = np.asarray(shown).astype(int)
    inked = (np.abs(colours[..., 0] - colours[..., 2]) > 40).sum()
    assert inked > 200, "coloured lines must lie on the grey picture"


def test_a_click_on_a_front_or_a_point_tells_about_it(page):
    click_on_front(page, 1)
    assert "length" in text(page, "factTable")
    assert page.execute_script("return $('picture').naturalWidth") > 100 or page.execute_script(
        "return new Promise(r => { $('picture').onload = () => r($('picture').naturalWidth > 100) })"
    )
    facts = text(page, "factTable")
    assert "outlier: far from its neighbours" in facts, "a doubt that the store keeps is told with its reason"
    score = float(facts.split("score")[1].split()[0])
    assert 0 < score <= 0.25, "and the score is lowered"
    assert sum("doubtful" in c.text for c in page.find_elements(By.CSS_SELECTOR, "#sheet figcaption")) == 1
    page.execute_script("document.querySelector('#series circle').dispatchEvent(new Event('click'))")
    assert "satellite" in text(page, "factTable")


def test_the_slider_leaves_only_the_fronts_of_its_time(page):
    page.execute_script("$('from').value = $('from').max; $('from').dispatchEvent(new Event('input'))")
    assert len(page.find_elements(By.CSS_SELECTOR, "#sheet img")) == 1
    last = page.execute_script("return dates[dates.length - 1]")
    assert text(page, "span") == f"{last} to {last}"


def test_verdicts_of_the_page_are_applied_to_the_store(page, folder, tmp_path):
    page.find_element(By.ID, "author").send_keys("M. Person")
    click_on_front(page, 0)
    page.find_element(By.CSS_SELECTOR, "[data-verdict=reject]").click()
    page.execute_script("choose(domain.fronts[1])")
    page.find_element(By.CSS_SELECTOR, "[data-verdict=redraw]").click()
    canvas = page.find_element(By.ID, "map")
    for x in (-80, 0, 80):
        ActionChains(page).move_to_element_with_offset(canvas, x, 20).click().perform()
    page.find_element(By.ID, "done").click()
    assert text(page, "count") == "2 verdicts"
    page.find_element(By.ID, "save").click()
    deadline = time.monotonic() + 10
    while not (tmp_path / "verdicts.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [v["verdict"] for v in json.loads((tmp_path / "verdicts.json").read_text())] == ["reject", "redraw"]
    assert main(["review", str(folder / "store"), "--apply", str(tmp_path / "verdicts.json")]) == 0
    fronts = reviewed_fronts(str(folder / "store"))
    drawn = fronts[fronts["verdict"] == "redraw"].iloc[0]
    box = fronts.total_bounds
    assert drawn["reviewer"] == "M. Person"
    assert drawn["quality_flag"] in (0, 3)
    assert len(drawn["geometry"].coords) == 3
    assert abs(np.diff(np.asarray(drawn["geometry"].coords)[:, 1])).max() < 60, "a level line on a map with north up"
    assert box[0] - 9000 < drawn["geometry"].bounds[0] < box[2] + 9000


def test_nothing_is_decided_without_a_name(page):
    page.execute_script("choose(domain.fronts[0])")
    page.find_element(By.CSS_SELECTOR, "[data-verdict=accept]").click()
    assert not page.find_element(By.ID, "save").is_enabled()


def test_ten_thousand_fronts_are_drawn_in_a_moment(page):
    took = page.execute_script(
        "const f = domain.fronts; for (let i = 0; f.length < 10000; i++) f.push({...f[i % 3], key: 'k' + i,"
        "  line: f[i % 3].line.map((v) => v + i / 100)});"
        "const t = performance.now(); redraw(); nearestFront([1, 1]); return performance.now() - t"
    )
    assert took < 1500


def test_the_page_fits_a_phone(folder, tmp_path):
    with browser(tmp_path, width=500, height=900) as opened:
        opened.get((folder / "report" / "index.html").as_uri())
        wide = opened.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0
