"""The recorder while its database hangs, fails, lies, and comes back."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from server.db.engine import Database
from server.db.log import EntryRefused, LogEntry, replay_entries
from server.db.models import Query, Tenant
from server.errors import LogUnavailable
from server.gateway import recorder as recorder_module
from server.gateway import transactions as transactions_module
from server.gateway.recorder import PROMISED_BYTES, Recorder, WhenFull
from server.spool import files
from server.spool.backlog import Backlog, Batch
from tests.server.gateway.test_recorder import NOW, entry
from tests.waiting import until

Mood = Literal["well", "fails", "hangs", "hangs and fails", "stores and fails", "explodes"]


class Rows:
    """A database of ids. Its mood is for the calls that come, one each; `mood` for the rest."""

    def __init__(self, *moods: Mood) -> None:
        self.ids: list[str] = []
        self.mood: Mood = "well"
        self.moods: list[Mood] = list(moods)
        self.poison: set[str] = set()
        self.hanging = asyncio.Event()  # a call hangs
        self.go_on = asyncio.Event()

    async def store(self, _database: Database, entries: Sequence[LogEntry]) -> None:
        if any(one.id in self.ids for one in entries):
            raise EntryRefused("twice")
        await self.replay(_database, entries)

    async def replay(self, _database: Database, entries: Sequence[LogEntry]) -> None:
        mood = self.moods.pop(0) if self.moods else self.mood
        if mood.startswith("hangs"):
            self.hanging.set()
            await self.go_on.wait()
        if mood == "explodes":
            raise RuntimeError("unforeseen")
        if "fails" in mood and mood != "stores and fails":
            raise LogUnavailable("away")
        if any(one.id in self.poison for one in entries):
            raise EntryRefused("poison")
        self.ids += [one.id for one in entries if one.id not in self.ids]
        if mood == "stores and fails":
            raise LogUnavailable("the connection broke after the commit")

    async def is_writable(self, _database: Database) -> bool:
        return self.mood in ("well", "explodes")


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rows], Rows]:
    def use(rows: Rows) -> Rows:
        monkeypatch.setattr(recorder_module, "store_entries", rows.store)
        monkeypatch.setattr(recorder_module, "replay_entries", rows.replay)
        monkeypatch.setattr(transactions_module, "is_writable", rows.is_writable)
        monkeypatch.setattr(recorder_module, "FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(recorder_module, "LONGEST_PAUSE_S", 0.001)
        return rows

    return use


@pytest.fixture
def rows(patched: Callable[[Rows], Rows]) -> Rows:
    return patched(Rows())


class Stepped(Backlog):
    """Holds each batch back after it was read, until the test has done something."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, max_bytes=2**20)
        self.read: asyncio.Queue[Batch | None] = asyncio.Queue()
        self.steps: asyncio.Queue[None] = asyncio.Queue()
        self.runs_free = False

    async def head(self, limit: int) -> Batch | None:
        batch = await super().head(limit)
        if not self.runs_free:
            self.read.put_nowait(batch)
            await self.steps.get()
        return batch


@asynccontextmanager
async def recording(
    root: Path,
    *,
    backlog: Backlog | None = None,
    max_bytes: int = 2**20,
    patience_s: float = 10,
    timeout_s: float = 10,
    when_full: WhenFull = "refuse",
) -> AsyncGenerator[Recorder]:
    """A recorder that believes in a database in a thread."""
    database = Database("sqlite+aiosqlite:///nowhere.db")
    recorder = Recorder(
        database,
        backlog or Backlog(root, max_bytes=max_bytes),
        queue_size=1000,
        timeout_s=timeout_s,
        patience_s=patience_s,
        when_full=when_full,
    )
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await database.close()


def left_in(root: Path) -> list[Path]:
    return list(root.iterdir())


async def record_all(recorder: Recorder, *ids: str) -> list[asyncio.Task[None]]:
    """Hand them in, in this order; who waits for them is up to the caller."""
    tasks = [asyncio.create_task(recorder.record(entry(one))) for one in ids]
    await asyncio.sleep(0)
    return tasks


