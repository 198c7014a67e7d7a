"""Routes that are documented by FastAPI and served without it."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


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
