"""The whole server at a glance."""

from __future__ import annotations

from importlib.metadata import version

from ttrl_client import types as wire

from server.admin.deps import Deps
from server.admin.route import noun_router
from server.db import admin as sql

router = noun_router("status", prefix="/status")


@router.get("")
async def read_status(deps: Deps) -> wire.Status:
    """Read the state of the database and the engines, and what there is.

    It answers 200 while they are away, and says so.
    """
    counts = await sql.count(deps.database)
    return wire.Status(
        version=version("ttrl-server"),
        model=deps.settings.served_model_name,
        database="away" if counts is None else "ok",
        engines=[
            wire.EngineStatus(
                url=engine.url,
                state=engine.state,
                reason=engine.reason,
                adapters=sorted(engine.loaded),
                in_flight=engine.in_flight,
            )
            for engine in deps.pool.engines
        ],
        num_tenants=counts and counts.num_tenants,
        num_queries=counts and counts.num_queries,
        pending_cycles=counts and counts.pending_cycles,
        running_cycles=counts and counts.running_cycles,
    )
