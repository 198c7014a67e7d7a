"""How much background work an engine gets at once: much while nobody else wants it, little while
users are served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, TypeVar

from server.adaptation.run import Run, follow_orders
from server.presence import age_s

LOOK_EVERY_S: Final = 0.2
QUIET_S: Final = 5.0  # without users, until all seats are taken again; work cut off is work lost

T = TypeVar("T")


class Seats:
    """At most `settings.background_requests` requests of a cycle at a time, and only
    `background_requests_busy` of them while users are served: within half a second of a user's
    arrival the newest ones are cut off, which ends them in the engine. They are asked again later,
    with the same seeds. Some go on, so that steady traffic does not end all learning.
    """

    def __init__(self, run: Run, age: Callable[[], float] | None = None) -> None:
        settings = run.tools.settings
        self._run = run
        self._age = age or (lambda: age_s(settings.presence_path))
        self._size = settings.background_requests
        self._busy_size = min(self._size, settings.background_requests_busy)
        self._allowed = self._size
        self._taken = 0
        self._served = count()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running: list[asyncio.Task[object]] = []  # oldest first
        self._callers = 0
        self._looking: asyncio.Task[None] | None = None

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns, asked when there is a seat. Once per so many seats, looks for a
        cancellation.

        Raises:
            CycleCancelled: somebody cancelled the cycle meanwhile.
        """
        self._callers += 1
        if self._looking is None:
            self._look()
            self._looking = asyncio.create_task(self._keep_looking(), name="seats")
        try:
            is_first = True
            while True:
                await self._take(first_in_line=not is_first)
                is_first = False
                try:
                    asking = await self._ask(ask)
                finally:
                    self._taken -= 1
                    self._let_in()
                if not asking.cancelled():
                    return asking.result()
        finally:
            self._callers -= 1
            if not self._callers:
                self._looking.cancel()
                self._looking = None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """The task that asked, done: cancelled means that it was cut off."""

        async def asked() -> T:
            if next(self._served) % self._size == 0:
                await follow_orders(self._run)
            return await ask()

        asking = asyncio.create_task(asked())
        self._running.append(asking)
        try:
            await asyncio.wait((asking,))
        finally:
            self._running.remove(asking)
            if not asking.done():  # whoever wanted it does not any more
                asking.cancel()
                await asyncio.wait((asking,))
        return asking

    async def _take(self, *, first_in_line: bool) -> None:
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first_in_line:
            self._waiting.appendleft(seat)
        else:
            self._waiting.append(seat)
        self._let_in()
        try:
            await seat
        except asyncio.CancelledError:
            if seat.done() and not seat.cancelled():  # given in the same moment
                self._taken -= 1
                self._let_in()
            raise

    def _let_in(self) -> None:
        while self._waiting and self._taken < self._allowed:
            seat = self._waiting.popleft()
            if not seat.done():
                self._taken += 1
                seat.set_result(None)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        """See whether users are being served, and make room or use it."""
        self._allowed = self._busy_size if self._age() < QUIET_S else self._size
        for asking in self._running[self._allowed :]:
            asking.cancel()
        self._let_in()
