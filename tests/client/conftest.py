"""The real admin app, reachable from blocking code too: it runs on an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from ttrl_client import AsyncTTRLClient, Retries, TTRLClient

from server.db.engine import Database
from server.db.models import Base
from tests.fakes.admin import AdminWorld

T = TypeVar("T")

NO_PAUSE = Retries(first_pause_s=0, max_pause_s=0)

Script = list[Callable[[AdminWorld], Awaitable[None]]]


async def open_world(path: Path) -> AdminWorld:
    database = Database(f"sqlite+aiosqlite:///{path / 'ttrl.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return AdminWorld(database, path / "data")


class ScriptedTransport(httpx.AsyncBaseTransport):
    """The app, and what a worker does between two looks at a cycle: one entry of the script a
    look.
    """

    def __init__(self, world: AdminWorld) -> None:
        self.world = world
        self.script: Script = []
        self._app = world.transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rsplit("/", 2)
        if request.method == "GET" and path[-2] == "cycles" and self.script:
            await self.script.pop(0)(self.world)
        return await self._app.handle_async_request(request)


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=60)
        self._loop.close()


class BridgeTransport(httpx.BaseTransport):
    """Brings the requests of blocking code to an app on another thread's loop."""

    def __init__(self, thread: LoopThread, transport: ScriptedTransport) -> None:
        self.thread = thread
        self.scripted = transport

    @property
    def world(self) -> AdminWorld:
        return self.scripted.world

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.thread.run(coroutine)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.thread.run(self._handle(request, request.read()))

    async def _handle(self, request: httpx.Request, content: bytes) -> httpx.Response:
        response = await self.scripted.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=content)
        )
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body)


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[ScriptedTransport]:
    """The app for async clients."""
    world = await open_world(tmp_path)
    yield ScriptedTransport(world)
    await world.database.close()


@pytest.fixture
async def aclient(scripted: ScriptedTransport) -> AsyncIterator[AsyncTTRLClient]:
    """The async client in front of the real app."""
    async with AsyncTTRLClient(
        "http://server",
        admin_key=scripted.world.keys.admin_key,
        transport=scripted,
        retries=NO_PAUSE,
    ) as client:
        yield client


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeTransport]:
    """The app for blocking clients."""
    thread = LoopThread()
    world = thread.run(open_world(tmp_path))
    yield BridgeTransport(thread, ScriptedTransport(world))
    thread.run(world.database.close())
    thread.close()


@pytest.fixture
def client(bridge: BridgeTransport) -> Iterator[TTRLClient]:
    """The blocking client in front of the real app."""
    with TTRLClient(
        "http://server",
        admin_key=bridge.world.keys.admin_key,
        transport=bridge,
        retries=NO_PAUSE,
    ) as client:
        yield client
