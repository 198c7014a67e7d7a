"""The tenants' users: they ask their kind of question, and know no answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count, cycle
from time import monotonic

from demo.asking import Asker, Exchange
from demo.questions import Question

Seen = Callable[[Exchange], None]


class Ledger:
    """All exchanges of the demo, and how many are in flight."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def note(self, exchange: Exchange) -> None:
        """Keep an exchange that has ended."""
        self.exchanges.append(exchange)

    @property
    def num_failed(self) -> int:
        """Exchanges with a problem."""
        return sum(exchange.problem is not None for exchange in self.exchanges)

    @property
    def streamed_share(self) -> float:
        """Share of the exchanges that were streamed."""
        streamed = sum(exchange.streamed for exchange in self.exchanges)
        return streamed / max(1, len(self.exchanges))

    def adapter_of(self, tenant: str) -> str | None:
        """Which version answered the tenant last."""
        for exchange in reversed(self.exchanges):
            if exchange.tenant == tenant and exchange.adapter is not None:
                return exchange.adapter
        return None


async def ask_once_each(
    asked: Sequence[tuple[Asker, Question]], *, at_once: int, seen: Seen
) -> None:
    """Ask each question once, every second one streamed."""
    places = asyncio.Semaphore(at_once)

    async def ask(index: int, asker: Asker, question: Question) -> None:
        async with places:
            seen(await asker.ask(question.text, stream=index % 2 == 1))

    async with asyncio.TaskGroup() as group:
        for index, (asker, question) in enumerate(asked):
            group.create_task(ask(index, asker, question))


class Background:
    """Traffic that goes on until it is stopped, each tenant in turn.

    It starts briskly and goes on gently once `brisk_requests` were sent, so that most of the cores
    is left to learning. Requests come in bursts, which an engine answers nearly at the cost of one
    request; no more than `at_once` are in flight.
    """

    def __init__(
        self,
        questions: Mapping[Asker, Sequence[Question]],
        *,
        brisk_requests: int,
        brisk_per_s: float,
        gentle_per_s: float,
        burst: int,
        at_once: int,
        seen: Seen,
    ) -> None:
        self._questions = questions
        self._burst = burst
        self._brisk_requests = brisk_requests
        self._brisk_per_s = brisk_per_s
        self._gentle_per_s = gentle_per_s
        self._places = asyncio.Semaphore(at_once)
        self._seen = seen
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def going(self) -> AsyncGenerator[None]:
        """Ask while the body runs; at its end what is in flight is waited for."""
        asking = asyncio.create_task(self._run())
        try:
            yield
            self._stopping.set()
            await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            due = monotonic()
            for index, asker, question in self._endless():
                await self._places.acquire()
                if self._stopping.is_set():
                    return
                group.create_task(self._ask(index, asker, question))
                if (index + 1) % self._burst:
                    continue
                # A late burst does not hurry the ones after it.
                due = max(due, monotonic()) + self._burst / self._pace(index)
                if await self._stopped_before(due):
                    return

    def _pace(self, index: int) -> float:
        return self._brisk_per_s if index < self._brisk_requests else self._gentle_per_s

    async def _stopped_before(self, due: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), max(0.0, due - monotonic()))
        except TimeoutError:
            return False
        return True

    def _endless(self) -> Iterator[tuple[int, Asker, Question]]:
        queues = [(asker, cycle(questions)) for asker, questions in self._questions.items()]
        for index, (asker, queue) in zip(count(), cycle(queues), strict=False):
            yield index, asker, next(queue)

    async def _ask(self, index: int, asker: Asker, question: Question) -> None:
        try:
            self._seen(
                await asker.ask(question.text, stream=is_streamed(index), store=is_stored(index))
            )
        finally:
            self._places.release()


def is_streamed(index: int) -> bool:
    """Half of the requests of each tenant, tenants taking turns."""
    return index // 2 % 2 == 1


def is_stored(index: int) -> bool:
    """All but a few: one in 25 asks not to be logged, of both tenants, streamed and not."""
    return index % 25 != 7
