"""Cycles: queued once per tenant, claimed with a lease, written with a fence.

Each claim raises the row's `fence`, and every later write names the fence that it was claimed with.
A worker that slept through its lease therefore cannot write over the one that took the cycle up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, Select, and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from ttrl_client.types import ACTIVE, CycleStatus, TenantSettings

from server.db.models import Cycle, Tenant
from server.db.text import storable
from server.errors import Conflict, LeaseLost, NotFound

MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a cycle; `fence` tells this claim from every other."""

    cycle_id: int
    tenant_id: int
    fence: int
    owner: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told when it renews its lease."""

    cancel: bool
    reason: str | None  # "cancel_requested" or "tenant_deleted"


async def enqueue(
    session: AsyncSession,
    *,
    tenant_id: int,
    trigger: str,
    settings: TenantSettings,
    seed: int,
    now: datetime,
) -> Cycle:
    """A new pending cycle of the tenant, which keeps these settings.

    Raises:
        NotFound: no such tenant.
        Conflict: the tenant has a pending or running cycle.
    """
    tenant = await session.get(Tenant, tenant_id)
    if tenant is None or tenant.deleted_at is not None:
        raise NotFound("no such tenant")
    cycle = Cycle(
        tenant_id=tenant_id,
        trigger=trigger,
        status=CycleStatus.PENDING.value,
        settings=settings.model_dump(mode="json"),
        seed=seed,
        steps_planned=settings.learning.steps,
        created_at=now,
    )
    try:
        async with session.begin_nested():
            session.add(cycle)
    except IntegrityError:
        raise Conflict(f"tenant {tenant.name} has an active cycle") from None
    return cycle


async def claim(
    session: AsyncSession, *, owner: str, now: datetime, lease_s: float
) -> tuple[Lease, Cycle] | None:
    """Take up the cycle whose turn it is, or None.

    First those that another worker left (their lease ran out), then pending ones by debt: the
    tenant whose last cycle ended longest ago comes first. A cycle that was taken up
    `MAX_ATTEMPTS` times without an end is failed instead.
    """
    while (cycle := await session.scalar(_next_claimable(now))) is not None:
        if cycle.attempts >= MAX_ATTEMPTS:
            _end(cycle, CycleStatus.FAILED, now)
            last = f"; the last time: {cycle.error}" if cycle.error else ""
            cycle.error = f"attempts: taken up {cycle.attempts} times without an end{last}"
            await session.flush()
            continue
        cycle.status = CycleStatus.RUNNING.value
        cycle.lease_owner = owner
        cycle.lease_expires_at = now + timedelta(seconds=lease_s)
        cycle.fence += 1
        cycle.attempts += 1
        cycle.started_at = cycle.started_at or now
        await session.flush()
        return Lease(cycle.id, cycle.tenant_id, cycle.fence, owner), cycle
    return None


def _next_claimable(now: datetime) -> Select[Cycle]:
    earlier = aliased(Cycle)
    last_end = (
        select(func.max(earlier.finished_at))
        .where(earlier.tenant_id == Cycle.tenant_id, earlier.started_at.is_not(None))
        .correlate(Cycle)
        .scalar_subquery()
    )
    abandoned = and_(
        Cycle.status == CycleStatus.RUNNING.value,
        or_(Cycle.lease_expires_at.is_(None), Cycle.lease_expires_at <= now),
    )
    return (
        select(Cycle)
        .where(or_(Cycle.status == CycleStatus.PENDING.value, abandoned))
        .order_by(Cycle.status.desc(), last_end.asc().nulls_first(), Cycle.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Cycle)
    )


def _end(cycle: Cycle, status: CycleStatus, now: datetime) -> None:
    cycle.status = status.value
    cycle.phase = None
    cycle.finished_at = now
    cycle.lease_owner = None
    cycle.lease_expires_at = None


async def update_fenced(session: AsyncSession, lease: Lease, **values: Any) -> None:
    """Write columns of a running cycle, if this lease is still the newest.

    Raises:
        LeaseLost: it is not, or the cycle has ended.
    """
    result = await session.execute(
        update(Cycle)
        .where(
            Cycle.id == lease.cycle_id,
            Cycle.fence == lease.fence,
            Cycle.status == CycleStatus.RUNNING.value,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    if cast("CursorResult[Any]", result).rowcount != 1:
        raise LeaseLost(f"cycle {lease.cycle_id} is no longer held under fence {lease.fence}")


async def heartbeat(
    session: AsyncSession, lease: Lease, *, now: datetime, lease_s: float
) -> Orders:
    """Renew the lease, and learn whether to go on.

    Raises:
        LeaseLost: another worker has taken the cycle up.
    """
    await update_fenced(session, lease, lease_expires_at=now + timedelta(seconds=lease_s))
    return await orders(session, lease)


async def orders(session: AsyncSession, lease: Lease) -> Orders:
    """Whether the cycle should go on: not cancelled, and its tenant is still there."""
    row = (
        await session.execute(
            select(Cycle.cancel_requested, Tenant.deleted_at)
            .join(Tenant, Tenant.id == Cycle.tenant_id)
            .where(Cycle.id == lease.cycle_id)
        )
    ).one_or_none()
    if row is None or row.deleted_at is not None:
        return Orders(cancel=True, reason="tenant_deleted")
    return Orders(
        cancel=row.cancel_requested, reason="cancel_requested" if row.cancel_requested else None
    )


async def has_ended(session: AsyncSession, lease: Lease) -> bool:
    """Whether the cycle ended under this very lease."""
    status = await session.scalar(
        select(Cycle.status).where(Cycle.id == lease.cycle_id, Cycle.fence == lease.fence)
    )
    return status is not None and status not in ACTIVE


async def release(session: AsyncSession, lease: Lease, *, now: datetime) -> None:
    """Give a running cycle back so that another worker can go on at once.

    Not counted as an attempt: restarting workers in an orderly way never uses a cycle up.

    Raises:
        LeaseLost: it was not ours any more.
    """
    await update_fenced(
        session, lease, lease_owner=None, lease_expires_at=now, attempts=Cycle.attempts - 1
    )


async def finish(
    session: AsyncSession,
    lease: Lease,
    status: CycleStatus,
    *,
    now: datetime,
    reasons: Sequence[str] | None = None,
    error: str | None = None,
) -> None:
    """End a running cycle. Reasons are kept as they were where none are given; the error of an
    earlier crash is not.

    Raises:
        LeaseLost: another worker has taken the cycle up.
    """
    values: dict[str, Any] = {
        "status": status.value,
        "phase": None,
        "finished_at": now,
        "lease_owner": None,
        "lease_expires_at": None,
        "error": None if error is None else storable(error),
    }
    if reasons is not None:
        values["reasons"] = list(reasons)
    if status in (CycleStatus.PROMOTED, CycleStatus.REJECTED):
        values["decision"] = status.value
    await update_fenced(session, lease, **values)


async def request_cancel(session: AsyncSession, cycle_id: int, *, now: datetime) -> Cycle:
    """Cancel a pending cycle at once, a running one as soon as its worker looks up.

    Raises:
        NotFound: no such cycle.
        Conflict: it has ended.
    """
    cycle = await session.get(Cycle, cycle_id, with_for_update=True)
    if cycle is None:
        raise NotFound("no such cycle")
    if cycle.status not in ACTIVE:
        raise Conflict(f"cycle {cycle_id} has ended: {cycle.status}")
    cycle.cancel_requested = True
    if cycle.status == CycleStatus.PENDING.value:
        _end(cycle, CycleStatus.CANCELLED, now)
    await session.flush()
    return cycle


async def cycle_by_id(session: AsyncSession, cycle_id: int) -> Cycle | None:
    """The cycle, fresh from the database."""
    return await session.get(Cycle, cycle_id, populate_existing=True)


async def active_cycle(session: AsyncSession, tenant_id: int) -> Cycle | None:
    """The tenant's pending or running cycle."""
    return await session.scalar(
        select(Cycle).where(Cycle.tenant_id == tenant_id, Cycle.status.in_(ACTIVE))
    )


