"""How answers look to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ttrl_client import types

GOOD, BAD, QUIET = "green", "red", "dim"
STATUS_STYLE: Mapping[str, str] = {
    types.CycleStatus.PROMOTED: GOOD,
    types.CycleStatus.REJECTED: "yellow",
    types.CycleStatus.FAILED: BAD,
    types.CycleStatus.RUNNING: "cyan",
}
STATE_STYLE: Mapping[str, str] = {"ready": GOOD, "starting": "yellow", "away": BAD, "ok": GOOD}
PROMPT_WIDTH = 60


def paged(page: types.Page[Any], table: Table, nothing: str) -> RenderableType:
    """A page's table, with how to see the next one."""
    if not page.items:
        return f"[{QUIET}]{nothing}[/]"
    if page.next is None:
        return table
    return Group(table, f"[{QUIET}]More: --before {page.next}[/]")


def status(status: types.Status) -> RenderableType:
    """The server at a glance."""
    facts = _facts(
        ("server", f"{status.version}, model {_plain(status.model)}"),
        ("database", _styled(status.database, STATE_STYLE)),
        ("tenants", _number(status.num_tenants)),
        ("queries", _number(status.num_queries)),
        (
            "cycles",
            f"{_number(status.pending_cycles)} pending, {_number(status.running_cycles)} running",
        ),
    )
    engines = _table("engine", "state", "why", "in flight", "adapters")
    for engine in status.engines:
        engines.add_row(
            _plain(engine.url),
            _styled(engine.state, STATE_STYLE),
            _plain(engine.reason or ""),
            str(engine.in_flight),
            _plain(", ".join(engine.adapters)) or "-",
        )
    return Group(facts, engines if status.engines else f"[{BAD}]No engine.[/]")


def tenants(page: types.Page[types.Tenant]) -> RenderableType:
    """Tenants, one a line."""
    table = _table("tenant", "live", "queries", "cycle", "created")
    for tenant in page.items:
        table.add_row(
            _plain(tenant.name),
            f"v{tenant.live_version}",
            str(tenant.num_queries),
            _optional(tenant.active_cycle),
            _time(tenant.created_at),
        )
    return paged(page, table, "No tenant yet: `ttrl tenants create NAME` makes one.")


def tenant(tenant: types.Tenant) -> RenderableType:
    """One tenant, with those settings that are not the defaults."""
    changed = tenant.settings.model_dump_json(exclude_defaults=True, indent=2)
    previous = tenant.previous_version
    return _facts(
        ("tenant", f"{_plain(tenant.name)} (id {tenant.id})"),
        ("live", f"v{tenant.live_version}"),
        ("rollback to", "-" if previous is None else f"v{previous}"),
        ("queries", str(tenant.num_queries)),
        ("active cycle", _optional(tenant.active_cycle)),
        ("created", _time(tenant.created_at)),
        ("settings", "the defaults" if changed == "{}" else _plain(changed)),
    )


def new_key(key: types.NewKey) -> RenderableType:
    """A key, the only time that it is shown."""
    return Group(
        f"[bold]{_plain(key.secret)}[/bold]",
        f"[{QUIET}]Keep it: this is the only time that it is shown.[/]",
    )


def new_tenant(tenant: types.NewTenant) -> RenderableType:
    """A new tenant with its key."""
    return Group(f"Tenant {_plain(tenant.name)} is there. Its API key:", new_key(tenant.key))


def keys(page: types.Page[types.Key]) -> RenderableType:
    """Keys, one a line."""
    table = _table("id", "name", "key", "created", "revoked")
    for key in page.items:
        table.add_row(
            str(key.id),
            _plain(key.name),
            f"{_plain(key.prefix)}...",
            _time(key.created_at),
            _time(key.revoked_at),
        )
    return paged(page, table, "No key.")


def cycles(page: types.Page[types.Cycle]) -> RenderableType:
    """Cycles, one a line."""
    table = _table("cycle", "tenant", "status", "trigger", "steps", "rollouts", "from", "to", "end")
    for cycle in page.items:
        table.add_row(
            str(cycle.id),
            _plain(cycle.tenant),
            _styled(cycle.status, STATUS_STYLE),
            cycle.trigger,
            f"{cycle.steps_done}/{cycle.steps_planned}",
            str(cycle.num_rollouts),
            _version(cycle.parent_version),
            _version(cycle.candidate_version),
            _time(cycle.finished_at),
        )
    return paged(page, table, "No cycle yet: `ttrl adapt TENANT` starts one.")


def versions(page: types.Page[types.Version]) -> RenderableType:
    """Versions, one a line."""
    table = _table("version", "live", "parent", "cycle", "score", "digest", "created")
    for version in page.items:
        table.add_row(
            f"v{version.number}",
            f"[{GOOD}]live[/]" if version.live else "",
            _version(version.parent),
            _optional(version.cycle_id),
            _score(version),
            (version.manifest_digest or "base model")[:12],
            _time(version.created_at),
        )
    return paged(page, table, "No version.")


