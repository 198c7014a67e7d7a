"""From the cells of the estimator benchmark to its claims, its table and its JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.quality import Answered, Interval, bootstrap, count_changes, maj_at_k, pass_at_k
from benchmarks.result import Claim, show_claims, write_result

REACHED = 0.80  # held-out pass@1
NOTHING = {"rollouts": 0, "tokens": 0, "seconds": 0.0}  # was learned: the gate was foreseen
Cell = Mapping[str, Any]


def report(cells: Sequence[Cell]) -> None:
    """Print the table, and write benchmarks/results/estimators.json."""
    by_arm: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_arm[cell["arm"]].append(cell)
    rows = {arm: summary(found) for arm, found in by_arm.items()}
    claims = list(_claims(rows)) if _is_complete(rows) else []
    _print(rows, claims)
    if claims:
        curves = [
            {"arm": c["arm"], "seed": c["seed"], "curve": [_short(p) for p in c["curve"]]}
            for c in cells
        ]
        print(write_result("estimators", claims, {"arms": rows, "curves": curves}))


def summary(cells: Sequence[Cell]) -> dict[str, Any]:
    """One arm over its seeds; intervals are bootstraps over all prompts of all seeds."""
    before = [_answered(cell["before"]["held_out"]) for cell in cells]
    after = [_answered(cell["after"]["held_out"]) for cell in cells]
    changes = [
        count_changes(
            [a.mean for a in _answered(cell["before"]["traffic"])],
            [a.mean for a in _answered(cell["after"]["traffic"])],
        )
        for cell in cells
    ]
    everything = [answered for found in after for answered in found]
    ends = [cell["curve"][-1] if cell["curve"] else NOTHING for cell in cells]
    return {
        "seeds": len(cells),
        "refused": sum(not cell["curve"] for cell in cells),
        "samples": len(everything[0].answers),
        "before": _interval([a.mean for found in before for a in found]),
        "pass_at_1": _interval([a.mean for a in everything]),
        "pass_at_1_by_seed": [round(mean(a.mean for a in found), 4) for found in after],
        "maj_at_16": _interval([maj_at_k(a.answers, a.truth, 16) for a in everything]),
        "pass_at_8": _interval([pass_at_k(len(a.answers), a.num_correct, 8) for a in everything]),
        "traffic_pass_at_1": _interval(
            [a.mean for cell in cells for a in _answered(cell["after"]["traffic"])]
        ),
        "learned": sum(change.learned for change in changes),
        "corrupted": sum(change.corrupted for change in changes),
        "solvable": sum(change.num_solvable for change in changes),
        "rollouts": mean(end["rollouts"] for end in ends),
        "tokens": mean(end["tokens"] for end in ends),
        "seconds": mean(end["seconds"] for end in ends),
        "tokens_to_target": [_tokens_to(cell["curve"]) for cell in cells],
        "label_accuracy": _mean_of(cells, "label_accuracy"),
    }


def _is_complete(rows: Mapping[str, Any]) -> bool:
    needed = {"majority", "default", "oracle", "generic_views", "random", "format_only"}
    return needed | {"no_prior_cycle", "weak_default", "weak_majority"} <= set(rows)


def _claims(rows: Mapping[str, Any]) -> Sequence[Claim]:
    ends = partial(_end, rows)
    plain, ours = rows["majority"], rows["default"]
    lead = ends("default") - ends("majority")
    return [
        # An arm that never got there is counted with all that it sampled, in its favour.
        Claim(
            "tokens of default to .80 held-out, against majority's",
            mean(_reached(ours)) / mean(_reached(plain)),
            "ratio",
            "<=",
            0.5,
        ),
        Claim("default over majority at the end", lead, "pass@1", ">=", 0.07),
        Claim(
            "default over oracle labels on one view",
            ends("default") - ends("oracle"),
            "pass@1",
            ">=",
            0.0,
        ),
        Claim(
            "prompts that default corrupts, against majority's",
            ours["corrupted"] / max(1, plain["corrupted"]),
            "ratio",
            "<=",
            0.25,
        ),
        Claim(
            "generic views' lead over majority, against the templates'",
            (ends("generic_views") - ends("majority")) / lead if lead > 0 else 0.0,
            "ratio",
            ">=",
            0.5,
        ),
        *_without_prior(rows),
        Claim("random rewards improve", _gain(rows, "random"), "pass@1", "<=", 0.0),
        Claim("format rewards improve", _gain(rows, "format_only"), "pass@1", "<=", 0.0),
    ]


def _without_prior(rows: Mapping[str, Any]) -> Sequence[Claim]:
    ours, weak = _gain(rows, "no_prior_cycle"), _gain(rows, "weak_default")
    return [
        Claim("a cycle with the default, without prior", ours, "pass@1", ">=", 0.0),
        Claim("default where majorities are wrong", weak, "pass@1", ">=", 0.0),
        Claim(
            "default over majority where majorities are wrong",
            _end(rows, "weak_default") - _end(rows, "weak_majority"),
            "pass@1",
            ">=",
            0.1,
        ),
    ]


def _end(rows: Mapping[str, Any], arm: str) -> float:
    return rows[arm]["pass_at_1"]["mean"]


def _gain(rows: Mapping[str, Any], arm: str) -> float:
    return _end(rows, arm) - rows[arm]["before"]["mean"]


def _reached(row: Mapping[str, Any]) -> list[float]:
    return [row["tokens"] if tokens is None else tokens for tokens in row["tokens_to_target"]]


def _tokens_to(curve: Sequence[Mapping[str, float]]) -> float | None:
    """Sampled tokens until held-out pass@1 first reached the target; between two looks, in
    proportion.
    """
    tokens_before, seen_before = 0.0, None
    for point in curve:
        seen = point.get("held_out")
        if seen is None:
            continue
        if seen >= REACHED:
            if seen_before is None or seen_before >= seen:
                return point["tokens"]
            share = (REACHED - seen_before) / (seen - seen_before)
            return tokens_before + share * (point["tokens"] - tokens_before)
        tokens_before, seen_before = point["tokens"], seen
    return None


def _answered(found: Sequence[Sequence[Any]]) -> list[Answered]:
    return [Answered(truth, tuple(answers)) for truth, answers in found]


def _interval(values: Sequence[float]) -> dict[str, float]:
    found: Interval = bootstrap(values)
    return {
        "mean": round(found.mean, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
    }


def _mean_of(cells: Sequence[Cell], name: str) -> float | None:
    values = [point[name] for cell in cells for point in cell["curve"] if name in point]
    return round(mean(values), 4) if values else None


def _short(point: Mapping[str, float]) -> dict[str, float]:
    names = ("step", "tokens", "held_out", "majority_ratio", "label_accuracy", "entropy")
    return {name: round(point[name], 4) for name in names if name in point}


def _print(rows: Mapping[str, Any], claims: Sequence[Claim]) -> None:
    table = Table("arm", "seeds", "pass@1", "95 %", "maj@16", "pass@8", "learned", "corrupted")
    for column in ("label acc.", "k tokens to .80", "rollouts", "s"):
        table.add_column(column)
    for arm, row in rows.items():
        end = row["pass_at_1"]
        reached = [t for t in row["tokens_to_target"] if t is not None]
        table.add_row(
            arm,
            str(row["seeds"]),
            f"{row['before']['mean']:.3f} -> {end['mean']:.3f}",
            f"{end['low']:.3f}-{end['high']:.3f}",
            f"{row['maj_at_16']['mean']:.3f}",
            f"{row['pass_at_8']['mean']:.3f}",
            str(row["learned"]),
            f"{row['corrupted']}/{row['solvable']}",
            f"{row['label_accuracy']:.2f}" if row["label_accuracy"] is not None else "",
            f"{mean(reached) / 1e3:.0f} ({len(reached)}/{row['seeds']})" if reached else "never",
            f"{row['rollouts']:.0f}",
            f"{row['seconds']:.0f}",
        )
    console = Console(width=150)
    console.print(table)
    show_claims(claims)
