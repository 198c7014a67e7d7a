"""Puts the admin API together: one module a noun, one key in front of all of them."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from server.admin import cycles, keys, queries, status, tenants, versions
from server.admin.deps import AdminDeps
from server.admin.openapi import errors
from server.auth import admin_required

PREFIX = "/admin/v1"


def admin_router(deps: AdminDeps) -> APIRouter:
    """All routes under `/admin/v1`, for whoever holds the admin key."""

    async def admit(request: Request) -> None:
        request.state.admin = deps

    router = APIRouter(
        prefix=PREFIX,
        dependencies=[Depends(admin_required(deps.keys)), Depends(admit)],
        responses=errors(400, 401, 500, 503, "default"),
        generate_unique_id_function=lambda route: route.name,
    )
    for noun in (status, tenants, keys, cycles, versions, queries):
        router.include_router(noun.router)
    return router
