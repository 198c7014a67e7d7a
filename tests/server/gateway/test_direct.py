"""The short way to the direct routes: who takes it, and that errors on it are answered alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import Overloaded
from server.gateway.direct import DirectRoute, Shortcut
from server.http_errors import install_error_handlers
from server.observability.requests import KEY, Observed

from .conftest import Stack

Answering = Callable[[Send], Awaitable[None]]


async def ok(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"direct"})


async def overloaded(_send: Send) -> None:
    raise Overloaded("Too much.")


async def away(_send: Send) -> None:
    raise ConnectionError("away")


async def half(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise Overloaded("Too late.")


def made(answering: Answering, *, is_short: bool, is_hidden: bool = True) -> FastAPI:
    """An app of one direct route; hidden: only the short way leads there."""

    class Answer(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering(send)

    async def direct() -> Response:
        return Answer()

    routes = APIRouter(route_class=DirectRoute)
    routes.add_api_route("/direct", direct, methods=["POST"])
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(routes)
    if is_hidden:
        app.add_middleware(Hiding)
    if is_short:
        app.add_middleware(Shortcut, routes=app.routes)
    app.add_middleware(Noting)
    return app


class Hiding:
    """Middleware that the short way passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"].replace("/direct", "/hidden")
        await self._app(scope, receive, send)


class Noting:
    """As much of the observer as the short way asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = scope[KEY] = Observed()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = 200
            await send(message)

        await self._app(scope, receive, noting)


async def ask(app: FastAPI, method: str = "POST", path: str = "/direct") -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.request(method, path)


async def test_only_posts_to_direct_routes_are_taken_past_the_others():
    app = made(ok, is_short=True)
    assert (await ask(app)).text == "direct"
    assert (await ask(app, "GET")).status_code == 404
    assert (await ask(app, path="/other")).status_code == 404
    assert (await ask(made(ok, is_short=False))).status_code == 404


@pytest.mark.parametrize("answering", [overloaded, away])
async def test_errors_are_answered_as_the_app_answers_them(answering: Answering):
    short = await ask(made(answering, is_short=True))
    long = await ask(made(answering, is_short=False, is_hidden=False))
    assert (short.status_code, short.json()) == (long.status_code, long.json())
    assert short.status_code == (429 if answering is overloaded else 503)


async def test_an_error_after_the_first_byte_is_not_answered_again():
    transport = httpx.ASGITransport(made(half, is_short=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with pytest.raises(Overloaded):
            await http.post("/direct")


def test_every_route_that_generates_is_direct(stack: Stack):
    assert {route.path for route in stack.app.routes if isinstance(route, DirectRoute)} == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
    }
