"""A store as an interactive map in a notebook: the page of the report, whole in one frame, in its projection."""

from __future__ import annotations

import base64
import html
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calfin_cloud.object_stores import store_text
from calfin_cloud.results.reporting import write_report
from calfin_cloud.storage import read_store_domains
from calfin_cloud.whole_files import write_whole_file

HEIGHT_PX = 720
MOST_PICTURES = 40  # some 40 kB each in the notebook's file
LARGEST_BYTES = 40_000_000
SANDBOX = "allow-scripts allow-downloads"
"""What the page may do in its frame: it runs apart from the notebook, and reaches nothing of it."""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; "
    "img-src data: blob: https://gibs.earthdata.nasa.gov; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Explorer:
    """The map of a store; a notebook shows it as the result of a cell. See `explore`.

    Attributes
    ----------
    page
        The whole page as HTML, which also opens alone from disk.
    height_px
        Height of its frame in a notebook.
    """

    page: str
    height_px: int = HEIGHT_PX

    def save(self, path: str | Path) -> Path:
        """Write the page as one file that opens offline in any browser; return its path."""
        path = Path(path)
        write_whole_file(path, self.page)
        return path

    def __repr__(self) -> str:
        return f"Explorer(a page of {len(self.page) / 1e6:.1f} MB: show it in a notebook, or write it with .save(path))"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="Map of calving fronts" sandbox="{SANDBOX}" width="100%" height="{self.height_px}" '
            f'style="border:1px solid #8a99a5;border-radius:6px" srcdoc="{html.escape(self.page)}"></iframe>'
        )


def explore(
    store: str | Path,
    *,
    title: str = "",
    references: Any = None,  # noqa: ANN401 - what `write_report` takes
    most_pictures: int = MOST_PICTURES,
    height_px: int = HEIGHT_PX,
) -> Explorer:
    """Make an interactive map of a store for a notebook: all fronts in time, their pictures, series and doubts.

    It is the page of `write_report` in one piece, in the projection of the store, and needs neither a network nor an
    extension of Jupyter: it is plain HTML in a frame of its own. What it shows is
    kept in the notebook, 1.7 MB and the data: write a report where a store is large.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    title
        Heading of the page; the names of the glaciers where not given.
    references
        Fronts drawn by hand, a file as `read_product` takes or its table: a layer of their own.
    most_pictures
        Pictures of scenes, those of the latest scenes first.
    height_px
        Height of the frame in the notebook.

    Returns
    -------
    Explorer
        Shown as the result of a cell; `.save(path)` writes it as one file.

    Raises
    ------
    ValueError
        There is no store, nothing was mapped into it, or its map is too large for a notebook.

    Examples
    --------
    >>> cc.explore("fronts").height_px
    720
    """
    with tempfile.TemporaryDirectory() as folder:
        write_report(store, folder, title=title, most_pictures=most_pictures, references=references)
        page = _in_one_file(Path(folder))
    if len(page) > LARGEST_BYTES:
        n_domains = len(read_store_domains(store_text(store)))
        raise ValueError(
            f"the map of {n_domains} domains takes {len(page) / 1e6:.0f} MB, more than a notebook should hold "
            f"({LARGEST_BYTES / 1e6:.0f} MB): take fewer pictures (most_pictures=0), or write_report(store, folder)"
        )
    return Explorer(page, height_px)


def _in_one_file(folder: Path) -> str:
    """Put the scripts, styles, data and pictures of a report into its page."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    page = re.sub(r'(http-equiv="Content-Security-Policy" content=")[^"]*', lambda m: m[1] + POLICY, page, count=1)
    page = re.sub(r'<link rel="stylesheet" href="([^"]+)">', lambda m: f"<style>{_text(folder / m[1])}</style>", page)
    return re.sub(r'<script[^>]* ?src="([^"]+)"[^>]*></script>', lambda m: _script(folder, m[1]), page)


def _script(folder: Path, name: str) -> str:
    text = _text(folder / name)
    if name == "data/about.js":  # it names the files of the glaciers, which are fetched when they are opened
        text = re.sub(r'"file":"(data/[^"]+)"', lambda m: f'"file":{json.dumps(_glacier(folder, m[1]))}', text)
        text = re.sub(r'"downloads":\[[^\]]*\]', '"downloads":[]', text)  # there are no files beside the page
    return "<script>{}</script>".format(text.replace("</script", "<\\/script"))


def _glacier(folder: Path, name: str) -> str:
    """Address that holds the data of a glacier, its pictures within; it ends with the name, by which the page goes."""
    before, _, rest = _text(folder / name).partition(", ")
    data = json.loads(rest.removesuffix(");\n"))
    shown = folder / "pictures" / f"{data['number']:05}"
    data["embedded"] = {n: _address("image/avif", (shown / f"{n:05}.avif").read_bytes()) for n in data["pictures"]}
    text = f"{before}, {json.dumps(data, separators=(',', ':'))});"
    return f"{_address('text/javascript', text.encode())}#{Path(name).name}"


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
