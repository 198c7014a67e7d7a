"""What the admin API works with, and how its routes get at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, cast

from fastapi import Depends, Request

from server.auth import Keys
from server.clock import Clock
from server.config import Settings
from server.db.engine import Database
from server.engine.warm import Warmer
from server.swap import Loader
from server.tenants import TenantDirectory


class EngineView(Protocol):
    """What the status shows of an engine."""

    @property
    def url(self) -> str: ...
    @property
    def state(self) -> Literal["starting", "ready", "away"]: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def loaded(self) -> set[str]: ...


class PoolView(Protocol):
    """The engines, as the status needs them."""

    @property
    def engines(self) -> Sequence[EngineView]: ...


@dataclass(frozen=True, slots=True)
class AdminDeps:
    """Everything that the admin API is given."""

    settings: Settings
    database: Database
    keys: Keys
    tenants: TenantDirectory
    pool: PoolView
    registry: Loader
    clock: Clock
    identity_dir: Path  # version 0's directory
    flush_log: Callable[[], Awaitable[None]]  # until the rows of this process's answers are there
    warmer: Warmer | None = None  # for promotions


def admin_deps(request: Request) -> AdminDeps:
    """What the router put on the request when it let it in."""
    return cast(AdminDeps, request.state.admin)


Deps = Annotated[AdminDeps, Depends(admin_deps)]
