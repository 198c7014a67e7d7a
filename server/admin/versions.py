"""Adapter versions of a tenant: list, read, and move the pointer that says which one answers."""

from __future__ import annotations

from ttrl_client import types as wire
from ttrl_client.types import MAX_VERSION

from server.admin import render
from server.admin.deps import AdminDeps, Deps
from server.admin.openapi import Before, Limit, TenantName, VersionNumber, errors, page, parse_id
from server.admin.route import noun_router
from server.db import versions
from server.db.admin import list_versions as version_rows
from server.db.admin import require_tenant
from server.db.feedback import scores_of_versions
from server.engine.warm import Warmer
from server.errors import Conflict, NotFound
from server.swap import swap

router = noun_router("versions", prefix="/tenants/{name}")


@router.get("/versions", responses=errors(404))
async def list_versions(
    deps: Deps, name: TenantName, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Version]:
    """List a tenant's versions, newest first, down to version 0, the base model."""
    below = parse_id(before, most=MAX_VERSION)
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
        found = await version_rows(session, tenant.id, limit=limit + 1, before=below)
        numbers = [0, *(row.number for row in found)]
        said = await scores_of_versions(session, tenant.id, numbers)
    live = tenant.live_version
    shown = [render.version(row, live, said.get(row.number)) for row in found]
    if below != 0:
        shown.append(render.identity_version(live, said.get(0)))
    return page(shown, limit, lambda version: version, lambda version: version.number)


@router.get("/versions/{number}", responses=errors(404))
async def read_version(deps: Deps, name: TenantName, number: VersionNumber) -> wire.Version:
    """Read a version with the report that let it pass the gate."""
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
        said = (await scores_of_versions(session, tenant.id, [number])).get(number)
        if number == 0:
            return render.identity_version(tenant.live_version, said)
        row = await versions.version_row(session, tenant.id, number)
    if row is None:
        raise NotFound(f"Tenant {name!r} has no version {number}.", param="number")
    return render.version(row, tenant.live_version, said)


@router.post("/promote", responses=errors(404, 409, 413))
async def promote(deps: Deps, name: TenantName, body: wire.Promotion) -> wire.Swap:
    """Make a version live by hand, whatever the gate said.

    It is loaded on every engine first; requests in flight finish on the version before.
    """
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
    return await _move(deps, tenant.id, name, body.version, "promoted_by_hand", warmer=deps.warmer)


@router.post("/rollback", responses=errors(404, 409, 413))
async def rollback(deps: Deps, name: TenantName, body: wire.Rollback | None = None) -> wire.Swap:
    """Go back to an earlier version: by default to the one that was live before this one."""
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
    target = tenant.previous_version if body is None or body.version is None else body.version
    if target is None:
        raise Conflict(f"Tenant {name!r} has no version to go back to.")
    return await _move(
        deps, tenant.id, name, target, "rolled_back", expected_live=tenant.live_version
    )


@router.get("/swaps", responses=errors(404))
async def list_swaps(
    deps: Deps, name: TenantName, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Swap]:
    """List the moves of a tenant's pointer, newest first: promotions and rollbacks."""
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
        found = await versions.swaps_of(
            session, tenant.id, limit=limit + 1, before=parse_id(before)
        )
    return page(found, limit, lambda row: render.swap(row, name), lambda row: row.id)


async def _move(
    deps: AdminDeps,
    tenant_id: int,
    name: str,
    to_version: int,
    reason: str,
    *,
    warmer: Warmer | None = None,
    expected_live: int | None = None,
) -> wire.Swap:
    moved = await swap(
        deps.database,
        deps.registry,
        deps.clock,
        identity_dir=deps.identity_dir,
        tenant_id=tenant_id,
        to_version=to_version,
        reason=reason,
        warmer=warmer,
        expected_live=expected_live,
    )
    deps.tenants.invalidate()
    return render.swap(moved, name)
