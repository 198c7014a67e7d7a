"""The log's transactions: one at a time, as far as the network lets them end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal, TypeVar

from server.db.engine import Database
from server.db.log import EntryRefused, LogEntry, is_writable
from server.errors import LogUnavailable

logger = logging.getLogger(__name__)

Outcome = Literal["stored", "refused", "away", "unforeseen"]
Store = Callable[[Database, Sequence[LogEntry]], Coroutine[Any, Any, None]]
T = TypeVar("T")

CANCEL_S: Final = 1.0  # for a transaction to end after it was cancelled
MAX_LEFT_ALONE: Final = 3


class Transactions:
    """Writes entries and says what came of it.

    After `patience_s` somebody else is told that it takes long. `timeout_s` bounds a transaction
    over the network, which is cancelled then. The driver may wait for the network even so: such a
    transaction is left alone, and a few of them at most; whoever writes its entries again must be
    able to skip what it has stored. One in a thread ends by the database's own bounds.
    """

    def __init__(self, database: Database, *, patience_s: float, timeout_s: float) -> None:
        self._database = database
        self._patience_s = patience_s
        self._give_up_s = None if database.is_sqlite else timeout_s
        self._left_alone: set[asyncio.Task[Any]] = set()
        self.last_error = ""

    async def attempt(
        self, store: Store, entries: Sequence[LogEntry], is_too_slow: Callable[[], None]
    ) -> Outcome:
        """One transaction, and what came of it. Away: maybe stored after all, nobody knows."""
        timer = asyncio.get_running_loop().call_later(self._patience_s, is_too_slow)
        try:
            await self._bounded(lambda: store(self._database, entries))
        except EntryRefused as error:
            if len(entries) == 1:
                logger.error("log entry %s refused: %s", entries[0].id, error)
            return "refused"
        except (LogUnavailable, TimeoutError) as error:
            self.last_error = type(error.__cause__ or error).__name__
            return "away"
        except Exception as error:  # the log's task must outlive what nobody foresaw
            logger.exception("unforeseen error of the log's database")
            self.last_error = type(error).__name__
            return "unforeseen"
        finally:
            timer.cancel()
        return "stored"

    async def is_writable(self) -> bool:
        """Whether the database takes anything."""
        try:
            return await self._bounded(lambda: is_writable(self._database))
        except Exception:  # whatever it is, the answer is no; the next attempt logs it
            return False

    async def _bounded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._give_up_s is None:
            return await work()
        if len(self._left_alone) >= MAX_LEFT_ALONE:
            await asyncio.wait(set(self._left_alone), return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(work())
        try:
            await asyncio.wait({task}, timeout=self._give_up_s)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            await asyncio.wait({task}, timeout=CANCEL_S)
        if task.done() and not task.cancelled():
            return task.result()
        if not task.done():
            self._left_alone.add(task)
            task.add_done_callback(self._ended)
            await self._database.forget_connections()
        raise TimeoutError

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._left_alone.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, as nobody else does
