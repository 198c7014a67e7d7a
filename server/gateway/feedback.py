"""`POST /v1/feedback`: what a tenant knows about answers that it was given.

Not OpenAI's, but in the style of it. What is said is stored and nothing else happens here; cycles
read it (server.adaptation.truths). An id of another tenant looks like one that never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from ttrl_client import types as wire

from server.db import feedback as sql
from server.db.models import Feedback
from server.errors import BadRequest, NotFound, Unavailable
from server.gateway import openapi
from server.gateway.client_side import ClientLeft, api_key, read_body
from server.gateway.deps import GatewayDeps
from server.gateway.turns import Turns
from server.observability.requests import observed
from server.tenants import Caller

MAX_BODY_BYTES: Final = 2**20
MAX_IN_FLIGHT: Final = 64  # over all tenants; these requests are short
MAX_PER_TENANT: Final = 16  # so that slow bodies of one keep nobody else away
RETRY_AFTER_S: Final = 5
OTHERS_S: Final = 0.2  # in which what another web process has in its journal is in the database

B = TypeVar("B", bound=BaseModel)


def add_feedback(router: APIRouter, deps: GatewayDeps) -> None:
    """Add the routes of feedback."""
    turns = Turns(MAX_IN_FLIGHT, MAX_PER_TENANT)

    @router.post(
        "/feedback",
        responses=openapi.errors(400, 401, 404, 408, 413, 429, 500, 503),
        openapi_extra={"requestBody": _described(wire.FeedbackCreate)},
    )
    async def feedback(request: Request) -> wire.Feedback:
        """Say how good an answer was, or what the correct one is.

        Correct answers become labels of the learner and truths of the gate, as the tenant's
        settings say. Sending the same again changes nothing; other feedback to the same answer
        replaces this.
        """
        caller = await deps.tenants.caller(api_key(request.scope))
        observed(request.scope).let_in(caller.tenant_id, caller.tenant)
        with turns.take(caller.tenant_id):
            given = await _read(request, deps, wire.FeedbackCreate)
            (shown,), _ = await _store(deps, caller, [given])
        if shown is None:
            raise NotFound(_unknown(given.id), param="id")
        return shown

    @router.post(
        "/feedback/batch",
        responses=openapi.errors(400, 401, 408, 413, 429, 500, 503),
        openapi_extra={"requestBody": _described_batch()},
    )
    async def feedback_batch(request: Request) -> wire.FeedbackBatch:
        """Give feedback to up to a hundred answers at once.

        Ids that are not in the log are named in `unknown`; feedback to the others is stored.
        """
        caller = await deps.tenants.caller(api_key(request.scope))
        observed(request.scope).let_in(caller.tenant_id, caller.tenant)
        with turns.take(caller.tenant_id):
            given = await _read(request, deps, wire.FeedbackBatchCreate)
            shown, unknown = await _store(deps, caller, given.items)
        data = [one for one in shown if one is not None]
        return wire.FeedbackBatch(data=data, unknown=sorted(unknown))


async def _read(request: Request, deps: GatewayDeps, shape: type[B]) -> B:
    limit = min(MAX_BODY_BYTES, deps.settings.max_body_bytes)
    try:
        body = await read_body(request.scope, request.receive, deps.settings, max_bytes=limit)
    except ClientLeft:
        raise BadRequest("The body is not complete.") from None  # which nobody hears
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> BadRequest:
    """What is wrong first; the value itself is not repeated."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = str(problem["msg"]).removeprefix("Value error, ")[:300]
    if problem["type"] == "json_invalid":
        return BadRequest(f"The body is not valid JSON: {reason}.")
    place = ".".join(str(part)[:100] for part in problem["loc"])
    where = f"`{place}`" if place else "The body"
    return BadRequest(f"{where} is not valid: {reason}.", param=place or None)


async def _store(
    deps: GatewayDeps, caller: Caller, given: Sequence[wire.FeedbackCreate]
) -> tuple[list[wire.Feedback | None], frozenset[str]]:
    """What is stored now, aligned with what was given, and the ids that are not in the log."""
    said = [
        sql.Said(one.id, one.choice, one.score, one.correct_answer, one.comment) for one in given
    ]
    try:
        async with asyncio.timeout(deps.settings.log_timeout_s):
            stored, is_final = await _stored(deps, caller, said)
    except TimeoutError:
        raise Unavailable("Feedback cannot be stored in time.") from None
    if stored.unknown and not is_final:
        # They may be in the spool. What was stored is not stored twice when all of it comes again.
        raise Unavailable(
            "Answers are waiting to be logged, perhaps this one too. Send the feedback again.",
            retry_after_s=RETRY_AFTER_S,
        )
    rows = [stored.rows.get((one.id, one.choice)) for one in given]
    return [None if row is None else _rendered(row) for row in rows], stored.unknown


async def _stored(
    deps: GatewayDeps, caller: Caller, said: Sequence[sql.Said]
) -> tuple[sql.Stored, bool]:
    """What is stored, and whether all answers were in the database before. They may be in a journal
    still, this process's or another one's.
    """
    was_ok = deps.recorder.status.state == "ok"
    stored = await sql.store(deps.database, caller.tenant_id, said, deps.clock.now())
    if stored.unknown and deps.settings.has_journal:
        await deps.recorder.flush()
        if deps.settings.web_processes > 1:
            await asyncio.sleep(OTHERS_S)
        was_ok = deps.recorder.status.state == "ok"
        stored = await sql.store(deps.database, caller.tenant_id, said, deps.clock.now())
    return stored, was_ok and deps.recorder.status.state == "ok"


def _rendered(row: Feedback) -> wire.Feedback:
    return wire.Feedback(
        id=row.query_id,
        choice=row.choice,
        score=row.score,
        correct_answer=row.correct_answer,
        comment=row.comment,
        adapter_version=row.adapter_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _unknown(completion_id: str) -> str:
    return (
        f"There is no completion `{completion_id}` in this tenant's log. A completion that was"
        " asked for with `store: false` is not logged, so there can be no feedback to it."
    )


def _described(shape: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _schema(shape)}}}


def _schema(shape: type[BaseModel]) -> dict[str, Any]:
    schema = shape.model_json_schema()
    schema.pop("$defs", None)
    return schema


def _described_batch() -> dict[str, Any]:
    """Without references: OpenAPI would look for them elsewhere."""
    described = _described(wire.FeedbackBatchCreate)
    schema = described["content"]["application/json"]["schema"]
    schema["properties"]["items"]["items"] = _schema(wire.FeedbackCreate)
    return described
