"""A version is warmed with what the tenant's prompts begin with, and a swap never depends on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.db.engine import Database
from server.db.models import Base, Query, Tenant
from server.db.prefixes import common_prefixes
from server.engine.warm import Warmer
from tests.fakes.vllm import Fault
from tests.server.engine.conftest import Engines, version

CHAT = "/v1/chat/completions"
V1 = version("t1-a--v1")
PREFIX = {"messages": [{"role": "system", "content": "Be brief."}]}


@pytest.fixture
async def loaded(engines: Engines) -> Engines:
    """Two engines that have version 1."""
    await engines.check()
    for engine in engines.pool.engines:
        await engine.load(V1.engine_name, V1.path)
    return engines


async def test_every_engine_computes_the_prefix_under_the_version(loaded: Engines) -> None:
    await Warmer(loaded.pool, timeout_s=20).warm(V1, [PREFIX], cache_salt="tenant-1")
    for fake in loaded.fakes:
        (received,) = fake.received(CHAT)
        assert received.body["model"] == "t1-a--v1"
        assert received.body["cache_salt"] == "tenant-1"
        assert received.body["max_tokens"] == 1
        assert received.body["messages"][0] == PREFIX["messages"][0]


async def test_trouble_is_passed_over(loaded: Engines) -> None:
    loaded.fakes[0].script(CHAT, Fault(status=500))
    loaded.networks[1].is_cut = True
    await Warmer(loaded.pool, timeout_s=20).warm(V1, [PREFIX], cache_salt="tenant-1")
    assert len(loaded.fakes[0].received(CHAT)) == 1


async def test_it_ends_with_its_time(loaded: Engines) -> None:
    loaded.fakes[0].script(CHAT, Fault(hold=asyncio.Event()))
    async with asyncio.timeout(20):
        await Warmer(loaded.pool, timeout_s=0.02).warm(V1, [PREFIX], cache_salt="tenant-1")
    assert all(engine.state == "ready" for engine in loaded.pool.engines)


async def test_it_can_be_switched_off(loaded: Engines) -> None:
    await Warmer(loaded.pool, timeout_s=0).warm(V1, [PREFIX], cache_salt="tenant-1")
    assert loaded.fakes[0].received(CHAT) == []


def message(role: str, content: str) -> dict[str, Any]:
    """One message of a chat."""
    return {"role": role, "content": content}


async def test_the_prefixes_are_the_instructions_used_most(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'log.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tools = [{"type": "function", "function": {"name": "add"}}]
    common = [message("system", "A"), message("user", "1")]
    logged: list[tuple[list[Any], dict[str, Any]]] = [
        (common, {}),
        (common[:1] + [message("user", "2")], {}),
        ([message("user", "no instructions")], {}),
        (["a text"], {}),
        ([message("developer", "B"), message("user", "3")], {"tools": tools}),
    ]
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="a", settings={}, live_version=0, created_at=now))
        await session.flush()
        for number, (prompt, params) in enumerate(logged):
            session.add(query(number, prompt, params, now + timedelta(seconds=number)))
    async with database.transaction(write=False) as session:
        assert await common_prefixes(session, 1) == [
            {"messages": [message("system", "A")]},
            {"messages": [message("developer", "B")], "tools": tools},
        ]
        assert await common_prefixes(session, 2) == []
    await database.close()


def query(number: int, prompt: list[Any], params: dict[str, Any], at: datetime) -> Query:
    """A row of the log."""
    return Query(
        id=f"q{number}",
        tenant_id=1,
        route="chat",
        prompt=prompt,
        fingerprint="",
        eligible=True,
        params=params,
        adapter_version=0,
        stream=False,
        status="ok",
        latency_ms=1.0,
        created_at=at,
    )
