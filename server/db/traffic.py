"""What the log holds for learning: eligible prompts, newest first, and how many are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from server.db.models import Answer, Cycle, Query, Tenant

CHUNK = 500  # ids in one IN list
CHAT_ROUTES = ("chat", "responses", "messages")  # whose prompt is logged as a chat's messages


@dataclass(frozen=True, slots=True)
class LoggedPrompt:
    """A logged chat: its messages as the client sent them."""

    query_id: str
    messages: list[Any]
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class ServedQuery:
    """How a prompt was answered to a user."""

    asked_as: str  # id of the query that stands for the prompt
    messages: list[Any]
    params: dict[str, Any]  # as asked
    completion_tokens: int | None  # of all answers together
    answers: list[tuple[str, str | None]]  # (text, finish reason)


@dataclass(frozen=True, slots=True)
class Traffic:
    """A tenant's schedule and what has happened since its last cycle was queued."""

    tenant_id: int
    schedule: dict[str, Any]
    since: datetime  # when the last cycle was queued, or the tenant was made


async def recent_queries(
    session: AsyncSession, tenant_id: int, *, limit: int
) -> list[tuple[str, str]]:
    """(id, fingerprint) of the tenant's eligible chat queries, newest first."""
    rows = await session.execute(
        select(Query.id, Query.fingerprint)
        .where(Query.tenant_id == tenant_id, Query.eligible, Query.route.in_(CHAT_ROUTES))
        .order_by(Query.created_at.desc(), Query.id)
        .limit(limit)
    )
    return [(query_id, fingerprint) for query_id, fingerprint in rows]


async def traces_of(
    session: AsyncSession, tenant_id: int, query_ids: Sequence[str], *, limit: int
) -> list[tuple[str, str]]:
    """(trace id, span id) of those of these queries that were traced, at most `limit`."""
    found: list[tuple[str, str]] = []
    for start in range(0, len(query_ids), CHUNK):
        rows = await session.execute(
            select(Query.trace_id, Query.span_id)
            .where(
                Query.tenant_id == tenant_id,
                Query.id.in_(query_ids[start : start + CHUNK]),
                Query.trace_id.is_not(None),
                Query.span_id.is_not(None),
            )
            .order_by(Query.created_at)
            .limit(limit - len(found))
        )
        found += [(str(trace_id), str(span_id)) for trace_id, span_id in rows]
        if len(found) >= limit:
            break
    return found


async def load_prompts(
    session: AsyncSession, tenant_id: int, query_ids: Sequence[str]
) -> dict[str, LoggedPrompt]:
    """The prompts of these queries by id; one that is no longer there, or no longer eligible, is
    left out.
    """
    found: dict[str, LoggedPrompt] = {}
    for start in range(0, len(query_ids), CHUNK):
        rows = await session.execute(
            select(Query.id, Query.prompt, Query.prompt_tokens).where(
                Query.tenant_id == tenant_id,
                Query.eligible,
                Query.id.in_(query_ids[start : start + CHUNK]),
            )
        )
        for query_id, messages, prompt_tokens in rows:
            found[query_id] = LoggedPrompt(query_id, messages, prompt_tokens)
    return found


async def served_queries(
    session: AsyncSession, cycle_id: int, query_ids: Sequence[str], *, version: int, limit: int
) -> list[ServedQuery]:
    """The eligible queries that have the messages of one of `query_ids` and were answered by
    `version` before the cycle began: the newest `limit` of each, newest first.
    """
    found: dict[tuple[str, str], ServedQuery] = {}
    for start in range(0, len(query_ids), CHUNK):
        newest = _served(cycle_id, query_ids[start : start + CHUNK], version).subquery()
        rows = await session.execute(
            select(newest.c.asked_as, Query, Answer.text, Answer.finish_reason)
            .join(Query, Query.id == newest.c.id)
            .join(Answer, Answer.query_id == Query.id)
            .where(newest.c.age <= limit)
            .order_by(newest.c.asked_as, newest.c.age, Answer.choice)
        )
        for asked_as, query, text, finish_reason in rows:
            served = found.setdefault(
                (asked_as, query.id),
                ServedQuery(asked_as, query.prompt, query.params, query.completion_tokens, []),
            )
            served.answers.append((text, finish_reason))
    return list(found.values())


def _served(cycle_id: int, query_ids: Sequence[str], version: int) -> Select[str, str, Any]:
    """(asked_as, id, age): queries with the same messages, numbered from the newest."""
    asked = aliased(Query)
    age = func.row_number().over(
        partition_by=asked.id, order_by=(Query.created_at.desc(), Query.id)
    )
    return (
        select(asked.id.label("asked_as"), Query.id.label("id"), age.label("age"))
        .join(
            Query, (Query.tenant_id == asked.tenant_id) & (Query.fingerprint == asked.fingerprint)
        )
        .join(Cycle, Cycle.tenant_id == asked.tenant_id)
        .where(
            Cycle.id == cycle_id,
            asked.id.in_(query_ids),
            Query.eligible,
            Query.route.in_(CHAT_ROUTES),
            Query.status == "ok",
            Query.adapter_version == version,
            Query.created_at < Cycle.started_at,
        )
    )


async def count_refused(session: AsyncSession, tenant_id: int) -> dict[str, int]:
    """How many logged queries cannot be learned from, by reason code."""
    rows = await session.execute(
        select(Query.reason, func.count())
        .where(Query.tenant_id == tenant_id, ~Query.eligible)
        .group_by(Query.reason)
    )
    return {reason or "unknown": count for reason, count in rows}


async def traffic_of_tenants(session: AsyncSession) -> list[Traffic]:
    """Every living tenant's schedule, and when its last cycle was queued."""
    last = (
        select(Cycle.tenant_id, func.max(Cycle.created_at).label("at"))
        .group_by(Cycle.tenant_id)
        .subquery()
    )
    rows = await session.execute(
        select(Tenant.id, Tenant.settings, Tenant.created_at, last.c.at)
        .outerjoin(last, last.c.tenant_id == Tenant.id)
        .where(Tenant.deleted_at.is_(None))
        .order_by(Tenant.id)
    )
    return [
        Traffic(tenant_id, settings.get("schedule") or {}, last_at or created_at)
        for tenant_id, settings, created_at, last_at in rows
    ]


async def last_queued(session: AsyncSession, tenant_id: int) -> datetime | None:
    """When the tenant's last cycle was queued."""
    return await session.scalar(
        select(func.max(Cycle.created_at)).where(Cycle.tenant_id == tenant_id)
    )


async def count_new_queries(
    session: AsyncSession, tenant_id: int, since: datetime, *, at_most: int
) -> int:
    """How many eligible queries the tenant has logged after `since`, `at_most` at most."""
    new = (
        select(Query.id)
        .where(Query.tenant_id == tenant_id, Query.eligible, Query.created_at > since)
        .limit(at_most)
        .subquery()
    )
    return await session.scalar(select(func.count()).select_from(new)) or 0
