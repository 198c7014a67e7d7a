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
    page,
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
    """List a tenant's logged queries with all their sampled answers, newest first."""
    async with deps.database.transaction(write=False) as session:
        tenant = await sql.require_tenant(session, name)
        found = await sql.list_queries(
            session, tenant.id, limit=limit + 1, before=parse_query_cursor(before)
        )
    return page(
        found,
        limit,
        lambda row: render.query(*row),
        lambda row: query_cursor(row[0].created_at, row[0].id),
    )
