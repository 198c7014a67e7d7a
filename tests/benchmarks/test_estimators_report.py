from __future__ import annotations

from typing import Any

import pytest

from benchmarks.estimators_report import summary


def cell(*held_out: float, right: int = 12) -> dict[str, Any]:
    answered = [["7", ["7"] * right + ["8"] * (16 - right)], ["9", ["9"] * 16]]
    curve = [
        {
            "step": step,
            "tokens": 1000.0 * step,
            "rollouts": 264 * step,
            "seconds": 3.0 * step,
            "held_out": seen,
        }
        for step, seen in enumerate(held_out, start=1)
    ]
    before = {"held_out": [["7", ["8"] * 16]], "traffic": [["7", ["7"] * 8 + ["8"] * 8]]}
    after = {"held_out": answered, "traffic": [["7", ["8"] * 16]]}
    return {"arm": "x", "seed": 1, "before": before, "after": after, "curve": curve}


def test_the_means_are_over_prompts() -> None:
    row = summary([cell(0.5)])
    assert row["before"]["mean"] == 0.0
    assert row["pass_at_1"]["mean"] == pytest.approx(0.875)
    assert row["maj_at_16"]["mean"] == 1.0


def test_corrupted_prompts_are_counted() -> None:
    row = summary([cell(0.5), cell(0.5)])
    assert (row["corrupted"], row["solvable"], row["learned"]) == (2, 2, 0)


def test_the_target_is_reached_between_two_looks() -> None:
    assert summary([cell(0.7, 0.9)])["tokens_to_target"] == [pytest.approx(1500.0)]


def test_a_target_that_was_never_reached_is_not_made_up() -> None:
    assert summary([cell(0.7, 0.75)])["tokens_to_target"] == [None]
