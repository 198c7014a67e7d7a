"""Writes what waits to the spool, while the database takes nothing or takes long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal

from server.gateway.line import MAX_BATCH, Line, Waiting, fail, log_full, not_loggable, settle
from server.spool.backlog import Backlog
from server.spool.entries import NotEncodable, encode
from server.spool.spool import SpoolFull

logger = logging.getLogger(__name__)

WhenFull = Literal["refuse", "serve_unlogged"]


class Spooler:
    """The task that moves entries from the line to the spool, while it is on."""

    def __init__(self, line: Line, backlog: Backlog, when_full: WhenFull) -> None:
        self.is_on = False
        self.is_appending = False
        self.is_failing = False  # the spool's disk took nothing the last time
        self.num_unlogged = 0
        self._line = line
        self._backlog = backlog
        self._when_full = when_full
        self._set_by: list[Waiting] = []  # in the journal; there is no room in the spool
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()  # a batch was dealt with
        self._is_over = False
        self._has_complained = False  # of the disk, since it was turned on
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="log spooler")

    async def stop(self, timeout_s: float) -> None:
        """Write what waits, if the disk takes it in time, then end."""
        self.is_on = self._is_over = True
        self._wake.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=timeout_s)
        if late:
            logger.error("the log's spool is left as it is: its disk does not answer")
            self._task.cancel()
            await asyncio.wait(late)

    def begin(self, reason: str) -> None:
        """From now on what waits goes to the spool."""
        if not self.is_on:
            self.is_on = True
            self._has_complained = False
            logger.warning("log entries go to the spool, not to the database: %s", reason)
        self._wake.set()

    def end(self) -> None:
        """From now on it goes to the database."""
        self.is_on = False
        self.take_back()

    @property
    def has_set_by(self) -> bool:
        """Whether something is in the journal alone, because there is no room here."""
        return bool(self._set_by)

    def take_back(self) -> None:
        """Let what was set by be tried again."""
        self._line.put_back(self._set_by)
        self._set_by.clear()
        self._wake.set()

    def wake(self) -> None:
        """Something waits."""
        self._wake.set()

    async def progress(self) -> None:
        """Return when a batch was dealt with."""
        self._progress.clear()
        self._wake.set()
        await self._progress.wait()

    async def _run(self) -> None:
        while not (self._is_over and not self._line):
            if self.is_on and self._line:
                self.is_appending = True
                await self._spool(self._line.take(MAX_BATCH))
                self.is_appending = False
                self._progress.set()
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _spool(self, batch: Sequence[Waiting]) -> None:
        """Write a batch to the spool; without those that a slow commit has stored meanwhile."""
        encoded: list[Waiting] = []
        payloads: list[bytes] = []
        for waiting in batch:
            try:
                if not waiting.is_settled:
                    payloads.append(encode(waiting.entry))
                    encoded.append(waiting)
            except NotEncodable as error:
                logger.error("log entry %s refused: %s", waiting.entry.id, error)
                fail([waiting], not_loggable())
        if not payloads:
            return
        try:
            await self._backlog.append(payloads)
        except SpoolFull:
            self._go_without(encoded)
        except Exception as error:  # a full disk mostly; the task must outlive what nobody foresaw
            if not self._has_complained:
                logger.exception("the log's spool cannot be written", exc_info=error)
            self.is_failing = self._has_complained = True
            self._go_without(encoded)
        else:
            self.is_failing = False
            settle(encoded)

    def _go_without(self, batch: Sequence[Waiting]) -> None:
        """There is no room for these. What the journal has stays there, and comes to the database
        when that takes it.
        """
        self._set_by += [waiting for waiting in batch if waiting.kept is not None]
        batch = [waiting for waiting in batch if waiting.kept is None]
        if not batch:
            return
        if self._when_full == "serve_unlogged":
            self.num_unlogged += len(batch)
            settle(batch)
        else:
            logger.warning("%d answers refused: the query log is full", len(batch))
            fail(batch, log_full())
