"""A report for every reader: by keyboard and screen reader, on a phone, on paper, in high contrast and in the dark."""

import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from servers.browser import browser, forget

from report.reading import FIRST, address, open_glacier, settle, text


def test_all_can_be_done_with_the_keyboard(page):
    body = page.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    search = page.switch_to.active_element
    assert search.get_attribute("id") == "search"
    search.send_keys("synthetic", Keys.ENTER)
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


@pytest.mark.parametrize("name", [None, FIRST])
def test_the_page_fits_a_phone(folder, tmp_path, name):
    with browser(tmp_path, width=390, height=844, phone=True) as opened:
        opened.get(address(folder))
        settle(opened)
        if name:
            open_glacier(opened, name)
            assert text(opened, "shownPicture").startswith("Synthetic Glacier"), "the panel with the name lies below"
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


def test_a_glacier_whose_change_is_not_known_is_seen_on_the_dark_map_and_explained(page):
    edge = page.execute_script(
        "document.documentElement.dataset.theme = 'dark'; atlas.tell('theme');"
        "atlas.received.about.glaciers[0].change = null; atlas.showLegend();"
        " const l = atlas.layers.dots, [dot] = l.getSource().getFeatures();"
        "return l.getStyleFunction()(dot, 1000).getImage().getStroke().getColor()"
    )
    assert edge == page.execute_script("return atlas.css('--ink')")
    assert "hollow: not known" in text(page, "legend")


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
