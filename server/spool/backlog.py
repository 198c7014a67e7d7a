"""The spool for those who live on an event loop: entries in and out, the disk in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server.db.log import LogEntry
from server.errors import ConfigurationError
from server.spool.entries import NotEncodable, decode
from server.spool.spool import Spool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest entries; `is_last` when nothing stood behind them on disk."""

    entries: list[LogEntry]
    is_last: bool


class Backlog:
    """Entries that wait on disk. The constructor does no I/O, and starts no thread."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._spool = Spool(root, max_bytes=max_bytes)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log-spool")

    @property
    def num_entries(self) -> int:
        """How many wait."""
        return self._spool.num_entries

    @property
    def num_bytes(self) -> int:
        """What they take on disk."""
        return self._spool.num_bytes

    @property
    def num_refused(self) -> int:
        """How many were put aside since the start."""
        return self._spool.num_refused

    @property
    def oldest_at(self) -> int | None:
        """Unix seconds; no entry is older."""
        return self._spool.oldest_at

    def has_room(self, num_bytes: int) -> bool:
        """Whether so much more is within the bound."""
        return self._spool.has_room(num_bytes)

    async def open(self) -> None:
        """Take over what processes that are gone have left.

        Raises:
            ConfigurationError: the directory cannot be read.
        """
        try:
            await self._run(self._spool.adopt)
        except OSError as error:
            raise ConfigurationError(
                f"The log's spool {self._root} cannot be read: {error.strerror}."
            ) from error

    async def append(self, payloads: Sequence[bytes]) -> None:
        """Put encoded entries behind the others; on disk on return. Errors as in `Spool.append`."""
        await self._run(lambda: self._spool.append(payloads))

    async def head(self, limit: int) -> Batch | None:
        """The oldest entries, at most `limit`, which stay until `done`; None when there are none.

        One that cannot be decoded is put aside.

        Raises:
            NotNow: the disk's files cannot be read at the moment.
        """
        return await self._run(lambda: self._head(limit))

    def _head(self, limit: int) -> Batch | None:
        while (records := self._spool.head(limit)) is not None:
            entries: list[LogEntry] = []
            reason = ""
            for payload in records.payloads:
                try:
                    entries.append(decode(payload))
                except NotEncodable as error:
                    reason = str(error)
                    break
            if entries:
                return Batch(entries, records.is_last and not reason)
            self._spool.put_aside(f"an entry cannot be decoded: {reason}")
        return None

    async def done(self, num: int) -> None:
        """The oldest `num` entries are in the database."""
        await self._run(lambda: self._spool.done(num))

    async def put_aside(self, reason: str) -> None:
        """The oldest entry can never be in the database: keep it in a file, and go on."""
        await self._run(lambda: self._spool.put_aside(reason))

    async def probe(self) -> bool:
        """Whether the disk takes anything."""
        return await self._run(self._spool.probe)

    async def close(self, timeout_s: float) -> None:
        """Leave what is left to the process that starts next. A disk that does not answer in time
        is not waited for: that process finds out that this one is gone.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._run(self._spool.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
