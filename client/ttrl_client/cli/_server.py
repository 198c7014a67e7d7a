"""`ttrl status`, `ttrl queries`."""

from __future__ import annotations

import typer

from ttrl_client.cli import _tables
from ttrl_client.cli._session import AsJson, Before, Limit, TenantName, emit, session_of


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the server at a glance."""
    with session_of(ctx).client() as client:
        emit(client.read_status(), as_json, _tables.status)


def queries(
    ctx: typer.Context,
    tenant: TenantName,
    limit: Limit = 20,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's logged queries with their answers, newest first."""
    with session_of(ctx).client() as client:
        emit(client.list_queries(tenant, limit=limit, before=before), as_json, _tables.queries)
