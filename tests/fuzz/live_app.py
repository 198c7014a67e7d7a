"""The whole app, data plane and admin plane, behind a real socket in front of a fake engine, in a
thread with an event loop of its own: what drives it may block.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.app import create_app
from server.auth import Keys
from server.config import Settings
from server.db.engine import Database
from server.db.tenants import create_key, create_tenant
from server.parts import Parts
from tests.fakes.serving import serve
from tests.fakes.vllm import FakeVLLM

ADMIN_KEY, API_KEY = "fuzz-admin", "sk-fuzz"
TENANT = "the-tenant-that-nobody-guesses"
KEYS = Keys(ADMIN_KEY, b"pepper")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LiveApp:
    """Where it answers, and its OpenAPI document."""

    url: str
    document: dict[str, Any]


class _Thread(threading.Thread):
    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.is_there = threading.Event()
        self.app: LiveApp | None = None
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.is_there.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as held:
            engine = await held.enter_async_context(serve(FakeVLLM(check_files=False)))
            parts = Parts.assemble(
                self._settings,
                keys=KEYS,
                engine_urls=[engine],
                identity_dir=self._settings.data_dir / "identity",
            )
            await _fill(parts.database)
            await held.enter_async_context(parts.running())
            await parts.pool.wait_ready()
            app = create_app(parts)
            url = await held.enter_async_context(serve(app))
            self.app = LiveApp(url, app.openapi())
            self.is_there.set()
            await self._end.wait()

    def end(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self.join()


async def _fill(database: Database) -> None:
    async with database.transaction() as session:
        tenant = await create_tenant(session, name=TENANT, settings={}, now=NOW)
        digest = KEYS.digest(API_KEY)
        await create_key(
            session, tenant_id=tenant.id, name="k", prefix="sk", digest=digest, now=NOW
        )


@contextmanager
def live_app(directory: Path, template: Path) -> Generator[LiveApp]:
    """Serve it for the block. `template` is a migrated SQLite file."""
    shutil.copy(template, directory / "ttrl.db")
    thread = _Thread(Settings(data_dir=directory, engine_poll_s=0.1))
    thread.start()
    thread.is_there.wait(60)
    try:
        assert thread.app is not None
        yield thread.app
    finally:
        thread.end()
