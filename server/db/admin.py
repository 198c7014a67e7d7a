"""SQL that only the admin API needs: what it lists, page by page, and what it counts."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Text, and_, cast, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import cycles
from server.db.engine import Database
from server.db.models import AdapterVersion, Answer, Cycle, CycleStep, Query, Tenant
from server.db.tenants import tenant_by_name
from server.errors import NotFound

logger = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 5
PAGE_CHARACTERS: Final = 8 * 2**20  # a page of the log is decoded and encoded on the event loop
FIRST_LOOK: Final = 8

NEWEST_FIRST: Final = (Query.created_at.desc(), Query.id.desc())


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


@dataclass(frozen=True, slots=True)
class LogPage:
    """Queries with their answers, newest first. `end` is None on the last page."""

    rows: Sequence[tuple[Query, Sequence[Answer]]]
    end: QueryCursor | None


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
) -> LogPage:
    """A tenant's log with the answers of each query, newest first: `limit` queries at most, and no
    more than `PAGE_CHARACTERS` of them, but always one.
    """
    ids, end = await _fitting(session, tenant_id, limit=limit, before=before)
    found = select(Query).where(Query.id.in_(ids)).order_by(*NEWEST_FIRST)
    queries = (await session.scalars(found)).all()
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in await session.scalars(
        select(Answer).where(Answer.query_id.in_(ids)).order_by(Answer.query_id, Answer.choice)
    ):
        answers[answer.query_id].append(answer)
    return LogPage([(query, answers[query.id]) for query in queries], end)


async def _fitting(
    session: AsyncSession, tenant_id: int, *, limit: int, before: QueryCursor | None
) -> tuple[list[str], QueryCursor | None]:
    """The ids of a page, and where it ends if more follow. The database has to read what it
    measures, so few queries are measured at first, and more where those are short.
    """
    ids: list[str] = []
    num_characters, num_measured = 0, FIRST_LOOK
    while True:
        rows = (await session.execute(_sizes(tenant_id, before, num_measured))).all()
        for query_id, created_at, size in rows:
            num_characters += size
            if len(ids) == limit or (ids and num_characters > PAGE_CHARACTERS):
                return ids, before
            ids.append(query_id)
            before = QueryCursor(created_at, query_id)
        if len(rows) < num_measured:
            return ids, None
        num_measured *= 2


def _sizes(tenant_id: int, before: QueryCursor | None, limit: int) -> Select[str, datetime, int]:
    """Id, time and characters of a tenant's queries, newest first."""
    ids = select(Query.id).where(Query.tenant_id == tenant_id)
    if before is not None:
        earlier = Query.created_at < before.created_at
        same_time = and_(Query.created_at == before.created_at, Query.id < before.query_id)
        ids = ids.where(or_(earlier, same_time))
    answers = (
        select(
            func.sum(_length(Answer.text) + _length(Answer.reasoning) + _length(Answer.tool_calls))
        )
        .where(Answer.query_id == Query.id)
        .scalar_subquery()
    )
    size = _length(Query.prompt) + _length(Query.params) + func.coalesce(answers, 0)
    return (
        select(Query.id, Query.created_at, size)
        .where(Query.id.in_(ids.order_by(*NEWEST_FIRST).limit(limit)))
        .order_by(*NEWEST_FIRST)
    )


def _length(column: Any) -> ColumnElement[int]:
    """Characters of what is stored."""
    return func.coalesce(func.length(cast(column, Text)), 0)


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
