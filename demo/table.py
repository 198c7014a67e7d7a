"""The table at the end, and how to use a server that was left running."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.plan import ADDER, NOVICE, SERVED_MODEL
from demo.report import Report, TenantResult, cycle_seconds


def results_table(report: Report) -> RenderableType:
    """What the demo found, in a form that a person enjoys reading."""
    return Group(_tenants(report), _facts(report))


def _tenants(report: Report) -> Table:
    table = Table(title="Learned from its own traffic, without a single label", title_style="bold")
    table.add_column("")
    table.add_column(ADDER.name, justify="right")
    table.add_column(NOVICE.name, justify="right")
    pair = (report.adder, report.novice)
    table.add_row("asks", "4-digit additions", "4-digit subtractions")
    table.add_row("pass@1, fresh questions", *(_accuracy(result) for result in pair))
    table.add_row("majority of its answers, before", *(_majority(result) for result in pair))
    table.add_row("one cycle", *(_work(result) for result in pair))
    table.add_row("gate", *(_verdict(result) for result in pair))
    table.add_row("because", *(_reasons(result) for result in pair))
    table.add_row("serves version", *(str(result.live_version) for result in pair))
    return table


def _accuracy(result: TenantResult) -> Text:
    before, after = result.before.pass_at_1, result.after.pass_at_1
    style = "bold green" if result.gain >= 0.05 else "bold red" if result.gain <= -0.05 else ""
    return Text.assemble(f"{before:.2f} -> ", (f"{after:.2f}", style))


def _majority(result: TenantResult) -> str:
    return f"{result.before.majority:.2f} (maj@{result.before.samples_per_question})"


def _work(result: TenantResult) -> str:
    cycle = result.cycle
    work = f"{cycle.steps_done} steps, {cycle.num_rollouts:,} rollouts"
    return f"{work}, {cycle_seconds(cycle):.0f} s"


def _verdict(result: TenantResult) -> Text:
    return Text(result.decision, "bold green" if result.decision == "promoted" else "bold yellow")


def _reasons(result: TenantResult) -> str:
    reasons = result.cycle.reasons or ([result.cycle.error] if result.cycle.error else [])
    return "\n".join(reasons) or "every condition held"


def _facts(report: Report) -> Table:
    requests, swap, seconds = report.requests, report.swap, report.seconds
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row(
        "requests",
        f"{requests.total:,} ({requests.while_cycles_ran:,} while learning,"
        f" {requests.streamed:,} streamed): {requests.failed} failed,"
        f" {requests.wrong_version} by a wrong version, {requests.not_logged} not logged",
    )
    if swap is not None:
        facts.add_row(
            "swap",
            f"loaded in {swap.load_ms:.0f} ms, flipped in {swap.flip_ms:.1f} ms,"
            f" rolled back in {swap.rollback_ms:.0f} ms",
        )
    facts.add_row(
        "seconds",
        f"{seconds.total:.0f} in all: environment {seconds.setup:.0f},"
        f" engine {seconds.engine_start:.0f}, traffic {seconds.traffic:.0f},"
        f" measuring {seconds.measure_before + seconds.measure_after:.0f},"
        f" adaptation {seconds.adaptation:.0f}",
    )
    return facts


def usage(url: str, api_keys: Mapping[str, str], admin_key_path: Path) -> str:
    """How to use the server that was left running; without a frame, so that it can be pasted."""
    keys = "\n".join(f"  {tenant:<8} {key}" for tenant, key in api_keys.items())
    return f"""\
The server is running. Ctrl-C stops it.

Base URL   {url}/v1
API keys
{keys}
Admin key  {admin_key_path}

from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="{api_keys[ADDER.name]}")
response = client.chat.completions.create(
    model="{SERVED_MODEL}", messages=[{{"role": "user", "content": "What is 1234+5678?"}}]
)
print(response.choices[0].message.content, response.system_fingerprint)

export PATH={Path(sys.executable).parent}:$PATH
export TTRL_URL={url} TTRL_ADMIN_KEY=$(cat {admin_key_path})
ttrl status
ttrl versions {ADDER.name}
ttrl adapt {ADDER.name} --watch
ttrl rollback {ADDER.name}"""
