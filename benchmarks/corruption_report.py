"""From the answers before and after learning to how many prompts each arm corrupts.

A solvable prompt is one of which at least .3 of the samples were right before, a corrupted one of
these has less than .15 right after (adapters.quality.count_changes). Fresh questions are the same
for all seeds, so what is drawn anew for an interval is a question with all its seeds and arms. That
is too short for a handful of prompts and has no width at all for none, so the ratio has an exact
interval, too (Clopper and Pearson 1934): of all that either arm corrupts, how many are ours, where
each of them is taken to be by itself.

So many fresh questions also say more of how far apart the arms end than the held-out ones of
benchmarks.estimators, which are few because they are asked all along.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb, fsum
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.quality import RESAMPLES, Answered, Changes, count_changes
from benchmarks.result import Claim, show_claims, write_result

OURS, PLAIN = "default", "majority"
MOST = 0.25
LEAD = 0.07  # of ours at the end, pass@1
SIDES: Mapping[str, Sequence[str]] = {
    "trained": ("trained",),
    "fresh": ("fresh",),
    "all": ("trained", "fresh"),
}
Found = Mapping[str, Any]  # one question of one cell


@dataclass(slots=True)
class Tally:
    """One question over its seeds, by arm: in how many it was asked, solvable, and corrupted, and
    the sum of its shares of right samples after learning.
    """

    asked: Counter[str] = field(default_factory=Counter[str])
    solvable: Counter[str] = field(default_factory=Counter[str])
    corrupted: Counter[str] = field(default_factory=Counter[str])
    right: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


def report(found: Sequence[Found]) -> None:
    """Print the table, and write benchmarks/results/corruption.json."""
    rows = {
        side: summary([one for one in found if one["side"] in parts])
        for side, parts in SIDES.items()
        if found
    }
    claims = _claims(rows) if _is_complete(found) else []
    _print(rows, claims)
    if claims:
        lost = [_told(one) for one in found if _change(one).corrupted]
        print(write_result("corruption", claims, {**rows, "corrupted": lost}))


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """Each arm's counts and rate, and ours against each other arm."""
    arms = list(dict.fromkeys(one["arm"] for one in found))
    tallies = tally(found)

    def interval(statistic: Callable[[Sequence[Tally]], float]) -> dict[str, float]:
        return over_questions(tallies, statistic)

    return {
        "questions": len(tallies),
        "arms": {
            arm: _counts([one for one in found if one["arm"] == arm])
            | {"rate": interval(lambda drawn, arm=arm: rate(drawn, arm))}
            for arm in arms
        },
        "against": {
            other: {
                "ratio": interval(lambda drawn, other=other: ratio(drawn, other)),
                "exact": exact(_corrupted(tallies, OURS), _corrupted(tallies, other)),
                "difference": interval(
                    lambda drawn, other=other: rate(drawn, OURS) - rate(drawn, other)
                ),
                "lead": interval(lambda drawn, other=other: lead(drawn, other)),
            }
            for other in arms
            if other != OURS and OURS in arms
        },
    }


def tally(found: Sequence[Found]) -> list[Tally]:
    """One a question."""
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    for one in found:
        change, mine = _change(one), tallies[one["question"]]
        mine.asked[one["arm"]] += 1
        mine.right[one["arm"]] += _answered(one["after"]).mean
        mine.solvable[one["arm"]] += change.num_solvable
        mine.corrupted[one["arm"]] += change.corrupted
    return list(tallies.values())


def rate(tallies: Sequence[Tally], arm: str) -> float:
    """The share of the solvable that an arm corrupts."""
    return _corrupted(tallies, arm) / max(1, sum(one.solvable[arm] for one in tallies))


def ratio(tallies: Sequence[Tally], other: str) -> float:
    """How many we corrupt for one that the other arm does."""
    return _corrupted(tallies, OURS) / max(1, _corrupted(tallies, other))


def lead(tallies: Sequence[Tally], other: str) -> float:
    """How much higher our pass@1 is in the end."""
    return _pass_at_1(tallies, OURS) - _pass_at_1(tallies, other)


def _pass_at_1(tallies: Sequence[Tally], arm: str) -> float:
    return fsum(one.right[arm] for one in tallies) / max(1, sum(one.asked[arm] for one in tallies))


def _corrupted(tallies: Sequence[Tally], arm: str) -> int:
    return sum(one.corrupted[arm] for one in tallies)


def over_questions(
    tallies: Sequence[Tally],
    statistic: Callable[[Sequence[Tally]], float],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, float]:
    """A statistic with its percentile bootstrap of 95 %."""
    dice = Random(0)
    drawn = sorted(statistic(dice.choices(tallies, k=len(tallies))) for _ in range(resamples))
    cut = int(0.025 * resamples)
    return {
        "mean": round(statistic(tallies), 5),
        "low": round(drawn[cut], 5),
        "high": round(drawn[-1 - cut], 5),
    }


