"""The way to the engines: one shared HTTP session, the choice of an engine, and the retries that
are safe because no byte was answered yet.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from server.engine.pool import Engine, EnginePool
from server.engine.registry import AdapterRegistry
from server.errors import EngineFailed, EngineUnavailable, TTRLError
from server.gateway.engine_errors import engine_error
from server.tenants import VersionRef

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 4.0  # an engine's own limit may be 5 s: never reuse what it is closing
MAX_ERROR_BYTES: Final = 64 * 1024
RETRY_AFTER_S: Final = 2


class Upstream:
    """Posts requests to engines. Start it in the event loop that uses it."""

    def __init__(
        self, pool: EnginePool, registry: AdapterRegistry, *, max_connections: int
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the session; connections follow as they are needed."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections, keepalive_timeout=KEEPALIVE_S, use_dns_cache=True
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def stop(self) -> None:
        """Close all connections, also those in use."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], version: VersionRef
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The engine's answer, its status 200, open for reading. Leaving the block early closes the
        connection, which stops the generation.

        An engine that cannot be reached, or fails and is not well, is passed over for another; one
        that has lost the version gets it back, once.

        Raises:
            EngineUnavailable: no engine can be reached.
            BadRequest, Overloaded, EngineFailed: what the engine answered instead.
        """
        tried: set[Engine] = set()
        engine = self._pick(tried)
        may_reload = True
        while True:
            with engine.busy():
                await self._registry.ensure(version, engine)
                response = await self._send(engine, path, body, headers)
                if response is None:
                    tried.add(engine)
                    engine = self._pick(tried)
                    continue
                try:
                    if response.status == 200:
                        yield response
                        return
                    if response.status >= 500 and not await engine.client.healthy():
                        # What a dying engine says of a request is about itself.
                        self._pool.set_state(engine, "away")
                        tried.add(engine)
                        engine = self._pick(tried)
                        continue
                    if response.status != 404 or not may_reload:
                        raise await _refusal(response, version)
                except aiohttp.ClientError as error:
                    raise EngineUnavailable("The engine went away while it answered.") from error
                except EngineFailed as error:
                    if await engine.client.healthy():
                        raise
                    raise EngineUnavailable("The engine went away while it answered.") from error
                finally:
                    response.close()
                may_reload = False  # the engine was restarted, or unloaded it
                self._registry.forget(version, engine)

    def _pick(self, tried: set[Engine]) -> Engine:
        engine = self._pool.pick()
        if engine in tried:
            others = [other for other in self._pool.ready if other not in tried]
            if not others:
                raise EngineUnavailable("No engine can be reached.", retry_after_s=RETRY_AFTER_S)
            engine = min(others, key=lambda other: other.in_flight)
        return engine

    async def _send(
        self, engine: Engine, path: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse | None:
        """The response's head, or None when the engine cannot be reached."""
        if self._session is None:
            raise EngineUnavailable("The gateway is not started.", retry_after_s=RETRY_AFTER_S)
        for _ in range(2):
            try:
                return await self._session.post(
                    engine.url + path, data=body, headers=headers, allow_redirects=False
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                self._pool.set_state(engine, "away")
                break
            except aiohttp.ClientError as error:
                # Perhaps only an idle connection that the engine was closing: once more.
                logger.warning(
                    "connection broken", extra={"url": engine.url, "error": repr(error)[:500]}
                )
        return None


async def _refusal(response: aiohttp.ClientResponse, version: VersionRef) -> TTRLError:
    body = await response.content.read(MAX_ERROR_BYTES)
    error = engine_error(response.status, body, hidden={version.engine_name: version.label})
    if error.status_code >= 500:
        logger.warning(
            "engine refused", extra={"status": response.status, "body": body[:500].decode("latin1")}
        )
    return error
