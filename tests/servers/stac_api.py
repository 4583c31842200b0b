"""A loopback STAC API: landing page, collections, and item search by POST or by GET, page by page."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from shapely.geometry import shape

from servers.files import running

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
]


class StacApi(ThreadingHTTPServer):
    """Serves items given as dictionaries, `page_size` a page; answers `busy` to the first `n_busy` searches.

    Where it is searched by GET, the links to further pages are relative; with `loops` the second page leads to itself.
    """

    daemon_threads = True

    def __init__(
        self, items: Sequence[dict[str, Any]], page_size: int, n_busy: int, busy: int, method: str, loops: bool
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.items, self.page_size, self.n_busy, self.busy = list(items), page_size, n_busy, busy
        self.method, self.loops = method, loops
        self.searches: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: StacApi

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = self.server.url
        if self.path == "/":
            links = [
                {"rel": "self", "href": url},
                {"rel": "root", "href": url},
                {"rel": "data", "href": f"{url}/collections"},
                {
                    "rel": "search",
                    "href": f"{url}/search",
                    "method": self.server.method,
                    "type": "application/geo+json",
                },
            ]
            self._send({"type": "Catalog", "id": "api", "description": "-", "stac_version": "1.0.0", "links": links, "conformsTo": CONFORMS})  # fmt: skip  # noqa: E501
        elif self.path == "/collections":
            ids = sorted({item["collection"] for item in self.server.items})
            extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
            same = {"type": "Collection", "description": "-", "license": "other", "stac_version": "1.0.0", "links": []}
            self._send({"collections": [{"id": id_, "extent": extent, **same} for id_ in ids], "links": []})
        elif self.path.startswith("/search?") and self.server.method == "GET":
            asked = dict(parse_qsl(urlsplit(self.path).query))
            asked |= {"collections": asked["collections"].split(",")} if "collections" in asked else {}
            self._search(asked | {"intersects": json.loads(asked["intersects"])})
        else:
            self._send({"code": "NotFound", "description": self.path}, status=404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.method != "POST":
            return self._send({"code": "MethodNotAllowed"}, status=405)
        return self._search(body)

    def _search(self, body: dict[str, Any]) -> None:
        self.server.searches.append(body)
        if len(self.server.searches) <= self.server.n_busy:
            return self._send({"code": "Busy"}, status=self.server.busy)
        if body.get("datetime") == "../..":  # as pgstac does
            return self._send({"code": "BadRequest", "description": "at least one end must be given"}, status=400)
        first = int(body.get("token", 0))
        found = [item for item in self.server.items if _matches(item, body)]
        last = first + self.server.page_size
        links = []
        if last < len(found):
            token = {"token": str(self.server.page_size if self.server.loops else last)}
            link = {"rel": "next", "method": "POST", "href": f"{self.server.url}/search", "merge": True}
            links = [link | {"body": token}]
            if self.server.method == "GET":
                links = [
                    {"rel": "next", "href": f"search?{urlencode(dict(parse_qsl(urlsplit(self.path).query)) | token)}"}
                ]
        return self._send({"type": "FeatureCollection", "features": found[first:last], "links": links})

    def _send(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _matches(item: dict[str, Any], body: dict[str, Any]) -> bool:
    start, end = body.get("datetime", "../..").split("/")
    moment = item["properties"]["datetime"]
    return (
        item["collection"] in body.get("collections", [item["collection"]])
        and (start == ".." or moment >= start)
        and (end == ".." or moment <= end)
        and shape(item["geometry"]).intersects(shape(body["intersects"]))
    )


@contextmanager
def serve_api(
    items: Sequence[dict[str, Any]],
    *,
    page_size: int = 100,
    n_busy: int = 0,
    busy: int = 503,
    method: str = "POST",
    loops: bool = False,
) -> Iterator[StacApi]:
    """Serve a STAC API on a free loopback port until the block ends."""
    with StacApi(items, page_size, n_busy, busy, method, loops) as server, running(server):
        yield server
