"""Fills a new version's prefix cache before users meet it.

Cached blocks belong to an adapter's name, so each version starts with none: without this, a swap
would have each user's next request compute the tenant's instructions anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from server.engine.integrity import VersionLike
from server.engine.pool import Engine, EnginePool
from server.errors import TTRLError

logger = logging.getLogger(__name__)

ANYTHING = {"role": "user", "content": "."}  # templates want somebody to answer


class Warmer:
    """Sends beginnings of prompts to every ready engine that has the version."""

    def __init__(self, pool: EnginePool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def warm(
        self, version: VersionLike, prefixes: Sequence[Mapping[str, Any]], *, cache_salt: str
    ) -> None:
        """Return when the prefixes (`messages`, perhaps `tools`) are cached, or the time is over.

        Nothing is raised: a swap does not depend on it.
        """
        if not self._timeout_s:
            return
        engines = [e for e in self._pool.ready if version.engine_name in e.loaded]
        filling = [
            self._fill(engine, version, prefix, cache_salt)
            for engine in engines
            for prefix in prefixes
        ]
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*filling)
        except TimeoutError:
            logger.info("version not warm in time", extra={"adapter": version.engine_name})

    async def _fill(
        self, engine: Engine, version: VersionLike, prefix: Mapping[str, Any], cache_salt: str
    ) -> None:
        try:
            await engine.client.prefill(
                model=version.engine_name,
                messages=[*prefix["messages"], ANYTHING],
                tools=prefix.get("tools"),
                cache_salt=cache_salt,
            )
        except TTRLError as error:
            logger.info("version not warm", extra={"url": engine.url, "error": error.message})
