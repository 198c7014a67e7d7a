"""A process that records entries into SQLite until it is killed, and prints what was acknowledged.

Every few transactions its database is away for a while, so that it dies in any state.

Usage: python recording_process.py DATABASE SPOOL FIRST_NUMBER SEED CALLERS [journal]
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

from server.db.engine import Database
from server.db.log import LogEntry, replay_entries, store_entries
from server.errors import LogUnavailable
from server.gateway import line as line_module
from server.gateway import recorder as recorder_module
from server.gateway.journaling import Journaling
from server.gateway.recorder import Recorder
from server.spool.backlog import Backlog
from server.spool.journal import Journal
from tests.server.gateway.test_recorder import entry

Store = Callable[[Database, Sequence[LogEntry]], Awaitable[None]]


def unreliable(store: Store, dice: random.Random) -> Store:
    """The same, but away in half of all stretches of five calls, before or after the commit."""
    calls = count()
    is_away = False

    async def maybe(database: Database, entries: Sequence[LogEntry]) -> None:
        nonlocal is_away
        if next(calls) % 5 == 0:
            is_away = dice.random() < 0.5
        if is_away and dice.random() < 0.7:
            raise LogUnavailable("away")
        await store(database, entries)
        if is_away:
            raise LogUnavailable("away, but only after the commit")

    return maybe


async def main(
    url: str, spool: str, first: int, seed: int, callers: int, *, has_journal: bool
) -> None:
    dice = random.Random(seed)
    recorder_module.store_entries = unreliable(store_entries, dice)
    recorder_module.replay_entries = unreliable(replay_entries, dice)
    recorder_module.FIRST_PAUSE_S = recorder_module.LONGEST_PAUSE_S = 0.002
    line_module.LEISURE_S = 0.005
    recorder = Recorder(
        Database(url),
        Backlog(Path(spool), max_bytes=2**24),
        Journaling(Journal(Path(spool), segment_bytes=2**14)) if has_journal else None,
        queue_size=10_000,
        timeout_s=30,
    )
    await recorder.start()
    numbers = count(first)

    async def call() -> None:
        while True:
            number = next(numbers)
            with recorder.reserve():
                await recorder.record(entry(f"q{number:08d}"))
            await asyncio.sleep(0)  # who is stored at once has not let anybody else run
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*(call() for _ in range(callers)))


if __name__ == "__main__":
    url, spool, *numbers = sys.argv[1:6]
    has_journal = sys.argv[6:] == ["journal"]
    asyncio.run(main(url, spool, *map(int, numbers), has_journal=has_journal))
