"""Bounds on connections, below HTTP: how many, how large and slow a request's head may be, how slow
its body, and how long an answer may lie unread.

uvicorn has a limit for idle connections only. A client that opens connections and says nothing,
sends its head or body byte by byte, or does not read, must not hold anything for ever: a look at
all connections once a second costs nothing on a request's way, and is exact enough. What is closed
here ends in the application as a client that left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.errors import BadRequest, HeadersTooLarge, ServerFull, TTRLError
from server.leaving import ARRIVED, LEAVING, Leaving

LOOK_EVERY_S: Final = 1.0
MAX_PIPELINED: Final = 16  # requests that a client sends before it has read an answer
REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large", 503: "Unavailable"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of each connection, and of all. Seconds and bytes."""

    connections: int
    head_bytes: int
    message_bytes: int  # of a body with all that is around it
    headers: int
    head_s: float
    body_s: float
    unread_s: float


class Watch:
    """All connections of a server. It looks at them while there are any."""

    def __init__(self, bounds: Bounds, now: Callable[[], float] = monotonic) -> None:
        self.bounds = bounds
        self.now = now
        self.open: set[BoundedProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> BoundedProtocol:
        """A connection's protocol: what uvicorn calls for each."""
        return BoundedProtocol(self, config, server_state, app_state, _loop)

    def add(self, connection: BoundedProtocol) -> bool:
        """Take in a connection; False where there are too many, and none that is idle."""
        if len(self.open) >= self.bounds.connections and not self._close_an_idle_one():
            return False
        self.open.add(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(LOOK_EVERY_S, self._look)
        return True

    def look(self) -> None:
        """Close what has taken too long."""
        now = self.now()
        for connection in list(self.open):
            if connection.is_overdue(now):
                connection.transport.abort()

    def _look(self) -> None:
        self.look()
        self._timer = None
        if self.open:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_EVERY_S, self._look)

    def _close_an_idle_one(self) -> bool:
        idle = [connection for connection in self.open if connection.is_idle]
        if not idle:
            return False
        longest = min(idle, key=lambda connection: connection.idle_since)
        self.open.discard(longest)
        longest.transport.abort()
        return True


def _arrived(cycle: RequestResponseCycle) -> bytes | None:
    """See `server.leaving.ARRIVED`. A connection that idles afterwards does not keep the body."""
    if cycle.more_body:
        return None
    body, cycle.body = bytes(cycle.body), bytearray()
    return body


class JoinedWrites:
    """A cycle's transport that sends an answer's head with the first of its body, as ASGI has it:
    one packet, and one client woken, instead of two.
    """

    __slots__ = ("_cycle", "_head", "_is_open", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None
        self._is_open = False  # the head is out

    def write(self, data: bytes) -> None:
        """Send, or hold back a head."""
        if self._is_open or not self._cycle.response_started:  # before it: `100 Continue`
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._is_open = True
            self._transport.write(self._head + data)

    def is_closing(self) -> bool:
        """Asyncio's."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Asyncio's. A head whose body will never come goes out all the same."""
        if self._head is not None and not self._is_open:
            self._transport.write(self._head)
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with bounds. Times are the watch's."""

    def __init__(
        self,
        watch: Watch,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.idle_since = 0.0
        self._watch = watch
        self._bounds = watch.bounds
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._unread_since: float | None = None
        self._answering: RequestResponseCycle | None = None
        self._leaving = Leaving()  # of the request that is being answered
        self._head_bytes = 0
        self._message_bytes = 0
        self._headers = 0
        self._is_too_large = False
        self._head_again: bytes | None = None  # of a request that asks for an upgrade, without that

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered: it may be on its way."""
        return self._answering is None or self._answering.response_complete

    def is_overdue(self, now: float) -> bool:
        """Whether the client has taken too long with anything."""
        bounds = self._bounds
        head, body = self._head_since, self._body_since
        return (
            (head is not None and now - head > bounds.head_s)
            or (body is not None and now - body > bounds.body_s)
            or self._is_unread(now)
        )

    def _is_unread(self, now: float) -> bool:
        """Whether an answer waits for its reader for too long: more than a transport holds, or its
        end. While an answer still grows within that, nobody waits.
        """
        waits = self.flow.write_paused or (
            (self.is_idle or self.transport.is_closing())
            and self.transport.get_write_buffer_size() > 0
        )
        if not waits:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        else:
            return now - self._unread_since > self._bounds.unread_s
        return False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin: a head is expected soon."""
        super().connection_made(transport)
        self.idle_since = self._head_since = self._watch.now()
        if not self._watch.add(self):
            self._refuse(ServerFull("There are too many connections; try again.", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """End. The request that is being answered is told, not only the last that was read."""
        self._watch.open.discard(self)
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
            self._leaving.leave()
        self._answering = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; a head may not grow without end."""
        expected = self._head_since is not None or self.is_idle  # not the end of a body
        self._parse(data)
        if expected:
            self._head_bytes += len(data)
        if self._body_since is not None:
            self._message_bytes += len(data)
        if len(self.pipeline) > MAX_PIPELINED or self._message_bytes > self._bounds.message_bytes:
            self.transport.abort()
        elif self._head_since is not None and self._head_bytes > self._bounds.head_bytes:
            self._refuse(HeadersTooLarge("The request's head is too large."))

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while len(self.pipeline) <= MAX_PIPELINED:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                assert self._head_again is not None
                data = self._head_again + data[stop.args[0] :]
                self._head_again = None
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_upgrade(self) -> bytes:
        """The head that was just read, without its wish. A server may ignore that (RFC 9110, 7.8),
        and Java's client has it in every request. The parser ends an upgrading request with its
        head: the body would be the next request.
        """
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_since = self._watch.now()
        self._head_bytes = self._message_bytes = self._headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count; trailers, which come after the body, count too."""
        self._headers += 1
        if self._headers > self._bounds.headers:
            self._is_too_large = True
            raise ValueError("too many headers")  # the parser ends with an error
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._head_since = None
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._bounds.head_bytes:
            self._is_too_large = True
            raise ValueError("too large a head")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnels")
            self._head_again = self._head_without_upgrade()
            return
        self._body_since = self._watch.now()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        if cycle.scope["method"] != "HEAD":  # whose answer is a head only
            cycle.transport = cast(asyncio.Transport, JoinedWrites(self.transport, cycle))
        cycle.scope[ARRIVED] = partial(_arrived, cycle)  # pyright: ignore[reportGeneralTypeIssues]
        cycle.scope[LEAVING] = self._leaving = Leaving()  # pyright: ignore[reportGeneralTypeIssues]
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """A body has ended. Reading may be paused by its size; without it nobody sees a client
        leave, since handlers do not ask for more (server.leaving).
        """
        if self._head_again is not None:
            return  # the parser thinks so
        self._body_since = None
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """An answer has ended."""
        self.idle_since = self._watch.now()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what cannot be read, in the shape of all errors."""
        if self._is_too_large:
            self._refuse(HeadersTooLarge("The request's head is too large."))
        else:
            self._refuse(BadRequest(msg))

    def _refuse(self, error: TTRLError) -> None:
        """Answer and close; nothing is said into an answer that is under way."""
        if not self.is_idle:
            self.transport.abort()
            return
        body = json.dumps(error.body()).encode()
        headers = error.headers() | {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {error.status_code} {REASONS[error.status_code]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
