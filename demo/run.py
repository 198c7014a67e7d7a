"""The whole loop on one machine: `python -m demo.run`, which `make demo` calls.

A server starts on a bundled model, two tenants send it unlabelled traffic, both are adapted while
traffic goes on, and what came of it is measured through the endpoint. `KEEP=1` leaves the server
running until Ctrl-C. Exit code: 0 when all promises were kept, 1 when one was broken, 2 when the
demo could not be played to its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

from rich.console import Console
from ttrl_client import AsyncTTRLClient, TTRLError

from demo import plan
from demo.asking import Asker
from demo.plan import ADDER, NOVICE, PLAYERS
from demo.report import Report, Seconds, TenantResult, broken_promises, write
from demo.server_process import DemoFailed, ServerProcess, free_port
from demo.show import Show
from demo.stage import Stage
from demo.table import results_table, usage

ROOT = Path(__file__).resolve().parents[1]
DATA_DIR = ROOT / "var" / "demo"
REPORT = DATA_DIR / "report.json"
PLAIN_WIDTH = 110


def main() -> int:
    """Play the demo; the exit code."""
    live = sys.stdout.isatty()
    console = Console(width=None if live else PLAIN_WIDTH, soft_wrap=not live)
    keep = os.environ.get("KEEP", "") not in ("", "0")
    setup_s = float(os.environ.get("DEMO_SETUP_S") or 0)
    return asyncio.run(guarded(Show(console, live=live), keep=keep, setup_s=setup_s))


async def guarded(show: Show, *, keep: bool, setup_s: float) -> int:
    """Play, and turn signals and failures into words and exit codes."""
    signals = Signals()
    try:
        return await play(show, signals, keep=keep, setup_s=setup_s)
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        show.note("[yellow]stopped[/]")
        return 128 + signals.received
    except (DemoFailed, TTRLError) as error:
        show.console.print(f"The demo failed: {error}", style="red", markup=False, highlight=False)
        return 2


class Signals:
    """SIGINT and SIGTERM: the first one cancels the demo, which then ends what it started.

    Once `quietly` was called they only set `stopped`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.stopped = asyncio.Event()
        self._play = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._receive, number)

    def quietly(self) -> None:
        """From now on a signal is the expected end."""
        self._play = None

    def _receive(self, number: int) -> None:
        is_first, self.received = self.received is None, number
        self.stopped.set()
        if is_first and self._play is not None:
            self._play.cancel()


async def play(show: Show, signals: Signals, *, keep: bool, setup_s: float) -> int:
    """The demo from start to end; the exit code."""
    began = monotonic() - setup_s
    server = ServerProcess(
        DATA_DIR, model=ROOT / plan.MODEL, port=free_port(), stop_timeout_s=plan.STOP_TIMEOUT_S
    )
    async with server:
        show.note(f"Logs: [bold]{server.log_path.relative_to(ROOT)}[/]")
        started = monotonic()
        with show.waiting("start the server and its vLLM engine"):
            await server.ready(plan.ENGINE_TIMEOUT_S)
        engine_start_s = monotonic() - started
        async with _stage(server, show) as (stage, api_keys):
            report = await _tell(stage, began, setup_s, engine_start_s)
        exit_code = conclude(show, report)
        if keep:
            signals.quietly()
            await _keep(show, server, signals, api_keys)
    return exit_code


@asynccontextmanager
async def _stage(server: ServerProcess, show: Show) -> AsyncGenerator[tuple[Stage, dict[str, str]]]:
    """The two tenants on the running server, with their API keys."""
    admin_key = server.admin_key_path.read_text(encoding="utf-8").strip()
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(AsyncTTRLClient(server.url, admin_key=admin_key))
        api_keys: dict[str, str] = {}
        askers: dict[str, Asker] = {}
        for player in PLAYERS:
            tenant = await admin.create_tenant(player.name, settings=player.settings())
            api_keys[player.name] = tenant.key.secret
            asker = Asker.at(f"{server.url}/v1", player.name, tenant.key.secret)
            stack.push_async_callback(asker.close)
            askers[player.name] = asker
        show.note(f"Tenants: {', '.join(f'[bold]{name}[/]' for name in askers)}")
        yield Stage(admin, askers, show, server.check), api_keys


async def _tell(stage: Stage, began: float, setup_s: float, engine_start_s: float) -> Report:
    """The acts in their order."""
    show, clock = stage.show, _Laps()
    with show.waiting(f"send {2 * plan.LEARNED_QUESTIONS} questions without answers"):
        await stage.send_traffic()
    traffic_s = clock.lap()
    with show.waiting("measure both tenants on fresh questions"):
        before = await stage.measure_before()
    measure_before_s = clock.lap()
    show.note("adapt both tenants while their users go on asking")
    adaptation = await stage.adapt()
    clock.lap()
    with show.waiting("measure both tenants on other fresh questions"):
        after = await stage.measure_after()
    measure_after_s = clock.lap()
    requests = await stage.check_requests(adaptation.cycles_ran)
    live = await stage.live_versions()
    results = {
        player.name: TenantResult(
            before=before[player.name],
            after=after[player.name],
            cycle=adaptation.cycles[player.name],
            live_version=live[player.name],
        )
        for player in PLAYERS
    }
    seconds = Seconds(
        setup=setup_s,
        engine_start=engine_start_s,
        traffic=traffic_s,
        measure_before=measure_before_s,
        adaptation=adaptation.seconds,
        measure_after=measure_after_s,
        total=monotonic() - began,
    )
    return Report(results[ADDER.name], results[NOVICE.name], requests, adaptation.swap, seconds)


class _Laps:
    def __init__(self) -> None:
        self._last = monotonic()

    def lap(self) -> float:
        last, self._last = self._last, monotonic()
        return self._last - last


def conclude(show: Show, report: Report) -> int:
    """Write the report, print the table, and name what was promised and not kept."""
    write(report, REPORT)
    show.console.print()
    show.console.print(results_table(report))
    show.note(f"\nReport: [bold]{REPORT.relative_to(ROOT)}[/]")
    broken = broken_promises(report)
    for promise in broken:
        show.console.print(f"Broken promise: {promise}", style="bold red", markup=False)
    for example in report.requests.examples:
        show.console.print(f"  {example}", style="red", markup=False)
    if not broken:
        show.note("[bold green]All promises kept.[/]")
    return 1 if broken else 0


async def _keep(
    show: Show, server: ServerProcess, signals: Signals, api_keys: dict[str, str]
) -> None:
    """Leave the server running until a signal comes or it ends."""
    text = usage(server.url, api_keys, server.admin_key_path)
    show.console.print(f"\n{text}", markup=False, highlight=False, soft_wrap=True)
    waits = [asyncio.create_task(signals.stopped.wait()), asyncio.create_task(server.ended())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    server.check()


if __name__ == "__main__":
    sys.exit(main())
