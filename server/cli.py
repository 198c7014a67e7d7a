"""The `ttrl-server` command: serve, worker, engine, migrate, health, vote."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text
from ttrl_client.types import AnswerKind, Estimator

from server.config import Settings, environment_of_children
from server.errors import ConfigurationError

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it folds tracebacks, and may show the values of secrets
    help="An OpenAI-compatible server that keeps learning from its own unlabelled traffic.",
)
stderr = Console(stderr=True)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        problems = (
            f"TTRL_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        )
        raise ConfigurationError("; ".join(problems)) from None


def _settings_of_process() -> Settings:
    """The settings, for a process that keeps data: the directory for it is there."""
    settings = _settings()
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"TTRL_DATA_DIR: {settings.data_dir} cannot be made: {error.strerror}."
        ) from error
    return settings


@cli.command()
def serve() -> None:
    """Run the web process, with an engine and a worker of its own unless the settings say else."""
    from server.app import run_server

    run_server(_settings_of_process())


@cli.command()
def worker() -> None:
    """Run a worker: adaptation cycles and their schedule."""
    from server.worker import run_worker

    asyncio.run(run_worker(_settings_of_process()))


@cli.command()
def engine(
    host: Annotated[str, typer.Option(help="Address to bind; keep it out of clients' reach.")],
    port: Annotated[int, typer.Option(help="Port to bind.")],
) -> None:
    """Become vLLM with the flags that this server needs, for an engine that runs apart."""
    from server.engine.launch import engine_command

    command = engine_command(_settings(), port=port, host=host)
    os.execvpe(command.argv[0], command.argv, {**environment_of_children(), **command.env})


@cli.command()
def migrate() -> None:
    """Bring the database's schema to this program's revision."""
    asyncio.run(_migrate(_settings_of_process()))


async def _migrate(settings: Settings) -> None:
    from server.db.engine import Database
    from server.db.failures import refused_at_start
    from server.db.migrate import upgrade

    with refused_at_start(settings.sqlalchemy_url):
        database = Database(settings.sqlalchemy_url, is_patient=True)
        try:
            await upgrade(database)
        finally:
            await database.close()


@cli.command()
def health(
    url: Annotated[str | None, typer.Option(help="Default: this server's /healthz.")] = None,
) -> None:
    """Exit 0 when the process at the URL is well: for container health checks."""
    target = url or f"http://127.0.0.1:{_settings().port}/healthz"
    try:
        healthy = httpx.get(target, timeout=4).is_success
    except httpx.HTTPError as error:
        stderr.print(f"{target}: {error}")
        healthy = False
    raise typer.Exit(0 if healthy else 1)


@cli.command()
def vote(
    file: Annotated[Path, typer.Argument(help="Groups of responses as JSON lines; - is stdin.")],
    answer: Annotated[AnswerKind, typer.Option(help="Kind of answer to vote on.")] = "auto",
    label: Annotated[
        list[str] | None, typer.Option(help="label: one that may be answered; repeat it.")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="json: dotted path; default: the whole document.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="regex: its last match is the answer.")
    ] = None,
    entry_point: Annotated[
        str | None, typer.Option(help="python: a name in the group ttrl.answers.")
    ] = None,
    estimator: Annotated[
        Estimator, typer.Option(help="How votes become labels and rewards.")
    ] = "majority",
    min_answers: Annotated[int, typer.Option(min=1, help="Fewer answers than this: no label.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Default: stdout.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad line.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Judge processes.")] = 2,
) -> None:
    """Vote on groups of responses offline: see the pseudo-labels of your own data.

    A line in: {"id", "responses": [...], "ground_truth"?}. A line out: {"id", "label",
    "majority_ratio", "rewards": [...], "answers": [...], "label_correct"?}. Totals go to stderr.
    """
    from adapters.answers import AnswerSpec
    from server.vote import VoteRules, run_vote

    try:
        spec = AnswerSpec(answer, tuple(label or ()), field, pattern, entry_point)
        rules = VoteRules(spec, estimator, min_answers)
    except ValueError as error:
        raise ConfigurationError(f"vote: {error}") from None
    raise typer.Exit(run_vote(file, rules, stderr, output=output, strict=strict, workers=workers))


def main() -> None:
    """Entry point: a configuration error is one clear line and exit code 2."""
    try:
        cli()
    except ConfigurationError as error:
        said = Text.assemble(("ttrl-server:", "bold red"), " ", error.message)
        stderr.print(said, soft_wrap=True)  # one line, however long
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
