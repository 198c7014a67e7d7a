"""A start without the database: the web process answers and says what it lacks, while it asks for
the database again and again, for a bounded time.

Nothing can be served before it is there, because keys are only in it; answers that earlier
processes left in the spool wait too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from server.errors import ConfigurationError, DatabaseAway

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0


class DatabaseWait:
    """Asks `prepare` until it takes the database. `failure` is why it was given up.

    A database that is away for `timeout_s`, or turns out to be the wrong one, ends the process as
    it would have at once.
    """

    def __init__(self, prepare: Callable[[], Awaitable[None]], *, timeout_s: float) -> None:
        self.failure: ConfigurationError | None = None
        self._prepare = prepare
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def running(self, give_up: Callable[[], None]) -> AsyncGenerator[None]:
        """Ask beside the block; `give_up` is called when there is a failure."""
        task = asyncio.create_task(self._run(give_up), name="database wait")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self, give_up: Callable[[], None]) -> None:
        try:
            await self.until_there()
        except ConfigurationError as error:
            self.failure = error
            give_up()

    async def until_there(self) -> None:
        """Return when the database can be used.

        Raises:
            ConfigurationError: it cannot, or not in time.
        """
        loop = asyncio.get_running_loop()
        end, pause_s = loop.time() + self._timeout_s, FIRST_PAUSE_S
        while True:
            try:
                await self._prepare()
            except DatabaseAway as error:
                left_s = end - loop.time()
                if left_s <= 0:
                    raise
                logger.warning("%s Asking for it for another %.0f s.", error.message, left_s)
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                logger.warning("the database is there")
                return
