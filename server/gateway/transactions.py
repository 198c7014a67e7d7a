"""The log's transactions: one at a time, each awaited however long it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from server.db.engine import Database
from server.db.log import EntryRefused, LogEntry, is_writable
from server.errors import LogUnavailable

logger = logging.getLogger(__name__)

Outcome = Literal["stored", "refused", "away", "unforeseen"]
Store = Callable[[Database, Sequence[LogEntry]], Awaitable[None]]


class Transactions:
    """Writes entries and says what came of it.

    After `patience_s` somebody else is told that it takes long. `timeout_s` bounds a transaction
    over the network, which is cancelled then; one in a thread cannot be, and ends by the database's
    own bounds. Either way it is over when the call returns, so there are never two.
    """

    def __init__(self, database: Database, *, patience_s: float, timeout_s: float) -> None:
        self._database = database
        self._patience_s = patience_s
        self._give_up_s = None if database.is_sqlite else timeout_s
        self.last_error = ""

    async def attempt(
        self, store: Store, entries: Sequence[LogEntry], is_too_slow: Callable[[], None]
    ) -> Outcome:
        """One transaction, and what came of it. Away: maybe stored after all, nobody knows."""
        timer = asyncio.get_running_loop().call_later(self._patience_s, is_too_slow)
        try:
            async with asyncio.timeout(self._give_up_s):
                await store(self._database, entries)
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
            async with asyncio.timeout(self._give_up_s):
                return await is_writable(self._database)
        except Exception:  # whatever it is, the answer is no; the next attempt logs it
            return False
