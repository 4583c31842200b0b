"""Proxies that do harm by a seeded plan, and count it: faults of HTTP, and bits flipped on the wire below TLS."""

import asyncio
import random
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ANSWERS = {
    "503": (503, "Slow Down", "Retry-After: 0"),
    "429": (429, "Too Many Requests", "Retry-After: 1"),
    "403": (403, "Forbidden", "x-amz-error-code: ExpiredToken"),
    "404": (404, "Not Found", "x-nothing: here"),
    "empty": (200, "OK", "x-nothing: inside"),
}
"""Faults that are an answer of the proxy's own; the server never hears of the request."""

EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"
SLOW_BYTES_S, SLOW_PIECE = 32_000, 1_600
HANG_S = 600.0  # longer than any client waits


@dataclass(frozen=True)
class Plan:
    """Which requests suffer: each draws by seed, path and how often it came, whatever else is asked meanwhile.

    Kinds are those of `ANSWERS`, and `reset` (before the server is asked), `late` (reset once it has done its work),
    `cut` (half a body), `slow`, `hang` and `flip` (one bit of a body). No more than `most` in all.
    """

    kinds: tuple[str, ...]
    rate: float
    seed: int
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    paths: str = ""
    most: int = 10**9
    hang_s: float = HANG_S

    def fault_of(self, request: "Request", nth: int) -> tuple[str, random.Random]:
        """Fault of a request, "" for none, and what draws its details."""
        draw = random.Random(f"{self.seed} {request.method} {request.path} {request.headers.get('range')} {nth}")
        suffers = request.method in self.methods and re.search(self.paths, request.path)
        return (draw.choice(self.kinds) if suffers and draw.random() < self.rate else ""), draw


class Request(NamedTuple):
    """A request or an answer: its first line in words, headers in small letters, and its body as it was framed."""

    first: list[str]
    lines: list[str]
    headers: dict[str, str]
    body: bytes

    @property
    def method(self) -> str:
        return self.first[0]

    @property
    def path(self) -> str:
        return self.first[1].partition("?")[0]


class Listener:
    """Listens on one loopback port, answers in a thread of its own, and may be gone for a while."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls, self.port = tls, 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen, again on the same port."""
        if not self.thread.is_alive():
            self.thread.start()
        self._wait(self._open())

    def stop(self) -> None:
        """Refuse connections, and break those there are."""
        self._wait(self._close())

    def end(self) -> None:
        """Stop for good."""
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _wait(self, what: Awaitable[None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self.loop).result(30)  # type: ignore[arg-type]

    async def _open(self) -> None:
        self.server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, ssl=self.tls, limit=2**20)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self.server.close()
        for talk in (talks := list(self.talks)):
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0.05)  # in which connections that were broken, or had no handshake, are closed

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self.talks.add(talk)
        try:
            await self.talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):  # either side went away, or the listener ends
            writer.transport.abort()  # over TLS `close` would wait for the other side
        finally:
            self.talks.discard(talk)
            writer.close()


