"""A cycle's progress, live: a bar in a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ttrl_client.cli import _tables
from ttrl_client.cli._session import console
from ttrl_client.types import Cycle, CycleStatus

SHOWN_METRICS = {"majority": "majority_ratio", "reward": "mean_reward", "loss": "loss"}
ENDED_BADLY = (CycleStatus.FAILED, CycleStatus.CANCELLED)


def show_progress(cycles: Iterable[Cycle], *, as_json: bool) -> None:
    """Show each state of a cycle as it comes, then how it ended.

    Raises:
        typer.Exit: with 1 for a cycle that failed or was cancelled.
    """
    out = console()
    if as_json:
        last = _as_json_lines(cycles)
    elif out.is_terminal:
        last = _as_bar(cycles, out)
    else:
        last = _as_lines(cycles, out)
    if last is None:
        return
    if not as_json:
        out.print(_tables.verdict(last))
    if last.status in ENDED_BADLY:
        raise typer.Exit(1)


def _as_json_lines(cycles: Iterable[Cycle]) -> Cycle | None:
    last = None
    for cycle in cycles:
        typer.echo(cycle.model_dump_json())
        last = cycle
    return last


def _as_lines(cycles: Iterable[Cycle], out: Console) -> Cycle | None:
    last, said = None, ""
    for cycle in cycles:
        line = f"{cycle.steps_done}/{cycle.steps_planned} {phase(cycle)} {metrics(cycle)}".rstrip()
        if line != said:
            out.print(line, markup=False)
        last, said = cycle, line
    return last


def _as_bar(cycles: Iterable[Cycle], out: Console) -> Cycle | None:
    last = None
    columns = (
        TextColumn("[bold]{task.description}[/bold]"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
    )
    with Progress(*columns, console=out) as progress:
        bar = progress.add_task("", total=None, metrics="")
        for cycle in cycles:
            progress.update(
                bar,
                description=phase(cycle),
                total=cycle.steps_planned,
                completed=cycle.steps_done,
                metrics=metrics(cycle),
            )
            last = cycle
    return last


def phase(cycle: Cycle) -> str:
    """What a cycle is doing, in one word or two."""
    if cycle.is_final:
        return str(cycle.status)
    if cycle.cancel_requested:
        return "stopping"
    if cycle.status is CycleStatus.PENDING:
        return "waiting for a worker"
    return str(cycle.phase or cycle.status)


def metrics(cycle: Cycle) -> str:
    """The last step's numbers, those that say whether it learns."""
    if not cycle.steps:
        return ""
    last = cycle.steps[-1].metrics
    known = ((name, last.get(key)) for name, key in SHOWN_METRICS.items())
    return "  ".join(f"{name} {value:.3f}" for name, value in known if value is not None)
