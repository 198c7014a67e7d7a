"""SQL of tenants and their keys.

Names are unique among living tenants only: one that is named like a deleted one has another id, and
nothing of the old one belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import ApiKey, Cycle, Query, Tenant
from server.errors import Conflict

ACTIVE = ("pending", "running")


async def create_tenant(
    session: AsyncSession, *, name: str, settings: dict[str, Any], now: datetime
) -> Tenant:
    """Insert a tenant on version 0.

    Raises:
        Conflict: a living tenant has this name.
    """
    tenant = Tenant(name=name, settings=settings, live_version=0, created_at=now)
    session.add(tenant)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is a tenant {name!r} already.", param="name") from None
    return tenant


async def tenant_by_name(session: AsyncSession, name: str) -> Tenant | None:
    """The living tenant of this name."""
    return await session.scalar(
        select(Tenant).where(Tenant.name == name, Tenant.deleted_at.is_(None))
    )


async def tenant_by_id(session: AsyncSession, tenant_id: int) -> Tenant | None:
    """The living tenant with this id."""
    return await session.scalar(
        select(Tenant).where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
    )


async def list_tenants(
    session: AsyncSession, *, limit: int, before: int | None = None
) -> Sequence[Tenant]:
    """Living tenants with an id below `before`, newest first."""
    statement = select(Tenant).where(Tenant.deleted_at.is_(None))
    if before is not None:
        statement = statement.where(Tenant.id < before)
    return (await session.scalars(statement.order_by(Tenant.id.desc()).limit(limit))).all()


async def update_settings(session: AsyncSession, tenant_id: int, settings: dict[str, Any]) -> bool:
    """Replace a living tenant's settings; False if it is gone."""
    result = await session.execute(
        update(Tenant)
        .where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
        .values(settings=settings)
        .returning(Tenant.id)
    )
    return result.scalar_one_or_none() is not None


async def delete_tenant(session: AsyncSession, tenant_id: int, now: datetime) -> bool:
    """Mark a tenant as deleted, revoke its keys, and end its cycle: a pending one at once, a
    running one as soon as its worker looks. False if it is gone already.
    """
    deleted = await session.execute(
        update(Tenant)
        .where(Tenant.id == tenant_id, Tenant.deleted_at.is_(None))
        .values(deleted_at=now)
        .returning(Tenant.id)
    )
    if deleted.scalar_one_or_none() is None:
        return False
    await session.execute(
        update(ApiKey)
        .where(ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    await session.execute(
        update(Cycle)
        .where(Cycle.tenant_id == tenant_id, Cycle.status == "pending")
        .values(status="cancelled", cancel_requested=True, error="tenant_deleted", finished_at=now)
    )
    await session.execute(
        update(Cycle)
        .where(Cycle.tenant_id == tenant_id, Cycle.status == "running")
        .values(cancel_requested=True)
    )
    return True


async def count_queries(session: AsyncSession, tenant_ids: Sequence[int]) -> dict[int, int]:
    """Logged queries by tenant id; a tenant without any is missing."""
    rows = await session.execute(
        select(Query.tenant_id, func.count().label("num_queries"))
        .where(Query.tenant_id.in_(tenant_ids))
        .group_by(Query.tenant_id)
    )
    return {row.tenant_id: row.num_queries for row in rows}


async def active_cycles(session: AsyncSession, tenant_ids: Sequence[int]) -> dict[int, int]:
    """The id of the pending or running cycle by tenant id; a tenant without one is missing."""
    rows = await session.execute(
        select(Cycle.tenant_id, Cycle.id).where(
            Cycle.tenant_id.in_(tenant_ids), Cycle.status.in_(ACTIVE)
        )
    )
    return {row.tenant_id: row.id for row in rows}


async def create_key(
    session: AsyncSession, *, tenant_id: int, name: str, prefix: str, digest: str, now: datetime
) -> ApiKey:
    """Insert an API key."""
    key = ApiKey(tenant_id=tenant_id, name=name, prefix=prefix, digest=digest, created_at=now)
    session.add(key)
    await session.flush()
    return key


async def list_keys(
    session: AsyncSession, tenant_id: int, *, limit: int, before: int | None = None
) -> Sequence[ApiKey]:
    """A tenant's keys with an id below `before`, newest first, revoked ones included."""
    statement = select(ApiKey).where(ApiKey.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(ApiKey.id < before)
    return (await session.scalars(statement.order_by(ApiKey.id.desc()).limit(limit))).all()


async def revoke_key(
    session: AsyncSession, tenant_id: int, key_id: int, now: datetime
) -> ApiKey | None:
    """Revoke a tenant's key and return it; None if the tenant has no such key. A key that was
    revoked before keeps its time.
    """
    key = await session.scalar(
        select(ApiKey).where(ApiKey.id == key_id, ApiKey.tenant_id == tenant_id)
    )
    if key is not None and key.revoked_at is None:
        key.revoked_at = now
        await session.flush()
    return key


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The tenant behind a key, as far as a request wants to know it."""

    id: int
    name: str
    live_version: int
    limits: dict[str, Any] | None  # as the settings have them


def key_owner(connection: Connection, digest: str) -> KeyOwner | None:
    """The living tenant that owns the unrevoked key with this digest."""
    row = connection.execute(
        select(
            Tenant.id, Tenant.name, Tenant.live_version, Tenant.settings["limits"].label("limits")
        )
        .join(ApiKey, ApiKey.tenant_id == Tenant.id)
        .where(ApiKey.digest == digest, ApiKey.revoked_at.is_(None), Tenant.deleted_at.is_(None))
    ).one_or_none()
    return None if row is None else KeyOwner(row.id, row.name, row.live_version, row.limits)
