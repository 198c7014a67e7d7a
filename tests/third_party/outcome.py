"""What came of a client, and the tables that tell it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.third_party.environments import ROOT

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- what the run found -->", "<!-- the end of it -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client's script said. `skipped` says why it did not run; `logged` counts the rows
    of its tenant by route.
    """

    title: str
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    passed: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Sequence[str] = ()
    skipped: str = ""
    logged: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """`passed`, `FAILED` or `SKIPPED`."""
        if self.skipped:
            return "SKIPPED"
        return "passed" if self.passed and not self.failed else "FAILED"


def read_outcome(title: str, output: str, status: int, log: Path) -> Outcome:
    """What a script's last line says; a failure where there is none, or its exit status does not
    fit.
    """
    said: dict[str, Any] = {}
    for line in reversed(output.splitlines()):
        if line.startswith('{"versions"'):
            said = json.loads(line)
            break
    failed = dict(said.get("failed", {}))
    if not said or (status != 0 and not failed):
        failed["the script"] = f"it ended with {status}; see {log}"
    return Outcome(
        title, said.get("versions", {}), said.get("passed", ()), failed, said.get("notes", ())
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table for people, failures in full, and a line that counts."""
    widths = [max(len(o.title) for o in outcomes), max(len(_versions(o)) for o in outcomes)]
    lines: list[str] = []
    for outcome in outcomes:
        head = f"{outcome.title:<{widths[0]}}  {_versions(outcome):<{widths[1]}}"
        rows = ", ".join(f"{route} {num}" for route, num in outcome.logged.items())
        lines.append(
            f"{head}  {outcome.verdict:<7}  {len(outcome.passed):>2} checks"
            f"  {outcome.seconds:>5.1f} s  logged: {rows or '-'}"
        )
    for outcome in outcomes:
        if outcome.skipped:
            lines += ["", f"!!! {outcome.title} was not tried: {outcome.skipped}"]
        for name, error in outcome.failed.items():
            lines += ["", f"FAILED {outcome.title}: {name}", error.rstrip()]
    counts = Counter(outcome.verdict for outcome in outcomes)
    counted = f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['SKIPPED']} skipped"
    return "\n".join([*lines, "", counted])


def page_table(outcomes: Iterable[Outcome]) -> str:
    """The table of `docs/clients.md`: nothing in it changes from run to run by itself."""
    lines = ["| client | version | exercised | logged as | result |", "|---|---|---|---|---|"]
    notes: list[str] = []
    for one in outcomes:
        exercised = "; ".join([*one.passed, *(f"**{name}**" for name in one.failed)])
        verdict = f"skipped: {' '.join(one.skipped.split())}" if one.skipped else one.verdict
        routes = ", ".join(sorted(one.logged)) or "-"
        lines.append(
            f"| {one.title} | {_versions(one) or '-'} | {exercised or '-'} | {routes} | {verdict} |"
        )
        notes += [f"- {one.title}: {note}" for note in one.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def write_page(outcomes: Iterable[Outcome], path: Path = PAGE) -> None:
    """Put the table between the page's marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = page_table(outcomes)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def _versions(outcome: Outcome) -> str:
    if len(outcome.versions) == 1:
        return next(iter(outcome.versions.values()))
    return ", ".join(f"{name} {number}" for name, number in outcome.versions.items())
