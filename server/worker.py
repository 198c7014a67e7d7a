"""The worker process: plans when it leads, claims cycles, and runs one at a time.

The truth about a cycle is its row. This process holds a lease on it, which it renews three times as
often as it must; a worker that cannot renew stops working on the cycle at once, because another one
may have taken it up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any

import structlog

from adapters.answers import Equivalence
from adapters.store import AdapterStore
from server.adaptation.conduct import conduct, sweep
from server.adaptation.sampler import Sampler
from server.adaptation.tools import Tools
from server.adaptation.trainer import TrainerProcess, trainer_command
from server.clock import SystemClock
from server.config import Settings
from server.db import cycles
from server.db.cycles import Lease
from server.db.engine import Database
from server.db.failures import SQLAlchemyError, refused_at_start
from server.db.migrate import check
from server.db.text import storable
from server.engine.identity import ensure_identity, model_digest
from server.engine.integrity import Verify, verifier
from server.engine.model_files import check_model
from server.engine.pool import EnginePool
from server.engine.probe import ModelProbe
from server.engine.registry import AdapterRegistry
from server.engine.warm import Warmer
from server.errors import LeaseLost, TTRLError
from server.logs import configure_logging
from server.observability.traces import open_traces
from server.scheduler import Planner
from server.tenants import IDENTITY_NAME, VersionRef, identity_ref

logger = structlog.get_logger(__name__)

SWEEP_EVERY = timedelta(minutes=5)
FIRST_LOOK_S = 10.0  # an engine that is up is found ready by then


class Worker:
    """Claims cycles and runs them, until it is stopped. `owner` is unique for each process."""

    def __init__(self, tools: Tools, *, owner: str) -> None:
        self._tools = tools
        self._owner = owner
        self._swept: datetime | None = None

    async def run(self) -> None:
        """Work until cancelled. A cycle in progress is given back then, to be gone on with."""
        await self._tools.sampler.wait_ready(FIRST_LOOK_S)  # or nothing could be unloaded yet
        while True:
            worked = False
            try:
                await self.sweep()
                worked = await self.work_once()
            except (SQLAlchemyError, OSError, TTRLError) as error:
                logger.warning("cannot look for work", error=str(error))
            if not worked:
                await asyncio.sleep(self._tools.settings.scheduler_tick_s)

    async def work_once(self) -> bool:
        """Run the cycle whose turn it is to its end; False if there is none."""
        settings = self._tools.settings
        async with self._tools.database.transaction() as session:
            claimed = await cycles.claim(
                session, owner=self._owner, now=self._tools.clock.now(), lease_s=settings.lease_s
            )
        if claimed is None:
            return False
        lease, cycle = claimed
        with structlog.contextvars.bound_contextvars(cycle_id=cycle.id, tenant_id=cycle.tenant_id):
            logger.info("cycle claimed", attempt=cycle.attempts, fence=lease.fence)
            await self._hold_and_run(lease)
        return True

    async def sweep(self) -> None:
        """At first and now and then, between cycles: what cycles left that no worker ended, or
        whose engine was away when they did.
        """
        now = self._tools.clock.now()
        if self._swept is None or now >= self._swept + SWEEP_EVERY:
            self._swept = now
            await sweep(self._tools)

    async def _hold_and_run(self, lease: Lease) -> None:
        working = asyncio.create_task(conduct(self._tools, lease), name=f"cycle-{lease.cycle_id}")
        beating = asyncio.create_task(self._keep(lease), name=f"lease-{lease.cycle_id}")
        try:
            await asyncio.wait((working, beating), return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and not await self._has_ended(lease):
                logger.warning("lease lost, the cycle is another worker's now")
                return
            await working
        except asyncio.CancelledError:
            await _end(working)
            await self._give_back(lease)
            raise
        except Exception as error:  # a bug, or no database: the lease runs out, and it is retried
            logger.exception("cycle crashed")
            await self._note(lease, error)
        finally:
            await _end(working)
            await _end(beating)

    async def _keep(self, lease: Lease) -> None:
        """Renew the lease until it is lost, or may be."""
        lease_s = self._tools.settings.lease_s
        renewed = monotonic()
        while monotonic() - renewed < lease_s:
            await asyncio.sleep(lease_s / 3)
            asked = monotonic()
            try:
                async with asyncio.timeout(lease_s / 3):
                    await self._renew(lease)
                renewed = asked
            except LeaseLost:
                return
            except (SQLAlchemyError, OSError) as error:  # includes TimeoutError
                logger.warning("lease not renewed", error=str(error))

    async def _renew(self, lease: Lease) -> None:
        async with self._tools.database.transaction() as session:
            await cycles.heartbeat(
                session,
                lease,
                now=self._tools.clock.now(),
                lease_s=self._tools.settings.lease_s,
            )

    async def _has_ended(self, lease: Lease) -> bool:
        """Whether the lease could not be renewed because the cycle has ended under it."""
        with suppress(SQLAlchemyError, OSError):
            async with self._tools.database.transaction(write=False) as session:
                return await cycles.has_ended(session, lease)
        return False

    async def _give_back(self, lease: Lease) -> None:
        with suppress(LeaseLost, SQLAlchemyError, OSError):
            async with self._tools.database.transaction() as session:
                await cycles.release(session, lease, now=self._tools.clock.now())

    async def _note(self, lease: Lease, error: Exception) -> None:
        with suppress(LeaseLost, SQLAlchemyError, OSError):
            async with self._tools.database.transaction() as session:
                message = f"{type(error).__name__}: {error}"[:2000]
                await cycles.update_fenced(session, lease, error=storable(message))


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the model's files or the database are not as needed.
    """
    configure_logging(settings, process="worker")
    check_model(settings.model)
    async with AsyncExitStack() as stack:
        with refused_at_start(settings.sqlalchemy_url):
            database = Database(settings.sqlalchemy_url)
            stack.push_async_callback(database.close)
            await check(database)
        identity = await ensure_identity(settings)
        digest = await asyncio.to_thread(model_digest, settings.model)
        tools = await stack.enter_async_context(_tools(settings, database, identity, digest))
        owner = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"[:80]
        planner = Planner(settings, database, tools.clock, owner=owner)
        await planner.start()
        stack.push_async_callback(_leave, planner)
        await _until_signalled(Worker(tools, owner=owner).run())