def exact(ours: int, theirs: int) -> dict[str, float | None]:
    """The bounds of 95 % of the ratio of two counts; None: there is no upper one."""
    total = ours + theirs
    low = _root(lambda p: 0.025 - _tail(total, ours, p)) if ours else 0.0
    high = _root(lambda p: 1 - _tail(total, ours + 1, p) - 0.025) if theirs else 1.0
    return {
        "low": round(low / (1 - low), 5),
        "high": round(high / (1 - high), 5) if theirs else None,
    }


def _tail(total: int, least: int, p: float) -> float:
    """The chance of `least` or more successes."""
    return fsum(comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(least, total + 1))


def _root(falling: Callable[[float], float]) -> float:
    """Where a function that falls between 0 and 1 is zero."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low


def _change(one: Found) -> Changes:
    return count_changes([_answered(one["before"]).mean], [_answered(one["after"]).mean])


def _answered(sampled: Sequence[Any]) -> Answered:
    truth, answers = sampled
    return Answered(truth, tuple(answers))


def _counts(found: Sequence[Found]) -> dict[str, Any]:
    """Of one arm."""
    changes = [(one["seed"], _change(one)) for one in found]
    by_seed: Counter[int] = Counter()
    for seed, change in changes:
        by_seed[seed] += change.corrupted
    return {
        "seeds": len(by_seed),
        "samples": min(len(one["after"][1]) for one in found),
        "solvable": sum(change.num_solvable for _, change in changes),
        "corrupted": sum(by_seed.values()),
        "corrupted_by_seed": [by_seed[seed] for seed in sorted(by_seed)],
        "unsolved": sum(change.num_unsolved for _, change in changes),
        "learned": sum(change.learned for _, change in changes),
        "pass_at_1": round(sum(_answered(one["after"]).mean for one in found) / len(found), 4),
    }


def _is_complete(found: Sequence[Found]) -> bool:
    """Whether both arms that are compared were measured on the same questions."""
    ours, theirs = (
        {(one["seed"], one["side"], one["question"]) for one in found if one["arm"] == arm}
        for arm in (OURS, PLAIN)
    )
    return bool(ours) and ours == theirs


def _claims(rows: Mapping[str, Mapping[str, Any]]) -> list[Claim]:
    against = {side: row["against"][PLAIN] for side, row in rows.items()}
    ahead = f"pass@1 of {OURS} over {PLAIN}'s, {rows['fresh']['questions']} fresh questions"
    return [
        *(
            Claim(
                f"prompts that {OURS} corrupts, against {PLAIN}'s, {side}",
                found["ratio"]["mean"],
                "ratio",
                "<=",
                MOST,
            )
            for side, found in against.items()
        ),
        Claim(ahead, against["fresh"]["lead"]["mean"], "pass@1", ">=", LEAD),
    ]


def _told(one: Found) -> dict[str, Any]:
    """A corrupted prompt, and what the weights say to it now."""
    before, after = _answered(one["before"]), _answered(one["after"])
    (says, votes), *_ = Counter(after.answers).most_common(1)
    return {
        "arm": one["arm"],
        "seed": one["seed"],
        "side": one["side"],
        "question": one["question"],
        "answer": after.truth,
        "before": round(before.mean, 4),
        "after": round(after.mean, 4),
        "says": says,
        "share": round(votes / len(after.answers), 4),
    }


def _print(rows: Mapping[str, Mapping[str, Any]], claims: Sequence[Claim]) -> None:
    table = Table("prompts", "arm", "corrupted", "by seed", "rate", "95 %", "learned", "pass@1")
    table.add_column("default's share of it")
    table.add_column("default's lead")
    for side, row in rows.items():
        for arm, counts in row["arms"].items():
            against = row["against"].get(arm)
            table.add_row(
                side,
                arm,
                f"{counts['corrupted']}/{counts['solvable']}",
                " ".join(map(str, counts["corrupted_by_seed"])),
                f"{counts['rate']['mean']:.4f}",
                f"{counts['rate']['low']:.4f}-{counts['rate']['high']:.4f}",
                f"{counts['learned']}/{counts['unsolved']}",
                f"{counts['pass_at_1']:.3f}",
                _bounds(against) if against else "",
                _interval(against["lead"]) if against else "",
            )
    Console(width=170).print(table)
    show_claims(claims)


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def _bounds(against: Mapping[str, Any]) -> str:
    ratio_, sure = against["ratio"], against["exact"]
    most = "" if sure["high"] is None else f"{sure['high']:.2f}"
    return (
        f"{ratio_['mean']:.2f} ({ratio_['low']:.2f}-{ratio_['high']:.2f},"
        f" exact {sure['low']:.2f}-{most})"
    )
