"""API keys of a tenant: make, list, revoke."""

from __future__ import annotations

from fastapi import status
from ttrl_client import types as wire

from server.admin import render
from server.admin.deps import Deps
from server.admin.openapi import Before, KeyId, Limit, TenantName, errors, page, parse_id
from server.admin.route import noun_router
from server.auth import new_secret, shown_prefix
from server.db import tenants as sql
from server.db.admin import require_tenant
from server.errors import NotFound

router = noun_router("keys", prefix="/tenants/{name}/keys")


@router.post("", status_code=status.HTTP_201_CREATED, responses=errors(404, 413))
async def create_key(
    deps: Deps, name: TenantName, body: wire.KeyCreate | None = None
) -> wire.NewKey:
    """Make an API key. Its secret is in this answer and nowhere else."""
    asked = body or wire.KeyCreate()
    secret = new_secret()
    async with deps.database.transaction() as session:
        tenant = await require_tenant(session, name)
        key = await sql.create_key(
            session,
            tenant_id=tenant.id,
            name=asked.name,
            prefix=shown_prefix(secret),
            digest=deps.keys.digest(secret),
            now=deps.clock.now(),
        )
    deps.tenants.invalidate()
    return render.new_key(key, secret)


@router.get("", responses=errors(404))
async def list_keys(
    deps: Deps, name: TenantName, limit: Limit = 50, before: Before = None
) -> wire.Page[wire.Key]:
    """List a tenant's API keys without their secrets, newest first, revoked ones included."""
    async with deps.database.transaction(write=False) as session:
        tenant = await require_tenant(session, name)
        found = await sql.list_keys(session, tenant.id, limit=limit + 1, before=parse_id(before))
    return page(found, limit, render.key, lambda key: key.id)


@router.delete("/{key_id}", responses=errors(404))
async def revoke_key(deps: Deps, name: TenantName, key_id: KeyId) -> wire.Key:
    """Revoke an API key: requests that begin later are refused. Revoking twice changes nothing."""
    async with deps.database.transaction() as session:
        tenant = await require_tenant(session, name)
        key = await sql.revoke_key(session, tenant.id, key_id, deps.clock.now())
    if key is None:
        raise NotFound(f"Tenant {name!r} has no key {key_id}.", param="key_id")
    deps.tenants.invalidate()
    return render.key(key)
