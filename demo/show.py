"""What a person sees: live bars on a terminal, one line an event elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text
from ttrl_client.types import Cycle, CycleStatus

from demo.traffic import Ledger

LINE_EVERY_S = 15.0
REFRESHES_PER_S = 4
DONE_STYLES = {
    CycleStatus.PROMOTED: "bold green",
    CycleStatus.REJECTED: "bold yellow",
    CycleStatus.SKIPPED: "bold red",
    CycleStatus.FAILED: "bold red",
    CycleStatus.CANCELLED: "bold red",
}


class Board(Protocol):
    """The view of running cycles and of the traffic beside them."""

    def cycle(self, cycle: Cycle) -> None:
        """Show where a cycle stands now."""
        ...

    def traffic(self, ledger: Ledger) -> None:
        """Show what the users met so far."""
        ...


class Show:
    """Tells the story. `live`: with bars and spinners, for a terminal; else in plain lines."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self.console = console
        self.live = live

    def note(self, text: str) -> None:
        """Say something, with rich's markup."""
        self.console.print(text, highlight=False)

    @contextmanager
    def waiting(self, text: str) -> Generator[None]:
        """Show that something is under way, then how long it took."""
        began = monotonic()
        if self.live:
            progress = Progress(
                TextColumn("[cyan]{task.description}"),
                BarColumn(bar_width=24, pulse_style="cyan"),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
                refresh_per_second=REFRESHES_PER_S,
            )
            with progress:
                progress.add_task(text, total=None)
                yield
        else:
            self.note(f"{text} ...")
            yield
        self.note(f"[green]done[/] {text} [dim]{monotonic() - began:.1f} s[/]")

    @contextmanager
    def watching(self, tenants: tuple[str, ...]) -> Generator[Board]:
        """A board for the cycles of these tenants."""
        if not self.live:
            yield LineBoard(self.console, tenants)
            return
        board = LiveBoard(self.console, tenants)
        with Live(board.picture, console=self.console, refresh_per_second=REFRESHES_PER_S):
            yield board


class LiveBoard:
    """One bar a tenant, and a line of traffic below."""

    def __init__(self, console: Console, tenants: tuple[str, ...]) -> None:
        self._tenants = tenants
        self._bars = Progress(
            TextColumn("  [bold]{task.description:<8}"),
            TextColumn("{task.fields[phase]:<10}"),
            BarColumn(bar_width=30),
            TextColumn("step {task.completed:>2.0f}/{task.total:.0f}"),
            TextColumn("[dim]{task.fields[figures]:<34}"),
            console=console,
        )
        self._rows: dict[str, TaskID] = {
            tenant: self._bars.add_task(tenant, total=1, phase="pending", figures="")
            for tenant in tenants
        }
        self._traffic = Text()
        self.picture = Group(self._bars, self._traffic)

    def cycle(self, cycle: Cycle) -> None:
        """Move the tenant's bar."""
        phase = phase_of(cycle)
        style = DONE_STYLES.get(cycle.status)
        self._bars.update(
            self._rows[cycle.tenant],
            completed=cycle.steps_done,
            total=max(1, cycle.steps_planned),
            phase=f"[{style}]{phase}[/]" if style else phase,
            figures=figures_of(cycle),
        )

    def traffic(self, ledger: Ledger) -> None:
        """Rewrite the line of traffic."""
        self._traffic.plain = f"  traffic  {traffic_line(ledger, self._tenants)}"
        self._traffic.stylize("bold red" if ledger.num_failed else "dim")


class LineBoard:
    """One line for each change of a cycle, and one for the traffic now and then."""

    def __init__(self, console: Console, tenants: tuple[str, ...]) -> None:
        self._console = console
        self._tenants = tenants
        self._told: dict[str, str] = {}
        self._traffic_told_at = monotonic()

    def cycle(self, cycle: Cycle) -> None:
        """Tell the cycle's phase or step, unless that was told before."""
        line = f"{cycle.tenant}: {phase_of(cycle)}, step {cycle.steps_done}/{cycle.steps_planned}"
        if self._told.get(cycle.tenant) == line:
            return
        self._told[cycle.tenant] = line
        figures = figures_of(cycle)
        self._console.print(f"  {line}{figures and '  '}{figures}", highlight=False)

    def traffic(self, ledger: Ledger) -> None:
        """Tell the counts, not too often."""
        if monotonic() - self._traffic_told_at < LINE_EVERY_S:
            return
        self._traffic_told_at = monotonic()
        self._console.print(f"  traffic: {traffic_line(ledger, self._tenants)}", highlight=False)


def phase_of(cycle: Cycle) -> str:
    """The phase while a cycle runs, else its status."""
    if cycle.status is CycleStatus.RUNNING and cycle.phase is not None:
        return cycle.phase.value
    return cycle.status.value


def figures_of(cycle: Cycle) -> str:
    """The newest step's figures, as far as it has them."""
    metrics = cycle.steps[-1].metrics if cycle.steps else {}
    named = (("majority_ratio", "majority"), ("loss", "loss"))
    return "  ".join(
        f"{word} {value:.3f}" for name, word in named if (value := metrics.get(name)) is not None
    )


def traffic_line(ledger: Ledger, tenants: tuple[str, ...]) -> str:
    """Counts of requests, and who answered each tenant last."""
    adapters = ", ".join(ledger.adapter_of(tenant) or f"{tenant}: none yet" for tenant in tenants)
    return (
        f"{len(ledger.exchanges)} requests, {ledger.num_failed} failed,"
        f" {ledger.streamed_share:.0%} streamed; answered by {adapters}"
    )
