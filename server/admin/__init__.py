"""The admin API: tenants, keys, cycles, versions, the log and the status, behind the admin key."""

from server.admin.deps import AdminDeps
from server.admin.router import admin_router

__all__ = ["AdminDeps", "admin_router"]
