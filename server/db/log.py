"""The query log: each request that an engine answered, with all its answers, in few statements.

PostgreSQL cannot store the character NUL in text, nor give it back from JSON. It is stored as
U+2400 (the picture of NUL) on every database, so that a log reads the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Table, insert
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server.db.engine import Database
from server.db.models import Answer, Query
from server.errors import LogUnavailable

INSERT_QUERIES = insert(cast(Table, Query.__table__))
INSERT_ANSWERS = insert(cast(Table, Answer.__table__))
NUL, NUL_PICTURE = "\0", "\u2400"

T = TypeVar("T")


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
    """One row of the log with its answers. `prompt` and `params` have gone through `storable`."""

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
        LogUnavailable: the database cannot be reached, or is locked.
        EntryRefused: it takes none of them because of at least one of them.
    """
    try:
        await database.run(lambda connection: insert_entries(connection, entries))
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        raise LogUnavailable("The query log cannot be written at the moment.") from error
    except (SQLAlchemyError, ValueError, ArithmeticError) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise LogUnavailable("The query log cannot be written at the moment.") from error
        raise EntryRefused(str(error)) from error


def insert_entries(connection: Connection, entries: Sequence[LogEntry]) -> None:
    """Insert queries and answers, one statement each."""
    connection.execute(INSERT_QUERIES, [_query_row(entry) for entry in entries])
    answers = [_answer_row(entry.id, answer) for entry in entries for answer in entry.answers]
    if answers:
        connection.execute(INSERT_ANSWERS, answers)


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
