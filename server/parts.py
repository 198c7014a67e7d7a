"""The long-lived parts of the web process, put together from the settings."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.store import AdapterStore
from server.admin.deps import AdminDeps
from server.auth import Keys
from server.clock import Clock, SystemClock
from server.config import Settings
from server.db.engine import Database
from server.engine.integrity import verifier
from server.engine.pool import EnginePool
from server.engine.probe import ModelProbe
from server.engine.registry import AdapterRegistry
from server.engine.warm import Warmer
from server.gateway.admission import Admission
from server.gateway.deps import GatewayDeps
from server.gateway.journaling import Journaling
from server.gateway.recorder import Recorder
from server.gateway.upstream import Upstream
from server.gateway.votes.judge import VoteJudge
from server.observability.metrics import Metrics
from server.observability.traces import Traces, open_traces
from server.presence import Presence
from server.spool.backlog import Backlog
from server.spool.journal import Journal
from server.tenants import TenantDirectory

KEPT_SLOTS = 2  # of an engine's LoRA slots: one for a tenant that swaps, one for a cycle's samples


@dataclass(frozen=True, slots=True)
class Parts:
    """What lives as long as the process. Made without I/O; `running` starts and stops it."""

    settings: Settings
    clock: Clock
    database: Database
    keys: Keys
    identity_dir: Path
    tenants: TenantDirectory
    pool: EnginePool
    registry: AdapterRegistry
    upstream: Upstream
    recorder: Recorder
    admission: Admission
    metrics: Metrics
    traces: Traces | None
    judge: VoteJudge

    @classmethod
    def assemble(
        cls,
        settings: Settings,
        *,
        keys: Keys,
        engine_urls: Sequence[str],
        identity_dir: Path,
        base_digest: str | None = None,
    ) -> Parts:
        """Wire the parts to one another; `base_digest` is what versions are held against."""
        database = Database(settings.sqlalchemy_url)
        tenants = TenantDirectory(
            database,
            digest=keys.digest,
            identity_dir=identity_dir,
            served_model_name=settings.served_model_name,
            cache_s=settings.tenant_cache_s,
        )
        pool = _pool(settings, engine_urls)
        registry = _registry(settings, pool, tenants, base_digest)
        metrics = Metrics(max_tenants=settings.metrics_tenants)
        return cls(
            settings=settings,
            clock=SystemClock(),
            database=database,
            keys=keys,
            identity_dir=identity_dir,
            tenants=tenants,
            pool=pool,
            registry=registry,
            upstream=Upstream(pool, registry, max_connections=settings.max_in_flight),
            admission=Admission(settings),
            recorder=Recorder(
                database,
                Backlog(settings.spool_dir, max_bytes=settings.log_spool_bytes),
                Journaling(Journal(settings.spool_dir)) if settings.has_journal else None,
                queue_size=settings.log_queue_size,
                timeout_s=settings.log_timeout_s,
                patience_s=settings.log_patience_s,
                when_full=settings.log_when_full,
                is_alone=lambda: metrics.in_flight <= 1,
                on_commit=metrics.committed,
            ),
            metrics=metrics,
            traces=open_traces(settings, process="web"),
            judge=VoteJudge(),
        )

    @property
    def gateway(self) -> GatewayDeps:
        """The data plane's share."""
        return GatewayDeps(
            settings=self.settings,
            tenants=self.tenants,
            pool=self.pool,
            registry=self.registry,
            upstream=self.upstream,
            recorder=self.recorder,
            clock=self.clock,
            database=self.database,
            admission=self.admission,
            traces=self.traces,
            judge=self.judge,
        )

    @property
    def admin(self) -> AdminDeps:
        """The admin API's share."""
        return AdminDeps(
            settings=self.settings,
            database=self.database,
            keys=self.keys,
            tenants=self.tenants,
            pool=self.pool,
            registry=self.registry,
            clock=self.clock,
            identity_dir=self.identity_dir,
            flush_log=self.recorder.flush,
            warmer=Warmer(self.pool, timeout_s=self.settings.swap_warm_s),
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start the parts in the order of their needs, and stop them backwards."""
        async with AsyncExitStack() as stack:
            if self.traces is not None:
                stack.push_async_callback(asyncio.to_thread, self.traces.close)
            stack.push_async_callback(self.database.close)
            presence = Presence(
                self.settings.presence_path, self.admission.arrived, self.admission.is_serving
            )
            for part in (
                presence,
                self.judge,
                self.recorder,
                self.upstream,
                self.registry,
                self.pool,
            ):
                await part.start()
                stack.push_async_callback(part.stop)
            gc.collect()
            gc.freeze()  # what is here stays: a collection need not look through it
            yield


def _pool(settings: Settings, engine_urls: Sequence[str]) -> EnginePool:
    return EnginePool(
        engine_urls,
        poll_s=settings.engine_poll_s,
        num_slots=settings.engine_max_loras - KEPT_SLOTS,
        silence_s=settings.engine_silence_s,
    )


def _registry(
    settings: Settings, pool: EnginePool, tenants: TenantDirectory, base_digest: str | None
) -> AdapterRegistry:
    return AdapterRegistry(
        pool,
        wanted=tenants.live_versions,
        keep_s=settings.engine_keep_s,
        max_adapters=max(settings.engine_max_cpu_loras, settings.engine_max_loras) - KEPT_SLOTS,
        load_timeout_s=settings.engine_load_timeout_s,
        verify=verifier(AdapterStore(settings.adapters_dir), base_digest),
        probe=ModelProbe(),
    )
