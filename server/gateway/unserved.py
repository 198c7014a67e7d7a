"""What OpenAI and Anthropic have and this server does not: told by name, not as an unknown path.

A 404, because clients try again at a 5xx, and nothing would change.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from server.errors import NotServed

METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]

_TEXT = "the engine generates text only; use `/v1/chat/completions`"
_STATELESS = "nothing is kept between requests; send the whole conversation each time"
_ONE_BY_ONE = "requests are answered one by one; send them side by side"
_LEARNS = "adapters are trained from the tenant's own traffic, by the admin API's cycles"

UNSERVED: Final[dict[str, str]] = {
    "/embeddings": "the engine generates text and has no embeddings",
    "/moderations": "there is no moderation model",
    "/audio/{rest:path}": _TEXT,
    "/images/{rest:path}": _TEXT,
    "/videos": _TEXT,
    "/videos/{rest:path}": _TEXT,
    "/realtime": _TEXT,
    "/realtime/{rest:path}": _TEXT,
    "/edits": _TEXT,
    "/rerank": "the engine generates text and does not rank",
    "/score": "the engine generates text and does not score",
    "/files": _STATELESS,
    "/files/{rest:path}": _STATELESS,
    "/uploads": _STATELESS,
    "/uploads/{rest:path}": _STATELESS,
    "/vector_stores": _STATELESS,
    "/vector_stores/{rest:path}": _STATELESS,
    "/containers": _STATELESS,
    "/containers/{rest:path}": _STATELESS,
    "/conversations": _STATELESS,
    "/conversations/{rest:path}": _STATELESS,
    "/assistants": _STATELESS,
    "/assistants/{rest:path}": _STATELESS,
    "/threads": _STATELESS,
    "/threads/{rest:path}": _STATELESS,
    "/responses/{rest:path}": _STATELESS,
    "/chat/completions/{rest:path}": _STATELESS,
    "/batches": _ONE_BY_ONE,
    "/batches/{rest:path}": _ONE_BY_ONE,
    "/messages/batches": _ONE_BY_ONE,
    "/messages/batches/{rest:path}": _ONE_BY_ONE,
    "/fine_tuning/{rest:path}": _LEARNS,
    "/evals": _LEARNS,
    "/evals/{rest:path}": _LEARNS,
}
"""Paths under `/v1`, and why each is not served."""


def add_unserved(router: APIRouter) -> None:
    """Answer these paths with their reason. Not in OpenAPI: there is nothing to call."""
    for path, reason in UNSERVED.items():
        _add(router, f"/v1{path}", reason)


def _add(router: APIRouter, path: str, reason: str) -> None:
    async def refuse(request: Request) -> Response:
        raise NotServed(f"{request.method} {request.url.path} is not served: {reason}.")

    router.add_route(path, refuse, methods=METHODS, include_in_schema=False)
