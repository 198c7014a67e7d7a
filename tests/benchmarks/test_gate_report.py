from __future__ import annotations

from math import isnan
from typing import Any

from benchmarks.gate_report import refusals


def found(effect: float, *, promote: bool) -> dict[str, Any]:
    return {"effect": effect, "without_labels": {"promote": promote}}


def test_harmful_and_good_ones_are_told_apart_by_three_points() -> None:
    candidates = [
        found(-0.2, promote=False),
        found(-0.04, promote=True),
        found(-0.02, promote=True),
        found(0.02, promote=False),
        found(0.3, promote=False),
        found(0.4, promote=True),
        found(0.5, promote=True),
        found(0.1, promote=True),
    ]
    assert refusals(candidates, "without_labels") == {"harmful": 0.5, "good": 0.25}


def test_no_candidates_are_no_success() -> None:
    rates = refusals([found(0.0, promote=True)], "without_labels")
    assert isnan(rates["harmful"])
    assert isnan(rates["good"])
