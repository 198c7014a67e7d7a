"""Answers that wait to be logged, and how their callers hear of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal

from server.db.log import LogEntry
from server.errors import LogUnavailable
from server.spool.journal import Kept

RETRY_FULL_S: Final = 5  # what a client is told
WINDOW_S: Final = 0.05
MAX_BATCH: Final = 256  # entries of one transaction
LONG: Final = 3 * MAX_BATCH
CROWD_PER_S: Final = 400.0  # where so many entries come, a transaction waits a moment for company:
GATHER_S: Final = 0.004
LEISURE_S: Final = 0.05  # and so long where nobody waits for it


@dataclass(eq=False, slots=True)
class Waiting:
    """An entry on its way to the database or the spool, and the caller that is to hear of it."""

    entry: LogEntry
    told: asyncio.Future[None]  # by the journal, or when the entry is stored
    kept: Kept | None = None  # in the journal, until it is stored
    is_settled: bool = False  # stored, or refused
    on_settled: asyncio.Future[None] | None = None  # somebody else who waits for that

    def keep(self, kept: Kept) -> None:
        """The journal has it: its caller need not wait."""
        self.kept = kept
        if not self.told.done():
            self.told.set_result(None)

    def settle(self) -> None:
        """It is stored, or never will be; what is true is told by whoever calls this."""
        self.is_settled = True
        if self.kept is not None:
            self.kept.forget()
            self.kept = None
        if self.on_settled is not None and not self.on_settled.done():
            self.on_settled.set_result(None)


class Pace:
    """How many entries came a second, over the last while that is complete."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.per_s = 0.0
        self._clock = clock
        self._since = clock()
        self._num = 0

    def note(self, num: int) -> None:
        """So many have come since the last call."""
        self._num += num
        now = self._clock()
        if now - self._since >= WINDOW_S:
            self.per_s = self._num / (now - self._since)
            self._since, self._num = now, 0


class Line:
    """Entries that wait to be written, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._last: Waiting | None = None  # that was put in
        self._hurry = asyncio.Event()  # somebody waits for them
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_long(self) -> bool:
        """Whether more waits than a few transactions take."""
        return len(self._waiting) >= LONG

    def put(self, waiting: Waiting) -> None:
        """Let an entry stand at the end."""
        self._waiting.append(waiting)
        self._last = waiting
        if waiting.kept is None or len(self._waiting) >= MAX_BATCH:
            self._hurry.set()

    def put_back(self, batch: Sequence[Waiting]) -> None:
        """Let entries stand in front again, but for those that a slow commit has stored."""
        self._waiting.extendleft(w for w in reversed(batch) if not w.is_settled)

    def take(self, limit: int) -> list[Waiting]:
        """The first ones."""
        size = min(len(self._waiting), limit)
        return [self._waiting.popleft() for _ in range(size)]

    async def gather(self) -> None:
        """Wait for company: most of a transaction's cost is its own, not its entries'."""
        if any(waiting.kept is None for waiting in self._waiting):
            if self._pace.per_s >= CROWD_PER_S:
                await asyncio.sleep(GATHER_S)
        elif not self._hurry.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LEISURE_S):
                    await self._hurry.wait()
        self._hurry.clear()
        self._pace.note(len(self._waiting))

    def hurry(self) -> None:
        """Somebody waits."""
        self._hurry.set()

    async def flush(self, timeout_s: float) -> None:
        """Return when what is in the line now is settled, or the time is over."""
        last = self._last
        if last is None or last.is_settled:
            return
        self._hurry.set()
        last.on_settled = last.on_settled or asyncio.get_running_loop().create_future()
        await asyncio.wait({last.on_settled}, timeout=timeout_s)


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


def settle(batch: Sequence[Waiting]) -> None:
    """Tell the callers that their answers are stored; and the journal."""
    for waiting in batch:
        waiting.settle()
        if not waiting.told.done():
            waiting.told.set_result(None)


def fail(batch: Sequence[Waiting], error: LogUnavailable) -> None:
    """Tell the callers that their answers are not stored, each with an error of its own."""
    for waiting in batch:
        waiting.settle()
        if not waiting.told.done():
            waiting.told.set_exception(
                LogUnavailable(error.message, retry_after_s=error.retry_after_s)
            )


def log_full() -> LogUnavailable:
    """There is no room, neither in the database nor on disk."""
    return LogUnavailable("The query log is full at the moment.", retry_after_s=RETRY_FULL_S)


def not_loggable() -> LogUnavailable:
    """It is this answer's own fault, so trying again is of no use."""
    return LogUnavailable("This answer cannot be logged.", retry_after_s=None)
