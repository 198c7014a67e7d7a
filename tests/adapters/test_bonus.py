from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bonus import MOST, exploration_bonus

SAMPLES = st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), max_size=40)


def test_the_longest_sample_with_the_label_gets_all_of_it() -> None:
    assert exploration_bonus([10, 40, 20], [True, True, True], 0.2) == [0.05, 0.2, 0.1]


def test_a_sample_without_the_label_gets_nothing_however_long() -> None:
    assert exploration_bonus([10, 40], [True, False], 0.2) == [0.05, 0.0]


def test_a_group_of_empty_samples_gets_nothing() -> None:
    assert exploration_bonus([0, 0], [True, True], 0.2) == [0.0, 0.0]
    assert exploration_bonus([], [], 0.2) == []


def test_both_say_something_about_every_sample() -> None:
    with pytest.raises(ValueError, match="zip"):
        exploration_bonus([1, 2], [True], 0.2)


@given(SAMPLES, st.floats(-1, 4))
def test_no_bonus_makes_up_for_the_label(samples: list[tuple[int, bool]], scale: float) -> None:
    found = exploration_bonus([n for n, _ in samples], [right for _, right in samples], scale)
    assert all(0 <= bonus <= MOST for bonus in found)


@given(SAMPLES)
def test_a_longer_sample_with_the_label_never_gets_less(samples: list[tuple[int, bool]]) -> None:
    found = exploration_bonus([n for n, _ in samples], [True] * len(samples), 0.3)
    ranked = sorted(zip((n for n, _ in samples), found, strict=True))
    assert [bonus for _, bonus in ranked] == sorted(found)
