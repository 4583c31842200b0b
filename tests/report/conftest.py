"""A store of two glaciers, its report, and a browser that opens it."""

from dataclasses import replace

import pandas as pd
import pytest
from painted import copy_sample
from servers.browser import browser, forget, requested

from calfin_cloud.cli import main
from calfin_cloud.domains import read_domains, write_domains
from calfin_cloud.storage import read_fronts, write_flags
from report.reading import FIRST, SECOND, address, open_glacier, settle

DOUBT = ["key", "branch", "flag", "detail"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A store of two glaciers, numbers 10 and 2, and its report."""
    folder = tmp_path_factory.mktemp("page")
    copy_sample(folder / "scenes", 4)
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


@pytest.fixture(scope="session")
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
    one_browser.get("about:blank")  # else what plays on it would do so until all tests have ended


@pytest.fixture
def glacier(page):
    """The page with the first glacier opened."""
    open_glacier(page)
    return page
