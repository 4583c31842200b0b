"""The dates of a report in a real browser: the slider, playing them, and two of them side by side."""

import numpy as np
from selenium.webdriver.common.by import By

from report.reading import map_picture, settle, text


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
