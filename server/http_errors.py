"""Renders every error of the web process in OpenAI's shape: our own, FastAPI's, and unforeseen
ones. On Anthropic's routes it is Anthropic's shape.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server.db.failures import DATABASE_ERRORS, is_away
from server.errors import (
    BadRequest,
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    ServerFull,
    TTRLError,
    Unauthorized,
    Unavailable,
)
from server.observability.requests import KEY, Observed

logger = logging.getLogger(__name__)

MAX_PROBLEMS = 5  # named in one message
SOURCES = frozenset({"body", "query", "path", "header", "cookie"})
ANTHROPIC_PATH = "/v1/messages"
ANSWERED: tuple[type[Exception], ...] = (TTRLError, *DATABASE_ERRORS)
"""What requests of every kind may raise, and `answer_error` answers. All else is a mistake of
ours."""


def install_error_handlers(app: FastAPI) -> None:
    """Make the app answer every error in its route's shape."""
    for error in ANSWERED:
        app.add_exception_handler(error, answer_error)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def answer_error(request: Request, error: Exception) -> Response:
    """The answer to one of `ANSWERED`, with a line in the log where it is ours. What the database
    holds against a statement of ours is raised again: it is a mistake like any other.
    """
    if not isinstance(error, TTRLError) and not is_away(error):
        raise error
    return await (_own if isinstance(error, TTRLError) else _database)(request, error)


def error_response(request: Request, error: TTRLError) -> JSONResponse:
    """The answer that tells a client about this error."""
    path = request.url.path
    is_anthropic = path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/")
    body = error.anthropic_body() if is_anthropic else error.body()
    headers = dict(error.headers() or {})
    if isinstance(seen := request.scope.get(KEY), Observed):
        headers["x-request-id"] = seen.request_id  # the log speaks of it under this id
        if is_anthropic:
            headers["request-id"] = seen.request_id
    return JSONResponse(body, status_code=error.status_code, headers=headers)


async def _own(request: Request, error: Exception) -> Response:
    assert isinstance(error, TTRLError)
    if error.status_code >= 500 and not isinstance(error, ServerFull):  # of those come many
        logger.warning("%s %s: %s", request.method, request.url.path, error.message)
    return error_response(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    first = _place(problems[0]) if problems else ""
    message = "; ".join(_problem(problem) for problem in problems[:MAX_PROBLEMS])
    if len(problems) > MAX_PROBLEMS:
        message += f"; and {len(problems) - MAX_PROBLEMS} more"
    return error_response(request, BadRequest(message, param=first or None))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known: dict[int, TTRLError] = {
        401: Unauthorized(error.detail),
        404: NotFound(f"No such route: {request.method} {request.url.path}"),
        405: MethodNotAllowed(f"{request.url.path} does not take {request.method}."),
        413: BodyTooLarge(error.detail),
    }
    rendered = known.get(error.status_code)
    if rendered is None:
        rendered = (BadRequest if error.status_code < 500 else TTRLError)(error.detail)
    response = error_response(request, rendered)
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response


async def _database(request: Request, error: Exception) -> Response:
    logger.error(
        "%s %s: the database does not answer", request.method, request.url.path, exc_info=error
    )
    return error_response(request, Unavailable("The database is away for the moment."))


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(request, TTRLError("The server made a mistake. Its log says more."))


def _place(problem: Mapping[str, Any]) -> str:
    """Where in the request: dotted, without the leading "body" or "query"."""
    location: Sequence[Any] = problem["loc"]
    if problem["type"] == "json_invalid":
        return ""
    if location and location[0] in SOURCES:
        location = location[1:]
    return ".".join(str(part) for part in location)


def _problem(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"The body is not valid JSON: {problem.get('ctx', {}).get('error', '')}"
    place = _place(problem)
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {reason}" if place else f"The body is not valid: {reason}"