def swap(swap: types.Swap) -> RenderableType:
    """A pointer that moved."""
    return (
        f"{_plain(swap.tenant)}: v{swap.from_version} -> [bold]v{swap.to_version}[/bold]"
        f" [{QUIET}](loaded in {swap.load_ms:.0f} ms, flipped in {swap.flip_ms:.1f} ms)[/]"
    )


def swaps(page: types.Page[types.Swap]) -> RenderableType:
    """Swaps, one a line."""
    table = _table("from", "to", "reason", "load ms", "flip ms", "at")
    for swap in page.items:
        table.add_row(
            f"v{swap.from_version}",
            f"v{swap.to_version}",
            swap.reason,
            f"{swap.load_ms:.0f}",
            f"{swap.flip_ms:.1f}",
            _time(swap.created_at),
        )
    return paged(page, table, "The pointer has not moved yet.")


def queries(page: types.Page[types.Query]) -> RenderableType:
    """Queries, one a line."""
    table = _table("at", "version", "prompt", "answers", "tokens", "ms", "learn")
    for query in page.items:
        table.add_row(
            _time(query.created_at),
            f"v{query.adapter_version}",
            _plain(_shortened(_last_text(query.prompt))),
            _plain(_shortened(" | ".join(answer.text for answer in query.answers))),
            f"{_optional(query.prompt_tokens)}+{_optional(query.completion_tokens)}",
            f"{query.latency_ms:.0f}",
            "yes" if query.eligible else _plain(query.reason or "no"),
        )
    return paged(page, table, "No query yet.")


def feedback(given: types.Feedback) -> RenderableType:
    """What is stored now about an answer."""
    return _facts(
        ("answer", f"{_plain(given.id)}, choice {given.choice}, of v{given.adapter_version}"),
        ("score", _number(given.score)),
        ("correct answer", "-" if given.correct_answer is None else _plain(given.correct_answer)),
        ("comment", "-" if given.comment is None else _plain(given.comment)),
    )


def verdict(cycle: types.Cycle) -> RenderableType:
    """How a cycle ended: the numbers that the gate saw, and its reasons."""
    head = f"Cycle {cycle.id} of {_plain(cycle.tenant)}: {_styled(cycle.status, STATUS_STYLE)}"
    if cycle.candidate_version is not None:
        head += f", v{cycle.candidate_version}"
    parts: list[RenderableType] = [head]
    if cycle.selection:
        counts = (f"{number} {reason}" for reason, number in sorted(cycle.selection.items()))
        parts.append(f"[{QUIET}]prompts:[/] {_plain(', '.join(counts))}")
    if cycle.incumbent is not None or cycle.candidate is not None:
        parts.append(_evaluations(cycle.incumbent, cycle.candidate))
    parts += [f"  {_plain(reason)}" for reason in cycle.reasons]
    if cycle.error is not None:
        parts.append(f"  [{BAD}]{_plain(cycle.error)}[/]")
    return Group(*parts)


def _evaluations(
    incumbent: types.EvaluationReport | None, candidate: types.EvaluationReport | None
) -> Table:
    table = _table("on held-out prompts", "incumbent", "candidate")
    names = (name for name in types.EvaluationReport.model_fields if name != "version")
    for name in names:
        before, after = getattr(incumbent, name, None), getattr(candidate, name, None)
        if before is not None or after is not None:
            table.add_row(name, _number(before), _number(after))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style=QUIET, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _facts(*facts: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(f"[{QUIET}]{name}[/]", value)
    return table


def _styled(word: str, styles: Mapping[str, str]) -> str:
    style = styles.get(word)
    return str(word) if style is None else f"[{style}]{word}[/]"


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _optional(value: int | None) -> str:
    return "-" if value is None else str(value)


def _score(version: types.Version) -> str:
    """The mean score, and of how many answers there is feedback."""
    if not version.num_feedback:
        return "-"
    return f"{_number(version.mean_score)} ({version.num_feedback})"


def _version(number: int | None) -> str:
    return "-" if number is None else f"v{number}"


def _time(time: datetime | None) -> str:
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _last_text(prompt: Sequence[Any]) -> str:
    last = prompt[-1] if prompt else ""
    if isinstance(last, dict):
        last = cast(dict[str, Any], last).get("content") or ""
    return str(last)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PROMPT_WIDTH else line[: PROMPT_WIDTH - 3] + "..."


def _plain(text: str) -> str:
    """Text from elsewhere, safe for a terminal: no control sequences, no markup."""
    return escape("".join(char if char.isprintable() or char == "\n" else "?" for char in text))
