"""The durable log's writer: a `200` means stored.

Requests hand in an entry and wait. One task takes everything that waits and writes it in one
transaction (group commit): under load a commit is shared by many, alone it starts at once.

With a journal a request waits for that instead, which is one append to a file; its entry still goes
to the database in a transaction that is in no hurry, and is forgotten by the journal after that.

When a transaction fails, or has not returned after a short patience, what waits goes to the local
spool instead, by a second task, and is answered from there. The first task then moves the spool's
entries into the database, in order, while new ones go behind them. The last batch is moved like
any group commit, with new entries waiting for it, and when it is stored the spool is out of use
again. So the spool costs nothing while the database is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter, time
from typing import Final

from server.db.engine import Database
from server.db.log import LogEntry, replay_entries, store_entries
from server.errors import LogUnavailable
from server.gateway.journaling import Journaling
from server.gateway.line import (
    MAX_BATCH,
    Line,
    LogStatus,
    Waiting,
    fail,
    log_full,
    not_loggable,
    settle,
)
from server.gateway.spooling import Spooler, WhenFull
from server.gateway.transactions import Outcome, Transactions
from server.held import Held
from server.spool.backlog import Backlog, Batch
from server.spool.entries import NotEncodable, encode
from server.spool.journal import Kept
from server.spool.spool import NotNow

logger = logging.getLogger(__name__)

PROMISED_BYTES: Final = 16 * 2**10  # what an answer is thought to take on disk before it is there
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0


class Recorder:
    """Writes log entries in group commits. The constructor does no I/O.

    `queue_size` bounds the entries that are promised or waiting; `timeout_s` bounds how long a
    request waits, and one transaction over the network (one in a thread ends by its own bounds);
    `patience_s` is how long a transaction may take before what waits goes to the spool.
    `is_alone`: no other request is being answered, so the disk may be waited for on the event loop.
    `on_commit` hears of each group commit: entries, seconds. `journal`: None is a log without one.
    """

    def __init__(
        self,
        database: Database,
        backlog: Backlog,
        journal: Journaling | None = None,
        *,
        queue_size: int,
        timeout_s: float,
        patience_s: float = 1.0,
        when_full: WhenFull = "refuse",
        is_alone: Callable[[], bool] = lambda: True,
        on_commit: Callable[[int, float], None] = lambda _num_entries, _seconds: None,
    ) -> None:
        self._backlog = backlog
        self._journal = journal
        self._transactions = Transactions(
            database, patience_s=min(patience_s, timeout_s), timeout_s=timeout_s
        )
        self._line = Line()
        self._spooler = Spooler(self._line, backlog, when_full)
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._when_full = when_full
        self._is_alone = is_alone
        self._on_commit = on_commit
        self._num_reserved = 0
        self._num_unlogged = 0  # for want of time
        self._num_singly = 0  # the next so many entries are written one by one
        self._pause_s = FIRST_PAUSE_S
        self._wake = asyncio.Event()  # the committer, while the database is well
        self._is_closed = False  # to new entries
        self._stopping = asyncio.Event()
        self._has_moved = False  # the last attempt to move entries out of the spool went well
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write, what earlier processes left first.

        Raises:
            ConfigurationError: the spool cannot be read.
        """
        await self._backlog.open()
        if self._journal is not None:
            await self._journal.open()
        self._spooler.is_on = self._backlog.oldest_at is not None
        self._spooler.start()
        self._committer = asyncio.create_task(self._commit_all(), name="log committer")

    async def stop(self) -> None:
        """Write what waits, to the database or the spool, then end. Each has `timeout_s` for it."""
        self._is_closed = True
        if self._committer is None:
            return
        if self._journal is not None:  # what it takes comes to the line
            await self._journal.finish(self._timeout_s)
        self._stopping.set()
        self._wake.set()
        self._line.hurry()
        await asyncio.wait({self._committer}, timeout=self._timeout_s)
        self._committer.cancel()
        await asyncio.wait({self._committer})
        await self._spooler.stop(self._timeout_s)
        self._committer = None
        await self._backlog.close(self._timeout_s)
        if self._journal is not None:
            await self._journal.close(self._timeout_s)

    @property
    def status(self) -> LogStatus:
        """How the log is now."""
        backlog = self._backlog
        is_behind = self._spooler.is_on or backlog.num_entries > 0
        state = "full" if self._is_full else "spooling" if is_behind else "ok"
        oldest_at = backlog.oldest_at if backlog.num_entries else None
        return LogStatus(
            state=state,
            num_entries=backlog.num_entries,
            num_bytes=backlog.num_bytes,
            oldest_s=0 if oldest_at is None else max(0, int(time()) - oldest_at),
            num_refused=backlog.num_refused,
            num_unlogged=self._num_unlogged + self._spooler.num_unlogged,
        )

    @property
    def num_waiting(self) -> int:
        """Answers that wait for their commit, or for the journal."""
        return len(self._line) + (0 if self._journal is None else self._journal.num_waiting)

    @property
    def _is_full(self) -> bool:
        if not self._spooler.is_on:
            return False
        num_promised = self._num_reserved + len(self._line) + 1
        return self._spooler.is_failing or not self._backlog.has_room(num_promised * PROMISED_BYTES)

    @property
    def can_serve(self) -> bool:
        """Whether requests are let in, as far as the log is asked."""
        return self._when_full == "serve_unlogged" or not self._is_full

    def reserve(self) -> Held:
        """Hold a place in the queue for one request, taken before an engine works for it.

        Raises:
            LogUnavailable: every place is taken, the log is full, or the recorder does not run.
        """
        return Held(self._promise, self._release)

    def _promise(self) -> None:
        if self._committer is None or self._is_closed:
            raise LogUnavailable("The query log is closed.")
        # A place is held while its entry waits; entries of callers that left hold none.
        if max(self._num_reserved, self.num_waiting) >= self._queue_size:
            raise LogUnavailable("Too many answers wait to be logged.")
        if not self.can_serve:
            raise log_full()
        self._num_reserved += 1

    def _release(self) -> None:
        self._num_reserved -= 1

    async def record(self, entry: LogEntry) -> None:
        """Return after the entry is in the journal, the database or the spool. Once handed in, it
        is written even if the caller goes away.

        Raises:
            LogUnavailable: it was not stored, or not in time.
        """
        if self._committer is None or self._is_closed:
            raise LogUnavailable("The query log is closed.")
        waiting = Waiting(entry, asyncio.get_running_loop().create_future())
        self._hand_in(waiting)
        if waiting.kept is not None:
            return  # at once: it was alone
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiting.told
        except TimeoutError:
            if self._when_full == "refuse":
                raise LogUnavailable("The query log is too slow at the moment.") from None
            self._num_unlogged += 1

    async def flush(self) -> None:
        """Return when the answers that were stored so far are in the database or the spool; not
        later than a request would wait.
        """
        await self._line.flush(self._timeout_s)

    def _hand_in(self, waiting: Waiting) -> None:
        """Put an entry in line, through the journal where there is one and nothing is in the
        spool, which is replayed after the journal: newer entries must not stand before older ones.
        Nor where the database is behind, which callers are to feel before places run out.
        """
        journal = self._journal
        if journal is None:
            self._put_in_line(waiting)
            return

        def then(kept: Kept | None) -> None:
            if kept is not None:
                waiting.keep(kept)
            self._put_in_line(waiting)

        if self._spooler.is_on or self._backlog.num_entries > 0 or self._line.is_long:
            journal.pass_on(then)
            return
        try:
            payload = encode(waiting.entry)
        except NotEncodable:  # the database may find a form for it
            journal.pass_on(then)
        else:
            journal.keep(payload, then, alone=self._num_reserved == 1 and self._is_alone())

    def _put_in_line(self, waiting: Waiting) -> None:
        self._line.put(waiting)
        if self._spooler.is_on:
            self._spooler.wake()
        else:
            self._wake.set()

    @property
    def _batch_limit(self) -> int:
        return 1 if self._num_singly else MAX_BATCH

    async def _commit_all(self) -> None:
        while True:
            if self._spooler.is_on:
                was_stopping = self._stopping.is_set()
                is_moving = await self._move_some()
                if was_stopping and not is_moving:  # it was tried once more: the rest stays
                    return
            elif self._line:
                if not self._stopping.is_set():
                    await self._line.gather()
                batch = self._line.take(self._batch_limit)
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
            self._line.put_back(batch)
            self._num_singly = len(batch)
        elif batch[0].kept is not None:  # its caller has it: the spool puts it aside for good
            self._leave_to_spool(batch, "it refuses one")
        else:
            fail(batch, not_loggable())

    def _leave_to_spool(self, batch: Sequence[Waiting], reason: str) -> None:
        self._line.put_back(batch)
        self._spooler.begin(reason)

    async def _move_some(self) -> bool:
        """Move the spool's oldest entries into the database; False when it is of no use to go on
        at once.
        """
        if self._spooler.is_failing:
            self._spooler.is_failing = not await self._backlog.probe()
        try:
            batch = await self._backlog.head(self._batch_limit)
        except NotNow:
            await self._pause()
            self._try_the_spool()
            return False
        if batch is None:
            return await self._end_empty()
        # Counted now: something may have been put behind the batch since it was read.
        is_last = batch.is_last and self._backlog.num_entries == len(batch.entries)
        if is_last and not self._spooler.is_appending and self._has_moved:
            self._spooler.end()  # what comes now waits for this, as for any group commit
        outcome = await self._transactions.attempt(
            replay_entries, batch.entries, lambda: self._spooler.begin("it is slow")
        )
        if outcome == "stored":
            await self._moved(len(batch.entries))
            return True
        self._has_moved = False
        self._spooler.begin(self._transactions.last_error or outcome)
        return await self._stuck(batch, outcome)

    async def _moved(self, num: int) -> None:
        self._has_moved = True
        self._pause_s = FIRST_PAUSE_S
        self._num_singly = max(0, self._num_singly - num)
        await self._backlog.done(num)
        if self._spooler.is_on:
            self._try_the_spool()  # it has more room
        else:
            logger.warning("the log's spool is empty: entries go to the database again")

    async def _stuck(self, batch: Batch, outcome: Outcome) -> bool:
        """Find the entry that is to blame, or wait a little."""
        if outcome == "away":
            await self._pause()
            self._try_the_spool()
            return False
        if len(batch.entries) > 1:
            self._num_singly = len(batch.entries)
        elif outcome == "refused" or await self._transactions.is_writable():
            await self._backlog.put_aside(f"log entry {batch.entries[0].id} is refused for good")
            self._num_singly = max(0, self._num_singly - 1)
        else:
            await self._pause()
            self._try_the_spool()
            return False
        return True

    def _try_the_spool(self) -> None:
        """Once more with what there was no room for: after progress, or a pause."""
        if not self._is_full:
            self._spooler.take_back()

    async def _end_empty(self) -> bool:
        """Nothing is on disk: leave the spool once nothing is on its way there."""
        if self._spooler.is_appending or self._line:
            await self._spooler.progress()
            return True
        if self._is_full or self._spooler.has_set_by:
            # The spool takes nothing, or not all of it: the database must, before work is begun.
            await self._pause()
            if self._spooler.is_appending or self._line:
                return False
            if not await self._transactions.is_writable():
                self._try_the_spool()
                return False
        if self._spooler.is_appending or self._line or self._backlog.oldest_at is not None:
            return True
        self._spooler.end()
        logger.warning("nothing is in the log's spool: entries go to the database again")
        return True

    async def _pause(self) -> None:
        """Wait before the next attempt, longer each time; not when the recorder stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._stopping.wait()
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
