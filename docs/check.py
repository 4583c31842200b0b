"""Check the built pages: links within them lead somewhere, nothing is fetched from the network, options can be typed.

python docs/check.py docs/_build/html
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
NOT_FETCHED = {"canonical", "search", "index", "next", "prev", "author", "copyright"}  # what a `link` may only name
JOINED = re.compile(r"(?:^|\s)(–[a-z][a-z-]+)")
"""An option of a command whose two dashes became one."""


class Page(HTMLParser):
    """Ids of a page, what it links to, what a browser fetches for it, and options that nobody could type."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.joined: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag names."""
        of = {name: value or "" for name, value in attrs}
        self.ids |= {of[name] for name in ("id", "name") if name in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag in FETCHED and FETCHED[tag] in of and of.get("rel", "") not in NOT_FETCHED:
            self.fetched.append(of[FETCHED[tag]])

    def handle_data(self, data: str) -> None:
        """Note options in the text."""
        self.joined += JOINED.findall(data)


def troubles(root: Path) -> Iterator[str]:
    """Say what is wrong with the pages below `root`, a line each."""
    pages = {path: Page(path) for path in sorted(root.rglob("*.html")) if "_static" not in path.parts}
    for path, page in pages.items():
        yield from (f"{path.relative_to(root)}: an option with one dash: {option}" for option in page.joined)
        for address in page.fetched:
            if urlsplit(address).scheme in ("http", "https") or address.startswith("//"):
                yield f"{path.relative_to(root)}: fetched from the network: {address}"
        for address in (*page.links, *page.fetched):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.exists():
                yield f"{path.relative_to(root)}: no such file: {address}"
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                yield f"{path.relative_to(root)}: no such place: {address}"


if __name__ == "__main__":
    found = sorted(set(troubles(Path(sys.argv[1]).resolve())))
    print(*found, f"troubles: {len(found)}", sep="\n")
    sys.exit(bool(found))
