"""From the gate's verdicts on candidates of known effect to its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.result import Claim, show_claims, write_result

MARGIN = 0.03  # of held-out pass@1
Found = Mapping[str, Any]


def publish(found: Sequence[Found], incumbent: Mapping[str, Any]) -> None:
    """Print, and write benchmarks/results/gate.json."""
    claims = [Claim("candidates", len(found), "candidates", ">=", 40)]
    for how, caught, lost in (("without_labels", 0.9, 0.2), ("with_labels", 0.97, 0.05)):
        rates = refusals(found, how)
        claims += [
            Claim(f"harmful refused, {how}", rates["harmful"], "share", ">=", caught),
            Claim(f"good refused, {how}", rates["good"], "share", "<=", lost),
        ]
    table = Table("candidate", "origin", "effect", "without labels", "with labels", "because")
    for one in sorted(found, key=lambda one: one["effect"]):
        table.add_row(
            one["name"],
            one["origin"],
            f"{one['effect']:+.3f}",
            *("promote" if one[how]["promote"] else "refuse" for how in HOWS),
            "; ".join(one["without_labels"]["reasons"])[:80],
        )
    console = Console(width=170)
    console.print(table)
    show_claims(claims)
    counts = {kind: sum(_kind(one) == kind for one in found) for kind in ("harmful", "good", "")}
    data = {"counts": counts, "incumbent": dict(incumbent), "candidates": list(found)}
    console.print(write_result("gate", claims, data))


HOWS = ("without_labels", "with_labels")


def refusals(found: Sequence[Found], how: str) -> dict[str, float]:
    """The share of harmful and of good candidates that was refused."""
    rates: dict[str, float] = {}
    for kind in ("harmful", "good"):
        verdicts = [not one[how]["promote"] for one in found if _kind(one) == kind]
        rates[kind] = sum(verdicts) / len(verdicts) if verdicts else float("nan")
    return rates


def _kind(one: Found) -> str:
    if one["effect"] < -MARGIN:
        return "harmful"
    return "good" if one["effect"] > MARGIN else ""
