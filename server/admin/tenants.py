"""Tenants: make, list, read, change, delete."""

from __future__ import annotations

from datetime import datetime

from fastapi import status
from ttrl_client import types as wire

from adapters.answers import AnswerSpec
from adapters.views import InvalidView, View, check
from server.admin import render
from server.admin.deps import AdminDeps, Deps
from server.admin.openapi import Before, Limit, TenantName, errors, page, parse_id
from server.admin.route import noun_router
from server.auth import new_secret, shown_prefix
from server.db import models as rows
from server.db import tenants as sql
from server.db.admin import require_tenant
from server.due import next_fire
from server.errors import BadRequest, NotFound

router = noun_router("tenants", prefix="/tenants")

FIRST_KEY = "default"


@router.post("", status_code=status.HTTP_201_CREATED, responses=errors(409, 413))
async def create_tenant(deps: Deps, body: wire.TenantCreate) -> wire.NewTenant:
    """Make a tenant with its first API key.

    It starts on version 0. The key's secret is in this answer and nowhere else.
    """
    secret, now = new_secret(), deps.clock.now()
    check_settings(body.settings, now=now)
    async with deps.database.transaction() as session:
        tenant = await sql.create_tenant(
            session, name=body.name, settings=body.settings.model_dump(mode="json"), now=now
        )
        key = await sql.create_key(
            session,
            tenant_id=tenant.id,
            name=FIRST_KEY,
            prefix=shown_prefix(secret),
            digest=deps.keys.digest(secret),
            now=now,
        )
    deps.tenants.invalidate()
    made = render.tenant(tenant, num_queries=0, active_cycle=None)
    return wire.NewTenant(**dict(made), key=render.new_key(key, secret))


@router.get("")
async def list_tenants(
    deps: Deps, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Tenant]:
    """List tenants, newest first."""
    async with deps.database.transaction(write=False) as session:
        found = await sql.list_tenants(session, limit=limit + 1, before=parse_id(before))
        ids = [tenant.id for tenant in found]
        num_queries = await sql.count_queries(session, ids)
        active = await sql.active_cycles(session, ids)

    def shown(tenant: rows.Tenant) -> wire.Tenant:
        return render.tenant(
            tenant,
            num_queries=num_queries.get(tenant.id, 0),
            active_cycle=active.get(tenant.id),
        )

    return page(found, limit, shown, lambda tenant: tenant.id)


@router.get("/{name}", responses=errors(404))
async def read_tenant(deps: Deps, name: TenantName) -> wire.Tenant:
    """Read a tenant with its settings and its live version."""
    return await _read(deps, name)


@router.put("/{name}/settings", responses=errors(404, 413))
async def update_tenant(deps: Deps, name: TenantName, body: wire.TenantUpdate) -> wire.Tenant:
    """Replace a tenant's settings whole.

    A cycle that is pending or running keeps the settings that it was made with.
    """
    check_settings(body.settings, now=deps.clock.now())
    async with deps.database.transaction() as session:
        tenant = await require_tenant(session, name)
        settings = body.settings.model_dump(mode="json")
        if not await sql.update_settings(session, tenant.id, settings):
            raise NotFound(f"There is no tenant {name!r}.", param="name")
    deps.tenants.invalidate()
    return await _read(deps, name)


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=errors(404))
async def delete_tenant(deps: Deps, name: TenantName) -> None:
    """Delete a tenant: its keys are revoked, its cycle is cancelled.

    A later tenant of the same name is a new one: nothing carries over.
    """
    async with deps.database.transaction() as session:
        tenant = await require_tenant(session, name)
        await sql.delete_tenant(session, tenant.id, deps.clock.now())
    deps.tenants.invalidate()


async def _read(deps: AdminDeps, name: str) -> wire.Tenant:
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
        num_queries = await sql.count_queries(session, [tenant.id])
        active = await sql.active_cycles(session, [tenant.id])
    return render.tenant(
        tenant, num_queries=num_queries.get(tenant.id, 0), active_cycle=active.get(tenant.id)
    )


def check_settings(settings: wire.TenantSettings, *, now: datetime) -> None:
    """Refuse what a worker could not use later.

    Raises:
        BadRequest: the crontab line is not one or never fires, or a pattern is not supported.
    """
    check_schedule(settings.schedule, now=now)
    if settings.answer == "regex":
        try:
            AnswerSpec("regex", pattern=settings.answer_options.pattern)
        except ValueError as error:
            place = "settings.answer_options.pattern"
            raise BadRequest(f"{place}: {error}", param=place) from None
    for number, view in enumerate(settings.views):
        try:
            check(View(view.pattern, tuple(view.templates)))
        except InvalidView as error:
            place = f"settings.views.{number}"
            raise BadRequest(f"{place}: {error}", param=place) from None


def check_schedule(schedule: wire.Schedule, *, now: datetime) -> None:
    """Refuse what the scheduler could not use later.

    Raises:
        BadRequest: the crontab line is not one, or does not fire within ten years.
    """
    if schedule.cron is None:
        return
    place = "settings.schedule.cron"
    try:
        fires = next_fire(schedule.cron, now)
    except ValueError as error:
        raise BadRequest(f"{place}: {error}", param=place) from None
    if fires is None:
        raise BadRequest(f"{place}: does not fire within the next ten years", param=place)
