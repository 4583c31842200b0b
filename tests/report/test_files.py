"""The files of a report: its page, its downloads and pictures, and the same in a notebook."""

import json
import re

import geopandas as gpd
import numpy as np
import pandas as pd
from PIL import Image
from selenium.webdriver.common.by import By
from servers.browser import browser, requested

from calfin_cloud.results import explore
from calfin_cloud.storage import read_fronts, read_places, read_scene_grey, read_store_domains
from report.reading import FIRST, open_glacier, settle, text


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
    for file in ("fronts.geojson", "scenes.csv"):
        assert not re.search(r"\d\.\d{6}", (folder / "report" / file).read_text()), "no digit that nobody has measured"
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
