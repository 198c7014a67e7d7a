"""`ttrl versions`, `ttrl promote`, `ttrl rollback`, `ttrl swaps`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttrl_client.cli import _tables
from ttrl_client.cli._session import AsJson, Before, Limit, TenantName, emit, session_of
from ttrl_client.types import MAX_VERSION


def versions(
    ctx: typer.Context,
    tenant: TenantName,
    limit: Limit = 20,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's adapter versions, newest first, down to the base model."""
    with session_of(ctx).client() as client:
        emit(client.list_versions(tenant, limit=limit, before=before), as_json, _tables.versions)


def promote(
    ctx: typer.Context,
    tenant: TenantName,
    version: Annotated[
        int, typer.Argument(min=0, max=MAX_VERSION, metavar="N", help="0 is the base model.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make a version live by hand, whatever the gate said."""
    with session_of(ctx).client() as client:
        emit(client.promote(tenant, version), as_json, _tables.swap)


def rollback(
    ctx: typer.Context,
    tenant: TenantName,
    to: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_VERSION, metavar="N", help="Default: the version before."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the version that was live before."""
    with session_of(ctx).client() as client:
        emit(client.rollback(tenant, to), as_json, _tables.swap)


def swaps(
    ctx: typer.Context,
    tenant: TenantName,
    limit: Limit = 20,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's promotions and rollbacks, newest first."""
    with session_of(ctx).client() as client:
        emit(client.list_swaps(tenant, limit=limit, before=before), as_json, _tables.swaps)
