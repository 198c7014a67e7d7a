"""`/metrics`: what this process counts, what it sees of log, spool and engines, what the engines
say of themselves, and what the database knows of the workers.

A worker serves nothing: what it does is in the database, and is read at the moment of a scrape.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Response, Security
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from ttrl_client.types import ErrorBody

from server.auth import ADMIN_SCHEME
from server.db.facts import Facts, read_facts
from server.db.failures import SQLAlchemyError
from server.engine.pool import Engine
from server.errors import TTRLError, Unauthorized
from server.observability.engine_series import engine_name, families
from server.observability.state import (
    database_families,
    engine_families,
    log_families,
    seat_families,
)
from server.parts import Parts

PATIENCE_S: Final = 2.0  # for the database, and for each engine; what takes longer is left out

logger = logging.getLogger(__name__)


class _Families(Collector):
    """Metrics that are there already, in the shape that the library renders."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def scrape_router(parts: Parts) -> APIRouter:
    """The route, for whoever has the metrics key or the admin key."""
    router = APIRouter(tags=["health"])
    process = ProcessCollector(registry=CollectorRegistry())
    one_at_a_time = asyncio.Lock()

    @router.get(
        "/metrics",
        summary="Metrics in Prometheus's text format",
        response_class=Response,
        responses={
            200: {"description": "The metrics.", "content": {"text/plain": {}}},
            401: {"description": "The key is missing or wrong.", "model": ErrorBody},
        },
    )
    async def metrics(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(ADMIN_SCHEME)],
    ) -> Response:
        """Answers with the metrics of this process. Wants the metrics key, or the admin key."""
        if credentials is None or not parts.keys.may_scrape(credentials.credentials):
            raise Unauthorized("`Authorization: Bearer <metrics key or admin key>` is needed.")
        async with one_at_a_time:
            found = [*parts.metrics.collect(), *process.collect(), *await _state(parts)]
            # In a thread, so that a large answer does not hold up the requests for as long.
            text = await asyncio.to_thread(generate_latest, _Families(found))
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


async def _state(parts: Parts) -> list[Metric]:
    facts, texts = await asyncio.gather(_facts(parts), _texts(parts.pool.engines))
    return [
        GaugeMetricFamily(
            "ttrl_requests_in_flight",
            "Requests that are being answered, this one too.",
            value=parts.metrics.in_flight,
        ),
        *seat_families(parts.admission.queue.in_use, parts.admission.queue.waiting),
        *log_families(parts.recorder.status, parts.recorder.num_waiting),
        *engine_families(parts.pool.engines, len(parts.registry.failures)),
        *database_families(facts),
        *families(texts),
    ]


async def _facts(parts: Parts) -> Facts | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await parts.database.run(read_facts, write=False)
    except (SQLAlchemyError, OSError) as error:  # includes TimeoutError
        logger.warning("metrics without the database: %s", type(error).__name__)
        return None


async def _texts(engines: Sequence[Engine]) -> dict[str, str]:
    texts = await asyncio.gather(*(_text(engine) for engine in engines))
    found = zip(engines, texts, strict=True)
    return {engine_name(engine.url): text for engine, text in found if text is not None}


async def _text(engine: Engine) -> str | None:
    """What an engine says of itself; None of one that does not answer."""
    if engine.state == "away":
        return None
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await engine.client.metrics()
    except (TTRLError, TimeoutError):
        return None
