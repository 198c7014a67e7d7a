"""Real processes, killed at any point: what was acknowledged is in the database, once, in order."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from server.db.engine import Database
from server.db.models import Tenant
from server.gateway.recorder import Recorder
from server.spool.backlog import Backlog
from tests.server.gateway.test_recorder import NOW

ROOT = Path(__file__).resolve().parents[3]
NUM_ROUNDS, NUM_ANSWERS, NUMBERS_A_ROUND = 3, 60, 1_000_000


def run_until_killed(url: str, spool: Path, round_number: int, *how: str) -> list[int]:
    """The numbers that were acknowledged before the end."""
    first = round_number * NUMBERS_A_ROUND
    script = str(Path(__file__).with_name("recording_process.py"))
    command = [sys.executable, script, url, str(spool), str(first), str(round_number), *how]
    process = subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(NUM_ANSWERS + 7 * round_number)]
        process.kill()
        told += process.stdout.readlines()
    return [int(line) for line in told if line.endswith("\n")]


@pytest.mark.parametrize("how", [("8",), ("8", "journal"), ("1", "journal")])
def test_no_acknowledged_answer_is_lost_or_twice(
    tmp_path: Path, sqlite_template: Path, how: tuple[str, ...]
):
    shutil.copy(sqlite_template, tmp_path / "ttrl.db")
    url, spool = f"sqlite+aiosqlite:///{tmp_path / 'ttrl.db'}", tmp_path / "spool"
    asyncio.run(add_tenant(url))
    acknowledged: list[int] = []
    for round_number in range(NUM_ROUNDS):
        acknowledged += run_until_killed(url, spool, round_number, *how)
    stored = asyncio.run(end(url, spool))
    assert len(acknowledged) >= NUM_ROUNDS * NUM_ANSWERS
    assert set(acknowledged) <= set(stored)
    # The ids are a key, so none is twice. Entries were handed in by rising numbers.
    assert stored == sorted(stored)
    assert list(spool.iterdir()) == []


async def add_tenant(url: str) -> None:
    database = Database(url)
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
    await database.close()


async def end(url: str, spool: Path) -> list[int]:
    """Start once more, let everything be replayed, and read the log in the order of writing."""
    database = Database(url)
    recorder = Recorder(database, Backlog(spool, max_bytes=2**24), queue_size=9, timeout_s=30)
    await recorder.start()
    await recorder.stop()
    async with database.transaction(write=False) as session:
        rows = list(await session.scalars(text("SELECT id FROM queries ORDER BY rowid")))
        num_answers = await session.scalar(text("SELECT count(*) FROM answers"))
    await database.close()
    assert num_answers == 2 * len(rows)
    return [int(row.removeprefix("q")) for row in rows]
