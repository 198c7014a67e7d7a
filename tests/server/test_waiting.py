"""A start without the database: asked for again and again, for a bounded time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from server import waiting
from server.app import prepare_database
from server.config import Settings
from server.db.engine import Database
from server.db.failures import refused_at_start
from server.errors import ConfigurationError, DatabaseAway, DatabaseBehind
from server.waiting import DatabaseWait


def answering(*errors: ConfigurationError) -> Callable[[], Awaitable[None]]:
    """A database that raises these, one each time, and then is there."""
    left = list(errors)

    async def prepare() -> None:
        if left:
            raise left.pop(0)

    return prepare


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE_S", 0.001)


async def test_it_waits_for_a_database_that_comes() -> None:
    away = DatabaseAway("away")
    await DatabaseWait(answering(away, away, away), timeout_s=60).until_there()


async def test_it_gives_up_in_time() -> None:
    with pytest.raises(DatabaseAway, match="away"):
        await DatabaseWait(answering(*[DatabaseAway("away")] * 99), timeout_s=0).until_there()


async def test_it_does_not_wait_for_the_wrong_database() -> None:
    wait = DatabaseWait(answering(DatabaseAway("away"), DatabaseBehind("old")), timeout_s=60)
    with pytest.raises(DatabaseBehind, match="old"):
        await wait.until_there()


async def test_the_process_ends_with_the_reason() -> None:
    given_up = asyncio.Event()
    wait = DatabaseWait(answering(DatabaseBehind("old")), timeout_s=60)
    async with wait.running(given_up.set):
        await given_up.wait()
    assert isinstance(wait.failure, DatabaseBehind)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://ttrl@127.0.0.1:9/ttrl",
        "postgresql+asyncpg://ttrl@/ttrl?host=/nowhere/at/all",
    ],
)
async def test_a_server_that_does_not_answer_may_do_so_later(url: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseAway):
        await prepare_database(Settings(data_dir=tmp_path, database_url=url))


async def test_a_socket_that_is_gone_is_a_broken_connection() -> None:
    database = Database("postgresql+asyncpg://ttrl@/ttrl?host=/nowhere/at/all")
    with pytest.raises(ConnectionError):
        await database.run(lambda connection: connection.execute(text("SELECT 1")))
    await database.close()


@pytest.mark.postgres
async def test_a_database_that_does_not_exist_is_not_waited_for(
    postgres_url: str, tmp_path: Path
) -> None:
    url = postgres_url.replace("@/t", "@/no")
    with pytest.raises(ConfigurationError) as caught:
        await prepare_database(Settings(data_dir=tmp_path, database_url=url))
    assert not isinstance(caught.value, DatabaseAway)


def test_a_locked_file_may_be_free_later(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}", connect_args={"timeout": 0})
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(DatabaseAway, match="locked"),
            refused_at_start("sqlite:///x.db"),
            engine.connect() as connection,
        ):
            connection.execute(text("CREATE TABLE t (x)"))
    engine.dispose()
