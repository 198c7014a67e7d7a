"""A swap is a pointer move: load the version on every engine, fill its prefix cache, then flip the
tenant's row.

Requests in flight finish on the version they started with; the registry unloads it later. A
rollback is the same move backwards. The worker promotes with it, the admin API promotes and rolls
back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from server.clock import Clock
from server.db import versions
from server.db.engine import Database
from server.db.models import Swap, Tenant
from server.db.prefixes import common_prefixes
from server.engine.warm import Warmer
from server.errors import Conflict, NotFound
from server.tenants import VersionRef, cache_salt, identity_ref, version_ref


class Loader(Protocol):
    """Brings a version onto every engine: the adapter registry."""

    async def load_everywhere(self, version: VersionRef) -> float:
        """Milliseconds until every ready engine answers under the version's name."""
        ...


Also = Callable[[AsyncSession, Swap], Awaitable[None]]


async def swap(
    database: Database,
    loader: Loader,
    clock: Clock,
    *,
    identity_dir: Path,
    tenant_id: int,
    to_version: int,
    reason: str,
    warmer: Warmer | None = None,
    expected_live: int | None = None,
    also: Also | None = None,
) -> Swap:
    """Make `to_version` the tenant's live version; nothing changes if any step fails.

    `warmer` fills the version's prefix cache first, as far as its time allows; a rollback has no
    time for that, and finds most of it filled. `expected_live` refuses the move when somebody else
    moved the pointer meanwhile. `also` runs in the flipping transaction, so that what must be true
    together becomes true together.

    Raises:
        NotFound: no such tenant or version.
        Conflict: the pointer is elsewhere than expected, or there already.
        EngineUnavailable: the version could not be loaded.
    """
    version = await _read(database, identity_dir, tenant_id, to_version)
    load_ms = await loader.load_everywhere(version)
    if warmer is not None:
        await _warm(database, warmer, tenant_id, version)
    started = perf_counter()
    async with database.transaction() as session:
        tenant = await _living(session, tenant_id)
        if expected_live is not None and tenant.live_version != expected_live:
            raise Conflict(f"The live version is {tenant.live_version}, not {expected_live}.")
        if tenant.live_version == to_version:
            raise Conflict(f"Version {to_version} is live already.")
        row = versions.swap_row(
            tenant=tenant,
            to_version=to_version,
            reason=reason,
            load_ms=load_ms,
            flip_ms=0.0,
            now=clock.now(),
        )
        await versions.flip(session, tenant, row)
        if also is not None:
            await also(session, row)
        row.flip_ms = (perf_counter() - started) * 1e3  # all but the commit
    return row


async def _warm(database: Database, warmer: Warmer, tenant_id: int, version: VersionRef) -> None:
    async with database.transaction(write=False) as session:
        prefixes = await common_prefixes(session, tenant_id)
    await warmer.warm(version, prefixes, cache_salt=cache_salt(tenant_id))


async def _living(session: AsyncSession, tenant_id: int) -> Tenant:
    tenant = await versions.tenant_for_update(session, tenant_id)
    if tenant is None:
        raise NotFound("There is no such tenant.")
    return tenant


async def _read(database: Database, identity_dir: Path, tenant_id: int, number: int) -> VersionRef:
    async with database.transaction(write=False) as session:
        tenant = await _living(session, tenant_id)
        if number == 0:
            return identity_ref(tenant.name, identity_dir)
        row = await versions.version_row(session, tenant_id, number)
    if row is None:
        raise NotFound(f"There is no version {number}.", param="version")
    return version_ref(tenant.name, row)
