"""HTTP/1.1 to the engines: as much of a client as one POST and its answer need.

A general client takes a quarter of a web process's time for what is not needed between a gateway
and its own engines (docs/performance.md). Parsing is llhttp's, by httptools, as on the client's
side; what is here are connections, kept for a while, and answers, held back when nobody reads them.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httptools

HIGH_WATER: Final = 256 * 2**10  # bytes of an answer that wait for their reader
MAX_HEAD_BYTES: Final = 64 * 2**10


class EngineGone(Exception):
    """The connection broke, or what came is not HTTP."""


class EngineUnreachable(EngineGone):
    """There is no connection to be had."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an engine is."""

    host: str
    port: int
    is_tls: bool
    prefix: str  # of every path
    head: str  # the lines of a request's head that are always the same

    @classmethod
    def parse(cls, url: str) -> Origin:
        """From an engine's URL; a name and password in it go into a header of every request."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineUnreachable(f"not a URL of HTTP: {parts.scheme}://{parts.hostname}")
        is_tls = parts.scheme == "https"
        netloc = parts.netloc.rpartition("@")[2]
        head = f"Host: {netloc}\r\n"
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            head += f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        port = parts.port or (443 if is_tls else 80)
        return cls(parts.hostname, port, is_tls, parts.path.rstrip("/"), head)


class EngineResponse:
    """An answer whose head is here; its body comes as it is read. Whoever has it closes it."""

    __slots__ = ("_connection", "_error", "_is_whole", "_parts", "_size", "_waiter", "status")

    def __init__(self, connection: _Connection) -> None:
        self.status = 0  # until the head is here
        self._connection = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._is_whole = False
        self._error: EngineGone | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def at_eof(self) -> bool:
        """Whether all has come and been read."""
        return self._is_whole and not self._parts

    async def first(self) -> bytes:
        """The bytes that are there, at least one unless that is all; they stay to be read.

        Raises:
            EngineGone: the connection broke before.
        """
        while not self._parts and not self._is_whole:
            await self._wait()
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    async def readany(self) -> bytes:
        """The bytes that are there; empty at the end only.

        Raises:
            EngineGone: the connection broke; what had come before was read.
        """
        data = await self.first()
        self._parts.clear()
        if self._size > HIGH_WATER:
            self._connection.resume()
        self._size = 0
        return data

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The bytes as they come. Errors as `readany`."""
        while data := await self.readany():
            yield data

    async def read(self, limit: int) -> bytes:
        """All of the rest, or as much as is there when it is `limit` bytes or more. Errors as
        `readany`.
        """
        rest = bytearray()
        while len(rest) < limit and (data := await self.readany()):
            rest += data
        return bytes(rest)

    def close(self) -> None:
        """Close the connection, which stops the generation, unless all has come."""
        if not self._is_whole:
            self._connection.abort()

    async def head(self) -> None:
        """Wait for the status.

        Raises:
            EngineGone: the connection broke before.
        """
        while not self.status:
            await self._wait()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def begin(self, status: int) -> None:
        """The head has come."""
        self.status = status
        self._wake()

    def feed(self, data: bytes) -> bool:
        """Bytes have come. False: no more of them for now."""
        self._parts.append(data)
        self._size += len(data)
        self._wake()
        return self._size <= HIGH_WATER

    def end(self, error: EngineGone | None = None) -> None:
        """All has come, or nothing more will."""
        self._error = error
        self._is_whole = error is None
        self._wake()


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, and the parser of its answer."""

    def __init__(self, idle: list[_Connection], owner: EngineHttp) -> None:
        self.idle_since = 0.0
        self._idle = idle
        self._owner = owner
        self._transport: Any = None
        self._parser: Any = None
        self._response: EngineResponse | None = None
        self._head_bytes = 0
        self._is_paused = False
        self._ends_with_connection = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._owner.opened(self)

    def send(self, request: bytes) -> EngineResponse:
        """Send a request; its answer will come.

        Raises:
            EngineUnreachable: the connection was closed before; nothing was sent.
        """
        if self.is_closing:  # `connection_lost` may be over: nobody would end the answer
            raise EngineUnreachable("The connection was closed.")
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._response = response = EngineResponse(self)
        self._transport.write(request)
        return response

    @property
    def is_closing(self) -> bool:
        """Whether it cannot be used any more."""
        return self._transport.is_closing()

    def resume(self) -> None:
        """The reader has read."""
        if self._is_paused and not self.is_closing:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # nothing was asked
            self.abort()
            return
        if not response.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("The engine changes the protocol.")
        except httptools.HttpParserError as error:
            self._break(f"not HTTP: {type(error).__name__}")
        else:
            if not response.status and self._head_bytes > MAX_HEAD_BYTES:
                self._break("The head of the engine's answer does not end.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        if self in self._idle:
            self._idle.remove(self)
        response = self._response
        if exc is None and response is not None and response.status and self._ends_with_connection:
            self._end()
        else:
            self._end(EngineGone(repr(exc) if exc else "The connection was closed."))

    def _break(self, reason: str) -> None:
        self._end(EngineGone(reason))
        self.abort()

    def _end(self, error: EngineGone | None = None) -> None:
        response, self._response, self._parser = self._response, None, None
        if response is not None:
            response.end(error)
            self._owner.seats.release()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._ends_with_connection = True
        if self._response is None:  # more than was asked for
            self.abort()

    def on_header(self, name: bytes, _value: bytes) -> None:
        if len(name) in (14, 17) and name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        if self._response is None:
            return
        status: int = self._parser.get_status_code()
        if status >= 200:  # others announce one that follows
            self._response.begin(status)

    def on_body(self, body: bytes) -> None:
        if self._response is not None and not self._response.feed(body) and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._response is None or not self._response.status:
            return
        is_kept = self._parser.should_keep_alive()
        self._end()
        if is_kept and not self.is_closing:
            self.resume()
            self.idle_since = monotonic()
            self._idle.append(self)
        else:
            self._transport.close()


class EngineHttp:
    """Connections to engines, reused for `keepalive_s` after an answer. Times in seconds.

    At most `max_connections` answers are open at once; who wants another one waits.
    """

    def __init__(self, *, max_connections: int, connect_s: float, keepalive_s: float) -> None:
        self._connect_s = connect_s
        self._keepalive_s = keepalive_s
        self._opened: set[_Connection] = set()
        self._all_closed: asyncio.Event | None = None
        self.seats = asyncio.Semaphore(max_connections)
        self._origins: dict[str, Origin] = {}
        self._idle: dict[str, list[_Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    async def post(
        self, url: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineResponse:
        """The answer of the engine at `url`, when its head is here.

        Raises:
            EngineUnreachable: there is no connection to the engine.
            EngineGone: it broke before the head was here.
        """
        origin = self._origins.get(url)
        if origin is None:
            origin = self._origins[url] = Origin.parse(url)
        request = _request(origin, path, body, headers)
        await self.seats.acquire()
        try:
            connection = self._reused(url) or await self._connect(url, origin)
            response = connection.send(request)
        except BaseException:
            self.seats.release()
            raise
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def close(self) -> None:
        """Close all connections, also those in use."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._opened):
            connection.abort()
        if self._opened:
            self._all_closed = asyncio.Event()
            await self._all_closed.wait()

    @property
    def num_connections(self) -> int:
        """Connections that are open, in use or not."""
        return len(self._opened)

    def opened(self, connection: _Connection) -> None:
        """A connection is there."""
        self._opened.add(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._opened.discard(connection)
        if self._all_closed is not None and not self._opened:
            self._all_closed.set()

    def _reused(self, url: str) -> _Connection | None:
        idle, since = self._idle.get(url), monotonic() - self._keepalive_s
        while idle:
            connection = idle.pop()
            if connection.idle_since >= since and not connection.is_closing:
                return connection
            connection.abort()
        return None

    async def _connect(self, url: str, origin: Origin) -> _Connection:
        idle = self._idle.setdefault(url, [])
        tls = None
        if origin.is_tls:
            tls = self._tls = self._tls or ssl.create_default_context()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(idle, self), origin.host, origin.port, ssl=tls
                )
        except (OSError, TimeoutError) as error:
            raise EngineUnreachable(repr(error)) from error
        if self._sweep is None:
            self._look_later()
        return connection

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._keepalive_s / 2, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        before = monotonic() - self._keepalive_s
        for idle in self._idle.values():
            while idle and idle[0].idle_since < before:  # the latest is used first
                idle.pop(0).abort()
        if self._opened:
            self._look_later()


def _request(origin: Origin, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {origin.prefix}{path} HTTP/1.1\r\n{origin.head}Content-Length: {len(body)}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = "".join(lines)
    if head.count("\n") != len(headers) + origin.head.count("\n") + 2:
        raise ValueError("a header's value has an end of line in it")
    return (head + "\r\n").encode("latin1") + body
