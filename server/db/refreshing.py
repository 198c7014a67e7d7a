"""A cache that keeps the database off the hot path: what is used is read again before it is old,
and what cannot be read again serves on while the database is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, TypeVar

from server.db.failures import SQLAlchemyError
from server.errors import TTRLError, Unavailable

logger = logging.getLogger(__name__)

MAX_ENTRIES: Final = 10_000
AHEAD: Final = 0.5  # of its life: a value that is used after this is read again beside its use

DELAY_S: Final = 0.01
READ_S: Final = 5.0  # a read that takes longer hangs
MAX_READING: Final = 1024  # keys at a time: whoever makes keys up must not fill the memory
PATIENCE_S: Final = 1.0  # for a read that hangs, where an older value can serve

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Reading(Generic[V]):
    started: float
    task: asyncio.Task[V]


class RefreshingCache(Generic[V]):
    """Values by key, from `read`, none older than `fresh_s` seconds while the database answers.

    `outage_s` is how old one may become while it does not. A value that `read` refuses is
    forgotten. The constructor does no I/O.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[V]],
        *,
        fresh_s: float,
        outage_s: float,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._read = read
        self._now = now
        self._fresh_s = fresh_s
        self._outage_s = outage_s
        self._values: dict[str, tuple[float, V]] = {}
        self._reading: dict[str, _Reading[V]] = {}

    @property
    def num_servable(self) -> int:
        """Values that can serve while the database is away."""
        oldest = self._now() - self._outage_s
        return sum(read_at > oldest for read_at, _ in self._values.values())

    def clear(self) -> None:
        """Forget everything, reads under way included: they may have seen what was before."""
        self._values.clear()
        self._reading.clear()

    async def get(self, key: str) -> V:
        """The value of a key.

        Raises:
            TTRLError: what `read` refuses the key with.
            SQLAlchemyError, OSError, Unavailable: the database is away, or hangs, and no value is
                there to serve on.
        """
        cached = self._values.get(key)
        if cached is None:
            return await self._outcome(key, READ_S)
        read_at, value = cached
        age = self._now() - read_at
        if age >= self._fresh_s:
            return await self._renewed(key, value, may_keep=age < self._outage_s)
        if age >= AHEAD * self._fresh_s and key not in self._reading:
            # Not at once, which would be in the way of the one who asks.
            asyncio.get_running_loop().call_later(DELAY_S, self._refresh_ahead, key, read_at)
        return value

    def _refresh_ahead(self, key: str, read_at: float) -> None:
        cached = self._values.get(key)
        if cached is not None and cached[0] == read_at:  # nobody else has read it meanwhile
            with suppress(Unavailable):
                self._refresh(key)

    async def _renewed(self, key: str, old: V, *, may_keep: bool) -> V:
        """The value read anew; or the old one where the database is away or hangs."""
        try:
            return await self._outcome(key, PATIENCE_S if may_keep else READ_S)
        except (SQLAlchemyError, OSError, Unavailable):
            if not may_keep:
                raise
            return old

    async def _outcome(self, key: str, patience_s: float) -> V:
        """What a read finds, if that takes no longer. Who leaves takes nothing from the others."""
        reading = self._refresh(key)
        left = reading.started + patience_s - self._now()
        await asyncio.wait({reading.task}, timeout=max(0.0, left))
        if not reading.task.done() or reading.task.cancelled():
            raise Unavailable("The database does not answer in time.")
        return reading.task.result()

    def _refresh(self, key: str) -> _Reading[V]:
        """The one read of this key that is under way, or a new one; a read that hangs is given up,
        whether it can be cancelled or not.

        Raises:
            Unavailable: too many keys are being read.
        """
        reading = self._reading.get(key)
        if reading is not None and self._now() - reading.started < READ_S:
            return reading
        if reading is None and len(self._reading) >= MAX_READING:
            raise Unavailable("Too many keys are being looked up.")
        if reading is not None:
            reading.task.cancel()
        task = asyncio.create_task(self._read_anew(key))
        reading = self._reading[key] = _Reading(self._now(), task)
        task.add_done_callback(lambda _: self._ended(key, reading))
        return reading

    async def _read_anew(self, key: str) -> V:
        task, started = asyncio.current_task(), self._now()
        try:
            value = await self._read(key)
        except TTRLError:
            self._values.pop(key, None)
            raise
        reading = self._reading.get(key)
        if reading is not None and reading.task is task:  # else it was cleared while being read
            if len(self._values) >= MAX_ENTRIES:
                self._values.clear()
            self._values[key] = (started, value)
        return value

    def _ended(self, key: str, reading: _Reading[V]) -> None:
        if self._reading.get(key) is reading:
            del self._reading[key]
        # Looked at here too, in case that nobody waits.
        error = None if reading.task.cancelled() else reading.task.exception()
        if isinstance(error, (SQLAlchemyError, OSError)):
            logger.warning("the database does not answer: %s", type(error).__name__)
