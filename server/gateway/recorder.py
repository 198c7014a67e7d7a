"""The durable log's writer: a `200` means stored.

Requests hand in an entry and wait. One task takes everything that waits and writes it in one
transaction (group commit): under load a commit is shared by many, alone it starts at once.

When a transaction fails, or has not returned after a short patience, what waits goes to the local
spool instead, by a second task, and is answered from there. The first task then moves the spool's
entries into the database, in order, while new ones go behind them. The last batch is moved like
any group commit, with new entries waiting for it, and when it is stored the spool is out of use
again. So the spool costs nothing while the database is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter, time
from typing import Final, Literal

from server.db.engine import Database
from server.db.log import LogEntry, replay_entries, store_entries
from server.errors import LogUnavailable
from server.gateway.line import Pace, Waiting, fail, log_full, not_loggable, settle
from server.gateway.transactions import Outcome, Transactions
from server.spool.backlog import Backlog, Batch
from server.spool.entries import NotEncodable, encode
from server.spool.spool import NotNow, SpoolFull

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 256  # entries of one transaction
CROWD_PER_S: Final = 400.0  # where so many entries come, a transaction waits a moment for company:
GATHER_S: Final = 0.004  # most of its cost is its own, not its entries'
PROMISED_BYTES: Final = 16 * 2**10  # what an answer is thought to take on disk before it is there
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0

WhenFull = Literal["refuse", "serve_unlogged"]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How the log is: `full` when new answers can be stored nowhere.

    `num_refused` and `num_unlogged` count since the start: entries that the database will never
    take, kept in a file; and answers that were served without being stored.
    """

    state: Literal["ok", "spooling", "full"]
    num_entries: int
    num_bytes: int
    oldest_s: int
    num_refused: int
    num_unlogged: int