class FaultProxy(Listener):
    """Passes requests on to `upstream` (http://host:port) and lets those suffer that its plan names."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.upstream = urlsplit(upstream)
        self.plan: Plan | None = None
        self.injected: Counter[str] = Counter()
        self.hit: set[str] = set()
        self.asked: Counter[tuple[str, str, str]] = Counter()

    def suffer(self, plan: Plan | None) -> None:
        """Take another plan, and count from nothing."""
        self.plan, self.injected, self.hit, self.asked = plan, Counter(), set(), Counter()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _read(reader, writer):
            fault, draw = self._draw(request)
            if fault in ANSWERS:
                self._count(fault, request)
                await _send(writer, _own_answer(fault, request))
            elif fault == "reset":
                self._count(fault, request)
                return _reset(writer)
            elif fault == "hang":
                self._count(fault, request)
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), self.plan.hang_s if self.plan else 0)
                return None
            else:
                answer = await self._ask(request)
                if not await self._spoil(fault, draw, request, answer, writer):
                    return None
        return None

    def _draw(self, request: Request) -> tuple[str, random.Random]:
        which = (request.method, request.path, request.headers.get("range", ""))
        self.asked[which] += 1
        if self.plan is None or self.injected.total() >= self.plan.most:
            return "", random.Random(0)
        return self.plan.fault_of(request, self.asked[which])

    def _count(self, fault: str, request: Request) -> None:
        self.injected[fault] += 1
        self.hit.add(request.path)

    async def _ask(self, request: Request) -> Request:
        """Ask the server over a connection of its own, which ends with the answer."""
        reader, writer = await asyncio.open_connection(self.upstream.hostname, self.upstream.port, limit=2**20)
        try:
            await _send(writer, request, "Connection: close")
            answer = await _read(reader, writer, to_head=request.method == "HEAD")
            if answer is None:
                raise ConnectionError("the server went away")
            return answer
        finally:
            writer.close()

    async def _spoil(
        self, fault: str, draw: random.Random, request: Request, answer: Request, writer: asyncio.StreamWriter
    ) -> bool:
        """Pass the answer on as the fault has it; say whether the connection goes on. Nothing can spoil no body."""
        if fault == "late" or (fault and answer.body):
            self._count(fault, request)
        if fault == "late":
            _reset(writer)
            return False
        if fault == "cut" and answer.body:
            await _send(writer, answer._replace(body=answer.body[: len(answer.body) // 2]))
            return False
        if fault == "flip" and answer.body:
            answer = answer._replace(body=flipped(answer.body, draw))
        await _send(writer, answer, piece=SLOW_PIECE if fault == "slow" else 2**20)
        return True


class FlippingWire(Listener):
    """Passes bytes on to `upstream` (host:port of a TLS server) and flips a bit in some of what comes back."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = urlsplit(upstream)
        self.rate, self.seed = 0.0, 0
        self.n_connections, self.injected = 0, 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        draw = random.Random(f"{self.seed} {self.n_connections}")
        back, forth = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        sending = asyncio.ensure_future(_pass_on(reader, forth, lambda data: data))
        try:
            await _pass_on(back, writer, lambda data: self._maybe_flipped(data, draw))
        finally:
            sending.cancel()
            forth.close()

    def _maybe_flipped(self, data: bytes, draw: random.Random) -> bytes:
        if draw.random() >= self.rate:
            return data
        self.injected += 1
        return flipped(data, draw)


L = TypeVar("L", bound=Listener)


@contextmanager
def listening(listener: L) -> Iterator[L]:
    """Start a listener and end it with the block."""
    listener.start()
    try:
        yield listener
    finally:
        listener.end()


def loopback_certificate(path: Path) -> ssl.SSLContext:
    """Make a certificate of 127.0.0.1, write it to `path` for those who are to trust it, and serve with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = path.with_suffix(".key")
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(kind, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, private)
    return context


def flipped(data: bytes, draw: random.Random) -> bytes:
    """Flip one bit somewhere."""
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def _own_answer(fault: str, request: Request) -> Request:
    status, words, header = ANSWERS[fault]
    body = b"" if fault in ("empty", "404") or request.method == "HEAD" else EXPIRED if fault == "403" else b"busy"
    return Request(["HTTP/1.1", str(status), words], [header, f"Content-Length: {len(body)}"], {}, body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection so that the other side sees it as reset by its peer."""
    sock: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    while data := await source.read(2**14):
        target.write(change(data))
        await target.drain()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_head: bool = False) -> Request | None:
    """Read a request or an answer whole, None where the other side has closed; its chunks stay as they are framed."""
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    keep = [line for line in lines if line.partition(":")[0].lower() not in ("connection", "expect", "keep-alive")]
    if to_head or first.split(" ")[1] in ("204", "304"):
        body = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split(" ", 2), keep, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        whole += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        if int(size.split(b";")[0], 16) == 0:
            return whole


async def _send(writer: asyncio.StreamWriter, message: Request, *more: str, piece: int = 2**20) -> None:
    """Send head and body, the body piece by piece if it is to be slow."""
    writer.write(("\r\n".join([" ".join(message.first), *message.lines, *more]) + "\r\n\r\n").encode("latin-1"))
    for start in range(0, len(message.body), piece):
        writer.write(message.body[start : start + piece])
        await writer.drain()
        if piece == SLOW_PIECE:
            await asyncio.sleep(piece / SLOW_BYTES_S)
    await writer.drain()
