"""A clock that is turned by hand, rows to start from, and a scene to run cycles in.

What depends on the database runs on both (`database`, from the root's conftest); the long tests run
on SQLite, made in a moment without migrations (`sqlite`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from server.db.engine import Database
from server.db.models import Base, Query, Tenant

if TYPE_CHECKING:
    from .scene import Scene

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.time = EPOCH

    def now(self) -> datetime:
        return self.time

    def turn(self, seconds: float) -> datetime:
        self.time += timedelta(seconds=seconds)
        return self.time


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Logs are not rendered: structlog's default way to show a traceback takes seconds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.close()


async def add_tenant(
    database: Database, name: str, settings: dict[str, Any] | None = None, *, at: datetime = EPOCH
) -> int:
    tenant = Tenant(name=name, settings=settings or {}, live_version=0, created_at=at)
    async with database.transaction() as session:
        session.add(tenant)
    return tenant.id


async def add_queries(
    database: Database,
    tenant_id: int,
    questions: list[str],
    *,
    at: datetime = EPOCH,
    prefix: str = "q",
) -> None:
    async with database.transaction() as session:
        session.add_all(
            Query(
                id=f"{prefix}-{tenant_id}-{index}",
                tenant_id=tenant_id,
                route="chat",
                prompt=[{"role": "user", "content": question}],
                fingerprint=f"raw-{question}"[:64],
                eligible=True,
                params={},
                adapter_version=0,
                stream=False,
                status="ok",
                prompt_tokens=len(question),
                latency_ms=1.0,
                created_at=at + timedelta(seconds=index),
            )
            for index, question in enumerate(questions)
        )


@pytest.fixture
async def scene(sqlite: Database, clock: HandClock, tmp_path: Path) -> AsyncGenerator[Scene]:
    from .scene import make_scene

    async with make_scene(sqlite, clock, tmp_path / "data") as scene:
        yield scene
