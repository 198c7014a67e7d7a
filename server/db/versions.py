"""SQL of adapter versions and of the pointer that says which of them is live."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import AdapterVersion, Swap, Tenant
from server.errors import Conflict


async def tenant_for_update(session: AsyncSession, tenant_id: int) -> Tenant | None:
    """The tenant if it lives, its row locked until the transaction ends."""
    statement = select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
    return (await session.scalars(statement.with_for_update())).one_or_none()


async def version_row(session: AsyncSession, tenant_id: int, number: int) -> AdapterVersion | None:
    """A published version of the tenant; number 0 has no row."""
    return (
        await session.scalars(
            select(AdapterVersion).where(
                AdapterVersion.tenant_id == tenant_id, AdapterVersion.number == number
            )
        )
    ).one_or_none()


async def versions_of(session: AsyncSession, tenant_id: int) -> list[AdapterVersion]:
    """All published versions of the tenant, newest first."""
    statement = select(AdapterVersion).where(AdapterVersion.tenant_id == tenant_id)
    return list((await session.scalars(statement.order_by(AdapterVersion.number.desc()))).all())


async def live_versions(session: AsyncSession) -> list[tuple[Tenant, AdapterVersion]]:
    """Each living tenant with its live version, where that is not the identity adapter."""
    rows = await session.execute(
        select(Tenant, AdapterVersion)
        .join(
            AdapterVersion,
            (AdapterVersion.tenant_id == Tenant.id)
            & (AdapterVersion.number == Tenant.live_version),
        )
        .where(Tenant.deleted_at.is_(None))
        .order_by(Tenant.id)
    )
    return [(tenant, version) for tenant, version in rows]


async def flip(session: AsyncSession, tenant: Tenant, swap: Swap) -> None:
    """Move the tenant's pointer and write the move into its history.

    A rollback forgets where it came from, so that a second one does not undo the first. A promotion
    never does, also one to an older version: it may be the mistake that is rolled back.
    """
    goes_back = swap.reason == "rolled_back"
    previous = await _version_before(session, tenant.id, swap.to_version)
    await session.execute(
        update(Tenant)
        .where(Tenant.id == tenant.id)
        .values(
            live_version=swap.to_version,
            previous_version=previous if goes_back else swap.from_version,
        )
    )
    session.add(swap)


async def _version_before(session: AsyncSession, tenant_id: int, number: int) -> int | None:
    """The version that this one was trained from; None for the identity adapter."""
    row = await version_row(session, tenant_id, number)
    return None if row is None else row.parent


async def swaps_of(
    session: AsyncSession, tenant_id: int, *, before: int | None, limit: int
) -> list[Swap]:
    """The history of the tenant's pointer, newest first."""
    statement = select(Swap).where(Swap.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(Swap.id < before)
    return list((await session.scalars(statement.order_by(Swap.id.desc()).limit(limit))).all())


def swap_row(
    *,
    tenant: Tenant,
    to_version: int,
    reason: str,
    load_ms: float,
    flip_ms: float,
    now: datetime,
) -> Swap:
    """A line of the history, not yet stored."""
    return Swap(
        tenant_id=tenant.id,
        from_version=tenant.live_version,
        to_version=to_version,
        reason=reason,
        load_ms=load_ms,
        flip_ms=flip_ms,
        created_at=now,
    )


async def last_number(session: AsyncSession, tenant_id: int) -> int:
    """The highest published number of the tenant; 0 when there is none."""
    highest = await session.scalar(
        select(func.max(AdapterVersion.number)).where(AdapterVersion.tenant_id == tenant_id)
    )
    return highest or 0


async def publish_version(
    session: AsyncSession,
    *,
    tenant_id: int,
    number: int,
    engine_name: str,
    path: str,
    manifest_digest: str,
    parent: int,
    cycle_id: int | None,
    report: dict[str, Any],
    now: datetime,
) -> AdapterVersion:
    """Add the row of a version whose directory is complete. It is not live by that.

    Raises:
        Conflict: the tenant has this number, or the cycle a version, already.
    """
    row = AdapterVersion(
        tenant_id=tenant_id,
        number=number,
        engine_name=engine_name,
        path=path,
        manifest_digest=manifest_digest,
        parent=parent,
        cycle_id=cycle_id,
        report=report,
        created_at=now,
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise Conflict(f"Version {number} was published already.") from None
    return row
