"""A process that records entries into SQLite until it is killed, and prints what was acknowledged.

Every few transactions its database is away for a while, so that it dies in any state.

Usage: python recording_process.py DATABASE SPOOL FIRST_NUMBER SEED
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
from server.gateway import recorder as recorder_module
from server.gateway.recorder import Recorder
from server.spool.backlog import Backlog
from tests.server.gateway.test_recorder import entry

Store = Callable[[Database, Sequence[LogEntry]], Awaitable[None]]
NUM_CALLERS = 8


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


async def main(url: str, spool: str, first: int, seed: int) -> None:
    dice = random.Random(seed)
    recorder_module.store_entries = unreliable(store_entries, dice)
    recorder_module.replay_entries = unreliable(replay_entries, dice)
    recorder_module.FIRST_PAUSE_S = recorder_module.LONGEST_PAUSE_S = 0.002
    recorder = Recorder(
        Database(url), Backlog(Path(spool), max_bytes=2**24), queue_size=100, timeout_s=30
    )
    await recorder.start()
    numbers = count(first)

    async def call() -> None:
        while True:
            number = next(numbers)
            await recorder.record(entry(f"q{number:08d}"))
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*(call() for _ in range(NUM_CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
