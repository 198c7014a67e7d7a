"""What the embedded database needs beyond a URL: pragmas, write transactions that wait for their
turn, and threads for what is on the hot path.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

Statement = tuple[str, tuple[Any, ...]]
"""An insert, and its parameters."""

PROBE_BYTES: Final = 256 * 2**10  # more than a page or two, which the disk may still have

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    # A 200 means stored, also after a power cut; the group commit pays for it.
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=10000",
    "PRAGMA foreign_keys=ON",
)


def install(engine: Engine) -> None:
    """Prepare every connection of the engine, and begin transactions as they are meant."""
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)


def _prepare(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin(connection: Any) -> None:
    # A deferred transaction that reads and then writes fails at once with SQLITE_BUSY when
    # another process wrote in between; taking the write lock first makes it wait instead.
    if connection.get_execution_options().get("sqlite_write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def has_room(connection: Connection) -> bool:
    """Whether the disk of this database takes more: a small write may find room in its log where
    the next one finds none.
    """
    path = connection.engine.url.database
    if path in (None, "", ":memory:"):
        return True
    probe = Path(f"{path}.{secrets.token_hex(4)}.probe")
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink()
    return True


class TransactionThread:
    """Runs whole transactions, that write or only read, in one thread with a connection of its own.

    The async driver goes to its thread and back for every call of a cursor, a dozen times in a
    transaction, which costs milliseconds; this goes once. The constructor does no I/O.
    """

    def __init__(self, url: URL, *, write: bool) -> None:
        engine = create_engine(
            url.set(drivername="sqlite"), pool_size=1, max_overflow=0, hide_parameters=True
        )
        install(engine)
        self._engine = engine.execution_options(sqlite_write=write)
        self._connection: Connection | None = None  # kept: a pool's check costs as much as a write
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="sqlite-write" if write else "sqlite-read"
        )

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction. A caller that leaves does not stop it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def insert(self, make: Callable[[], Sequence[Statement]]) -> None:
        """Insert what `make` makes, in one transaction. It is called in the thread. Errors are
        those of `run`; a caller that leaves does not stop it.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, make)

    def _insert(self, make: Callable[[], Sequence[Statement]]) -> None:
        """Past SQLAlchemy, which takes as long for a transaction of one row as SQLite does."""
        statements = make()
        connection: Any = self._connected().connection.driver_connection
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                cursor.execute(statement, values)
            connection.commit()
        except sqlite3.Error as error:
            self._forget()
            raise DBAPIError.instance(
                None, None, error, sqlite3.Error, hide_parameters=True, dialect=self._engine.dialect
            ) from error
        except BaseException:
            self._forget()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _run(self, work: Callable[[Connection], T]) -> T:
        connection = self._connected()
        try:
            with connection.begin():
                return work(connection)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Give the connection back; the pool rolls back what is open on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _close(self) -> None:
        self._forget()
        self._engine.dispose()

    async def close(self) -> None:
        """Finish what was handed in, and close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()
