"""Adaptation cycles: trigger, list, read, cancel."""

from __future__ import annotations

import secrets

from fastapi import status
from pydantic import ValidationError
from ttrl_client import types as wire

from server.admin import render
from server.admin.deps import Deps
from server.admin.openapi import Before, CycleId, Limit, TenantName, errors, page, parse_id
from server.admin.route import noun_router
from server.db import admin as sql
from server.db import cycles
from server.db.models import Tenant
from server.errors import Conflict

router = noun_router("cycles")

SEEDS = 2**31


@router.post(
    "/tenants/{name}/cycles", status_code=status.HTTP_202_ACCEPTED, responses=errors(404, 409, 413)
)
async def trigger_cycle(
    deps: Deps, name: TenantName, body: wire.CycleCreate | None = None
) -> wire.Cycle:
    """Ask for an adaptation cycle with the tenant's settings as they are now.

    A worker takes it up as soon as it can. A tenant has at most one pending or running cycle.
    """
    seed = None if body is None else body.seed
    await deps.flush_log()  # what was asked before counts
    async with deps.database.transaction() as session:
        tenant = await sql.require_tenant(session, name)
        cycle = await cycles.enqueue(
            session,
            tenant_id=tenant.id,
            trigger="manual",
            settings=_settings_of(tenant),
            seed=secrets.randbelow(SEEDS) if seed is None else seed,
            now=deps.clock.now(),
        )
    return render.cycle(cycle, tenant.name)


def _settings_of(tenant: Tenant) -> wire.TenantSettings:
    try:
        return wire.TenantSettings.model_validate(tenant.settings)
    except ValidationError:
        raise Conflict("The tenant's settings are of another release: set them anew.") from None


@router.get("/cycles")
async def list_all_cycles(
    deps: Deps, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Cycle]:
    """List the cycles of all tenants, newest first, without their steps."""
    async with deps.database.transaction(write=False) as session:
        found = await sql.list_all_cycles(session, limit=limit + 1, before=parse_id(before))
    return page(found, limit, lambda row: render.cycle(*row), lambda row: row[0].id)


@router.get("/tenants/{name}/cycles", responses=errors(404))
async def list_cycles(
    deps: Deps, name: TenantName, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Cycle]:
    """List a tenant's cycles, newest first, without their steps."""
    async with deps.database.transaction(write=False) as session:
        tenant = await sql.require_tenant(session, name)
        found = await cycles.list_cycles(
            session, tenant_id=tenant.id, limit=limit + 1, before=parse_id(before)
        )
    return page(found, limit, lambda row: render.cycle(row, name), lambda row: row.id)


@router.get("/tenants/{name}/cycles/{cycle_id}", responses=errors(404))
async def read_cycle(deps: Deps, name: TenantName, cycle_id: CycleId) -> wire.Cycle:
    """Read a cycle with its steps and the gate's decision."""
    async with deps.database.transaction(write=False) as session:
        tenant = await sql.require_tenant(session, name)
        cycle = await sql.require_cycle(session, tenant, cycle_id)
        steps = await sql.steps_of(session, cycle.id)
    return render.cycle(cycle, name, steps)


@router.post("/tenants/{name}/cycles/{cycle_id}/cancel", responses=errors(404, 409))
async def cancel_cycle(deps: Deps, name: TenantName, cycle_id: CycleId) -> wire.Cycle:
    """Cancel a cycle: a pending one at once, a running one at its worker's next safe point.

    The incumbent serves on. A cycle that has ended cannot be cancelled.
    """
    async with deps.database.transaction() as session:
        tenant = await sql.require_tenant(session, name)
        cycle = await sql.cancel_cycle(session, tenant, cycle_id, deps.clock.now())
        steps = await sql.steps_of(session, cycle.id)
    return render.cycle(cycle, name, steps)
