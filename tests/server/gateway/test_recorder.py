"""Group commits: `record` returns when the row is there, and one bad row hurts nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from server.db import log
from server.db.engine import Database
from server.db.log import EntryRefused, LogEntry, LoggedAnswer, fingerprint, storable, store_entries
from server.db.models import Answer, Query, Tenant
from server.errors import LogUnavailable
from server.gateway import recorder as recorder_module
from server.gateway.line import Pace
from server.gateway.recorder import Recorder
from server.spool.backlog import Backlog

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entry(query_id: str, **fields: object) -> LogEntry:
    plain = LogEntry(
        id=query_id,
        tenant_id=1,
        route="chat",
        prompt=[{"role": "user", "content": "2+2"}],
        fingerprint="f",
        eligible=True,
        reason=None,
        params={"n": 2},
        adapter_version=3,
        stream=False,
        status="ok",
        prompt_tokens=5,
        completion_tokens=6,
        latency_ms=1.5,
        first_byte_ms=None,
        created_at=NOW,
        answers=(
            LoggedAnswer(0, "4", None, "stop"),
            LoggedAnswer(1, "", [{"id": "c"}], "tool_calls"),
        ),
    )
    return replace(plain, **fields)


@pytest.fixture
async def tenant(database: Database) -> Database:
    """The database with tenant 1 in it."""
    async with database.transaction() as session:
        session.add(Tenant(id=1, name="adder", settings={}, created_at=NOW))
    return database


async def stored_ids(database: Database) -> set[str]:
    async with database.transaction(write=False) as session:
        return set(await session.scalars(select(Query.id)))


class Batches:
    """Notes the batches that are written, and holds the first one back."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.is_free = asyncio.Event()
        self.has_begun = asyncio.Event()

    async def store(self, database: Database, entries: Sequence[LogEntry]) -> None:
        self.sizes.append(len(entries))
        self.has_begun.set()
        await self.is_free.wait()
        await store_entries(database, entries)


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog(tmp_path / "spool", max_bytes=2**20)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    batches = Batches()
    monkeypatch.setattr(recorder_module, "store_entries", batches.store)
    return batches


async def test_a_row_is_there_when_record_returns(tenant: Database, backlog: Backlog):
    recorder = Recorder(tenant, backlog, queue_size=10, timeout_s=10)
    await recorder.start()
    await recorder.record(entry("a"))
    async with tenant.transaction(write=False) as session:
        query = await session.get_one(Query, "a")
        answers = list(await session.scalars(select(Answer).order_by(Answer.choice)))
    assert (query.tenant_id, query.prompt, query.params) == (1, entry("a").prompt, {"n": 2})
    assert (query.adapter_version, query.created_at, query.latency_ms) == (3, NOW, 1.5)
    assert [(a.choice, a.text, a.tool_calls) for a in answers] == [
        (0, "4", None),
        (1, "", [{"id": "c"}]),
    ]
    await recorder.stop()


async def test_what_waits_is_written_in_one_transaction(
    tenant: Database, backlog: Backlog, batches: Batches
):
    recorder = Recorder(tenant, backlog, queue_size=100, timeout_s=10)
    await recorder.start()
    first = asyncio.create_task(recorder.record(entry("first")))
    await batches.has_begun.wait()
    others = [asyncio.create_task(recorder.record(entry(f"q{i}"))) for i in range(20)]
    await asyncio.sleep(0)  # they are handed in
    batches.is_free.set()
    await asyncio.gather(first, *others)
    assert batches.sizes == [1, 20]
    assert len(await stored_ids(tenant)) == 21
    await recorder.stop()


async def test_a_refused_entry_does_not_hurt_its_batch(
    tenant: Database, backlog: Backlog, batches: Batches
):
    recorder = Recorder(tenant, backlog, queue_size=100, timeout_s=10)
    await recorder.start()
    first = asyncio.create_task(recorder.record(entry("first")))
    await batches.has_begun.wait()
    entries = [entry("a"), entry("b", tenant_id=999), entry("first"), entry("c")]
    others = [asyncio.create_task(recorder.record(one)) for one in entries]
    await asyncio.sleep(0)
    batches.is_free.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [isinstance(one, LogUnavailable) for one in results] == [False, False, True, True, False]
    assert await stored_ids(tenant) == {"first", "a", "c"}
    await recorder.stop()


