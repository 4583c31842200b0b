"""Verdicts given in a report, in a real browser: accepted, rejected and redrawn fronts, which can be applied."""

import json
import shutil

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from servers.browser import forget

from calfin_cloud.cli import main
from calfin_cloud.results import reviewed_fronts
from calfin_cloud.results.settling import line_id
from calfin_cloud.storage import read_fronts
from report.reading import address, click_on_map, open_glacier, settle, text, wait_for


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
