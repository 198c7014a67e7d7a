"""The way to the engines: shared connections, the choice of an engine, and the retries that
are safe because no byte was answered yet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from server.engine.pool import Engine, EnginePool, PutAside
from server.engine.registry import AdapterRegistry
from server.errors import EngineFailed, EngineUnavailable, TTRLError
from server.gateway.engine_answer import begun
from server.gateway.engine_errors import engine_error
from server.gateway.engine_http import EngineGone, EngineHttp, EngineResponse, EngineUnreachable
from server.tenants import VersionRef

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 4.0  # an engine's own limit may be 5 s: never reuse what it is closing
MAX_ERROR_BYTES: Final = 64 * 1024
RETRY_AFTER_S: Final = 2
MAX_SENT: Final = 2
WENT_AWAY: Final = "The engine went away while it answered."


@dataclass(slots=True)
class _Journey:
    """A request on its way to the engine that will answer it."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    version: VersionRef
    tenant: str
    tried: list[Engine] = field(default_factory=list[Engine])
    num_sent: int = 0  # times that an engine may have begun with it
    trouble: TTRLError | None = None  # of the engine that was tried last


class Asking:
    """A block in which an engine's answer is open; see `Upstream.post`."""

    __slots__ = ("_answer", "_engine", "_journey", "_upstream")

    def __init__(self, upstream: Upstream, journey: _Journey) -> None:
        self._upstream = upstream
        self._journey = journey

    async def __aenter__(self) -> EngineResponse:
        self._engine, self._answer = await self._upstream.answer(self._journey)
        return self._answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        engine = self._engine
        try:
            if isinstance(error, EngineGone):
                raise EngineUnavailable(WENT_AWAY) from error
            if isinstance(error, EngineFailed) and not await engine.client.healthy():
                raise EngineUnavailable(WENT_AWAY) from error
        finally:
            self._answer.close()
            engine.turns.give_back(self._journey.version.engine_name)
            engine.end()


class Upstream:
    """Posts requests to engines. Start it in the event loop that uses it."""

    def __init__(
        self, pool: EnginePool, registry: AdapterRegistry, *, max_connections: int
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._max_connections = max_connections
        self._http: EngineHttp | None = None

    async def start(self) -> None:
        """From now on requests can be posted; connections are opened as they are needed."""
        self._http = EngineHttp(
            max_connections=self._max_connections,
            connect_s=CONNECT_TIMEOUT_S,
            keepalive_s=KEEPALIVE_S,
        )

    async def stop(self) -> None:
        """Close all connections, also those in use."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    @property
    def num_connections(self) -> int:
        """Connections to engines, those that are kept for later too."""
        return 0 if self._http is None else self._http.num_connections

    def post(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        version: VersionRef,
        *,
        tenant: str = "",
    ) -> Asking:
        """The engine's answer, its status 200, its first bytes here, open for reading. Leaving the
        block early closes the connection, which stops the generation.

        An engine that cannot be reached, is put aside, or fails before its first byte is passed
        over for another; one that has lost the version gets it back, once. What was sent goes to
        two engines at most, lest a request that kills engines kills them all.

        Raises:
            EngineUnavailable: no engine can be reached, or it went away.
            BadRequest, Overloaded, EngineFailed: what the engine answered instead.
        """
        return Asking(self, _Journey(path, body, headers, version, tenant))

    async def answer(self, journey: _Journey) -> tuple[Engine, EngineResponse]:
        """Who answers, with the adapter's turn taken and the request counted, and the answer from
        its first byte on. Errors as `post`.
        """
        while True:
            engine = self._next(journey)
            engine.begin()
            answer = None
            try:
                answer = await self._ask(engine, journey)
            finally:
                if answer is None:
                    engine.end()
            if answer is not None:
                return engine, answer

    def _next(self, journey: _Journey) -> Engine:
        trouble = journey.trouble
        if trouble is not None and journey.num_sent >= MAX_SENT:
            raise trouble
        try:
            return self._pool.pick(
                journey.version.engine_name, affinity=journey.tenant, without=journey.tried
            )
        except EngineUnavailable as error:
            raise trouble or error from trouble

    async def _ask(self, engine: Engine, journey: _Journey) -> EngineResponse | None:
        """The answer, for which the adapter's turn on the engine was taken; or None when another
        engine is to be asked.
        """
        name = journey.version.engine_name
        has_turn = False
        answer = None
        try:
            async with engine.waiting():
                await engine.turns.take(name, journey.tenant)
                has_turn = True
                answer = await self._begin(engine, journey)
        except PutAside:
            journey.trouble = EngineUnavailable("The engine does not answer.")
        except EngineUnavailable as error:
            journey.trouble = error
        finally:
            if answer is None and has_turn:
                engine.turns.give_back(name)
        if answer is None:
            journey.tried.append(engine)
        return answer

    async def _begin(self, engine: Engine, journey: _Journey) -> EngineResponse:
        """The answer from its first byte on.

        Raises:
            EngineUnavailable: another engine may do better.
            BadRequest, Overloaded, EngineFailed: what the engine answered instead.
        """
        for may_reload in (True, False):
            await self._registry.ensure(journey.version, engine)
            response = await self._send(engine, journey)
            try:
                if response.status == 200:
                    return await begun(response)
                if response.status != 404 or not may_reload:
                    raise await self._refused(engine, response, journey.version)
            except EngineGone as error:
                response.close()
                raise EngineUnavailable(WENT_AWAY) from error
            except BaseException:
                response.close()
                raise
            response.close()
            self._registry.forget(journey.version, engine)  # it was restarted, or unloaded it
        raise AssertionError("unreachable")

    async def _refused(
        self, engine: Engine, response: EngineResponse, version: VersionRef
    ) -> TTRLError:
        error = await _refusal(response, version)
        if response.status >= 500 and not await engine.client.healthy():
            # What a dying engine says of a request is about itself.
            self._pool.set_state(engine, "away", "It is not well.")
            return EngineUnavailable(WENT_AWAY)
        return error

    async def _send(self, engine: Engine, journey: _Journey) -> EngineResponse:
        """The response's head.

        Raises:
            EngineUnavailable: the engine cannot be reached, or went away.
        """
        if self._http is None:
            raise EngineUnavailable("The gateway is not started.", retry_after_s=RETRY_AFTER_S)
        has_gone = False
        for _ in range(2):
            try:
                response = await self._http.post(
                    engine.url, journey.path, journey.body, journey.headers
                )
            except EngineUnreachable as error:
                if has_gone:  # it may have died of the request
                    journey.num_sent += 1
                self._pool.set_state(engine, "away", "It cannot be reached.")
                raise EngineUnavailable("The engine cannot be reached.") from error
            except EngineGone as error:
                # Perhaps only an idle connection that the engine was closing: once more.
                has_gone = True
                logger.warning(
                    "connection broken", extra={"url": engine.url, "error": repr(error)[:500]}
                )
            else:
                journey.num_sent += 1
                return response
        journey.num_sent += 1
        raise EngineUnavailable(WENT_AWAY, retry_after_s=RETRY_AFTER_S)


async def _refusal(response: EngineResponse, version: VersionRef) -> TTRLError:
    body = await response.read(MAX_ERROR_BYTES)
    error = engine_error(response.status, body, hidden={version.engine_name: version.label})
    if error.status_code >= 500:
        logger.warning(
            "engine refused", extra={"status": response.status, "body": body[:500].decode("latin1")}
        )
    return error
