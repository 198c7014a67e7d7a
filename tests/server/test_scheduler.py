"""When cycles start by themselves, with a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ttrl_client.types import CycleStatus, Schedule, TenantSettings

from server.config import Settings
from server.db import cycles
from server.db.engine import Database
from server.db.models import Cycle
from server.db.tenants import delete_tenant, update_settings
from server.due import next_time
from server.scheduler import Planner
from tests.server.adaptation.conftest import EPOCH, HandClock, add_queries, add_tenant

SETTINGS = Settings(lease_s=15)


def scheduled(**schedule: Any) -> dict[str, Any]:
    return TenantSettings.model_validate({"schedule": schedule}).model_dump(mode="json")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def planner_of(database: Database, clock: HandClock, owner: str = "one") -> Planner:
    return Planner(SETTINGS, database, clock, owner=owner)


class Telling(Planner):
    """Says what it did."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.ticked = asyncio.Event()
        self.planned: asyncio.Queue[int] = asyncio.Queue()

    async def tick(self) -> None:
        await super().tick()
        self.ticked.set()

    async def plan(self, tenant_id: int) -> int | None:
        cycle_id = await super().plan(tenant_id)
        if cycle_id is not None:
            self.planned.put_nowait(cycle_id)
        return cycle_id


@asynccontextmanager
async def started(planner: Planner) -> AsyncGenerator[Planner]:
    """A planner whose timers run, on the machine's clock."""
    await planner.start()
    try:
        yield planner
    finally:
        await planner.stop()


async def queued(database: Database) -> list[Cycle]:
    async with database.transaction(write=False) as session:
        return list(await cycles.list_cycles(session, limit=100))


async def end_all(database: Database, clock: HandClock) -> None:
    for cycle in await queued(database):
        if cycle.status == CycleStatus.PENDING:
            async with database.transaction() as session:
                await cycles.request_cancel(session, cycle.id, now=clock.now())


def test_nothing_is_due_without_a_schedule() -> None:
    assert next_time(Schedule(), EPOCH) is None
    assert next_time(Schedule(min_new_queries=5), EPOCH) is None


def test_an_interval_counts_from_the_last_cycle() -> None:
    assert next_time(Schedule(interval_s=60), EPOCH) == (EPOCH + timedelta(minutes=1), "interval")


def test_a_cron_line_is_read_in_utc() -> None:
    at = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
    assert next_time(Schedule(cron="30 3 * * *"), EPOCH) == (at, "cron")
    assert next_time(Schedule(cron="30 3 * * *"), at) == (at + timedelta(days=1), "cron")


def test_the_earlier_of_two_counts() -> None:
    schedule = Schedule(interval_s=600, cron="*/5 * * * *")
    assert next_time(schedule, EPOCH) == (EPOCH + timedelta(minutes=5), "cron")


def test_a_date_that_never_comes_is_soon_given_up() -> None:
    assert next_time(Schedule(cron="0 0 31 4,6,9,11 *"), EPOCH) is None


def test_a_leap_day_is_found() -> None:
    since = datetime(2096, 3, 1, tzinfo=UTC)  # 2100 is no leap year
    at = datetime(2104, 2, 29, tzinfo=UTC)
    assert next_time(Schedule(cron="0 0 29 2 *"), since) == (at, "cron")


async def test_an_interval_queues_a_cycle_when_it_is_over(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=60))
    planner = planner_of(database, clock)
    await planner.tick()
    assert planner.armed == {tenant_id: EPOCH + timedelta(seconds=60)}
    clock.turn(59)
    assert await planner.plan(tenant_id) is None
    clock.turn(1)
    assert await planner.plan(tenant_id) is not None
    (cycle,) = await queued(database)
    assert (cycle.trigger, cycle.status) == ("interval", CycleStatus.PENDING)


async def test_a_cron_line_queues_a_cycle_at_its_time(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(cron="0 6 * * *"))
    planner = planner_of(database, clock)
    await planner.tick()
    clock.turn(6 * 3600 - 1)
    assert await planner.plan(tenant_id) is None
    clock.turn(1)
    assert await planner.plan(tenant_id) is not None
    assert [cycle.trigger for cycle in await queued(database)] == ["cron"]


async def test_times_that_were_missed_are_made_up_for_once(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=60))
    clock.turn(3600)  # no worker for an hour
    planner = planner_of(database, clock)
    await planner.tick()
    assert await planner.plan(tenant_id) is not None
    await end_all(database, clock)
    assert await planner.plan(tenant_id) is None
    await planner.tick()
    assert planner.armed == {tenant_id: clock.now() + timedelta(seconds=60)}