async def test_nothing_touches_the_disk_while_the_database_is_well(rows: Rows, tmp_path: Path):
    async with recording(tmp_path / "spool") as recorder:
        await asyncio.gather(*await record_all(recorder, *"abc"))
        assert recorder.status.state == "ok"
    assert rows.ids == list("abc")
    assert left_in(tmp_path) == []


async def test_answers_are_stored_while_the_database_is_away(rows: Rows, tmp_path: Path):
    rows.mood = "fails"
    async with recording(tmp_path) as recorder:
        for one in "abc":
            await recorder.record(entry(one))
        status = recorder.status
        assert (status.state, status.num_entries, rows.ids) == ("spooling", 3, [])
        assert status.num_bytes > 0
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("d"))
    assert rows.ids == list("abcd")
    assert left_in(tmp_path) == []


async def test_a_commit_that_hangs_holds_nobody_up_and_makes_no_duplicates(
    rows: Rows, tmp_path: Path
):
    rows.moods = ["hangs"]
    async with recording(tmp_path, patience_s=0.01) as recorder:
        first = await record_all(recorder, "a")
        await rows.hanging.wait()
        await asyncio.gather(*first, *await record_all(recorder, "b", "c"))
        assert rows.ids == []
        assert recorder.status.num_entries == 3
        rows.go_on.set()
        await until(lambda: recorder.status.state == "ok")
    assert rows.ids == list("abc")


async def test_a_commit_that_hangs_and_then_fails(rows: Rows, tmp_path: Path):
    rows.moods = ["hangs and fails"]
    async with recording(tmp_path, patience_s=0.01) as recorder:
        await recorder.record(entry("a"))
        rows.go_on.set()
        await recorder.record(entry("b"))
    assert rows.ids == list("ab")


async def test_a_process_that_ends_beside_a_commit_that_hangs_leaves_all_to_the_next(
    rows: Rows, tmp_path: Path
):
    rows.moods = ["hangs"]
    async with recording(tmp_path, patience_s=0.01, timeout_s=2) as recorder:
        await asyncio.gather(*await record_all(recorder, *"abc"))
    assert rows.ids == []
    async with recording(tmp_path) as recorder:
        assert recorder.status.num_entries == 3
        await recorder.record(entry("d"))
    assert rows.ids == list("abcd")


async def test_an_entry_of_a_caller_that_left_is_spooled(rows: Rows, tmp_path: Path):
    rows.moods = ["hangs and fails"]
    async with recording(tmp_path) as recorder:
        leaving, staying = await record_all(recorder, "a", "b")
        await rows.hanging.wait()
        leaving.cancel()
        rows.go_on.set()
        await staying
    assert rows.ids == list("ab")


async def test_a_restart_replays_first(rows: Rows, tmp_path: Path):
    rows.mood = "fails"
    async with recording(tmp_path) as recorder:
        await asyncio.gather(*await record_all(recorder, *"abc"))
    rows.mood = "well"
    async with recording(tmp_path) as recorder:
        assert recorder.status.state == "spooling"
        await recorder.record(entry("d"))
    assert rows.ids == list("abcd")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("mood", ["well", "explodes"])
async def test_an_entry_that_is_refused_for_good_is_kept_and_blocks_nobody(
    rows: Rows, tmp_path: Path, mood: Mood
):
    rows.mood = "fails"
    async with recording(tmp_path) as recorder:
        await asyncio.gather(*await record_all(recorder, "a", "bad", "c"))
        if mood == "explodes":
            rows.moods = ["explodes", "well", "explodes"]  # the batch, a, bad
        rows.poison = {"bad"}
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        assert recorder.status.num_refused == 1
    assert rows.ids == list("ac")
    [kept] = left_in(tmp_path)
    assert kept.suffix == ".refused"
    assert b"bad" in kept.read_bytes()


