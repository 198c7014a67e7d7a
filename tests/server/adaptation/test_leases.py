"""Claims, fences, debts: what keeps two workers from running one cycle."""

from __future__ import annotations

import asyncio

import pytest
from ttrl_client.types import CycleStatus, TenantSettings

from server.db import cycles, leadership, steps
from server.db.engine import Database
from server.db.models import Cycle
from server.errors import Conflict, LeaseLost, NotFound

from .conftest import HandClock, add_tenant


async def enqueue(database: Database, clock: HandClock, tenant_id: int) -> int:
    async with database.transaction() as session:
        cycle = await cycles.enqueue(
            session,
            tenant_id=tenant_id,
            trigger="manual",
            settings=TenantSettings(),
            seed=1,
            now=clock.now(),
        )
    return cycle.id


async def claim(
    database: Database, clock: HandClock, owner: str, lease_s: float = 15
) -> cycles.Lease | None:
    async with database.transaction() as session:
        claimed = await cycles.claim(session, owner=owner, now=clock.now(), lease_s=lease_s)
    return None if claimed is None else claimed[0]


async def end(database: Database, clock: HandClock, lease: cycles.Lease) -> None:
    async with database.transaction() as session:
        await cycles.finish(session, lease, CycleStatus.REJECTED, now=clock.now(), reasons=[])


async def read(database: Database, cycle_id: int) -> Cycle:
    async with database.transaction(write=False) as session:
        cycle = await cycles.cycle_by_id(session, cycle_id)
    assert cycle is not None
    return cycle


async def test_a_tenant_has_one_active_cycle(database: Database, clock: HandClock) -> None:
    tenant_id = await add_tenant(database, "adder")
    await enqueue(database, clock, tenant_id)
    with pytest.raises(Conflict):
        await enqueue(database, clock, tenant_id)


