"""`ttrl feedback`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttrl_client._tenant_client import TenantClient
from ttrl_client.cli import _tables
from ttrl_client.cli._session import AsJson, emit, session_of


def feedback(
    ctx: typer.Context,
    completion_id: Annotated[
        str, typer.Argument(metavar="ID", help="The completion's id, as the answer carried it.")
    ],
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="How good the answer was; 1 is right.")
    ] = None,
    correct_answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the right answer is.")
    ] = None,
    choice: Annotated[int, typer.Option(min=0, help="Which one, where `n` asked for several.")] = 0,
    comment: Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="TTRL_API_KEY", metavar="KEY", show_envvar=True, help="The tenant's API key."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how good an answer was, or what the correct one is, as the tenant that was given it."""
    session = session_of(ctx)
    with TenantClient(session.url, api_key=api_key, transport=session.transport) as client:
        given = client.feedback(
            completion_id,
            score=score,
            correct_answer=correct_answer,
            choice=choice,
            comment=comment,
        )
    emit(given, as_json, _tables.feedback)