async def list_cycles(
    session: AsyncSession, *, tenant_id: int | None = None, before: int | None = None, limit: int
) -> Sequence[Cycle]:
    """Cycles, newest first, with ids below `before`."""
    query = select(Cycle).order_by(Cycle.id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(Cycle.tenant_id == tenant_id)
    if before is not None:
        query = query.where(Cycle.id < before)
    return (await session.scalars(query)).all()


async def count_active(session: AsyncSession) -> dict[str, int]:
    """How many cycles are pending and how many are running."""
    rows = await session.execute(
        select(Cycle.status, func.count()).where(Cycle.status.in_(ACTIVE)).group_by(Cycle.status)
    )
    counts = {status.value: 0 for status in ACTIVE}
    return counts | {row[0]: row[1] for row in rows}


async def active_ids(session: AsyncSession) -> set[int]:
    """Ids of cycles that are pending or running, under whatever worker."""
    return set(await session.scalars(select(Cycle.id).where(Cycle.status.in_(ACTIVE))))


async def ended_ids(session: AsyncSession, cycle_ids: Sequence[int]) -> set[int]:
    """Those of `cycle_ids` that have ended."""
    rows = await session.scalars(
        select(Cycle.id).where(Cycle.id.in_(cycle_ids), Cycle.status.not_in(ACTIVE))
    )
    return set(rows)
