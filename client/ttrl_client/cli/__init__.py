"""The `ttrl` command."""

from __future__ import annotations

import typer

from ttrl_client.cli import _cycles, _feedback, _server, _session, _tenants, _versions

__all__ = ["app", "main"]

app = typer.Typer(
    name="ttrl",
    cls=_session.ErrorGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they hold keys
)
app.callback()(_session.connect)
app.command("status")(_server.status)
app.add_typer(_tenants.tenants, name="tenants")
app.add_typer(_tenants.keys, name="keys")
app.command("adapt")(_cycles.adapt)
app.command("cycles")(_cycles.list_cycles)
app.command("cycle")(_cycles.show_cycle)
app.command("cancel")(_cycles.cancel)
app.command("versions")(_versions.versions)
app.command("promote")(_versions.promote)
app.command("rollback")(_versions.rollback)
app.command("swaps")(_versions.swaps)
app.command("queries")(_server.queries)
app.command("feedback")(_feedback.feedback)


def main() -> None:
    """Run it."""
    app()
