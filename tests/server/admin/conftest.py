from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from server.db.engine import Database
from server.db.models import Base
from tests.fakes.admin import AdminWorld


def client_of(world: AdminWorld) -> httpx.AsyncClient:
    """An HTTP client that holds the admin key."""
    return httpx.AsyncClient(
        transport=world.transport,
        base_url="http://server/admin/v1",
        headers={"Authorization": f"Bearer {world.keys.admin_key}"},
    )


@pytest.fixture
def world(database: Database, tmp_path: Path) -> AdminWorld:
    """The admin app over an empty database, once on SQLite and once on PostgreSQL."""
    return AdminWorld(database, tmp_path / "data")


@pytest.fixture
async def api(world: AdminWorld) -> AsyncIterator[httpx.AsyncClient]:
    """The admin API, on both databases."""
    async with client_of(world) as client:
        yield client


@pytest.fixture
async def lite_world(tmp_path: Path) -> AsyncIterator[AdminWorld]:
    """The admin app on SQLite alone, for what does not depend on the database."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'lite.db'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield AdminWorld(database, tmp_path / "data")
    await database.close()


@pytest.fixture
async def lite_api(lite_world: AdminWorld) -> AsyncIterator[httpx.AsyncClient]:
    """The admin API, on SQLite alone."""
    async with client_of(lite_world) as client:
        yield client