async def test_new_queries_queue_a_cycle_at_the_threshold(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(min_new_queries=3))
    planner = planner_of(database, clock)
    at = clock.turn(10)
    await add_queries(database, tenant_id, ["a", "b"], at=at)
    await planner.tick()
    assert await queued(database) == []
    await add_queries(database, tenant_id, ["c"], at=at, prefix="more")
    clock.turn(10)
    await planner.tick()
    assert [cycle.trigger for cycle in await queued(database)] == ["threshold"]


async def test_queries_count_once(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(min_new_queries=2))
    planner = planner_of(database, clock)
    await add_queries(database, tenant_id, ["a", "b", "c"], at=clock.turn(10))
    clock.turn(10)
    await planner.tick()
    await end_all(database, clock)
    await planner.tick()
    assert len(await queued(database)) == 1


async def test_a_tenant_gets_no_second_cycle(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=60))
    planner = planner_of(database, clock)
    await planner.tick()
    clock.turn(60)
    assert await planner.plan(tenant_id) is not None
    clock.turn(600)
    assert await planner.plan(tenant_id) is None


async def test_a_changed_schedule_moves_the_timer(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=3600))
    planner = planner_of(database, clock)
    await planner.tick()
    async with database.transaction() as session:
        await update_settings(session, tenant_id, scheduled(interval_s=60))
    await planner.tick()
    assert planner.armed == {tenant_id: EPOCH + timedelta(seconds=60)}
    async with database.transaction() as session:
        await update_settings(session, tenant_id, scheduled())
    await planner.tick()
    assert planner.armed == {}


async def test_a_deleted_tenant_is_forgotten(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=60))
    planner = planner_of(database, clock)
    await planner.tick()
    async with database.transaction() as session:
        await delete_tenant(session, tenant_id, clock.now())
    await planner.tick()
    assert planner.armed == {}
    clock.turn(60)
    assert await planner.plan(tenant_id) is None


@pytest.mark.parametrize(
    "stored",
    [
        {"schedule": {"interval_s": 10**12}},
        {"schedule": {"min_new_queries": 10**24}},
        {"schedule": {"cron": "61 * * * *"}},
        {"schedule": {"interval_s": 60, "of_another_release": 1}},
        {"schedule": {"interval_s": 60}, "learning": {"steps": 0}},
        {"schedule": {"min_new_queries": 1}, "learning": {"steps": 0}},
    ],
)
async def test_settings_that_cannot_be_read_harm_nobody_else(
    database: Database, clock: HandClock, stored: dict[str, Any]
) -> None:
    bad = await add_tenant(database, "bad", stored)
    counting = await add_tenant(database, "counting", scheduled(min_new_queries=2))
    timed = await add_tenant(database, "timed", scheduled(interval_s=60))
    planner = planner_of(database, clock)
    await planner.tick()
    for tenant_id in (bad, counting):
        await add_queries(database, tenant_id, ["a", "b"], at=clock.turn(60))
    clock.turn(10)
    await planner.tick()
    assert timed in planner.armed
    assert await planner.plan(bad) is None
    assert await planner.plan(timed) is not None
    assert {cycle.tenant_id for cycle in await queued(database)} == {counting, timed}


async def test_only_the_leader_plans(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=10))
    leader, other = planner_of(database, clock), planner_of(database, clock, "two")
    await leader.tick()
    await other.tick()
    assert (leader.is_leader, other.is_leader) == (True, False)
    clock.turn(12)
    assert other.armed == {}
    assert await other.plan(tenant_id) is None
    assert await leader.plan(tenant_id) is not None


async def test_another_worker_plans_when_the_leader_is_gone(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder", scheduled(interval_s=10))
    dead, other = planner_of(database, clock), planner_of(database, clock, "two")
    await dead.tick()
    clock.turn(16)
    await other.tick()
    assert other.is_leader
    assert await other.plan(tenant_id) is not None
    await dead.tick()
    assert not dead.is_leader


async def test_the_timers_queue_what_is_overdue(database: Database, clock: HandClock) -> None:
    await add_tenant(database, "adder", scheduled(interval_s=60))
    await add_tenant(database, "counter", scheduled(cron="0 * * * *"))
    clock.turn(7200)
    planner = Telling(SETTINGS, database, clock, owner="one")
    async with started(planner), asyncio.timeout(60):
        await planner.planned.get()
        await planner.planned.get()
    assert {cycle.trigger for cycle in await queued(database)} == {"interval", "cron"}


async def test_a_leader_that_stops_is_followed_at_once(
    database: Database, clock: HandClock
) -> None:
    leader = Telling(SETTINGS, database, clock, owner="one")
    async with started(leader), asyncio.timeout(60):
        await leader.ticked.wait()
    assert not leader.is_leader
    other = planner_of(database, clock, "two")
    await other.tick()
    assert other.is_leader
