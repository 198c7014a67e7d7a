"""Runs a claimed cycle to its end, turns errors into endings, and leaves nothing lying about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from ttrl_client.types import CycleStatus

from server.adaptation.cycle import run_cycle
from server.adaptation.ending import Ending
from server.adaptation.run import cycle_of_step, resume
from server.adaptation.tools import Tools
from server.adaptation.tracing import traced
from server.db import cycles
from server.db.cycles import Lease
from server.engine.integrity import verifier
from server.errors import CycleCancelled, LeaseLost, TTRLError

logger = structlog.get_logger(__name__)


async def conduct(tools: Tools, lease: Lease) -> CycleStatus | None:
    """The cycle's final status, as stored; None when the lease was lost on the way.

    An error that says nothing about the cycle (the database is away, a bug) is passed on: the lease
    runs out, and the cycle is taken up again.
    """
    log = logger.bind(cycle_id=lease.cycle_id, tenant_id=lease.tenant_id, fence=lease.fence)
    try:
        async with traced(tools, lease):
            ending = await _run(tools, lease)
        if not ending.stored:
            await _store(tools, lease, ending)
    except LeaseLost as error:
        log.warning("lease lost", error=error.message)
        return None
    log.info("cycle ended", status=ending.status, reasons=ending.reasons, error=ending.error)
    await _sweep_one(tools, lease)
    return ending.status


async def _run(tools: Tools, lease: Lease) -> Ending:
    try:
        run = await resume(tools, lease)
        if run.incumbent.number and run.candidate_version is None:  # else it only goes live
            await verifier(tools.store, tools.base_digest)(run.incumbent)
        try:
            return await run_cycle(run)
        finally:
            await run.learner.close()
    except LeaseLost:
        raise
    except CycleCancelled as error:
        return Ending(CycleStatus.CANCELLED, (error.message,))
    except TTRLError as error:
        return Ending(CycleStatus.FAILED, error=f"{error.code}: {error.message}")


async def _store(tools: Tools, lease: Lease, ending: Ending) -> None:
    async with tools.database.transaction() as session:
        await cycles.finish(
            session,
            lease,
            ending.status,
            now=tools.clock.now(),
            reasons=ending.reasons or None,
            error=ending.error,
        )


async def _sweep_one(tools: Tools, lease: Lease) -> None:
    """Unload and delete the steps: what was published has a directory of its own."""
    tools.sampler.forget_chats()
    await tools.sampler.unload(lambda name: cycle_of_step(name) == lease.cycle_id)
    await asyncio.to_thread(tools.store.remove_cycle, lease.tenant_id, lease.cycle_id)


async def sweep(tools: Tools) -> None:
    """What cycles left behind that ended, while their worker died before it could sweep. Other
    workers may go on: a cycle that one of them begins meanwhile is pending now.
    """
    on_disk = await asyncio.to_thread(_cycles_on_disk, tools.store.root)
    async with tools.database.transaction(write=False) as session:
        active = await cycles.active_ids(session)
        ended = await cycles.ended_ids(session, on_disk)
    await tools.sampler.unload(lambda name: (cycle_of_step(name) or 0) not in active | {0})
    await asyncio.to_thread(tools.store.prune, ended)


def _cycles_on_disk(root: Path) -> list[int]:
    names = [folder.name[1:] for folder in root.glob("t*/c*")]
    return [int(name) for name in names if name.isdecimal()]
