"""Answers that wait to be logged, and how their callers hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from server.db.log import LogEntry
from server.errors import LogUnavailable

RETRY_FULL_S: Final = 5  # what a client is told
WINDOW_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry and the caller that waits for it."""

    entry: LogEntry
    stored: asyncio.Future[None]

    @property
    def is_settled(self) -> bool:
        """Whether its caller was told; one that left was not, and its entry is written anyway."""
        return self.stored.done() and not self.stored.cancelled()


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


def settle(batch: Sequence[Waiting]) -> None:
    """Tell the callers that their answers are stored."""
    for waiting in batch:
        if not waiting.stored.done():
            waiting.stored.set_result(None)


def fail(batch: Sequence[Waiting], error: LogUnavailable) -> None:
    """Tell the callers that their answers are not stored, each with an error of its own."""
    for waiting in batch:
        if not waiting.stored.done():
            waiting.stored.set_exception(
                LogUnavailable(error.message, retry_after_s=error.retry_after_s)
            )


def log_full() -> LogUnavailable:
    """There is no room, neither in the database nor on disk."""
    return LogUnavailable("The query log is full at the moment.", retry_after_s=RETRY_FULL_S)


def not_loggable() -> LogUnavailable:
    """It is this answer's own fault, so trying again is of no use."""
    return LogUnavailable("This answer cannot be logged.", retry_after_s=None)
