from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.impact import MIN_VISITS, learning_impact, signal

CURVES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2), st.lists(st.floats(0, 1), max_size=8), max_size=8
)


def test_the_mean_curve_has_the_highest_impact() -> None:
    rising = {f"up {n}": [0.2, 0.5, 0.8] for n in range(8)}
    scores = learning_impact({**rising, "flat": [0.5, 0.5, 0.5], "down": [0.8, 0.5, 0.2]})
    assert scores["up 0"] == scores["up 7"] > scores["flat"] > scores["down"]


def test_the_score_is_limrs() -> None:
    curves = {"a": [0.0, 0.5, 1.0], "b": [1.0, 0.5, 0.0]}  # the mean is 1/2 throughout
    away, room = 0.25 + 0 + 0.25, 3 * 0.25
    assert learning_impact(curves) == pytest.approx({"a": 1 - away / room, "b": 1 - away / room})


def test_what_was_always_right_teaches_nothing() -> None:
    assert learning_impact({"a": [1.0] * 3, "b": [0.0, 0.2, 0.4]})["a"] == pytest.approx(0.0)
    assert learning_impact({"a": [1.0] * 3, "b": [1.0] * 5}) == {"a": 0.0, "b": 0.0}


def test_too_few_visits_have_no_score_but_count_in_the_mean() -> None:
    curve = [0.5, 0.5, 0.5]
    alone = learning_impact({"a": curve})
    assert alone == {"a": 1.0}
    assert learning_impact({"a": curve, "b": [0.0] * (MIN_VISITS - 1)}).keys() == {"a"}
    assert learning_impact({"a": curve, "b": [0.0] * (MIN_VISITS - 1)})["a"] < 1


@given(CURVES)
def test_no_score_is_above_one_and_all_are_finite(curves: dict[str, list[float]]) -> None:
    scores = learning_impact(curves)
    assert scores.keys() == {name for name, curve in curves.items() if len(curve) >= MIN_VISITS}
    assert all(score <= 1 and isfinite(score) for score in scores.values())


@given(CURVES)
def test_the_order_of_the_prompts_does_not_matter(curves: dict[str, list[float]]) -> None:
    shuffled = dict(sorted(curves.items(), reverse=True))
    assert learning_impact(shuffled) == pytest.approx(learning_impact(curves))


def test_an_even_vote_is_the_strongest_signal() -> None:
    assert signal([0.5]) == 0.25
    assert signal([0.9]) == pytest.approx(0.09)
    assert signal([1.0]) == signal([0.0]) == signal([]) == 0.0


def test_the_signal_is_that_of_the_last_visits() -> None:
    assert signal([0.5] * 9 + [1.0, 1.0, 1.0]) == 0.0
    assert signal([0.0, 0.5, 0.5, 0.5]) == 0.25