async def test_a_full_spool_refuses_until_there_is_room(rows: Rows, tmp_path: Path):
    rows.mood = "fails"
    async with recording(tmp_path, max_bytes=PROMISED_BYTES + 100) as recorder:
        await recorder.record(entry("a"))
        assert recorder.status.state == "full"
        assert not recorder.can_serve
        with pytest.raises(LogUnavailable) as refusal, recorder.reserve():
            pass
        assert refusal.value.headers()["Retry-After"]
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        with recorder.reserve():
            await recorder.record(entry("b"))
    assert rows.ids == list("ab")


async def test_a_spool_that_is_full_of_what_was_kept_has_room_when_that_is_removed(
    rows: Rows, tmp_path: Path
):
    kept = tmp_path / "old.refused"
    kept.write_bytes(bytes(PROMISED_BYTES))
    rows.mood = "fails"
    async with recording(tmp_path, max_bytes=PROMISED_BYTES + 1000) as recorder:
        await recorder.record(entry("a"))
        assert not recorder.can_serve
        kept.unlink()
        await until(lambda: recorder.can_serve)
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
    assert rows.ids == ["a"]


async def test_a_flood_that_leaves_no_file_for_the_spool_costs_no_entry(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tries = 0

    def fails(_path: Path) -> bytes:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    rows.mood = "fails"
    async with recording(tmp_path) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", fails)
            await asyncio.gather(*await record_all(recorder, "a", "b"))
            await until(lambda: tries > 2)
            rows.mood = "well"
            await recorder.record(entry("c"))
        await until(lambda: recorder.status.state == "ok")
    assert rows.ids == list("abc")
    assert left_in(tmp_path) == []


async def test_a_full_spool_may_be_done_without(rows: Rows, tmp_path: Path):
    rows.mood = "fails"
    async with recording(tmp_path, max_bytes=10, when_full="serve_unlogged") as recorder:
        with recorder.reserve():
            await recorder.record(entry("a"))
        assert recorder.status.num_unlogged == 1
        assert recorder.status.state == "full"
        assert recorder.can_serve
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("b"))
    assert rows.ids == ["b"]


async def test_a_full_disk_is_told_and_recovers_by_itself(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    rows.mood = "fails"
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "write", full)
            with pytest.raises(LogUnavailable):
                await recorder.record(entry("b"))
            assert recorder.status.state == "full"
            with pytest.raises(LogUnavailable), recorder.reserve():
                pass
        await until(lambda: recorder.status.state == "spooling")  # the disk alone is enough
        await recorder.record(entry("c"))
        rows.mood = "well"
    assert rows.ids == list("ac")


async def test_a_full_disk_does_not_matter_once_the_database_is_back(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    rows.mood = "fails"
    monkeypatch.setattr(files.os, "write", full)
    async with recording(tmp_path) as recorder:
        with pytest.raises(LogUnavailable):
            await recorder.record(entry("a"))
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("b"))
    assert rows.ids == ["b"]


async def test_what_comes_between_a_look_and_its_use_keeps_its_place(rows: Rows, tmp_path: Path):
    backlog = Stepped(tmp_path)
    rows.moods = ["fails"]
    async with recording(tmp_path, backlog=backlog) as recorder:
        for one in "abc":  # the first look may find nothing, a failed commit being on its way
            await recorder.record(entry(one))
        while (await backlog.read.get()) is None:
            backlog.steps.put_nowait(None)
        backlog.steps.put_nowait(None)  # moved; the next look finds what is behind, or nothing
        await backlog.read.get()
        await recorder.record(entry("d"))
        backlog.steps.put_nowait(None)
        await backlog.read.get()
        await recorder.record(entry("e"))
        backlog.runs_free = True
        backlog.steps.put_nowait(None)
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("f"))
    assert rows.ids == list("abcdef")


