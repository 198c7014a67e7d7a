"""Feedback: stored by completion and choice, and read back as truths and as scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.engine import Database
from server.db.failures import SQLAlchemyError, is_away
from server.db.log import storable
from server.db.models import Answer, Feedback, Query
from server.errors import BadRequest, Unavailable

CHUNK = 200  # feedbacks whose prompts are in memory at once


@dataclass(frozen=True, slots=True)
class Said:
    """Feedback as a client sent it."""

    query_id: str
    choice: int
    score: float | None
    correct_answer: str | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of it. `unknown` are ids that are not in the tenant's log."""

    rows: dict[tuple[str, int], Feedback]
    unknown: frozenset[str]


@dataclass(frozen=True, slots=True)
class Told:
    """What feedback says of a prompt: its correct answer, or an answer with a score of 1."""

    messages: list[Any]  # the prompt, as logged
    raw_fingerprint: str  # of the prompt, as logged
    text: str
    is_answer: bool  # False: the text of a scored answer


@dataclass(frozen=True, slots=True)
class Scores:
    """What was said about a version."""

    num_feedback: int
    mean_score: float | None


async def store(database: Database, tenant_id: int, said: Sequence[Said], now: datetime) -> Stored:
    """Store feedback to the tenant's own answers, in one transaction; what was said before about
    the same answers is replaced, but for the time when it was first said.

    Raises:
        BadRequest: a choice that its completion does not have; nothing is stored.
        Unavailable: the database is away, or too slow.
    """
    try:
        async with database.transaction() as session:
            return await _store(session, tenant_id, said, now)
    except (SQLAlchemyError, OSError) as error:
        if not is_away(error):
            raise
        # Without its cause, which may quote what it could not store.
        raise Unavailable("Feedback cannot be stored at the moment.") from None


async def _store(
    session: AsyncSession, tenant_id: int, said: Sequence[Said], now: datetime
) -> Stored:
    ids = sorted({one.query_id for one in said})
    owned = select(Query.id, Query.adapter_version).where(
        Query.tenant_id == tenant_id, Query.id.in_(ids)
    )
    versions = {row.id: row.adapter_version for row in await session.execute(owned)}
    known = [one for one in said if one.query_id in versions]
    await _check_choices(session, known)
    rows = {
        (one.query_id, one.choice): {
            "query_id": one.query_id,
            "choice": one.choice,
            "tenant_id": tenant_id,
            "adapter_version": versions[one.query_id],
            "score": one.score,
            "correct_answer": storable(one.correct_answer),
            "comment": storable(one.comment),
            "created_at": now,
            "updated_at": now,
        }
        for one in known
    }
    stored = await _upsert(session, [rows[key] for key in sorted(rows)])
    return Stored(
        {(row.query_id, row.choice): row for row in stored}, frozenset(ids) - versions.keys()
    )


async def _check_choices(session: AsyncSession, said: Sequence[Said]) -> None:
    """Choice 0 may be meant even where an aborted request has no answer."""
    beyond = [one for one in said if one.choice > 0]
    if not beyond:
        return
    statement = select(Answer.query_id, Answer.choice).where(
        Answer.query_id.in_({one.query_id for one in beyond})
    )
    there = {(query_id, choice) for query_id, choice in await session.execute(statement)}
    for one in beyond:
        if (one.query_id, one.choice) not in there:
            raise BadRequest(f"`{one.query_id}` has no choice {one.choice}.", param="choice")


async def _upsert(session: AsyncSession, rows: list[dict[str, Any]]) -> Sequence[Feedback]:
    """Insert or replace; rows are in the order of their keys, so that two requests with the same
    ones wait for each other and never deadlock.
    """
    if not rows:
        return ()
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(Feedback).values(rows)
    replaced = ("score", "correct_answer", "comment", "updated_at")
    upsert = statement.on_conflict_do_update(
        index_elements=["query_id", "choice"],
        set_={name: getattr(statement.excluded, name) for name in replaced},
    ).returning(Feedback)
    return (await session.scalars(upsert, execution_options={"populate_existing": True})).all()


async def newest_ids(
    session: AsyncSession, tenant_id: int, *, scores: bool, limit: int
) -> list[tuple[str, int]]:
    """(query id, choice) of the tenant's feedback that may tell a correct answer, newest first.
    `scores`: a score of 1 does.
    """
    rows = await session.execute(
        select(Feedback.query_id, Feedback.choice)
        .where(Feedback.tenant_id == tenant_id, _tells(scores=scores))
        .order_by(Feedback.updated_at.desc(), Feedback.query_id, Feedback.choice)
        .limit(limit)
    )
    return [(query_id, choice) for query_id, choice in rows]


def _tells(*, scores: bool) -> Any:
    told = Feedback.correct_answer.is_not(None)
    return or_(told, Feedback.score >= 1) if scores else told


async def load_told(
    session: AsyncSession, tenant_id: int, keys: Sequence[tuple[str, int]], *, scores: bool
) -> list[Told]:
    """What these feedbacks tell, in the order of `keys`; those to prompts that cannot be learned
    from are left out, as are scored answers that were cut off.
    """
    rows = await session.execute(_told(tenant_id, {query_id for query_id, _ in keys}, scores))
    found = {
        (query_id, choice): Told(prompt, raw, correct or text or "", correct is not None)
        for query_id, choice, correct, prompt, raw, text, finish_reason in rows
        if correct is not None or (text and finish_reason == "stop")
    }
    return [found[key] for key in keys if key in found]


def _told(
    tenant_id: int, query_ids: Iterable[str], scores: bool
) -> Select[str, int, str | None, list[Any], str, str, str | None]:
    """The last two are those of a scored answer, and both None where none is looked for."""
    scored = and_(
        Answer.query_id == Feedback.query_id,
        Answer.choice == Feedback.choice,
        Feedback.correct_answer.is_(None),  # else its text, which may be long, is of no use
    )
    return (
        select(
            Feedback.query_id,
            Feedback.choice,
            Feedback.correct_answer,
            Query.prompt,
            Query.fingerprint,
            Answer.text,
            Answer.finish_reason,
        )
        .join(Query, Query.id == Feedback.query_id)
        .outerjoin(Answer, scored)
        .where(
            Feedback.tenant_id == tenant_id,
            Feedback.query_id.in_(sorted(query_ids)),
            _tells(scores=scores),
            Query.tenant_id == tenant_id,
            Query.eligible,
        )
    )


async def scores_of_versions(
    session: AsyncSession, tenant_id: int, numbers: Sequence[int]
) -> dict[int, Scores]:
    """What was said about these versions of the tenant; one without feedback is missing."""
    rows = await session.execute(
        select(Feedback.adapter_version, func.count(), func.avg(Feedback.score))
        .where(Feedback.tenant_id == tenant_id, Feedback.adapter_version.in_(numbers))
        .group_by(Feedback.adapter_version)
    )
    return {
        version: Scores(count, None if mean is None else float(mean))
        for version, count, mean in rows
    }