async def _leave(planner: Planner) -> None:
    with suppress(SQLAlchemyError, OSError):  # another worker will lead when the lease has ended
        await planner.stop()


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or the process is asked to stop."""
    loop = asyncio.get_running_loop()
    working = asyncio.create_task(work, name="worker")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await asyncio.wait((working,))
        if not working.cancelled():
            await working
    finally:
        await _end(working)


@asynccontextmanager
async def _tools(
    settings: Settings, database: Database, identity: Path, digest: str
) -> AsyncGenerator[Tools]:
    """The worker's tools, from the settings; what runs among them is ended with the block."""

    pool = EnginePool(
        settings.engine_urls, poll_s=settings.engine_poll_s, silence_s=settings.engine_silence_s
    )
    store = AdapterStore(settings.adapters_dir)
    verify = verifier(store, digest)
    loader = _loader(settings, pool, identity, verify)
    trainer = TrainerProcess(
        trainer_command(settings),
        threads=settings.trainer_threads,
        nice=settings.trainer_nice,
        timeout_s=settings.trainer_timeout_s,
    )
    async with AsyncExitStack() as stack:
        judge = stack.enter_context(Equivalence())
        if (traces := open_traces(settings, process="worker")) is not None:
            stack.push_async_callback(asyncio.to_thread, traces.close)
        for part in (loader, pool):
            await part.start()
            stack.push_async_callback(part.stop)
        stack.push_async_callback(trainer.stop)
        yield Tools(
            settings=settings,
            database=database,
            clock=SystemClock(),
            sampler=Sampler(pool, patience_s=settings.engine_start_timeout_s, verify=verify),
            loader=loader,
            trainer=trainer,
            judge=judge,
            store=store,
            identity_dir=identity,
            base_digest=digest,
            traces=traces,
            warmer=Warmer(pool, timeout_s=settings.swap_warm_s),
        )


def _loader(
    settings: Settings, pool: EnginePool, identity: Path, verify: Verify
) -> AdapterRegistry:
    """Lets engines in as the web process does, by what they generate with the identity adapter.
    What is loaded beside it, and unloaded, is the web process's to say: it knows who uses what.
    """

    async def identity_alone() -> list[VersionRef]:
        return [identity_ref(IDENTITY_NAME, identity)]

    return AdapterRegistry(
        pool,
        wanted=identity_alone,
        keep_s=inf,
        max_adapters=sys.maxsize,
        load_timeout_s=settings.engine_load_timeout_s,
        verify=verify,
        probe=ModelProbe(),
    )
