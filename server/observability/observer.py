"""Around the whole app: notes when a request comes and how it ends, and says so in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.logs import REQUEST
from server.observability.access import AccessLog
from server.observability.metrics import Metrics
from server.observability.requests import KEY, LEFT, Observed, route_of


class Observer:
    """ASGI middleware. What a request is, its handlers write into `scope[KEY]`."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: AccessLog | None) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = scope[KEY] = Observed(route_of(scope["path"]))

        def watched(message: Message) -> Awaitable[None]:  # not a coroutine of its own: no cost
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                if seen.status >= 400:
                    _name(message, seen)
            return send(message)

        token = REQUEST.set(seen)
        self._metrics.in_flight += 1
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            seen.has_left = True
            raise
        except Exception:
            seen.has_failed = seen.status != 0
            seen.status = seen.status or 500  # it is answered further out
            raise
        finally:
            self._metrics.in_flight -= 1
            REQUEST.reset(token)
            self._over(seen)

    def _over(self, seen: Observed) -> None:
        if seen.has_left or not seen.status:
            seen.status = LEFT
        seconds = perf_counter() - seen.started
        self._metrics.finished(seen, seconds)
        if seen.trace is not None:
            seen.trace.end(seen)
        if self._access_log is not None:
            self._access_log.write(seen, seconds)


def _name(message: Message, seen: Observed) -> None:
    """An error's answer carries the id under which the log speaks of it."""
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    if not any(name == b"x-request-id" for name, _ in headers):
        headers.append((b"x-request-id", seen.request_id.encode()))
        message["headers"] = headers
