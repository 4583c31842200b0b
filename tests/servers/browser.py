"""A headless browser that may open local files and nothing else."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from servers.processes import need

FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
FLAGS += ("disable-component-update", "disable-sync", "host-resolver-rules=MAP * ~NOTFOUND")


@contextmanager
def browser(
    downloads: Path, *, width: int = 1300, height: int = 1200, phone: bool = False, dark: bool = False
) -> Iterator[webdriver.Chrome]:
    """Start Chromium; skip without it, or fail where the servers of the tests are required.

    A phone has touch and the width asked for; a window on a desktop is never narrower than 500 px. Nothing moves by
    itself (`prefers-reduced-motion`), so that a test sees a page at rest.
    """
    need(["chromium", "chromedriver"], "chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"window-size={width},{height}"):
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    if phone:
        size = {"width": width, "height": height, "pixelRatio": 2}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": size})
    opened = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    wanted = [("prefers-reduced-motion", "reduce"), ("prefers-color-scheme", "dark" if dark else "light")]
    features = [{"name": name, "value": value} for name, value in wanted]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        yield opened
    finally:
        opened.quit()


def forget(opened: webdriver.Chrome, downloads: Path) -> None:
    """Make a browser as good as a new one, whose downloads go to another folder: no page, no storage, no logs."""
    opened.get("about:blank")
    opened.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "all"})
    opened.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    for kind in ("browser", "performance"):
        opened.get_log(kind)


def requested(opened: webdriver.Chrome) -> list[str]:
    """Addresses that the browser has asked for since the last call, in order."""
    told = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    return [m["params"]["request"]["url"] for m in told if m["method"] == "Network.requestWillBeSent"]
