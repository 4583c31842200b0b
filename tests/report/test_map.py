"""The map of a report in a real browser: glaciers and fronts on it, what is below them, and its address."""

from dataclasses import replace

import numpy as np
from selenium.webdriver.common.by import By
from servers.browser import browser, forget, requested
from skimage.color import rgb2lab
from storing import DOMAIN, LINE, write

from calfin_cloud.cli import main
from calfin_cloud.storage import keep_domain, open_store
from report.reading import FIRST, address, click_on_front, click_on_map, map_picture, open_glacier, settle, text


def test_the_overview_lists_all_glaciers_by_number_with_what_became_of_them(page, folder):
    assert page.title == "A </script> title"
    assert "2 glaciers, " in text(page, "summary")
    rows = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#glaciers button")]
    assert rows[0].startswith("Other Glacier\nNo. 2 · ")
    assert rows[1].startswith("Synthetic Glacier\nNo. 10 · 3 fronts")
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
    assert text(page, "name") == "Synthetic Glacier"
    assert page.title == "Synthetic Glacier · A </script> title", "so that steps of the history can be told apart"
    assert "fronts in 4 scenes" in text(page, "numbers")
    page.find_element(By.ID, "back").click()
    assert page.find_element(By.ID, "list").is_displayed()
    assert not page.find_element(By.ID, "time").is_displayed()
    assert page.title == "A </script> title"


def test_a_glacier_is_found_by_part_of_its_name_or_by_its_number(page):
    search = page.find_element(By.ID, "search")
    search.send_keys("sYnth")
    assert [b.text for b in page.find_elements(By.CSS_SELECTOR, "#glaciers b")] == ["Synthetic Glacier"]
    search.clear()
    search.send_keys("Other Gletscher")
    assert [b.text for b in page.find_elements(By.CSS_SELECTOR, "#glaciers b")] == ["Other Glacier"]
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


def layers(page):
    """Boxes of the layers that a page offers, by name."""
    labels = page.find_elements(By.CSS_SELECTOR, "#layers label")
    return {label.get_property("textContent"): label.find_element(By.TAG_NAME, "input") for label in labels}


def test_references_are_a_layer_of_their_own(glacier):
    count, is_seen = glacier.execute_script(
        "const l = atlas.layers.references; return [l.getSource().getFeatures().length, l.getVisible()]"
    )
    assert count >= 4
    assert is_seen
    assert "Reference fronts" in layers(glacier)


def test_rejected_lines_are_a_layer_of_their_own_that_is_off_at_first_and_references_that_nobody_gave_are_none(
    one_browser, tmp_path
):
    store = str(tmp_path / "store")
    open_store(store, crs=DOMAIN.crs, made_by={"model": "a"})
    keep_domain(store, DOMAIN)
    write(store, "a", "b", line=LINE)
    assert main(["report", store, "--out", str(tmp_path / "report")]) == 0
    forget(one_browser, tmp_path)
    one_browser.get(address(tmp_path))
    settle(one_browser)
    lines = "return [atlas.layers.candidates.getSource().getFeatures().length, atlas.layers.candidates.getVisible()]"
    assert one_browser.execute_script(lines) == [2, False]
    offered = layers(one_browser)
    assert "Reference fronts" not in offered
    one_browser.find_element(By.ID, "layersButton").click()
    offered["Rejected lines"].click()
    assert one_browser.execute_script(lines) == [2, True]


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
    assert not {"Rejected lines", "Reference fronts"} & set(layers(one_browser))
    find = "const s = atlas.get('search'); s.value = arguments[0]; s.dispatchEvent(new Event('input'));"
    found = [
        one_browser.execute_script(f"{find} return atlas.get('glaciers').childElementCount", t)
        for t in ("ISBRAE ost", "x")
    ]
    assert found == [1, 0], "letters are found as people without them write them"


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
