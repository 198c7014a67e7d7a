from __future__ import annotations

from itertools import combinations
from statistics import pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.advantage import advantages
from adapters.downsample import Downsampling, downsample

ADVANTAGES = st.lists(st.none() | st.integers(-8, 8).map(lambda n: n / 4), max_size=40)
HOW = st.sampled_from(["first", "max_variance"])


def kept(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def binary(num_right: int, num_wrong: int) -> list[float | None]:
    found = advantages([1.0] * num_right + [0.0] * num_wrong)
    assert found is not None
    return list(found)


def test_the_first_are_those_that_came_first() -> None:
    assert downsample([0.5, None, -0.5, 0.5, -0.5], 2, "first") == [0.5, None, -0.5, None, None]


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "right_kept"),
    [(20, 12, 8), (29, 3, 13), (2, 30, 2), (16, 16, 8)],
)
def test_of_two_classes_as_many_of_the_minority_are_kept_as_make_half(
    num_right: int, num_wrong: int, right_kept: int
) -> None:
    chosen = kept(downsample(binary(num_right, num_wrong), 16, "max_variance"))
    assert len(chosen) == 16
    assert sum(value > 0 for value in chosen) == right_kept


def test_an_advantage_keeps_the_baseline_of_all_samples() -> None:
    chosen = downsample(binary(1, 9), 2, "max_variance")
    assert chosen[:2] == [pytest.approx(0.9), pytest.approx(-0.1)]


def test_of_equal_rewards_the_earlier_samples_stay() -> None:
    chosen = downsample([0.5, -0.5, 0.5, -0.5], 2, "max_variance")
    assert chosen == [0.5, -0.5, None, None]


def test_at_least_one_sample_is_asked_for() -> None:
    with pytest.raises(ValueError, match="k: 0"):
        downsample([0.5, -0.5], 0, "first")


@given(ADVANTAGES, st.integers(1, 40), HOW)
def test_k_samples_stay_and_none_is_changed(
    values: list[float | None], k: int, how: Downsampling
) -> None:
    chosen = downsample(values, k, how)
    assert len(kept(chosen)) == min(k, len(kept(values)))
    assert all(after in (before, None) for before, after in zip(values, chosen, strict=True))


@given(st.lists(st.integers(-6, 6).map(float), min_size=2, max_size=10), st.integers(1, 10))
def test_no_other_choice_has_more_variance(values: list[float], k: int) -> None:
    chosen = kept(downsample(values, k, "max_variance"))
    best = max(pvariance(some) for some in combinations(values, min(k, len(values))))
    assert pvariance(chosen) == pytest.approx(best, abs=1e-9)


@given(st.permutations([0.5, -0.5, 0.25, None, -1.0, 0.5, 0.75]), st.integers(1, 7))
def test_the_order_of_the_samples_does_not_change_which_rewards_are_kept(
    values: list[float | None], k: int
) -> None:
    ordered: list[float | None] = [-1.0, -0.5, 0.25, 0.5, 0.5, 0.75, None]
    assert sorted(kept(downsample(values, k, "max_variance"))) == sorted(
        kept(downsample(ordered, k, "max_variance"))
    )