async def test_a_conflict_leaves_the_transaction_usable(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder")
    await enqueue(database, clock, tenant_id)
    async with database.transaction() as session:
        with pytest.raises(Conflict):
            await cycles.enqueue(
                session,
                tenant_id=tenant_id,
                trigger="cron",
                settings=TenantSettings(),
                seed=1,
                now=clock.now(),
            )
        assert await cycles.active_cycle(session, tenant_id) is not None


async def test_an_unknown_tenant_gets_no_cycle(database: Database, clock: HandClock) -> None:
    with pytest.raises(NotFound):
        await enqueue(database, clock, 7)


async def test_a_claimed_cycle_is_not_claimed_again(database: Database, clock: HandClock) -> None:
    await enqueue(database, clock, await add_tenant(database, "adder"))
    assert await claim(database, clock, "one") is not None
    assert await claim(database, clock, "two") is None


async def test_an_expired_lease_is_taken_up_under_a_higher_fence(
    database: Database, clock: HandClock
) -> None:
    await enqueue(database, clock, await add_tenant(database, "adder"))
    first = await claim(database, clock, "one")
    clock.turn(16)
    second = await claim(database, clock, "two")
    assert first is not None
    assert second is not None
    assert second.fence > first.fence
    assert (await read(database, second.cycle_id)).attempts == 2


async def test_a_heartbeat_keeps_the_lease(database: Database, clock: HandClock) -> None:
    await enqueue(database, clock, await add_tenant(database, "adder"))
    lease = await claim(database, clock, "one")
    assert lease is not None
    clock.turn(10)
    async with database.transaction() as session:
        await cycles.heartbeat(session, lease, now=clock.now(), lease_s=15)
    clock.turn(10)
    assert await claim(database, clock, "two") is None


async def test_an_old_fence_cannot_write(database: Database, clock: HandClock) -> None:
    await enqueue(database, clock, await add_tenant(database, "adder"))
    old = await claim(database, clock, "one")
    clock.turn(16)
    new = await claim(database, clock, "two")
    assert old is not None
    assert new is not None
    record = steps.StepRecord(1, None, None, None, {}, [])
    with pytest.raises(LeaseLost):
        async with database.transaction() as session:
            await steps.write_step(session, old, record, now=clock.now())
    with pytest.raises(LeaseLost):
        await end(database, clock, old)
    async with database.transaction() as session:
        assert await steps.steps_of(session, new.cycle_id) == []


async def test_a_released_cycle_goes_on_at_once_and_costs_no_attempt(
    database: Database, clock: HandClock
) -> None:
    await enqueue(database, clock, await add_tenant(database, "adder"))
    for owner in ("one", "two", "three", "four", "five", "six", "seven"):
        lease = await claim(database, clock, owner)
        assert lease is not None
        assert (await read(database, lease.cycle_id)).attempts == 1
        async with database.transaction() as session:
            await cycles.release(session, lease, now=clock.now())


async def test_a_cycle_that_never_ends_is_failed(database: Database, clock: HandClock) -> None:
    cycle_id = await enqueue(database, clock, await add_tenant(database, "adder"))
    for _ in range(cycles.MAX_ATTEMPTS):
        assert await claim(database, clock, "crashing") is not None
        clock.turn(16)
    assert await claim(database, clock, "crashing") is None
    cycle = await read(database, cycle_id)
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error is not None
    assert cycle.error.startswith("attempts: ")


async def test_the_tenant_that_waited_longest_goes_first(
    database: Database, clock: HandClock
) -> None:
    busy, quiet = await add_tenant(database, "busy"), await add_tenant(database, "quiet")
    for tenant_id in (quiet, busy):
        await enqueue(database, clock, tenant_id)
        lease = await claim(database, clock, "one")
        assert lease is not None
        clock.turn(5)
        await end(database, clock, lease)
    await enqueue(database, clock, busy)  # queued first, but served more recently
    await enqueue(database, clock, quiet)
    lease = await claim(database, clock, "one")
    assert lease is not None
    assert lease.tenant_id == quiet


async def test_a_tenant_that_never_had_a_cycle_goes_before_all(
    database: Database, clock: HandClock
) -> None:
    old, new = await add_tenant(database, "old"), await add_tenant(database, "new")
    await enqueue(database, clock, old)
    lease = await claim(database, clock, "one")
    assert lease is not None
    await end(database, clock, lease)
    await enqueue(database, clock, old)
    await enqueue(database, clock, new)
    lease = await claim(database, clock, "one")
    assert lease is not None
    assert lease.tenant_id == new


async def test_concurrent_workers_claim_each_cycle_once(
    database: Database, clock: HandClock, migrated_url: str
) -> None:
    for index in range(12):
        await enqueue(database, clock, await add_tenant(database, f"tenant-{index}"))
    # Databases of their own stand for processes: their connections share no memory.
    databases = [Database(migrated_url) for _ in range(4)]

    async def drain(index: int) -> list[int]:
        claimed: list[int] = []
        while (lease := await claim(databases[index], clock, f"w{index}")) is not None:
            claimed.append(lease.cycle_id)
        return claimed

    claimed = await asyncio.gather(*(drain(index) for index in range(len(databases))))
    for other in databases:
        await other.close()
    ids = [cycle_id for worker in claimed for cycle_id in worker]
    assert sorted(ids) == sorted(set(ids))
    assert len(ids) == 12


async def test_cancelling_a_pending_cycle_ends_it(database: Database, clock: HandClock) -> None:
    cycle_id = await enqueue(database, clock, await add_tenant(database, "adder"))
    async with database.transaction() as session:
        await cycles.request_cancel(session, cycle_id, now=clock.now())
    assert (await read(database, cycle_id)).status == CycleStatus.CANCELLED
    assert await claim(database, clock, "one") is None
    with pytest.raises(Conflict):
        async with database.transaction() as session:
            await cycles.request_cancel(session, cycle_id, now=clock.now())


async def test_a_heartbeat_tells_of_a_cancellation(database: Database, clock: HandClock) -> None:
    cycle_id = await enqueue(database, clock, await add_tenant(database, "adder"))
    lease = await claim(database, clock, "one")
    assert lease is not None
    async with database.transaction() as session:
        await cycles.request_cancel(session, cycle_id, now=clock.now())
    async with database.transaction() as session:
        told = await cycles.heartbeat(session, lease, now=clock.now(), lease_s=15)
    assert told == cycles.Orders(cancel=True, reason="cancel_requested")


async def hold(database: Database, clock: HandClock, owner: str) -> bool:
    async with database.transaction() as session:
        return await leadership.hold(session, "scheduler", owner=owner, now=clock.now(), lease_s=15)


async def test_one_worker_leads_until_its_lease_ends(database: Database, clock: HandClock) -> None:
    assert await hold(database, clock, "one")
    assert not await hold(database, clock, "two")
    clock.turn(10)
    assert await hold(database, clock, "one")
    clock.turn(10)
    assert not await hold(database, clock, "two")
    clock.turn(6)
    assert await hold(database, clock, "two")
    assert not await hold(database, clock, "one")


async def test_a_leader_that_leaves_is_followed_at_once(
    database: Database, clock: HandClock
) -> None:
    assert await hold(database, clock, "one")
    async with database.transaction() as session:
        await leadership.let_go(session, "scheduler", owner="one")
    assert await hold(database, clock, "two")
