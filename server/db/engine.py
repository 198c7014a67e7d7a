"""The connection to the database: one code path for the embedded SQLite file and for PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from server.db import postgres, sqlite

T = TypeVar("T")


class Database:
    """Hands out transactions. The constructor does no I/O. `is_patient`: a command may take as
    long as it takes, as a migration does.
    """

    def __init__(self, url: str, *, pool_size: int = 10, is_patient: bool = False) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {} if self.is_sqlite else {"pool_pre_ping": True}
        if self.url.get_driver_name() == "asyncpg":
            options["connect_args"] = postgres.connect_args(is_patient=is_patient)
        options["hide_parameters"] = True  # they are tenants' texts; errors are logged
        self.engine = create_async_engine(self.url, pool_size=pool_size, max_overflow=0, **options)
        self._threads: dict[bool, sqlite.TransactionThread] = {}
        if self.is_sqlite:
            sqlite.install(self.engine.sync_engine)
            if self.url.database not in (None, "", ":memory:"):
                for write in (True, False):
                    self._threads[write] = sqlite.TransactionThread(self.url, write=write)
        elif self.url.get_driver_name() == "asyncpg":
            postgres.install(self.engine.sync_engine)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        writing = self.engine.execution_options(sqlite_write=True)
        self._writing_sessions = async_sessionmaker(writing, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncGenerator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back on an error.

        `write=False` says that the block only reads, so that on SQLite it does not queue for the
        write lock.
        """
        sessions = self._writing_sessions if write else self._sessions
        async with sessions() as session, session.begin():
            yield session

    async def run(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        """Run `work` on a plain connection in one transaction of its own: the cheapest way, for the
        hot path. The connection is a synchronous one, in another thread or greenlet.
        """
        thread = self._threads.get(write)
        if thread is not None:
            return await thread.run(work)
        async with self.engine.execution_options(sqlite_write=write).begin() as connection:
            return await connection.run_sync(work)

    @property
    def has_insert(self) -> bool:
        """Whether `insert` is there: on a SQLite file it is."""
        return True in self._threads

    async def insert(self, make: Callable[[], Sequence[sqlite.Statement]]) -> None:
        """Insert what `make` makes, in one transaction: the cheapest way of all. See `has_insert`.
        `make` is called in another thread.
        """
        await self._threads[True].insert(make)

    async def forget_connections(self) -> None:
        """Open new connections from now on, without a word to the idle ones: they may be dead."""
        await self.engine.dispose(close=False)

    async def close(self) -> None:
        """Close all connections."""
        for thread in self._threads.values():
            await thread.close()
        await self.engine.dispose()
