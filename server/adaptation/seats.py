"""How much background work an engine gets at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count

from server.adaptation.run import Run, follow_orders


class Seats:
    """At most `settings.background_requests` requests of a cycle at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._size = run.tools.settings.background_requests
        self._free = asyncio.Semaphore(self._size)
        self._taken = count()

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[None]:
        """Wait for a seat, and hold it. Once per so many seats, looks for a cancellation.

        Raises:
            CycleCancelled: somebody cancelled the cycle meanwhile.
        """
        async with self._free:
            if next(self._taken) % self._size == 0:
                await follow_orders(self._run)
            yield
