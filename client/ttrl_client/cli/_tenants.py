"""`ttrl tenants`, `ttrl keys`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ttrl_client.cli import _tables
from ttrl_client.cli._session import (
    AsJson,
    Before,
    Limit,
    TenantName,
    emit,
    problems,
    session_of,
)
from ttrl_client.types import TenantSettings

tenants = typer.Typer(no_args_is_help=True, help="Make, list, change and delete tenants.")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke a tenant's API keys.")


def _read_settings(path: Path) -> TenantSettings:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return TenantSettings.model_validate_json(text)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path}: not UTF-8") from None
    except ValidationError as error:
        raise typer.BadParameter(f"{path}: {problems(error)}") from None


SettingsFile = typer.Option(
    "--settings", metavar="FILE", help="A JSON file with the settings; `-` reads standard input."
)


@tenants.command("create")
def create_tenant(
    ctx: typer.Context,
    name: TenantName,
    settings: Annotated[Path | None, SettingsFile] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant, and print its API key, which is shown this once."""
    given = None if settings is None else _read_settings(settings)
    with session_of(ctx).client() as client:
        emit(client.create_tenant(name, given), as_json, _tables.new_tenant)


@tenants.command("list")
def list_tenants(
    ctx: typer.Context, limit: Limit = 50, before: Before = None, as_json: AsJson = False
) -> None:
    """List tenants, newest first."""
    with session_of(ctx).client() as client:
        emit(client.list_tenants(limit=limit, before=before), as_json, _tables.tenants)


@tenants.command("show")
def show_tenant(ctx: typer.Context, name: TenantName, as_json: AsJson = False) -> None:
    """Show a tenant with its settings."""
    with session_of(ctx).client() as client:
        emit(client.read_tenant(name), as_json, _tables.tenant)


@tenants.command("update")
def update_tenant(
    ctx: typer.Context,
    name: TenantName,
    settings: Annotated[Path, SettingsFile],
    as_json: AsJson = False,
) -> None:
    """Replace a tenant's settings whole: what the file leaves out goes back to its default."""
    given = _read_settings(settings)
    with session_of(ctx).client() as client:
        emit(client.update_tenant(name, given), as_json, _tables.tenant)


@tenants.command("delete")
def delete_tenant(
    ctx: typer.Context,
    name: TenantName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a tenant: its keys stop working at once."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("without a terminal, say --yes", param_hint="--yes")
        typer.confirm(f"Delete tenant {name} and revoke its keys?", abort=True, err=True)
    with session_of(ctx).client() as client:
        client.delete_tenant(name)
    typer.echo("{}" if as_json else f"Tenant {name} is deleted.")


@keys.command("create")
def create_key(
    ctx: typer.Context,
    tenant: TenantName,
    name: Annotated[str, typer.Option(help="Tells keys apart.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it, this once."""
    with session_of(ctx).client() as client:
        emit(client.create_key(tenant, name), as_json, _tables.new_key)


@keys.command("list")
def list_keys(
    ctx: typer.Context,
    tenant: TenantName,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's API keys, without the keys themselves."""
    with session_of(ctx).client() as client:
        emit(client.list_keys(tenant, limit=limit, before=before), as_json, _tables.keys)


@keys.command("revoke")
def revoke_key(
    ctx: typer.Context,
    tenant: TenantName,
    key_id: Annotated[int, typer.Argument(min=1, metavar="KEY_ID", help="See `ttrl keys list`.")],
    as_json: AsJson = False,
) -> None:
    """Refuse an API key from now on."""
    with session_of(ctx).client() as client:
        revoked = client.revoke_key(tenant, key_id)
    emit(revoked, as_json, lambda key: f"Key {key.id} of {tenant} is revoked.")
