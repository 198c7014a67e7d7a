"""What all routes of the admin API share: parameters, paging, and the description of errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query
from ttrl_client.types import COMPLETION_ID, MAX_VERSION, TENANT_NAME, ErrorBody, Page

from server.db.admin import QueryCursor
from server.errors import BadRequest

T = TypeVar("T")
U = TypeVar("U")

MAX_ID = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

TenantName = Annotated[str, Path(pattern=TENANT_NAME, description="The tenant's name.")]
KeyId = Annotated[int, Path(ge=1, le=MAX_ID, description="The key's id.")]
CycleId = Annotated[int, Path(ge=1, le=MAX_ID, description="The cycle's id.")]
VersionNumber = Annotated[
    int, Path(ge=0, le=MAX_VERSION, description="The version's number; 0 is the base model.")
]
Limit = Annotated[int, Query(ge=1, le=200, description="Most items in the answer.")]
Before = Annotated[
    str | None, Query(max_length=200, description="The `next` of the page before; absent: newest.")
]

DESCRIPTIONS: dict[int | str, str] = {
    400: "The request is malformed or a value is out of range; `param` names it.",
    401: "The admin key is missing or wrong.",
    404: "There is no such thing here.",
    409: "The state does not allow it now.",
    413: "The body is too large.",
    500: "The server made a mistake; its log says more.",
    503: "The database or every engine is away; try again after `Retry-After` seconds.",
    "default": "Any other error, in the same shape.",
}


def errors(*codes: int | str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of these error answers."""
    return {code: {"model": ErrorBody, "description": DESCRIPTIONS[code]} for code in codes}


def parse_id(before: str | None, *, most: int = MAX_ID) -> int | None:
    """The cursor of a list that is ordered by a number, of which none is above `most`.

    Raises:
        BadRequest: it is not one.
    """
    if before is None:
        return None
    if not (before.isascii() and before.isdigit()) or int(before) > most:
        raise BadRequest("before: not the `next` of a page", param="before")
    return int(before)


def parse_query_cursor(before: str | None) -> QueryCursor | None:
    """The cursor of the log.

    Raises:
        BadRequest: it is not one.
    """
    if before is None:
        return None
    microseconds, _, query_id = before.partition(".")
    try:
        created_at = EPOCH + int(microseconds) * MICROSECOND
    except (ValueError, OverflowError):
        raise BadRequest("before: not the `next` of a page", param="before") from None
    if not re.fullmatch(COMPLETION_ID, query_id):
        raise BadRequest("before: not the `next` of a page", param="before")
    return QueryCursor(created_at, query_id)


def query_cursor(end: QueryCursor) -> str:
    """The cursor that goes on where a page of the log ends."""
    return f"{(end.created_at - EPOCH) // MICROSECOND}.{end.query_id}"


def page(
    rows: Sequence[T], limit: int, render: Callable[[T], U], cursor: Callable[[T], int | str]
) -> Page[U]:
    """The first `limit` rows; one row more than that says that there is a next page."""
    shown = rows[:limit]
    following = str(cursor(shown[-1])) if len(rows) > limit else None
    return Page[U](items=[render(row) for row in shown], next=following)
