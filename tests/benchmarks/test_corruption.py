from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import corruption_report
from benchmarks.corruption import NUM_FRESH, fresh, sides
from benchmarks.corruption_report import exact, over_questions, rate, report, summary, tally
from benchmarks.estimators import NUM_TRAFFIC, held_out, traffic
from benchmarks.result import Claim
from demo.questions import ADDITION, Question


def one(arm: str, question: str, before: int, after: int, seed: int = 1) -> dict[str, Any]:
    """How many of 32 samples are right."""
    return {
        "arm": arm,
        "seed": seed,
        "side": "fresh",
        "question": question,
        "before": ["7", ["7"] * before + ["8"] * (32 - before)],
        "after": ["7", ["7"] * after + ["8"] * (32 - after)],
    }


def pairs(questions: Sequence[Question]) -> set[tuple[int, int]]:
    return {(min(q.a, q.b), max(q.a, q.b)) for q in questions}


def test_fresh_questions_were_never_learned_from() -> None:
    found = pairs(fresh(ADDITION))
    assert len(found) == NUM_FRESH
    for seed in (1, 2, 3):
        assert not found & pairs(traffic(ADDITION, seed))


def test_fresh_questions_are_others_than_those_of_the_learning_curve() -> None:
    assert not pairs(fresh(ADDITION)) & pairs(held_out(ADDITION))


def test_all_questions_of_a_seed_are_measured() -> None:
    counts = {side: len(questions) for side, questions in sides(ADDITION, 1).items()}
    assert counts == {"trained": NUM_TRAFFIC, "fresh": NUM_FRESH}


def test_a_prompt_is_corrupted_from_three_tenths_to_less_than_fifteen_hundredths() -> None:
    found = [
        one("default", "a", before=10, after=4),
        one("default", "b", before=10, after=5),
        one("default", "c", before=9, after=0),
        one("default", "d", before=32, after=32),
    ]
    row = summary(found)["arms"]["default"]
    assert (row["corrupted"], row["solvable"]) == (1, 3)
    assert row["rate"]["mean"] == pytest.approx(1 / 3, abs=1e-4)


def test_the_other_arm_is_what_ours_is_held_against() -> None:
    found = [
        *(one("majority", f"q{i}", before=20, after=0 if i < 8 else 32) for i in range(40)),
        *(one("default", f"q{i}", before=20, after=0 if i < 2 else 32) for i in range(40)),
    ]
    against = summary(found)["against"]["majority"]
    assert against["ratio"]["mean"] == 0.25
    assert against["ratio"]["low"] < 0.25 < against["ratio"]["high"]
    assert against["difference"]["mean"] == pytest.approx(-0.15)
    assert against["difference"]["high"] < 0


def test_the_lead_is_of_all_answers_of_both_arms() -> None:
    found = [
        *(one("majority", f"q{i}", before=20, after=24) for i in range(40)),
        *(one("default", f"q{i}", before=20, after=24 if i < 20 else 32) for i in range(40)),
    ]
    lead = summary(found)["against"]["majority"]["lead"]
    assert lead["mean"] == pytest.approx(0.125)
    assert 0.08 < lead["low"] < 0.125 < lead["high"] < 0.17


def test_without_any_corrupted_by_the_other_there_is_still_a_ratio() -> None:
    found = [
        one("majority", "a", before=20, after=32),
        one("default", "a", before=20, after=0),
    ]
    assert summary(found)["against"]["majority"]["ratio"]["mean"] == 1.0


def test_the_seeds_of_a_question_are_drawn_together() -> None:
    seeds = range(1, 9)
    many = [one("default", "a", 20, 0, seed) for seed in seeds]
    many += [one("default", "b", 20, 32, seed) for seed in seeds]
    tallies = tally(many)
    assert len(tallies) == 2
    found = over_questions(tallies, lambda drawn: rate(drawn, "default"))
    assert found == {"mean": 0.5, "low": 0.0, "high": 1.0}


def test_the_exact_bounds_of_a_ratio_of_counts() -> None:
    # Clopper-Pearson of 1 in 11: .0023 to .4128; of 0 in 9: 0 to .3363.
    assert exact(1, 10) == {
        "low": pytest.approx(0.0023, abs=1e-4),
        "high": pytest.approx(0.703, abs=1e-3),
    }
    assert exact(0, 9) == {"low": 0.0, "high": pytest.approx(0.5067, abs=1e-3)}


def test_an_arm_that_corrupts_nothing_bounds_no_ratio() -> None:
    assert exact(3, 0)["high"] is None
    assert exact(0, 0) == {"low": 0.0, "high": None}


def test_claims_are_made_of_arms_that_were_asked_the_same_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[Sequence[Claim], dict[str, Any]]] = []

    def write(_name: str, claims: Sequence[Claim], data: dict[str, Any]) -> Path:
        written.append((claims, data))
        return Path("corruption.json")

    monkeypatch.setattr(corruption_report, "write_result", write)
    found = [
        one(arm, "a", before=20, after=0) | {"side": side}
        for arm in ("majority", "default")
        for side in ("trained", "fresh")
    ]
    report(found[:3])
    assert not written
    report(found)
    ((claims, data),) = written
    assert [claim.value for claim in claims] == [1.0, 1.0, 1.0, 0.0]
    assert {(lost["says"], lost["share"]) for lost in data["corrupted"]} == {("8", 1.0)}
