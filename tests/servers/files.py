"""A loopback HTTP server of one folder: byte ranges, counts of what was sent, and faults by path or by script."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, dict[str, str]] | tuple[int, dict[str, str], bytes]


class FileServer(ThreadingHTTPServer):
    """`/NAME` is a file; `/cut/NAME` closes in the middle of a body, `/flaky/` answers 503 twice, `/hang/` sleeps.

    `answers` are given first, by path: statuses with their headers and, if they have one, body; None
    answers as usual. `later` says after how many requests a path is which other file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.headers: list[Message] = []
        self.answers: defaultdict[str, list[tuple[int, dict[str, str], bytes] | tuple[int, dict[str, str]] | None]] = (
            defaultdict(list)
        )
        self.n_bytes: Counter[str] = Counter()
        self.later: dict[str, tuple[int, str]] = {}
        self.hang_s = 30.0
        self.latency_s = 0.0
        self.at_once, self.most_at_once = 0, 0
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def _answer(self, *, has_body: bool) -> None:
        server = self.server
        assert isinstance(server, FileServer)
        path = self.path.split("?")[0].lstrip("/")
        server.requests[path] += 1
        server.headers.append(self.headers)
        with server.counting:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        time.sleep(server.latency_s)
        with server.counting:
            server.at_once -= 1
        if server.answers[path] and (answer := server.answers[path].pop(0)):
            body = answer[2] if len(answer) > 2 else b""
            return self._send(answer[0], body, has_body=has_body, headers=answer[1])
        fault, _, name = path.partition("/")
        if fault == "hang":
            time.sleep(server.hang_s)
        if fault == "flaky" and server.requests[path] <= 2:
            return self._send(503, b"", has_body=has_body)
        file = server.folder / (name if fault in ("cut", "flaky", "hang") else path)
        if path in server.later and server.requests[path] > server.later[path][0]:
            file = server.folder / server.later[path][1]
        if not file.is_file():
            return self._send(404, b"", has_body=has_body)
        body = file.read_bytes()
        size, wanted = len(body), self.headers.get("Range", "")
        headers = {}
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or size - 1), size - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
            body = body[start : end + 1]
        return self._send(206 if headers else 200, body, has_body=has_body, is_cut=fault == "cut", headers=headers)

    def _send(
        self, status: int, body: bytes, *, has_body: bool, is_cut: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Accept-Ranges": "bytes", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        server = self.server
        assert isinstance(server, FileServer)
        if has_body:
            server.n_bytes[self.path.split("?")[0].lstrip("/")] += len(body)
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        if is_cut:
            self.close_connection = True


@contextmanager
def serve_folder(folder: Path) -> Iterator[FileServer]:
    """Serve the files of `folder` on a free loopback port until the block ends."""
    with FileServer(folder) as server, running(server):
        yield server


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Answer requests in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
