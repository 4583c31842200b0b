"""How a test reads the page of a report: opens a glacier, clicks, waits, looks."""

import io
import time

import numpy as np
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

FIRST, SECOND = "Synthetic-Glacier", "Other-Glacier"


def address(folder, view=""):
    return (folder / "report" / "index.html").as_uri() + view


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