async def test_stop_writes_what_waits(tenant: Database, backlog: Backlog):
    recorder = Recorder(tenant, backlog, queue_size=100, timeout_s=10)
    await recorder.start()
    waiting = [asyncio.create_task(recorder.record(entry(f"q{i}"))) for i in range(5)]
    await asyncio.sleep(0)
    await recorder.stop()
    await asyncio.gather(*waiting)
    assert len(await stored_ids(tenant)) == 5
    with pytest.raises(LogUnavailable):
        await recorder.record(entry("late"))
    with pytest.raises(LogUnavailable), recorder.reserve():
        pass


async def test_an_entry_is_written_though_its_caller_left(tenant: Database, backlog: Backlog):
    recorder = Recorder(tenant, backlog, queue_size=100, timeout_s=10)
    await recorder.start()
    leaving = asyncio.create_task(recorder.record(entry("a")))
    await asyncio.sleep(0)
    leaving.cancel()
    await recorder.record(entry("b"))
    assert await stored_ids(tenant) == {"a", "b"}
    await recorder.stop()


async def test_places_are_bounded(tenant: Database, backlog: Backlog):
    recorder = Recorder(tenant, backlog, queue_size=2, timeout_s=10)
    await recorder.start()
    with recorder.reserve(), recorder.reserve():
        third = recorder.reserve()
        with pytest.raises(LogUnavailable), third:
            pass
    with recorder.reserve():
        await recorder.record(entry("a"))
    await recorder.stop()


async def test_an_unforeseen_error_does_not_end_the_committer(
    tenant: Database, backlog: Backlog, monkeypatch: pytest.MonkeyPatch
):
    async def fail(_database: Database, _entries: Sequence[LogEntry]) -> None:
        raise RuntimeError("unforeseen")

    recorder = Recorder(tenant, backlog, queue_size=10, timeout_s=10)
    await recorder.start()
    with monkeypatch.context() as patch:
        patch.setattr(recorder_module, "store_entries", fail)
        await recorder.record(entry("a"))  # into the spool
    await recorder.record(entry("b"))
    await recorder.stop()
    assert await stored_ids(tenant) == {"a", "b"}


async def test_a_database_without_tables_is_an_outage(tenant: Database):
    async with tenant.transaction() as session:
        await session.execute(text("DROP TABLE answers"))
    with pytest.raises(LogUnavailable):
        await store_entries(tenant, [entry("a")])
    assert await stored_ids(tenant) == set()


async def test_an_unreachable_database_is_an_outage():
    database = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    with pytest.raises(LogUnavailable):
        await store_entries(database, [entry("a")])
    await database.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: replace(e, prompt_tokens=2**70),
        lambda e: replace(e, answers=(LoggedAnswer(0, "\ud800", None, None),)),
        lambda e: replace(e, params={"a": object()}),
    ],
)
async def test_rows_that_no_database_takes_are_refused(
    tenant: Database, spoil: Callable[[LogEntry], LogEntry]
):
    with pytest.raises(EntryRefused):
        await store_entries(tenant, [spoil(entry("a"))])
    assert await stored_ids(tenant) == set()


async def test_nul_in_answers_is_stored_as_its_picture(tenant: Database):
    answer = LoggedAnswer(0, "a\0b", [{"k\0": ["\0"]}], "stop")
    await store_entries(tenant, [entry("a", answers=(answer,))])
    async with tenant.transaction(write=False) as session:
        [row] = await session.scalars(select(Answer))
    assert row.text == "a\u2400b"
    assert row.tool_calls == [{"k\u2400": ["\u2400"]}]


def test_storable_leaves_the_rest_alone():
    value = {"a": ["x", 1, 1.5, None, True, {"b": []}]}
    assert storable(value) == value
    assert log.NUL not in storable("\0")


def test_fingerprint_is_canonical():
    one = fingerprint([{"role": "user", "content": "2+2"}])
    assert one == fingerprint([{"content": "2+2", "role": "user"}])
    assert one != fingerprint([{"role": "user", "content": "2+3"}])
    assert len(one) == 64


def test_the_pace_is_that_of_the_last_while():
    times = iter([0.0, 0.01, 0.05, 0.06, 0.10, 1.10])
    pace = Pace(lambda: next(times))
    found: list[float] = []
    for num in (1, 4, 10, 10, 1):
        pace.note(num)
        found.append(round(pace.per_s, 6))
    assert found == [0.0, 100.0, 100.0, 400.0, 1.0]