class Recorder:
    """Writes log entries in group commits. The constructor does no I/O.

    `queue_size` bounds the entries that are promised or waiting; `timeout_s` bounds how long a
    request waits, and one transaction over the network (one in a thread ends by its own bounds);
    `patience_s` is how long a transaction may take before what waits goes to the spool.
    `on_commit` hears of each group commit: entries, seconds.
    """

    def __init__(
        self,
        database: Database,
        backlog: Backlog,
        *,
        queue_size: int,
        timeout_s: float,
        patience_s: float = 1.0,
        when_full: WhenFull = "refuse",
        on_commit: Callable[[int, float], None] = lambda _num_entries, _seconds: None,
    ) -> None:
        self._backlog = backlog
        self._transactions = Transactions(
            database, patience_s=min(patience_s, timeout_s), timeout_s=timeout_s
        )
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._when_full = when_full
        self._on_commit = on_commit
        self._num_reserved = 0
        self._num_unlogged = 0
        self._num_singly = 0  # the next so many entries are written one by one
        self._pause_s = FIRST_PAUSE_S
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()  # the committer, while the database is well
        self._wake_spooler = asyncio.Event()
        self._progress = asyncio.Event()  # the spooler has dealt with a batch
        self._stopping = asyncio.Event()
        self._is_spooling = False  # what waits goes to the spool
        self._is_appending = False
        self._is_failing = False  # the spool's disk took nothing the last time
        self._has_moved = False  # the last attempt to move entries out of the spool went well
        self._is_over = False  # the committer has ended
        self._committer: asyncio.Task[None] | None = None
        self._spooler: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write, what earlier processes left first.

        Raises:
            ConfigurationError: the spool cannot be read.
        """
        await self._backlog.open()
        self._is_spooling = self._backlog.oldest_at is not None
        self._spooler = asyncio.create_task(self._spool_all(), name="log spooler")
        self._committer = asyncio.create_task(self._commit_all(), name="log committer")

    async def stop(self) -> None:
        """Write what waits, to the database or the spool, then end."""
        self._stopping.set()
        self._wake.set()
        if self._committer is None or self._spooler is None:
            return
        await asyncio.wait({self._committer}, timeout=self._timeout_s)
        self._committer.cancel()
        await asyncio.wait({self._committer})
        self._is_spooling = self._is_over = True
        self._wake_spooler.set()
        await self._spooler
        self._committer = self._spooler = None
        await self._backlog.close()

    @property
    def status(self) -> LogStatus:
        """How the log is now."""
        backlog = self._backlog
        state = "full" if self._is_full else "spooling" if self._is_spooling else "ok"
        oldest_at = backlog.oldest_at if backlog.num_entries else None
        return LogStatus(
            state=state,
            num_entries=backlog.num_entries,
            num_bytes=backlog.num_bytes,
            oldest_s=0 if oldest_at is None else max(0, int(time()) - oldest_at),
            num_refused=backlog.num_refused,
            num_unlogged=self._num_unlogged,
        )

    @property
    def num_waiting(self) -> int:
        """Answers that wait for their commit."""
        return len(self._waiting)

    @property
    def _is_full(self) -> bool:
        if not self._is_spooling:
            return False
        num_promised = self._num_reserved + len(self._waiting) + 1
        return self._is_failing or not self._backlog.has_room(num_promised * PROMISED_BYTES)

    @property
    def can_serve(self) -> bool:
        """Whether requests are let in, as far as the log is asked."""
        return self._when_full == "serve_unlogged" or not self._is_full

    @contextmanager
    def reserve(self) -> Generator[None]:
        """Hold a place in the queue for one request, taken before an engine works for it.

        Raises:
            LogUnavailable: every place is taken, the log is full, or the recorder does not run.
        """
        if self._committer is None or self._stopping.is_set():
            raise LogUnavailable("The query log is closed.")
        # A place is held while its entry waits; entries of callers that left hold none.
        if max(self._num_reserved, len(self._waiting)) >= self._queue_size:
            raise LogUnavailable("Too many answers wait to be logged.")
        if not self.can_serve:
            raise log_full()
        self._num_reserved += 1
        try:
            yield
        finally:
            self._num_reserved -= 1

    async def record(self, entry: LogEntry) -> None:
        """Return after the entry is in the database or the spool. Once handed in, it is written
        even if the caller goes away.

        Raises:
            LogUnavailable: it was not stored, or not in time.
        """
        if self._committer is None or self._stopping.is_set():
            raise LogUnavailable("The query log is closed.")
        waiting = Waiting(entry, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        (self._wake_spooler if self._is_spooling else self._wake).set()
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiting.stored
        except TimeoutError:
            if self._when_full == "refuse":
                raise LogUnavailable("The query log is too slow at the moment.") from None
            self._num_unlogged += 1

    def _take(self, limit: int) -> list[Waiting]:
        size = min(len(self._waiting), limit)
        return [self._waiting.popleft() for _ in range(size)]

    @property
    def _batch_limit(self) -> int:
        return 1 if self._num_singly else MAX_BATCH

    async def _commit_all(self) -> None:
        pace = Pace()
        while True:
            if self._is_spooling:
                was_stopping = self._stopping.is_set()
                is_moving = await self._move_some()
                if was_stopping and not is_moving:  # it was tried once more: the rest stays
                    return
            elif self._waiting:
                if pace.per_s >= CROWD_PER_S and not self._stopping.is_set():
                    await asyncio.sleep(GATHER_S)
                batch = self._take(self._batch_limit)
                pace.note(len(batch))
                self._num_singly = max(0, self._num_singly - len(batch))
                await self._commit(batch)
            elif self._stopping.is_set():
                return
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _commit(self, batch: list[Waiting]) -> None:
        """Write a batch to the database; or let the spool have it, in front of what waits."""
        is_late = False

        def is_too_slow() -> None:
            nonlocal is_late
            is_late = True
            self._leave_to_spool(batch, "it is slow")

        entries, started = [waiting.entry for waiting in batch], perf_counter()
        try:
            outcome = await self._transactions.attempt(store_entries, entries, is_too_slow)
        except asyncio.CancelledError:
            if not is_late:
                self._leave_to_spool(batch, "the process ends")
            raise
        if outcome == "stored":
            self._on_commit(len(batch), perf_counter() - started)
            settle(batch)
        elif is_late:
            return  # they are in line for the spool, or there
        elif outcome != "refused":
            self._leave_to_spool(batch, self._transactions.last_error)
        elif len(batch) > 1:  # one of them is to blame
            self._waiting.extendleft(reversed(batch))
            self._num_singly = len(batch)
        else:
            fail(batch, not_loggable())

    def _leave_to_spool(self, batch: Sequence[Waiting], reason: str) -> None:
        self._waiting.extendleft(reversed(batch))
        self._begin_spooling(reason)

    def _begin_spooling(self, reason: str) -> None:
        if not self._is_spooling:
            self._is_spooling = True
            logger.warning("log entries go to the spool, not to the database: %s", reason)
        self._wake_spooler.set()

    async def _spool_all(self) -> None:
        while not (self._is_over and not self._waiting):
            if self._is_spooling and self._waiting:
                self._is_appending = True
                await self._spool(self._take(MAX_BATCH))
                self._is_appending = False
                self._progress.set()
            else:
                await self._wake_spooler.wait()
                self._wake_spooler.clear()

    async def _spool(self, batch: Sequence[Waiting]) -> None:
        """Write a batch to the spool; without those that a slow commit has stored meanwhile."""
        encoded: list[Waiting] = []
        payloads: list[bytes] = []
        for waiting in batch:
            try:
                if not waiting.is_settled:
                    payloads.append(encode(waiting.entry))
                    encoded.append(waiting)
            except NotEncodable as error:
                logger.error("log entry %s refused: %s", waiting.entry.id, error)
                fail([waiting], not_loggable())
        if not payloads:
            return
        try:
            await self._backlog.append(payloads)
        except SpoolFull:
            self._go_without(encoded)
        except Exception as error:  # a full disk mostly; the task must outlive what nobody foresaw
            if not self._is_failing:
                logger.exception("the log's spool cannot be written", exc_info=error)
            self._is_failing = True
            self._go_without(encoded)
        else:
            self._is_failing = False
            settle(encoded)

    def _go_without(self, batch: Sequence[Waiting]) -> None:
        """There is no room for these."""
        if self._when_full == "serve_unlogged":
            self._num_unlogged += len(batch)
            settle(batch)
        else:
            logger.warning("%d answers refused: the query log is full", len(batch))
            fail(batch, log_full())

    async def _move_some(self) -> bool:
        """Move the spool's oldest entries into the database; False when it is of no use to go on
        at once.
        """
        if self._is_failing:
            self._is_failing = not await self._backlog.probe()
        try:
            batch = await self._backlog.head(self._batch_limit)
        except NotNow:
            await self._pause()
            return False
        if batch is None:
            return await self._end_empty()
        # Counted now: something may have been put behind the batch since it was read.
        is_last = batch.is_last and self._backlog.num_entries == len(batch.entries)
        if is_last and not self._is_appending and self._has_moved:
            self._is_spooling = False  # what comes now waits for this, as for any group commit
        outcome = await self._transactions.attempt(
            replay_entries, batch.entries, lambda: self._begin_spooling("it is slow")
        )
        if outcome == "stored":
            await self._moved(len(batch.entries))
            return True
        self._has_moved = False
        self._begin_spooling(self._transactions.last_error or outcome)
        return await self._stuck(batch, outcome)

    async def _moved(self, num: int) -> None:
        self._has_moved = True
        self._pause_s = FIRST_PAUSE_S
        self._num_singly = max(0, self._num_singly - num)
        await self._backlog.done(num)
        if not self._is_spooling:
            logger.warning("the log's spool is empty: entries go to the database again")

    async def _stuck(self, batch: Batch, outcome: Outcome) -> bool:
        """Find the entry that is to blame, or wait a little."""
        if outcome == "away":
            await self._pause()
            return False
        if len(batch.entries) > 1:
            self._num_singly = len(batch.entries)
        elif outcome == "refused" or await self._transactions.is_writable():
            await self._backlog.put_aside(f"log entry {batch.entries[0].id} is refused for good")
            self._num_singly = max(0, self._num_singly - 1)
        else:
            await self._pause()
            return False
        return True

    async def _end_empty(self) -> bool:
        """Nothing is on disk: leave the spool once nothing is on its way there."""
        if self._is_appending or self._waiting:
            self._progress.clear()
            self._wake_spooler.set()
            await self._progress.wait()
            return True
        if self._is_full:  # the spool takes nothing: the database must, before work is begun
            await self._pause()
            if self._is_appending or self._waiting or not await self._transactions.is_writable():
                return False
        if self._is_appending or self._waiting or self._backlog.oldest_at is not None:
            return True
        self._is_spooling = False
        logger.warning("nothing is in the log's spool: entries go to the database again")
        return True

    async def _pause(self) -> None:
        """Wait before the next attempt, longer each time; not when the recorder stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._stopping.wait()
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
