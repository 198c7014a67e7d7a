"""What every command shares: the connection, the output, and what an exit code means.

Exit codes: 0 done, 1 another error, 2 wrong usage, 3 not found, 4 the state does not allow it,
5 the server is away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import httpx
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from ttrl_client._client import ADMIN_KEY_VARIABLE, DEFAULT_URL, TTRLClient
from ttrl_client._errors import (
    APIConnectionError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    TTRLError,
    UnavailableError,
)
from ttrl_client.types import check_tenant_name

M = TypeVar("M", bound=BaseModel)

USAGE = 2
EXIT_CODES: tuple[tuple[type[TTRLError], int], ...] = (
    (BadRequestError, USAGE),
    (NotFoundError, 3),
    (ConflictError, 4),
    (APIConnectionError, 5),
    (UnavailableError, 5),
    (TTRLError, 1),
)
WIDE = 160  # columns of a table that no terminal shows: a pipe should not wrap lines


@dataclass(frozen=True, slots=True)
class Session:
    """Where the server is, and how to reach it."""

    url: str
    admin_key: str | None
    transport: httpx.BaseTransport | None = None  # tests put the server itself here

    def client(self) -> AbstractContextManager[TTRLClient]:
        """A client, closed at the end of the block."""
        admin_key = self.admin_key or local_admin_key()
        if not admin_key:
            raise ConfigurationError(
                "No admin key: pass --admin-key, set TTRL_ADMIN_KEY, or run this where the server's"
                " data directory is (./var, or TTRL_DATA_DIR)."
            )
        return TTRLClient(self.url, admin_key=admin_key, transport=self.transport)


class ErrorGroup(TyperGroup):
    """Turns the client's exceptions into one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TTRLError as error:
            report(str(error))
            code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
            raise typer.Exit(code) from None
        except ValidationError as error:
            report(problems(error))
            raise typer.Exit(USAGE) from None


def local_admin_key() -> str | None:
    """The key that a server on this machine made in its data directory, if it can be read."""
    path = Path(os.environ.get("TTRL_DATA_DIR", "var")) / "admin.key"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def session_of(ctx: typer.Context) -> Session:
    """The session that the root command made."""
    return cast(Session, ctx.obj)


def connect(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="TTRL_URL", metavar="URL", help="Where the server listens.")
    ] = DEFAULT_URL,
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar=ADMIN_KEY_VARIABLE,
            metavar="KEY",
            show_envvar=True,
            help="The server's admin key. Default: the file admin.key in $TTRL_DATA_DIR or ./var.",
        ),
    ] = None,
) -> None:
    """Drive a TTRL server: an OpenAI-compatible server that learns from its own traffic.

    Exit codes: 0 done, 2 wrong usage, 3 not found, 4 the state does not allow it, 5 the server is
    away, 1 anything else.
    """
    transport = ctx.obj if isinstance(ctx.obj, httpx.BaseTransport) else None
    ctx.obj = Session(url, admin_key, transport)


def console() -> Console:
    """Standard output, wide where it is not a terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=WIDE)


def report(message: str) -> None:
    """Say on standard error what went wrong."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[red]Error:[/red] {escape(message)}"
    )


def emit(answer: M, as_json: bool, show: Callable[[M], object]) -> None:
    """Print an answer: as JSON for scripts, or as what `show` makes of it for people."""
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        console().print(show(answer))


def problems(error: ValidationError) -> str:
    """What is wrong with an input, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
        for problem in error.errors()
    )


def _tenant_name(name: str | None) -> str | None:
    try:
        return None if name is None else check_tenant_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


TenantName = Annotated[
    str, typer.Argument(metavar="TENANT", callback=_tenant_name, help="The tenant's name.")
]
OptionalTenantName = Annotated[
    str | None, typer.Argument(metavar="[TENANT]", callback=_tenant_name, help="Default: all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="Most lines.")]
Before = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on after a page: its `next`.")
]
