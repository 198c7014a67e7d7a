"""The durable log's writer: a `200` means stored.

Requests hand in an entry and wait. One task takes everything that waits and writes it in one
transaction (group commit): under load a commit is shared by many, alone it starts at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from server.db.engine import Database
from server.db.log import EntryRefused, LogEntry, store_entries
from server.errors import LogUnavailable

logger = logging.getLogger(__name__)

MAX_BATCH = 256  # entries of one transaction


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: LogEntry
    stored: asyncio.Future[None]


class Recorder:
    """Writes log entries in group commits. The constructor does no I/O.

    `queue_size` bounds the entries that are promised or waiting; `timeout_s` bounds both one
    transaction and how long a request waits for its commit.
    """

    def __init__(self, database: Database, *, queue_size: int, timeout_s: float) -> None:
        self._database = database
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._num_reserved = 0
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write."""
        self._committer = asyncio.create_task(self._run(), name="log committer")

    async def stop(self) -> None:
        """Write what waits, then end."""
        self._is_stopping = True
        self._wake.set()
        if self._committer is not None:
            await self._committer
            self._committer = None

    @contextmanager
    def reserve(self) -> Generator[None]:
        """Hold a place in the queue for one request, taken before an engine works for it.

        Raises:
            LogUnavailable: every place is taken, or the recorder does not run.
        """
        if self._committer is None or self._is_stopping:
            raise LogUnavailable("The query log is closed.")
        # A place is held while its entry waits; entries of callers that left hold none.
        if max(self._num_reserved, len(self._waiting)) >= self._queue_size:
            raise LogUnavailable("Too many answers wait to be logged.")
        self._num_reserved += 1
        try:
            yield
        finally:
            self._num_reserved -= 1

    async def record(self, entry: LogEntry) -> None:
        """Return after the entry is committed. Once handed in, it is written even if the caller
        goes away.

        Raises:
            LogUnavailable: it was not stored, or not in time.
        """
        if self._committer is None or self._is_stopping:
            raise LogUnavailable("The query log is closed.")
        waiting = _Waiting(entry, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiting.stored
        except TimeoutError:
            raise LogUnavailable("The query log is too slow at the moment.") from None

    async def _run(self) -> None:
        while self._waiting or not self._is_stopping:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                size = min(len(self._waiting), MAX_BATCH)
                await self._commit([self._waiting.popleft() for _ in range(size)])

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await store_entries(self._database, [waiting.entry for waiting in batch])
        except EntryRefused as error:
            await self._commit_singly(batch, error)
        except TimeoutError:
            _fail(batch, LogUnavailable("The query log is too slow at the moment."))
        except LogUnavailable as error:
            logger.error("%d log entries not written", len(batch), exc_info=error)
            _fail(batch, error)
        except Exception:  # the task must outlive what nobody foresaw, and its waiters must hear it
            logger.exception("%d log entries not written", len(batch))
            _fail(batch, LogUnavailable("The query log cannot be written at the moment."))
        else:
            for waiting in batch:
                if not waiting.stored.done():
                    waiting.stored.set_result(None)

    async def _commit_singly(self, batch: list[_Waiting], error: EntryRefused) -> None:
        """Find the entry that the database refuses, and store the others."""
        if len(batch) > 1:
            for waiting in batch:
                await self._commit([waiting])
            return
        logger.error("log entry %s refused: %s", batch[0].entry.id, error)
        _fail(batch, LogUnavailable("This answer cannot be logged.", retry_after_s=None))


def _fail(batch: list[_Waiting], error: LogUnavailable) -> None:
    for waiting in batch:
        if not waiting.stored.done():
            waiting.stored.set_exception(
                LogUnavailable(error.message, retry_after_s=error.retry_after_s)
            )
