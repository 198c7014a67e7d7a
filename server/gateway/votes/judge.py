"""Compares answers beside the event loop: in few threads, each tenant in one at a time, and with a
deadline. Algebra is done by processes that can be killed (adapters.answers).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from adapters.answers import AnswerSpec, Defect, Equivalence
from adapters.answers.worker import JudgeFailed
from server.gateway.votes.poll import Unjudged

logger = logging.getLogger(__name__)

THREADS: Final = 2
DEADLINE_S: Final = 10.0  # the first comparison by algebra starts a process, which takes seconds

T = TypeVar("T")


@dataclass(slots=True)
class _Seat:
    """A tenant's turn. `users` wait for it or hold it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class VoteJudge:
    """A `Judge` for one event loop. Made without I/O; processes start when they are needed.

    Args:
        deadline_s: longest time that a caller waits, for its turn and for the result.
        equivalence: what compares; None makes one, and ends it with `stop`.
    """

    def __init__(
        self, *, deadline_s: float = DEADLINE_S, equivalence: Equivalence | None = None
    ) -> None:
        self._deadline_s = deadline_s
        self._equivalence = equivalence or Equivalence(workers=THREADS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="votes")
        self._seats: dict[int, _Seat] = {}

    async def start(self) -> None:
        """Nothing: what is needed starts with the first vote."""

    async def stop(self) -> None:
        """End the threads and processes, after the calls in progress."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._equivalence.close)

    async def extract(
        self, tenant_id: int, texts: Sequence[str], spec: AnswerSpec
    ) -> Sequence[str | None]:
        """The final answer of each text. Raises Unjudged."""
        return await self._ask(tenant_id, partial(self._equivalence.extract, texts, spec))

    async def classes(
        self, tenant_id: int, written: Sequence[str | None], spec: AnswerSpec
    ) -> Sequence[str | None]:
        """The representative of each answer's class. Raises Unjudged."""
        return await self._ask(tenant_id, partial(self._equivalence.classes, written, spec))

    async def _ask(self, tenant_id: int, call: Callable[[], T]) -> T:
        seat = self._seats.setdefault(tenant_id, _Seat())
        seat.users += 1
        running: asyncio.Future[T] | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                await seat.turn.acquire()
                running = asyncio.get_running_loop().run_in_executor(self._threads, call)
                # Given back when the thread is done, also where nobody waits for it any more.
                running.add_done_callback(partial(self._done, tenant_id, seat))
                return await asyncio.shield(running)
        except TimeoutError:
            logger.warning("answers of tenant %d were not compared in time", tenant_id)
            raise Unjudged from None
        except JudgeFailed as error:
            logger.warning("answers of tenant %d cannot be compared: %s", tenant_id, error)
            raise Unjudged from error
        except Defect as error:  # of ours: the request has its answers, and gets one of them
            logger.exception("answers of tenant %d could not be compared", tenant_id)
            raise Unjudged from error
        finally:
            if running is None:
                self._leave(tenant_id, seat)

    def _done(self, tenant_id: int, seat: _Seat, running: asyncio.Future[T]) -> None:
        if not running.cancelled():
            running.exception()  # looked at, in case that nobody waits
        seat.turn.release()
        self._leave(tenant_id, seat)

    def _leave(self, tenant_id: int, seat: _Seat) -> None:
        seat.users -= 1
        if not seat.users:
            self._seats.pop(tenant_id, None)
