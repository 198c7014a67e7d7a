"""`ttrl adapt`, `ttrl cycles`, `ttrl cycle`, `ttrl cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttrl_client._client import TTRLClient
from ttrl_client.cli import _tables
from ttrl_client.cli._session import (
    AsJson,
    Before,
    Limit,
    OptionalTenantName,
    TenantName,
    emit,
    session_of,
)
from ttrl_client.cli._watch import show_progress
from ttrl_client.types import Cycle

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show its progress until it ends.")]
Poll = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How often to look.")]
OptionalCycle = Annotated[
    int | None, typer.Argument(min=1, metavar="[CYCLE]", help="Default: the newest.")
]


def adapt(
    ctx: typer.Context,
    tenant: TenantName,
    watch: Watch = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Makes selection and sampling repeatable."),
    ] = None,
    poll: Poll = 1.0,
    as_json: AsJson = False,
) -> None:
    """Start an adaptation cycle: learn from the tenant's logged queries."""
    with session_of(ctx).client() as client:
        cycle = client.trigger_cycle(tenant, seed=seed)
        if watch:
            show_progress(client.watch(cycle, poll_s=poll), as_json=as_json)
        else:
            emit(
                cycle,
                as_json,
                lambda new: (
                    f"Cycle {new.id} is waiting for a worker: `ttrl cycle {tenant} --watch`"
                    " shows its progress."
                ),
            )


def list_cycles(
    ctx: typer.Context,
    tenant: OptionalTenantName = None,
    limit: Limit = 20,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's cycles, or everybody's, newest first."""
    with session_of(ctx).client() as client:
        if tenant is None:
            found = client.list_all_cycles(limit=limit, before=before)
        else:
            found = client.list_cycles(tenant, limit=limit, before=before)
    emit(found, as_json, _tables.cycles)


def show_cycle(
    ctx: typer.Context,
    tenant: TenantName,
    cycle: OptionalCycle = None,
    watch: Watch = False,
    poll: Poll = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show one cycle: how far it is, or how the gate decided and why."""
    with session_of(ctx).client() as client:
        found = _find(client, tenant, cycle)
        if watch:
            show_progress(client.watch(found, poll_s=poll), as_json=as_json)
        else:
            emit(found, as_json, _tables.verdict)


def cancel(
    ctx: typer.Context, tenant: TenantName, cycle: OptionalCycle = None, as_json: AsJson = False
) -> None:
    """Cancel a cycle. The version that answers now goes on answering."""
    with session_of(ctx).client() as client:
        found = _find(client, tenant, cycle)
        emit(client.cancel_cycle(tenant, found.id), as_json, _tables.verdict)


def _find(client: TTRLClient, tenant: str, cycle_id: int | None) -> Cycle:
    if cycle_id is None:
        newest = client.list_cycles(tenant, limit=1).items
        if not newest:
            raise typer.BadParameter(f"tenant {tenant} has no cycle yet", param_hint="CYCLE")
        cycle_id = newest[0].id
    return client.read_cycle(tenant, cycle_id)
