"""The log: what was asked, what was answered, and whether it may be learned from."""

from __future__ import annotations

from ttrl_client import types as wire

from server.admin import render
from server.admin.deps import Deps
from server.admin.openapi import (
    Before,
    Limit,
    TenantName,
    errors,
    parse_query_cursor,
    query_cursor,
)
from server.admin.route import noun_router
from server.db import admin as sql

router = noun_router("queries", prefix="/tenants/{name}/queries")


@router.get("", responses=errors(404))
async def list_queries(
    deps: Deps, name: TenantName, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Query]:
    """List a tenant's logged queries with all their sampled answers, newest first.

    A page ends early where its queries are long.
    """
    await deps.flush_log()
    async with deps.database.transaction(write=False) as session:
        tenant = await sql.require_tenant(session, name)
        found = await sql.list_queries(
            session, tenant.id, limit=limit, before=parse_query_cursor(before)
        )
    return wire.Page[wire.Query](
        items=[render.query(*row) for row in found.rows],
        next=None if found.end is None else query_cursor(found.end),
    )
