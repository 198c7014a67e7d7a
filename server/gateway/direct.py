"""Routes that are documented by FastAPI and served without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from server.http_errors import ANSWERED, answer_error
from server.observability.requests import observed


class DirectRoute(APIRoute):
    """A route whose handler takes no arguments and returns what answers, as an ASGI application.

    FastAPI resolves dependencies, holds exit stacks and builds a request for every call, which
    costs more than our own part of the way; its errors are rendered by the app all the same.
    Dependencies are for the documentation only.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        endpoint = self.endpoint

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response: Response = await endpoint()
            await response(scope, receive, send)

        self.app = answer


class Shortcut:
    """ASGI middleware: takes `POST`s to the direct routes past routing and the inner middleware,
    which cost as much as reading and checking a body. Errors are answered as the app answers them.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._answers: Mapping[str, ASGIApp] = {
            route.path: route.app for route in routes if isinstance(route, DirectRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is not for a direct route."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        answer = self._answers.get(scope["path"]) if is_post else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            await answer(scope, receive, send)
        except ANSWERED as error:
            if observed(scope).status:  # too late for an answer of its own
                raise
            response = await answer_error(Request(scope, receive), error)
            await response(scope, receive, send)
