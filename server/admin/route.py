"""The kind of router that each noun of the admin API has: bodies are bounded before they are
read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response, status
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MAX_BODY_BYTES = 2**20


class BoundedRoute(APIRoute):
    """A route that stops reading a body over the limit instead of filling the memory with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind a counting `receive`."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(Request(request.scope, _counting(request.receive)))

        return bounded


def noun_router(tag: str, *, prefix: str = "") -> APIRouter:
    """An empty router of one noun."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=BoundedRoute)


def _counting(receive: Receive) -> Receive:
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > MAX_BODY_BYTES:
            # FastAPI lets this exception pass while it reads a body, and turns all others into 400
            raise HTTPException(
                status.HTTP_413_CONTENT_TOO_LARGE,
                f"The body is over the limit of {MAX_BODY_BYTES} bytes.",
            )
        return message

    return counted
