"""The real admin app over a database, with engines that only remember what they were asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
from fastapi import FastAPI

from server.admin import AdminDeps, admin_router
from server.auth import Keys
from server.config import Settings
from server.db.engine import Database
from server.db.models import AdapterVersion, Answer, Cycle, CycleStep, Query
from server.errors import EngineUnavailable
from server.http_errors import install_error_handlers
from server.tenants import TenantDirectory, VersionRef, version_engine_name


class TickingClock:
    """Each look is one second later."""

    def __init__(self) -> None:
        self._now = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


@dataclass
class RecordingLoader:
    """Remembers which versions were loaded everywhere; can be away."""

    loaded: list[VersionRef] = field(default_factory=list[VersionRef])
    is_away: bool = False

    async def load_everywhere(self, version: VersionRef) -> float:
        if self.is_away:
            raise EngineUnavailable("no engine is ready", retry_after_s=3)
        self.loaded.append(version)
        return 12.5


@dataclass
class FakeEngine:
    """An engine as the status shows it."""

    url: str = "http://engine"
    state: Literal["starting", "ready", "away"] = "ready"
    in_flight: int = 0
    loaded: set[str] = field(default_factory=lambda: {"identity"})
    reason: str | None = None


@dataclass
class FakePool:
    """One engine."""

    engines: list[FakeEngine] = field(default_factory=lambda: [FakeEngine()])


class AdminWorld:
    """The app, what it stands on, and ways to put things into the database."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        settings = Settings(data_dir=data_dir)
        self.database = database
        self.keys = Keys.load(settings)
        self.loader = RecordingLoader()
        self.pool = FakePool()
        self.clock = TickingClock()
        self.num_flushed = 0  # times that the log was waited for
        self.directory = TenantDirectory(
            database,
            digest=self.keys.digest,
            identity_dir=data_dir,
            served_model_name="ttrl",
            cache_s=3600,
        )
        deps = AdminDeps(
            settings=settings,
            database=database,
            keys=self.keys,
            tenants=self.directory,
            pool=self.pool,
            registry=self.loader,
            clock=self.clock,
            identity_dir=data_dir,
            flush_log=self._flush_log,
        )
        self.app = FastAPI()
        install_error_handlers(self.app)
        self.app.include_router(admin_router(deps))

    async def _flush_log(self) -> None:
        self.num_flushed += 1

    @property
    def transport(self) -> httpx.ASGITransport:
        """The app as a transport; unforeseen errors are answered, not raised."""
        return httpx.ASGITransport(self.app, raise_app_exceptions=False)

    async def publish(self, tenant_id: int, number: int, *, parent: int = 0) -> None:
        """A version row, as the promotion of a cycle writes it."""
        async with self.database.transaction() as session:
            session.add(
                AdapterVersion(
                    tenant_id=tenant_id,
                    number=number,
                    engine_name=version_engine_name(tenant_id, "any", number),
                    path=f"/adapters/t{tenant_id}/v{number}",
                    manifest_digest="d" * 64,
                    parent=parent,
                    report={"decision": {"promote": True}},
                    created_at=self.clock.now(),
                )
            )

    async def set_cycle(self, cycle_id: int, **values: Any) -> None:
        """Change columns of a cycle, as its worker does."""
        async with self.database.transaction() as session:
            cycle = await session.get_one(Cycle, cycle_id)
            for name, value in values.items():
                setattr(cycle, name, value)

    async def add_step(self, cycle_id: int, step: int, **metrics: float | None) -> None:
        """A step that the worker has done."""
        async with self.database.transaction() as session:
            cycle = await session.get_one(Cycle, cycle_id)
            cycle.steps_done = step
            session.add(
                CycleStep(
                    cycle_id=cycle_id, step=step, metrics=metrics, created_at=self.clock.now()
                )
            )

    async def log_query(
        self, tenant_id: int, query_id: str, *, at: datetime | None = None, **values: Any
    ) -> None:
        """A logged query with two answers."""
        row = {
            "route": "chat",
            "prompt": [{"role": "user", "content": f"question {query_id}"}],
            "fingerprint": "f" * 64,
            "eligible": True,
            "params": {"temperature": 1.0},
            "adapter_version": 0,
            "stream": False,
            "status": "ok",
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "latency_ms": 31.5,
            "created_at": at or self.clock.now(),
        } | values
        async with self.database.transaction() as session:
            session.add(Query(id=query_id, tenant_id=tenant_id, **row))
            await session.flush()
            session.add_all(
                Answer(query_id=query_id, choice=choice, text=text, finish_reason="stop")
                for choice, text in enumerate(["\\boxed{4}", "\\boxed{5}"])
            )
