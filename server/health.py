"""Health: whether the process lives, and whether requests can be served and logged."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from server.db.failures import SQLAlchemyError
from server.db.migrate import check
from server.errors import DatabaseBehind
from server.gateway.line import LogStatus
from server.parts import Parts

PATIENCE_S: Final = 2.0  # a database that takes longer is away, as far as a probe is concerned


class LogHealth(BaseModel):
    """The query log of this process."""

    state: Literal["ok", "spooling", "full"] = Field(
        description="spooling: answers are stored on disk until the database takes them; "
        "full: nothing takes them."
    )
    entries: int = Field(description="Answers in the spool.")
    bytes: int = Field(description="What they take on disk.")
    oldest_s: int = Field(description="Age of the oldest, at most; seconds.")
    refused: int = Field(description="Answers that the database will never take, since the start.")
    unlogged: int = Field(description="Answers served without being logged, since the start.")


class Readiness(BaseModel):
    """What is degraded."""

    engines: Literal["ok", "away"]
    aside: list[str] = Field(description="Engines that get no requests, and why.")
    database: Literal["ok", "away", "behind"]
    keys: Literal["ok", "away"] = Field(
        description="away: the database is, and no key was used lately: nobody can be let in."
    )
    log: LogHealth


def health_router(parts: Parts) -> APIRouter:
    """Routes without a key, for probes."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        """Answers 200 as long as the event loop turns."""
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Whether requests can be served and logged",
        responses={
            503: {
                "description": "Every engine is away, the log is full, nobody can be let in, or "
                "the schema is behind.",
                "model": Readiness,
            }
        },
    )
    async def readyz(response: Response) -> Readiness:
        """Answers 200 when an engine is ready and answers can be logged, be it in the spool."""
        engines = "ok" if parts.pool.ready else "away"
        database = await _database(parts)
        keys = "ok" if database == "ok" or parts.tenants.knows_callers else "away"
        can_serve = engines == keys == "ok" and parts.recorder.can_serve
        if not can_serve or database == "behind":
            response.status_code = 503
        log = _log_health(parts.recorder.status)
        return Readiness(
            engines=engines, aside=parts.pool.aside, database=database, keys=keys, log=log
        )

    return router


async def _database(parts: Parts) -> Literal["ok", "away", "behind"]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await check(parts.database)
    except DatabaseBehind:
        return "behind"
    except (SQLAlchemyError, OSError):
        return "away"
    return "ok"


def _log_health(status: LogStatus) -> LogHealth:
    return LogHealth(
        state=status.state,
        entries=status.num_entries,
        bytes=status.num_bytes,
        oldest_s=status.oldest_s,
        refused=status.num_refused,
        unlogged=status.num_unlogged,
    )
