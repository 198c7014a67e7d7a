from __future__ import annotations

from math import fsum

from hypothesis import given
from hypothesis import strategies as st

from adapters.advantage import advantages, rewards

FINITE = st.floats(-100, 100)


def test_agreement_with_the_label_is_rewarded() -> None:
    assert rewards(["a", "b", None, "a"], "a") == [1.0, 0.0, 0.0, 1.0]


def test_an_advantage_is_the_distance_to_the_mean() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]


def test_a_group_without_variance_has_no_advantages() -> None:
    assert advantages([1.0, 1.0]) is None
    assert advantages([0.0]) is None
    assert advantages([]) is None


@given(st.lists(FINITE, max_size=64))
def test_advantages_sum_to_zero(values: list[float]) -> None:
    found = advantages(values)
    if found is None:
        assert len(set(values)) < 2
    else:
        assert len(found) == len(values)
        assert abs(fsum(found)) < 1e-9


@given(st.lists(FINITE, min_size=2, max_size=64, unique=True))
def test_a_higher_reward_has_a_higher_advantage(values: list[float]) -> None:
    found = advantages(values)
    assert found is not None
    assert max(range(len(values)), key=values.__getitem__) == max(
        range(len(found)), key=lambda i: (found[i], values[i])
    )