MOODS = st.lists(
    st.sampled_from(["well", "fails", "hangs", "hangs and fails", "stores and fails"]), max_size=12
)
WAVES = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moods=MOODS, waves=WAVES, patient=st.booleans())
def test_every_answer_is_stored_once_and_in_order_whatever_the_database_does(
    tmp_path_factory: pytest.TempPathFactory,
    patched: Callable[[Rows], Rows],
    moods: list[Mood],
    waves: list[int],
    patient: bool,
):
    async def run() -> None:
        root = tmp_path_factory.mktemp("spool")
        rows = patched(Rows(*moods))
        expected: list[str] = []
        async with recording(root, patience_s=10 if patient else 0.001) as recorder:
            for num in waves:
                ids = [f"q{len(expected) + i}" for i in range(num)]
                expected += ids
                tasks = await record_all(recorder, *ids)
                if patient:
                    rows.go_on.set()
                await asyncio.gather(*tasks)
            rows.go_on.set()
            rows.moods.clear()
            await until(lambda: recorder.status.state == "ok")
        assert rows.ids == expected
        assert left_in(root) == []

    asyncio.run(run())


async def stored_ids(database: Database) -> list[str]:
    async with database.transaction(write=False) as session:
        return list(await session.scalars(select(Query.id).order_by(Query.id)))


async def test_a_replay_that_crashed_before_the_segment_was_removed(
    database: Database, tmp_path: Path
):
    """The database was told, the disk was not: the same entries are replayed, and skipped."""
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
    await replay_entries(database, [entry("a"), entry("b")])
    await replay_entries(database, [entry("a"), entry("b"), entry("c")])
    assert await stored_ids(database) == list("abc")
    async with database.transaction(write=False) as session:
        assert (await session.scalar(text("SELECT count(*) FROM answers"))) == 6


async def test_a_database_says_whether_it_takes_anything(database: Database):
    assert await transactions_module.is_writable(database)
    nowhere = Database("sqlite+aiosqlite:////nowhere/at/all.db")
    assert not await transactions_module.is_writable(nowhere)
    await nowhere.close()


async def test_a_locked_database_costs_nobody_an_answer(database: Database, tmp_path: Path):
    """The real thing: another process holds the write lock, or the table's, for a while."""
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
    backlog = Backlog(tmp_path / "spool", max_bytes=2**20)
    recorder = Recorder(database, backlog, queue_size=10, timeout_s=10, patience_s=0.05)
    await recorder.start()
    lock = "SELECT 1" if database.is_sqlite else "LOCK TABLE queries IN EXCLUSIVE MODE"
    async with database.transaction() as session:
        await session.execute(text(lock))  # on SQLite the transaction has the write lock
        for one in "abc":
            await recorder.record(entry(one))
        assert recorder.status.num_entries == 3
    await until(lambda: recorder.status.state == "ok")
    await recorder.stop()
    assert await stored_ids(database) == list("abc")


async def test_what_waited_for_a_deleted_tenant_is_dropped(database: Database):
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
        session.add(Tenant(id=2, name="gone", settings={}, created_at=NOW, deleted_at=NOW))
    waited = [entry("a"), entry("b", tenant_id=2), entry("c")]
    await replay_entries(database, waited)
    assert await stored_ids(database) == ["a", "c"]
    await replay_entries(database, waited[1:2])
    assert await stored_ids(database) == ["a", "c"]


async def test_a_database_on_a_full_disk_takes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    """Also where a small write finds room in the write-ahead log, and the next one would not."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL has a disk of its own")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert not await transactions_module.is_writable(database)
    assert await transactions_module.is_writable(database)
    assert list(Path(database.url.database or "").parent.glob("*.probe")) == []


async def test_the_log_is_behind_until_the_last_of_the_spool_is_in_the_database(
    rows: Rows, tmp_path: Path
):
    rows.moods = ["fails", "hangs", "hangs"]
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        await rows.hanging.wait()
        await recorder.record(entry("b"))
        rows.hanging.clear()
        first, rows.go_on = rows.go_on, asyncio.Event()
        first.set()
        await rows.hanging.wait()  # the last batch is on its way, and new entries wait for it
        assert rows.ids == ["a"]
        assert recorder.status.state == "spooling"
        rows.go_on.set()
        await until(lambda: recorder.status.state == "ok")
        assert rows.ids == ["a", "b"]
