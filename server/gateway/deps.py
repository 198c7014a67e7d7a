"""What the gateway works with, passed in by whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from server.clock import Clock
from server.config import Settings
from server.db.engine import Database
from server.engine.pool import EnginePool
from server.engine.registry import AdapterRegistry
from server.gateway.admission import Admission
from server.gateway.recorder import Recorder
from server.gateway.upstream import Upstream
from server.observability.traces import Traces
from server.tenants import TenantDirectory


@dataclass(frozen=True, slots=True)
class GatewayDeps:
    """Everything that outlives a request. Its owner starts and stops what can be started."""

    settings: Settings
    tenants: TenantDirectory
    pool: EnginePool
    registry: AdapterRegistry
    upstream: Upstream
    recorder: Recorder
    clock: Clock
    database: Database
    admission: Admission
    traces: Traces | None = None
