"""How answers get into the journal: together where many come, at once where one comes alone.

Handing a record to a thread and hearing of it costs more than the disk does. So where the event
loop has nobody else to serve, it waits for the disk itself, for as long as the disk is quick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Final, TypeVar

from server.spool.journal import Journal, Kept
from server.spool.spool import SpoolFull

logger = logging.getLogger(__name__)

QUICK_S: Final = 0.005  # a disk that takes longer is not waited for on the loop
WARY_S: Final = 1.0  # for so long afterwards, and twice as long each time again
LONGEST_WARY_S: Final = 60.0
SMALL_BYTES: Final = 64 * 2**10  # nor is a longer record written there
MAX_BATCH: Final = 256

T = TypeVar("T")
Then = Callable[[Kept | None], None]


class Journaling:
    """The journal for those who live on an event loop. The constructor does no I/O."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-journal")
        self._line: list[tuple[bytes | None, Then]] = []
        self._writer: asyncio.Task[None] | None = None
        self._wary_until = 0.0
        self._wary_s = WARY_S
        self._is_failing = False

    @property
    def num_waiting(self) -> int:
        """Records that are not on disk yet, but for those that are being written."""
        return len(self._line)

    async def open(self) -> None:
        """Take a directory. On a disk that takes none answers wait for the database, as they would
        have to later, until it does.
        """
        try:
            await self._run(self._journal.open)
        except OSError as error:
            self._is_failing = True
            logger.error("the log's journal cannot be written: %s", error)

    def keep(self, payload: bytes, then: Then, *, alone: bool) -> None:
        """Write a record, and say what came of it: `then` is called once for each, in the order of
        the calls, with None where the disk did not take it. `alone`: nobody else waits for the
        loop, so it may wait for the disk.
        """
        may_wait = alone and len(payload) <= SMALL_BYTES and perf_counter() >= self._wary_until
        if may_wait and self._writer is None:
            self._keep_now(payload, then)
            return
        self._line.append((payload, then))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="log journal")

    def pass_on(self, then: Then) -> None:
        """As `keep` without a record: `then` is called with None, after those of earlier calls."""
        if self._writer is None:
            then(None)
        else:
            self._line.append((None, then))

    def _keep_now(self, payload: bytes, then: Then) -> None:
        began = perf_counter()
        kept = self._append([payload])
        if (now := perf_counter()) - began > QUICK_S:
            self._wary_until = now + self._wary_s
            self._wary_s = min(2 * self._wary_s, LONGEST_WARY_S)
        else:
            self._wary_s = WARY_S
        then(kept[0])

    async def _write_all(self) -> None:
        while self._line:
            batch, self._line = self._line[:MAX_BATCH], self._line[MAX_BATCH:]
            payloads = [payload for payload, _ in batch if payload is not None]
            kept = iter(await self._run(lambda some=payloads: self._append(some)))
            for payload, then in batch:
                then(None if payload is None else next(kept))
        self._writer = None

    def _append(self, payloads: list[bytes]) -> list[Kept] | list[None]:
        if not payloads:
            return []
        try:
            kept = self._journal.append(payloads)
        except SpoolFull:
            return [None] * len(payloads)  # the database is behind: wait for it
        except Exception as error:  # a full disk mostly; the task must outlive what nobody foresaw
            if not self._is_failing:
                logger.exception("the log's journal cannot be written", exc_info=error)
            self._is_failing = True
            return [None] * len(payloads)
        self._is_failing = False
        return kept

    async def finish(self, timeout_s: float) -> None:
        """Write what was handed in, if the disk takes it in time."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=timeout_s)

    async def close(self, timeout_s: float) -> None:
        """Leave what is left to the process that starts next, without waiting for longer for a disk
        that does not answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._run(self._journal.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
