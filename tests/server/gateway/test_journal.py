"""The recorder with a journal: an answer goes out when the journal has it, its row comes later."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.db.engine import Database
from server.errors import LogUnavailable
from server.gateway import journaling as journaling_module
from server.gateway import line as line_module
from server.gateway.journaling import Journaling
from server.gateway.line import Line, Waiting
from server.gateway.recorder import Recorder, WhenFull
from server.spool import files
from server.spool import journal as journal_module
from server.spool.backlog import Backlog
from server.spool.entries import encode
from server.spool.journal import Journal
from server.spool.spool import PROBE_BYTES, Spool
from tests.server.gateway.test_recorder import entry
from tests.server.gateway.test_spooling import Mood, Rows, left_in, patched, record_all, rows
from tests.waiting import until

__all__ = ["patched", "rows"]  # fixtures


@asynccontextmanager
async def recording(
    root: Path,
    *,
    journal: Journal | None = None,
    max_bytes: int = 2**20,
    patience_s: float = 10,
    timeout_s: float = 10,
    when_full: WhenFull = "refuse",
    is_alone: Callable[[], bool] = lambda: True,
) -> AsyncGenerator[Recorder]:
    database = Database("sqlite+aiosqlite:///nowhere.db")
    recorder = Recorder(
        database,
        Backlog(root, max_bytes=max_bytes),
        Journaling(journal or Journal(root)),
        queue_size=1000,
        timeout_s=timeout_s,
        patience_s=patience_s,
        when_full=when_full,
        is_alone=is_alone,
    )
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await database.close()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_an_answer_does_not_wait_for_the_database(rows: Rows, tmp_path: Path):
    rows.moods = ["hangs"]
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        await rows.hanging.wait()
        assert rows.ids == []
        assert recorder.status.state == "ok"
        rows.go_on.set()
        await recorder.flush()
        assert rows.ids == ["a"]
    assert left_in(tmp_path) == []


async def test_who_is_alone_is_stored_without_leaving_the_loop(rows: Rows, tmp_path: Path):
    async with recording(tmp_path) as recorder:
        with recorder.reserve(), pytest.raises(StopIteration):
            recorder.record(entry("a")).send(None)
        await recorder.flush()
    assert rows.ids == ["a"]


async def test_those_who_come_together_share_a_sync(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    journal = Journal(tmp_path)
    append = journal.append

    def noting(payloads: list[bytes]) -> object:
        sizes.append(len(payloads))
        return append(payloads)

    monkeypatch.setattr(journal, "append", noting)
    async with recording(tmp_path, journal=journal) as recorder:
        await asyncio.gather(*await record_all(recorder, *"abcdef"))
    assert sizes[0] == 6
    assert rows.ids == list("abcdef")


async def test_a_slow_disk_is_not_waited_for_on_the_loop(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journaling_module, "QUICK_S", -1.0)  # nothing is quick
    async with recording(tmp_path) as recorder:
        with recorder.reserve():
            await recorder.record(entry("a"))
            later = recorder.record(entry("b"))
            assert later.send(None) is not None  # it waits, and the loop does not
            later.close()
    assert rows.ids == ["a", "b"]


async def test_a_long_answer_is_not_written_on_the_loop(rows: Rows, tmp_path: Path):
    long = entry("a", prompt=["x" * journaling_module.SMALL_BYTES])
    async with recording(tmp_path) as recorder:
        with recorder.reserve():
            later = recorder.record(long)
            assert later.send(None) is not None
            later.close()
    assert rows.ids == ["a"]


async def test_callers_wait_for_a_database_that_is_far_behind(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_module, "LONG", 2)
    rows.moods = ["hangs"]
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        await rows.hanging.wait()
        await asyncio.gather(*await record_all(recorder, "b", "c"))
        [waiting] = await record_all(recorder, "d")
        await until(lambda: recorder.num_waiting == 3)
        assert not waiting.done()
        rows.go_on.set()
        await waiting
    assert rows.ids == list("abcd")


async def test_the_database_is_written_to_in_larger_transactions(rows: Rows, tmp_path: Path):
    rows.moods = ["hangs"]
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        await rows.hanging.wait()
        rows.hanging.clear()
        for one in "bcd":
            await recorder.record(entry(one))
        rows.moods = ["hangs"]
        rows.go_on.set()
        await recorder.flush()
    assert rows.ids == list("abcd")
    assert rows.moods == []


async def test_while_the_database_is_away_answers_are_stored_in_the_spool(
    rows: Rows, tmp_path: Path
):
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("a"))
        await recorder.flush()
        rows.mood = "fails"
        await recorder.record(entry("b"))
        await until(lambda: recorder.status.num_entries == 1)
        await recorder.record(entry("c"))
        assert recorder.status.state == "spooling"
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("d"))
    assert rows.ids == list("abcd")
    assert left_in(tmp_path) == []


async def test_a_transaction_that_hangs_makes_no_duplicates(rows: Rows, tmp_path: Path):
    rows.moods = ["hangs"]
    async with recording(tmp_path, patience_s=0.01) as recorder:
        await recorder.record(entry("a"))
        await rows.hanging.wait()
        await until(lambda: recorder.status.state == "spooling")
        await recorder.record(entry("b"))
        rows.go_on.set()
        await until(lambda: recorder.status.state == "ok")
    assert rows.ids == ["a", "b"]


async def test_a_process_that_ends_leaves_what_it_acknowledged_to_the_next(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows.mood = "hangs"
    with monkeypatch.context() as patch:
        async with recording(tmp_path, timeout_s=0.2) as recorder:
            await asyncio.gather(*await record_all(recorder, *"ab"))
            patch.setattr(files.os, "write", full)  # nor does the spool take them at the end
    assert rows.ids == []
    rows.mood = "well"
    rows.go_on.set()
    async with recording(tmp_path) as recorder:
        assert recorder.status.num_entries == 2
        await recorder.record(entry("c"))
    assert rows.ids == list("abc")
    assert left_in(tmp_path) == []


async def test_what_the_journal_alone_has_is_replayed(
    patched: Callable[[Rows], Rows], tmp_path: Path
):
    journal = Journal(tmp_path)
    journal.open()
    journal.append([encode(entry("a")), encode(entry("b"))])
    journal.close()
    rows = patched(Rows())
    async with recording(tmp_path) as recorder:
        await recorder.record(entry("c"))
    assert rows.ids == list("abc")
    assert left_in(tmp_path) == []


async def test_an_answer_that_the_database_refuses_later_is_kept_in_a_file(
    rows: Rows, tmp_path: Path
):
    rows.poison = {"b"}
    async with recording(tmp_path) as recorder:
        await asyncio.gather(*await record_all(recorder, *"abc"))
        await until(lambda: recorder.status.num_refused == 1)
        await until(lambda: recorder.status.state == "ok")
        await recorder.record(entry("d"))
    assert rows.ids == list("acd")
    [aside] = left_in(tmp_path)
    assert aside.suffix == ".refused"


@pytest.mark.parametrize("trouble", ["full", "broken"])
async def test_without_room_in_the_journal_answers_wait_for_the_database(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
):
    journal = Journal(tmp_path, max_bytes=10 if trouble == "full" else 2**20)
    if trouble == "broken":
        monkeypatch.setattr(files.os, "write", full)
    rows.moods = ["hangs"]
    async with recording(tmp_path, journal=journal) as recorder:
        [waiting] = await record_all(recorder, "a")
        await rows.hanging.wait()
        assert not waiting.done()
        rows.go_on.set()
        await waiting
        with recorder.reserve():
            await recorder.record(entry("b"))
    assert rows.ids == ["a", "b"]


@pytest.mark.parametrize("when_full", ["refuse", "serve_unlogged"])
async def test_a_spool_without_room_drops_nothing_that_the_journal_has(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when_full: WhenFull
):
    async with recording(tmp_path, max_bytes=0, when_full=when_full) as recorder:
        rows.mood = "fails"
        await asyncio.gather(*await record_all(recorder, *"ab"))
        await until(lambda: recorder.status.state == "full")
        if when_full == "refuse":
            with pytest.raises(LogUnavailable):
                await recorder.record(entry("c"))
        assert recorder.status.num_unlogged == 0
        rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.flush()
        await recorder.record(entry("d"))
    assert rows.ids == list("abd")


async def test_flush_returns_at_once_where_nothing_waits(tmp_path: Path, rows: Rows):
    async with recording(tmp_path) as recorder:
        await recorder.flush()
        await Line().flush(0)
    assert rows.ids == []


@pytest.mark.parametrize("last", ["well", "fails"])
async def test_what_fits_into_the_spool_in_no_batch_comes_to_the_database(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: Mood
):
    write, num_refused = os.write, 0

    def cramped(descriptor: int, data: bytes) -> int:
        nonlocal num_refused
        if len(data) > PROBE_BYTES:
            num_refused += 1
            return full()
        return write(descriptor, data)

    monkeypatch.setattr(files.os, "write", cramped)
    rows.moods, rows.mood = ["hangs and fails"], last
    async with recording(tmp_path, patience_s=0.01) as recorder:
        for one in "abcdef":
            await recorder.record(entry(one, prompt=["x" * 20_000]))
        await rows.hanging.wait()
        rows.go_on.set()
        if last == "fails":
            await until(lambda: num_refused > 2)  # it tries again, but not all the time
            rows.mood = "well"
        await until(lambda: recorder.status.state == "ok")
        await recorder.flush()
        assert rows.ids == list("abcdef")
    assert left_in(tmp_path) == []


async def test_a_disk_that_stays_slow_is_waited_for_less_and_less(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now, journal = 0.0, Journal(tmp_path)
    append = journal.append

    def slowly(payloads: list[bytes]) -> object:
        nonlocal now
        now += 0.5
        return append(payloads)

    monkeypatch.setattr(journal, "append", slowly)
    monkeypatch.setattr(journaling_module, "perf_counter", lambda: now)
    waited: list[bool] = []
    async with recording(tmp_path, journal=journal) as recorder:
        for number in range(40):
            now += 0.5
            with recorder.reserve():
                before = now
                task = asyncio.create_task(recorder.record(entry(str(number))))
                await asyncio.sleep(0)
                waited.append(now > before and task.done())
                await task
    assert rows.ids == [str(number) for number in range(40)]
    assert [at for at, did in enumerate(waited) if did][:4] == [0, 2, 5, 10]


async def test_beside_other_requests_nobody_waits_for_the_disk_on_the_loop(
    rows: Rows, tmp_path: Path
):
    async with recording(tmp_path, is_alone=lambda: False) as recorder:
        with recorder.reserve():
            later = recorder.record(entry("a"))
            assert later.send(None) is not None
            later.close()
    assert rows.ids == ["a"]


async def test_a_disk_that_takes_no_journal_at_the_start_may_take_one_later(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "make_claim", full)
        manager = recording(tmp_path)
        recorder = await manager.__aenter__()
        rows.moods = ["hangs"]
        [waiting] = await record_all(recorder, "a")
        await rows.hanging.wait()
        assert not waiting.done()  # it waits for the database
        rows.go_on.set()
        await waiting
    rows.moods = ["hangs"]
    rows.go_on = asyncio.Event()
    await recorder.record(entry("b"))  # it does not
    rows.go_on.set()
    await manager.__aexit__(None, None, None)
    assert rows.ids == ["a", "b"]


async def test_what_passes_the_journal_by_passes_nobody_in_it(tmp_path: Path):
    heard: list[tuple[str, bool]] = []
    journaling = Journaling(Journal(tmp_path))
    await journaling.open()
    journaling.keep(b"a", lambda kept: heard.append(("a", kept is not None)), alone=False)
    journaling.pass_on(lambda kept: heard.append(("b", kept is not None)))
    journaling.keep(b"c", lambda kept: heard.append(("c", kept is not None)), alone=True)
    await journaling.finish(10)
    journaling.pass_on(lambda kept: heard.append(("d", kept is not None)))
    await journaling.close(10)
    assert heard == [("a", True), ("b", False), ("c", True), ("d", False)]


async def test_what_a_slow_commit_has_stored_is_not_put_back():
    line = Line()
    first, second = (Waiting(entry(one), asyncio.Future()) for one in "ab")
    first.settle()
    line.put_back([first, second])
    assert line.take(10) == [second]


class StuckDisk:
    """Nothing that is written comes back until it is let go."""

    def __init__(self) -> None:
        self.is_free = threading.Event()

    def write(self, *_: object) -> None:
        self.is_free.wait(30)


@pytest.mark.parametrize("where", ["journal", "spool"])
async def test_a_disk_that_does_not_answer_holds_up_no_stop(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
):
    stuck = StuckDisk()
    rows.mood = "fails" if where == "spool" else "well"
    monkeypatch.setattr(Spool if where == "spool" else Journal, "append", stuck.write)
    database = Database("sqlite+aiosqlite:///nowhere.db")
    journal = Journaling(Journal(tmp_path)) if where == "journal" else None
    backlog = Backlog(tmp_path, max_bytes=2**20)
    recorder = Recorder(
        database, backlog, journal, queue_size=9, timeout_s=0.2, is_alone=lambda: False
    )
    await recorder.start()
    [answer] = await record_all(recorder, "a")
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(10):
            await recorder.stop()
            with pytest.raises(LogUnavailable):
                await answer
    finally:
        stuck.is_free.set()
        await database.close()
