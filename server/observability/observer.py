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
            seen.status = seen.status or 500
            raise  # it is answered and logged further out, still as this request
        else:
            REQUEST.reset(token)
        finally:
            self._metrics.in_flight -= 1
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
