"""The whole gateway over a fake engine, each behind a real loopback socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from sqlalchemy import select

from server.app import http_config
from server.auth import Keys
from server.clock import SystemClock
from server.config import Settings
from server.connections import Watch
from server.db.engine import Database
from server.db.log import LogEntry
from server.db.models import AdapterVersion, Answer, ApiKey, Base, Query, Tenant
from server.engine.pool import EnginePool
from server.engine.registry import AdapterRegistry
from server.gateway.admission import Admission
from server.gateway.deps import GatewayDeps
from server.gateway.direct import Shortcut
from server.gateway.journaling import Journaling
from server.gateway.recorder import Recorder
from server.gateway.routes import gateway_router
from server.gateway.upstream import Upstream
from server.gateway.votes.judge import VoteJudge
from server.http_errors import install_error_handlers
from server.observability.metrics import Metrics
from server.observability.observer import Observer
from server.spool.backlog import Backlog
from server.spool.journal import Journal
from server.tenants import TenantDirectory, version_engine_name
from tests.fakes.serving import serve
from tests.fakes.vllm import FakeVLLM

ADDER, NOVICE = "sk-adder", "sk-novice"
KEYS = Keys("admin", b"pepper")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class WatchedRecorder(Recorder):
    """Says when entries were handed in and stored, and can be made to wait between the two."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(
            database,
            Backlog(settings.spool_dir, max_bytes=settings.log_spool_bytes),
            Journaling(Journal(settings.spool_dir)) if settings.log_journal == "on" else None,
            queue_size=settings.log_queue_size,
            timeout_s=settings.log_timeout_s,
            patience_s=settings.log_patience_s,
            when_full=settings.log_when_full,
        )
        self.handed_in, self.stored, self.may_store = (asyncio.Event() for _ in range(3))
        self.may_store.set()

    async def record(self, entry: LogEntry) -> None:
        self.handed_in.set()
        await self.may_store.wait()
        await super().record(entry)
        self.stored.set()


@dataclass
class Stack:
    """A running gateway, its parts, and ways to look at what it did."""

    url: str
    app: FastAPI
    deps: GatewayDeps
    database: Database
    fakes: list[FakeVLLM]
    recorder: WatchedRecorder
    watch: Watch  # over its connections

    @property
    def fake(self) -> FakeVLLM:
        return self.fakes[0]

    async def queries(self) -> list[Query]:
        async with self.database.transaction(write=False) as session:
            rows = await session.scalars(select(Query).order_by(Query.created_at))
            return list(rows.all())

    async def answers(self, query_id: str) -> list[Answer]:
        async with self.database.transaction(write=False) as session:
            rows = select(Answer).where(Answer.query_id == query_id).order_by(Answer.choice)
            return list((await session.scalars(rows)).all())

    def http(self, key: str = ADDER, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} | (headers or {})
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, verify=False)

    @asynccontextmanager
    async def openai(self, key: str = ADDER) -> AsyncGenerator[AsyncOpenAI]:
        client = DefaultAsyncHttpxClient(trust_env=False, verify=False)
        async with AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key, http_client=client, max_retries=0
        ) as openai:
            yield openai


async def collect(response: httpx.Response, received: list[str]) -> None:
    """Read a stream as it comes."""
    async for text in response.aiter_text():
        received.append(text)


def chat(content: str = "2+2", **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "ttrl", "messages": [{"role": "user", "content": content}], **fields}


async def fill(database: Database) -> None:
    """Tenants `adder` (versions 1 and 2, 2 is live) and `novice` (version 0)."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.transaction() as session:
        for tenant_id, name, key, live in ((1, "adder", ADDER, 2), (2, "novice", NOVICE, 0)):
            session.add(
                Tenant(id=tenant_id, name=name, settings={}, live_version=live, created_at=EPOCH)
            )
            await session.flush()
            digest = KEYS.digest(key)
            session.add(
                ApiKey(tenant_id=tenant_id, name="k", prefix="sk", digest=digest, created_at=EPOCH)
            )
        for number in (1, 2):
            session.add(
                AdapterVersion(
                    tenant_id=1,
                    number=number,
                    engine_name=version_engine_name(1, "adder", number),
                    path=f"/adapters/t1/v{number}",
                    manifest_digest="",
                    parent=number - 1,
                    report={},
                    created_at=EPOCH,
                )
            )


@asynccontextmanager
async def running(
    directory: Path, *, num_engines: int = 1, database: Database | None = None, **settings: Any
) -> AsyncGenerator[Stack]:
    """A gateway over `num_engines` fake engines, all parts started."""
    config = Settings(data_dir=directory, **settings)
    async with AsyncExitStack() as held:
        fakes = [FakeVLLM(check_files=False) for _ in range(num_engines)]
        urls = [await held.enter_async_context(serve(fake)) for fake in fakes]
        if database is None:
            database = Database(f"sqlite+aiosqlite:///{directory / 'log.db'}")
            held.push_async_callback(database.close)
        await fill(database)
        deps = await _deps(held, config, database, urls)
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(gateway_router(deps))
        app.add_middleware(Shortcut, routes=app.routes)
        app.add_middleware(Observer, metrics=Metrics(max_tenants=8), access_log=None)
        http = http_config(app, config, lifespan="off", timeout_graceful_shutdown=1)
        url = await held.enter_async_context(serve(app, config=http))
        assert isinstance(deps.recorder, WatchedRecorder)
        watch: Any = http.http
        yield Stack(url, app, deps, database, fakes, deps.recorder, watch.__self__)


async def _deps(
    held: AsyncExitStack, settings: Settings, database: Database, urls: list[str]
) -> GatewayDeps:
    tenants = TenantDirectory(
        database,
        digest=KEYS.digest,
        identity_dir=Path("/adapters/base"),
        served_model_name=settings.served_model_name,
        cache_s=settings.tenant_cache_s,
    )
    pool = EnginePool(urls, poll_s=3600)
    registry = AdapterRegistry(pool, wanted=tenants.live_versions)
    await registry.start()
    held.push_async_callback(pool.stop)
    for engine in pool.engines:
        await pool.check(engine)
    upstream = Upstream(pool, registry, max_connections=settings.max_in_flight)
    await upstream.start()
    held.push_async_callback(upstream.stop)
    recorder = WatchedRecorder(database, settings)
    await recorder.start()
    held.push_async_callback(recorder.stop)
    clock = SystemClock()
    judge = VoteJudge()
    held.push_async_callback(judge.stop)
    return GatewayDeps(
        settings,
        tenants,
        pool,
        registry,
        upstream,
        recorder,
        clock,
        database,
        judge,
        Admission(settings),
    )


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncGenerator[Stack]:
    async with running(tmp_path) as stack:
        yield stack
