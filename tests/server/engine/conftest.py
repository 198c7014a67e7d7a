"""Pools of fake engines in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from server.engine.client import EngineClient
from server.engine.pool import EnginePool
from tests.fakes.vllm import FakeVLLM


@dataclass(frozen=True, slots=True)
class Version:
    """A version that the registry can load."""

    engine_name: str
    path: str
    label: str


def version(name: str) -> Version:
    """A version of tenant 1, or any other engine name."""
    return Version(name, f"/adapters/{name}", name.partition("-")[2])


IDENTITY = version("identity")


class Gone(httpx.AsyncBaseTransport):
    """An engine that does not listen."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse."""
        raise httpx.ConnectError("refused", request=request)


class Switch(httpx.AsyncBaseTransport):
    """An engine's network, which tests can cut; a silent engine takes requests and no more."""

    def __init__(self, fake: FakeVLLM) -> None:
        self.is_cut = False
        self.is_silent = False
        self._fake = httpx.ASGITransport(app=fake)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass on, or refuse."""
        if self.is_silent:
            raise httpx.ReadTimeout("silence", request=request)
        return await (Gone() if self.is_cut else self._fake).handle_async_request(request)


@dataclass
class Engines:
    """Fakes by URL, their networks, and a pool of them all."""

    fakes: list[FakeVLLM]
    networks: list[Switch]
    pool: EnginePool = field(init=False)
    now: float = 0.0
    is_database_away: bool = False
    wanted: list[Version] = field(default_factory=lambda: [IDENTITY])

    async def check(self) -> None:
        """Poll every engine once."""
        for engine in self.pool.engines:
            await self.pool.check(engine)

    async def read_wanted(self) -> list[Version]:
        """What the registry is to load."""
        if self.is_database_away:
            raise OSError("database")
        return list(self.wanted)

    def clock(self) -> float:
        """Monotonic seconds that tests turn."""
        return self.now


@asynccontextmanager
async def two_engines() -> AsyncGenerator[Engines]:
    """Two engines that nobody polls but the test."""
    fakes = [FakeVLLM(check_files=False), FakeVLLM(check_files=False)]
    networks = [Switch(fake) for fake in fakes]
    by_url = {f"http://e{i}": network for i, network in enumerate(networks)}

    def client(url: str) -> EngineClient:
        return EngineClient(url, transport=by_url[url])

    engines = Engines(fakes, networks)
    engines.pool = EnginePool(
        list(by_url), poll_s=0.01, silence_s=10, client_factory=client, clock=engines.clock
    )
    yield engines
    await engines.pool.stop()


@pytest.fixture
async def engines() -> AsyncGenerator[Engines]:
    """Two engines that nobody polls but the test."""
    async with two_engines() as engines:
        yield engines
