"""SQL that only the admin API needs: what it lists, page by page, and what it counts."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import cycles
from server.db.engine import Database
from server.db.models import AdapterVersion, Answer, Cycle, CycleStep, Query, Tenant
from server.db.tenants import tenant_by_name
from server.errors import NotFound

logger = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole database at a glance; living tenants only."""

    num_tenants: int
    num_queries: int
    pending_cycles: int
    running_cycles: int


@dataclass(frozen=True, slots=True)
class QueryCursor:
    """Where a page of the log ends. It stays valid when the query itself is deleted."""

    created_at: datetime
    query_id: str


async def require_tenant(session: AsyncSession, name: str) -> Tenant:
    """The living tenant of this name.

    Raises:
        NotFound: there is none.
    """
    tenant = await tenant_by_name(session, name)
    if tenant is None:
        raise NotFound(f"There is no tenant {name!r}.", param="name")
    return tenant


async def require_cycle(session: AsyncSession, tenant: Tenant, cycle_id: int) -> Cycle:
    """A cycle of this tenant. Another tenant's looks like one that does not exist.

    Raises:
        NotFound: the tenant has no such cycle.
    """
    cycle = await session.scalar(
        select(Cycle)
        .where(Cycle.id == cycle_id, Cycle.tenant_id == tenant.id)
        .execution_options(populate_existing=True)
    )
    if cycle is None:
        raise NotFound(f"Tenant {tenant.name!r} has no cycle {cycle_id}.", param="cycle_id")
    return cycle


async def cancel_cycle(
    session: AsyncSession, tenant: Tenant, cycle_id: int, now: datetime
) -> Cycle:
    """Cancel a cycle of this tenant: a pending one at once, a running one when its worker looks.

    Raises:
        NotFound: the tenant has no such cycle.
        Conflict: it has ended.
    """
    owned = select(Cycle.id).where(Cycle.id == cycle_id, Cycle.tenant_id == tenant.id)
    if await session.scalar(owned) is None:
        raise NotFound(f"Tenant {tenant.name!r} has no cycle {cycle_id}.", param="cycle_id")
    return await cycles.request_cancel(session, cycle_id, now=now)


async def list_all_cycles(
    session: AsyncSession, *, limit: int, before: int | None = None
) -> Sequence[tuple[Cycle, str]]:
    """Cycles of all living tenants with the tenant's name, newest first."""
    statement = (
        select(Cycle, Tenant.name)
        .join(Tenant, Tenant.id == Cycle.tenant_id)
        .where(Tenant.deleted_at.is_(None))
        .order_by(Cycle.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(Cycle.id < before)
    return [(cycle, name) for cycle, name in await session.execute(statement)]


async def steps_of(session: AsyncSession, cycle_id: int) -> Sequence[CycleStep]:
    """The steps that a cycle has done, in order."""
    statement = select(CycleStep).where(CycleStep.cycle_id == cycle_id).order_by(CycleStep.step)
    return (await session.scalars(statement)).all()


async def list_versions(
    session: AsyncSession, tenant_id: int, *, limit: int, before: int | None = None
) -> Sequence[AdapterVersion]:
    """A tenant's published versions, newest first; version 0 has no row."""
    statement = select(AdapterVersion).where(AdapterVersion.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(AdapterVersion.number < before)
    statement = statement.order_by(AdapterVersion.number.desc()).limit(limit)
    return (await session.scalars(statement)).all()


async def list_queries(
    session: AsyncSession, tenant_id: int, *, limit: int, before: QueryCursor | None = None
) -> Sequence[tuple[Query, Sequence[Answer]]]:
    """A tenant's log with the answers of each query, newest first."""
    statement = select(Query).where(Query.tenant_id == tenant_id)
    if before is not None:
        earlier = Query.created_at < before.created_at
        same_time = and_(Query.created_at == before.created_at, Query.id < before.query_id)
        statement = statement.where(or_(earlier, same_time))
    statement = statement.order_by(Query.created_at.desc(), Query.id.desc()).limit(limit)
    queries = (await session.scalars(statement)).all()
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in await session.scalars(
        select(Answer)
        .where(Answer.query_id.in_([query.id for query in queries]))
        .order_by(Answer.query_id, Answer.choice)
    ):
        answers[answer.query_id].append(answer)
    return [(query, answers[query.id]) for query in queries]


async def count(database: Database) -> Counts | None:
    """What is in the database; None while it is away."""
    try:
        async with (
            asyncio.timeout(COUNT_TIMEOUT_S),
            database.transaction(write=False) as session,
        ):
            return await _count(session)
    except (SQLAlchemyError, OSError) as error:  # asyncio's TimeoutError is an OSError
        logger.warning("the database does not answer: %s", error)
        return None


async def _count(session: AsyncSession) -> Counts:
    living = Tenant.deleted_at.is_(None)
    num_tenants = await session.scalar(select(func.count()).select_from(Tenant).where(living))
    num_queries = await session.scalar(
        select(func.count())
        .select_from(Query)
        .where(Query.tenant_id.in_(select(Tenant.id).where(living)))
    )
    active = await cycles.count_active(session)
    return Counts(num_tenants or 0, num_queries or 0, active["pending"], active["running"])
