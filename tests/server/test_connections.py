"""Connections with bounds, over real sockets, by a clock that is turned by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import MagicMock

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server.app import http_config
from server.config import Settings
from server.connections import MAX_PIPELINED, JoinedWrites, Watch
from tests.waiting import until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"


@dataclass
class Site:
    """An app behind the product's server, and what became of its requests."""

    port: int = 0
    now: float = 0.0
    flood: int = 0  # bytes that it answers
    ended: list[str] = field(default_factory=list[str])
    bodies: list[bytes] = field(default_factory=list[bytes])
    watch: Watch = field(init=False)
    writers: list[asyncio.StreamWriter] = field(default_factory=list[asyncio.StreamWriter])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        else:
            self.ended.append("left")
            return
        self.bodies.append(body)
        length = (b"content-length", str(max(2, self.flood)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for _ in range(self.flood // 2**16):
            data = {"type": "http.response.body", "body": bytes(2**16), "more_body": True}
            await send(data)
        rest = b"ok" if not self.flood else b""
        await send({"type": "http.response.body", "body": rest})
        self.ended.append("answered")

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**16)
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.watch.look()


class Quiet(uvicorn.Server):
    """Leaves signals to the test run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def serving(**settings: Any) -> AsyncGenerator[Site]:
    site = Site()
    config = http_config(site, Settings(**settings), lifespan="off", timeout_graceful_shutdown=1)
    site.watch = config.http.__self__  # type: ignore[union-attr]
    site.watch.now = lambda: site.now
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        site.port = listener.getsockname()[1]
        server = Quiet(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            yield site
        finally:
            server.should_exit = True
            for connection in list(site.watch.open):
                connection.transport.abort()
            await task
            for writer in site.writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """All that came until the connection was closed."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def opened(site: Site, number: int) -> None:
    await until(lambda: len(site.watch.open) == number)


def said(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_who_says_nothing_is_closed() -> None:
    async with serving(header_timeout_s=10) as site:
        reader, _ = await site.connect()
        await opened(site, 1)
        site.turn(9)
        assert not reader.at_eof()
        site.turn(2)
        assert await closed(reader) == b""


async def test_a_head_that_comes_byte_by_byte_is_given_up() -> None:
    async with serving(header_timeout_s=10) as site:
        reader, writer = await site.connect(b"GET / HT")
        await opened(site, 1)
        (connection,) = site.watch.open
        for byte in b"TP/1.1":
            site.now += 3
            writer.write(bytes([byte]))
            await until(lambda: bool(connection._head_bytes))
        site.turn(0)
        assert await closed(reader) == b""


async def test_a_body_that_comes_byte_by_byte_is_given_up() -> None:
    async with serving(body_timeout_s=10) as site:
        reader, writer = await site.connect(POST + b"1")
        await opened(site, 1)
        (connection,) = site.watch.open
        await until(lambda: connection._body_since is not None)
        site.turn(14)
        writer.write(b"2")
        site.turn(2)
        assert await closed(reader) == b""
        await until(lambda: site.ended == ["left"])


async def test_a_body_without_end_is_cut_off() -> None:
    async with serving(max_body_bytes=1024) as site:
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: "
        reader, writer = await site.connect(chunked)
        for _ in range(20):
            writer.write(b"y" * 2**17)
        assert await closed(reader) == b""


async def test_a_long_answer_of_a_client_that_does_not_read_is_given_up() -> None:
    async with serving(unread_timeout_s=10) as site:
        site.flood = 64 * 2**20
        _, writer = await site.connect(REQUEST)
        await opened(site, 1)
        (connection,) = site.watch.open
        await until(lambda: connection.flow.write_paused)
        site.turn(0)
        site.turn(9)
        assert site.watch.open
        site.turn(2)
        await opened(site, 0)
        await until(lambda: bool(site.ended))
        writer.close()


async def test_idle_time_within_the_bounds_is_no_fault() -> None:
    async with serving(header_timeout_s=10, body_timeout_s=10, unread_timeout_s=10) as site:
        reader, writer = await site.connect(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        site.turn(0)
        site.turn(60)
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        await opened(site, 0)


async def test_too_many_headers_are_refused() -> None:
    async with serving(max_headers=20) as site:
        head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 21
        reader, _ = await site.connect(head + b"\r\n")
        assert said(await closed(reader)) == (431, "headers_too_large")


async def test_a_large_header_is_refused_whole_or_without_end() -> None:
    async with serving(max_header_bytes=2000) as site:
        head = b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 3000
        for data in (head + b"\r\n\r\n", head):
            reader, _ = await site.connect(data)
            assert said(await closed(reader)) == (431, "headers_too_large")
        assert site.ended == []


async def test_what_is_not_http_is_told_so_in_the_shape_of_errors() -> None:
    async with serving() as site:
        reader, _ = await site.connect(b"\x16\x03\x01 hello\r\n\r\n")
        assert said(await closed(reader)) == (400, "invalid_request")


async def test_requests_that_are_sent_ahead_without_end_are_cut_off() -> None:
    async with serving(unread_timeout_s=10) as site:
        reader, _ = await site.connect(POST + b"1")
        await opened(site, 1)
        reader, _ = await site.connect(POST + b"123456789" + REQUEST * 100)
        assert (await closed(reader)).count(b"ok") <= 17


async def test_one_connection_too_many_takes_the_place_of_the_longest_idle() -> None:
    async with serving(max_connections=2) as site:
        first, _ = await site.connect(REQUEST)
        await first.readuntil(b"ok")
        site.now = 1
        second, _ = await site.connect(REQUEST)
        await second.readuntil(b"ok")
        third, _ = await site.connect(REQUEST)
        assert (await third.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        assert await closed(first) == b""
        assert not second.at_eof()


async def test_where_all_are_busy_one_more_is_told_to_come_again() -> None:
    async with serving(max_connections=1) as site:
        await site.connect(POST)
        await opened(site, 1)
        (connection,) = site.watch.open
        await until(lambda: connection._body_since is not None)
        reader, _ = await site.connect()
        answer = await closed(reader)
        assert said(answer) == (503, "server_full")
        assert b"retry-after: 1" in answer.lower()


async def test_websockets_are_not_spoken() -> None:
    async with serving() as site:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
        reader, writer = await site.connect(REQUEST[:-2] + upgrade + b"\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()


UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n",
)


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_wish_to_upgrade_is_ignored_and_its_body_is_read(
    upgrade: bytes, at_once: bool, chunked: bool
) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"  # a body, whatever it looks like
    framing = b"Content-Length: %d\r\n" % len(inner)
    body = inner
    if chunked:
        framing, body = (
            b"Transfer-Encoding: chunked\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner),
        )
    async with serving() as site:
        head = b"POST /v1 HTTP/1.1\r\nHost: x\r\n" + upgrade + framing + b"\r\n"
        if at_once:
            reader, writer = await site.connect(head + body + REQUEST)
        else:
            reader, writer = await site.connect(head)
            await opened(site, 1)
            (connection,) = site.watch.open
            await until(lambda: connection._body_since is not None)
            writer.write(body)
            await until(lambda: bool(site.bodies))
            writer.write(REQUEST)
        for _ in range(2):
            async with asyncio.timeout(5):
                answer = await reader.readuntil(b"ok")
            assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: len(site.ended) == 2)
        assert site.bodies == [inner, b""]


async def test_there_are_no_tunnels() -> None:
    async with serving() as site:
        reader, _ = await site.connect(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + REQUEST)
        answer = await closed(reader)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1
        assert site.ended == []


async def test_wishes_to_upgrade_in_a_row_are_bounded_like_all_requests() -> None:
    async with serving() as site:
        one = b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADES[0] + b"\r\n"
        reader, _ = await site.connect(one * 1000)
        await closed(reader)
        assert len(site.ended) <= 2 * MAX_PIPELINED


async def test_an_answer_s_head_goes_out_with_the_first_of_its_body() -> None:
    sent: list[bytes] = []
    transport, cycle = MagicMock(asyncio.Transport), MagicMock(RequestResponseCycle)
    transport.write.side_effect = sent.append
    cycle.response_started = False
    joined = JoinedWrites(transport, cycle)
    joined.write(b"100 continue")
    cycle.response_started = True
    for part in (b"head ", b"first", b"second"):
        joined.write(part)
    assert sent == [b"100 continue", b"head first", b"second"]


async def test_a_head_without_a_body_goes_out_when_the_connection_is_closed() -> None:
    sent: list[bytes] = []
    transport, cycle = MagicMock(asyncio.Transport), MagicMock(RequestResponseCycle)
    transport.write.side_effect = sent.append
    cycle.response_started = True
    joined = JoinedWrites(transport, cycle)
    joined.write(b"head")
    joined.close()
    assert sent == [b"head"]
    transport.close.assert_called_once()


async def test_head_requests_are_answered() -> None:
    async with serving() as site:
        reader, _ = await site.connect(REQUEST.replace(b"GET", b"HEAD") + REQUEST)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readuntil(b"ok")
    assert head.startswith(b"HTTP/1.1 200")
    assert answer.startswith(b"HTTP/1.1 200")
