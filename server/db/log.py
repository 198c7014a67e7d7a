"""The query log: each request that an engine answered, with all its answers, in few statements.

PostgreSQL cannot store the character NUL in text, nor give it back from JSON. It is stored as
U+2400 (the picture of NUL) on every database, so that a log reads the same everywhere.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import Connection, Insert, Table, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from server.db import sqlite as sqlite_file
from server.db.engine import Database
from server.db.models import Answer, Query, Tenant
from server.db.prepared import PreparedInsert
from server.errors import LogUnavailable

logger = logging.getLogger(__name__)

QUERIES, ANSWERS = cast(Table, Query.__table__), cast(Table, Answer.__table__)
INSERT_QUERIES, INSERT_ANSWERS = insert(QUERIES), insert(ANSWERS)
PREPARED_QUERIES = PreparedInsert(INSERT_QUERIES, QUERIES, sqlite.dialect())
PREPARED_ANSWERS = PreparedInsert(INSERT_ANSWERS, ANSWERS, sqlite.dialect())
# What of PostgreSQL's error classes is the row's own fault: its values, a constraint, its size.
ROWS_FAULT = ("22", "23", "54")
NUL, NUL_PICTURE = "\0", "\u2400"

T = TypeVar("T")


def fingerprint(prompt: list[Any]) -> str:
    """Hex SHA-256 of the prompt's canonical JSON: compact, keys sorted, UTF-8."""
    return hashlib.sha256(msgspec.json.encode(prompt, order="sorted")).hexdigest()


class EntryRefused(Exception):
    """The database is there, but does not take these rows."""


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One choice as the client received it; `tool_calls` in OpenAI's shape."""

    choice: int
    text: str
    tool_calls: list[Any] | None
    finish_reason: str | None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of the log with its answers. `prompt` and `params` have gone through `storable`.

    Entries wait on disk in this form: a new field needs a default.
    """

    id: str
    tenant_id: int
    route: str
    prompt: list[Any]
    fingerprint: str
    eligible: bool
    reason: str | None
    params: dict[str, Any]
    adapter_version: int
    stream: bool
    status: str
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_ms: float
    first_byte_ms: float | None
    created_at: datetime
    answers: tuple[LoggedAnswer, ...]
    trace_id: str | None = None
    span_id: str | None = None


def storable(value: T) -> T:
    """The same JSON value with each NUL character replaced, in keys too."""
    return cast(T, _storable(value))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(NUL, NUL_PICTURE) if NUL in value else value
    if isinstance(value, list):
        return [_storable(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return {_storable(key): _storable(item) for key, item in pairs}
    return value


async def store_entries(database: Database, entries: Sequence[LogEntry]) -> None:
    """Write the entries in one transaction, all or none.

    Raises:
        LogUnavailable: the database cannot be reached, is locked, or takes no rows at all.
        EntryRefused: it takes none of them because of at least one of them.
    """
    with _refusals():
        if database.has_insert:
            await database.insert(lambda: _prepared(entries))
        else:
            await database.run(
                lambda connection: _insert(connection, entries, INSERT_QUERIES, INSERT_ANSWERS)
            )


async def replay_entries(database: Database, entries: Sequence[LogEntry]) -> None:
    """As `store_entries`, for entries that may be stored already: those are left as they are. What
    waited for a tenant that is deleted by now is dropped.
    """
    with _refusals():
        await database.run(lambda connection: insert_missing_entries(connection, entries))


@contextmanager
def _refusals() -> Generator[None]:
    """What the database raises, told as one of two errors."""
    try:
        yield
    except (SQLAlchemyError, OSError, ValueError, ArithmeticError) as error:
        if _is_the_rows_fault(error):
            raise EntryRefused(_reason(error)) from error
        raise LogUnavailable("The query log cannot be written at the moment.") from error


def _is_the_rows_fault(error: Exception) -> bool:
    """Whether other rows may be taken; a schema that is behind, or a full disk, takes none."""
    if not isinstance(error, DBAPIError):
        # Of SQLAlchemy's own, this one is about values that have no form in the database.
        return isinstance(error, (StatementError, ValueError, ArithmeticError))
    if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
        return False
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(ROWS_FAULT)
    return isinstance(error, (DataError, IntegrityError, ProgrammingError))


def _reason(error: Exception) -> str:
    """What is wrong, without the statement and its values: those are a tenant's."""
    origin = error.orig if isinstance(error, StatementError) else error
    lines = str(origin).splitlines() or [""]
    return f"{type(origin).__name__}: {lines[0][:200]}"


