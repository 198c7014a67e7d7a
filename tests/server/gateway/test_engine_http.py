"""The gateway's HTTP client: what it sends, and what it makes of every way to answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.gateway.engine_http import (
    HIGH_WATER,
    MAX_HEAD_BYTES,
    EngineGone,
    EngineHttp,
    EngineUnreachable,
    Origin,
)
from tests.waiting import until

HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
UNTIL_CLOSED = HEAD + b"Content-Type: text/plain\r\n\r\nhello"
PATIENCE_S = 10.0


class Engine:
    """Answers every request with the same pieces, and notes what it got and from how many."""

    def __init__(self, pieces: Sequence[bytes], *, closes: bool = False) -> None:
        self.pieces = pieces
        self.closes = closes
        self.requests: list[bytes] = []
        self.num_connections = 0
        self.num_lost = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(size))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.num_lost += 1
        finally:
            writer.close()


@asynccontextmanager
async def serving(engine: Engine) -> AsyncGenerator[Engine]:
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    engine.url = f"http://{host}:{port}"
    async with server, asyncio.timeout(PATIENCE_S):
        yield engine


@asynccontextmanager
async def client(*, most: int = 8, keepalive_s: float = 4.0) -> AsyncGenerator[EngineHttp]:
    http = EngineHttp(max_connections=most, connect_s=2.0, keepalive_s=keepalive_s)
    try:
        yield http
    finally:
        await http.close()


async def ask(http: EngineHttp, engine: Engine) -> tuple[int, bytes]:
    response = await http.post(engine.url, "/v1/x", b"{}", {"X-Request-Id": "r"})
    try:
        return response.status, await response.read(2**20)
    finally:
        response.close()


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, UNTIL_CLOSED])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_in_pieces_of_any_size(answer: bytes, size: int):
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    async with serving(Engine(pieces, closes=answer is UNTIL_CLOSED)) as engine, client() as http:
        assert await ask(http, engine) == (200, b"hello")
        assert await ask(http, engine) == (200, b"hello")
        assert engine.num_connections == (2 if answer is UNTIL_CLOSED else 1)


async def test_what_is_sent():
    async with serving(Engine([WHOLE])) as engine, client() as http:
        host = engine.url.removeprefix("http://")
        engine.url = f"http://me:p%40ss@{host}/engines/1/"
        await ask(http, engine)
        secret = base64.b64encode(b"me:p@ss").decode()
        assert engine.requests == [
            f"POST /engines/1/v1/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {secret}\r\n"
            "Content-Length: 2\r\nX-Request-Id: r\r\n\r\n{}".encode()
        ]


async def test_a_header_cannot_smuggle_another_one():
    async with serving(Engine([WHOLE])) as engine, client() as http:
        with pytest.raises(ValueError, match="end of line"):
            await http.post(engine.url, "/v1/x", b"", {"X-Request-Id": "r\r\nX-Other: 1"})
        assert (engine.requests, engine.num_connections) == ([], 0)


async def test_an_announcement_is_not_the_answer():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with serving(Engine([early, WHOLE])) as engine, client() as http:
        assert await ask(http, engine) == (200, b"hello")


async def test_an_answer_without_a_body():
    empty = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    async with serving(Engine([empty])) as engine, client() as http:
        assert await ask(http, engine) == (404, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"not HTTP at all\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"X: " + b"y" * (MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_a_head_that_never_comes(answer: bytes):
    async with serving(Engine([answer], closes=True)) as engine, client() as http:
        with pytest.raises(EngineGone):
            await ask(http, engine)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 9\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
async def test_what_came_before_a_break_is_read(rest: bytes):
    async with serving(Engine([HEAD + rest], closes=True)) as engine, client() as http:
        response = await http.post(engine.url, "/", b"", {})
        assert await response.readany() == b"hello"
        with pytest.raises(EngineGone):
            await response.readany()
        assert not response.at_eof


async def test_the_first_bytes_stay_to_be_read():
    async with serving(Engine([WHOLE])) as engine, client() as http:
        response = await http.post(engine.url, "/", b"", {})
        first = await response.first()
        assert first
        assert not response.at_eof
        assert (await response.read(100)).startswith(first)
        assert response.at_eof
        assert [piece async for piece in response.pieces()] == []


async def test_leaving_early_closes_the_connection():
    pieces = [HEAD, b"Content-Length: 9\r\n\r\nhello"]
    async with serving(Engine(pieces)) as engine, client() as http:
        response = await http.post(engine.url, "/", b"", {})
        response.close()
        await until(lambda: engine.num_lost == 1)


async def test_a_caller_that_is_cancelled_closes_the_connection():
    async with serving(Engine([b"HTTP/1.1 "])) as engine, client() as http:
        asking = asyncio.create_task(http.post(engine.url, "/", b"", {}))
        await until(lambda: len(engine.requests) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: engine.num_lost == 1)


async def test_an_answer_that_nobody_reads_is_held_back():
    size = 64 * HIGH_WATER
    head = HEAD + f"Content-Length: {size}\r\n\r\n".encode()
    async with serving(Engine([head, b"x" * size])) as engine, client() as http:
        response = await http.post(engine.url, "/", b"", {})
        await asyncio.sleep(0.2)
        held = len(await response.first())
        assert held < size / 4
        assert len(await response.read(size)) == size
        assert response.at_eof
        assert await ask_again(http, engine) == size
        assert engine.num_connections == 1


async def ask_again(http: EngineHttp, engine: Engine) -> int:
    response = await http.post(engine.url, "/", b"", {})
    return sum([len(piece) async for piece in response.pieces()])


async def test_an_engine_that_says_it_closes_is_not_asked_on_that_connection():
    last = HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(Engine([last])) as engine, client() as http:
        assert await ask(http, engine) == await ask(http, engine) == (200, b"hello")
        assert engine.num_connections == 2


async def test_bytes_that_nobody_asked_for_end_the_connection():
    async with serving(Engine([WHOLE + WHOLE])) as engine, client() as http:
        assert await ask(http, engine) == await ask(http, engine) == (200, b"hello")
        assert engine.num_connections == 2


class ClosedAtOnce(EngineHttp):
    """Its first connection is lost before the request is sent."""

    async def _connect(self, url: str, origin: Origin) -> Any:
        connection = await super()._connect(url, origin)
        if self.num_connections == 1:
            connection.abort()
            await asyncio.sleep(0.01)
        return connection


async def test_a_connection_that_is_lost_before_it_is_used_keeps_no_seat():
    async with serving(Engine([WHOLE])) as engine:
        http = ClosedAtOnce(max_connections=1, connect_s=2.0, keepalive_s=4.0)
        for _ in range(3):
            with pytest.raises(EngineUnreachable):
                await ask(http, engine)
        assert http.num_connections == 0
        await http.close()


async def test_a_connection_is_kept_only_for_a_while():
    async with serving(Engine([WHOLE])) as engine, client(keepalive_s=0.05) as http:
        await ask(http, engine)
        await until(lambda: engine.num_lost == 1)
        await ask(http, engine)
        assert engine.num_connections == 2


async def test_no_more_connections_than_allowed():
    async with serving(Engine([WHOLE])) as engine, client(most=2) as http:
        answers = await asyncio.gather(*(ask(http, engine) for _ in range(20)))
        assert answers == [(200, b"hello")] * 20
        assert engine.num_connections == 2
        engine.pieces = [HEAD + b"Content-Length: 1\r\n\r\n"]
        held = [await http.post(engine.url, "/", b"", {}) for _ in range(2)]
        waiting = asyncio.create_task(http.post(engine.url, "/", b"", {}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        held[0].close()
        (await waiting).close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "http://"])
async def test_nobody_is_there(url: str):
    async with client() as http:
        for _ in range(3):
            with pytest.raises(EngineUnreachable):
                await http.post(url, "/", b"", {})