async def is_writable(database: Database) -> bool:
    """Whether a transaction that writes can be committed now."""
    try:
        return await database.run(_touch)
    except (SQLAlchemyError, OSError):
        return False


def _touch(connection: Connection) -> bool:
    """Write something that changes nothing, so that a full disk is noticed too."""
    if connection.dialect.name == "sqlite":
        version = connection.execute(text("PRAGMA user_version")).scalar_one()
        connection.execute(text(f"PRAGMA user_version = {int(version)}"))
        return sqlite_file.has_room(connection)
    connection.execute(text("SELECT txid_current()"))
    return True


def _prepared(entries: Sequence[LogEntry]) -> list[sqlite_file.Statement]:
    """Inserts of queries and answers."""
    queries, answers = _rows(entries)
    return [*PREPARED_QUERIES.statements(queries), *PREPARED_ANSWERS.statements(answers)]


def insert_missing_entries(connection: Connection, entries: Sequence[LogEntry]) -> None:
    """Insert those that are not there; an entry's rows are there all or none. A tenant's deletion
    waits for this, or is seen by it.
    """
    deleted = _deleted_tenants(connection, {entry.tenant_id for entry in entries})
    if deleted:
        kept = [entry for entry in entries if entry.tenant_id not in deleted]
        logger.warning("%d entries of deleted tenants are dropped", len(entries) - len(kept))
        entries = kept
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    queries = dialect.insert(QUERIES).on_conflict_do_nothing()
    answers = dialect.insert(ANSWERS).on_conflict_do_nothing()
    _insert(connection, entries, queries, answers)


def _deleted_tenants(connection: Connection, tenant_ids: set[int]) -> set[int]:
    """Those of them that are deleted; the others stay as they are until the transaction ends."""
    known = (
        select(Tenant.id, Tenant.deleted_at)
        .where(Tenant.id.in_(sorted(tenant_ids)))
        .order_by(Tenant.id)
        .with_for_update(read=True)
    )
    return {row.id for row in connection.execute(known) if row.deleted_at is not None}


def _insert(
    connection: Connection, entries: Sequence[LogEntry], queries: Insert, answers: Insert
) -> None:
    query_rows, answer_rows = _rows(entries)
    if query_rows:
        connection.execute(queries, query_rows)
    if answer_rows:
        connection.execute(answers, answer_rows)


def _rows(entries: Sequence[LogEntry]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return (
        [_query_row(entry) for entry in entries],
        [_answer_row(entry.id, answer) for entry in entries for answer in entry.answers],
    )


def _query_row(entry: LogEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "tenant_id": entry.tenant_id,
        "route": entry.route,
        "prompt": entry.prompt,
        "fingerprint": entry.fingerprint,
        "eligible": entry.eligible,
        "reason": entry.reason,
        "params": entry.params,
        "adapter_version": entry.adapter_version,
        "stream": entry.stream,
        "status": entry.status,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "latency_ms": entry.latency_ms,
        "first_byte_ms": entry.first_byte_ms,
        "created_at": entry.created_at,
        "trace_id": entry.trace_id,
        "span_id": entry.span_id,
    }


def _answer_row(query_id: str, answer: LoggedAnswer) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "choice": answer.choice,
        "text": storable(answer.text),
        "tool_calls": storable(answer.tool_calls),
        "finish_reason": answer.finish_reason,
        "reasoning": storable(answer.reasoning),
    }
