from __future__ import annotations

from math import fsum, isclose, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.advantage import AdvantageKind, advantages, batch_advantages

KINDS: list[AdvantageKind] = ["dr_grpo", "grpo", "rloo", "reinforce++"]
FINITE = st.floats(-100, 100).map(lambda value: round(value, 6))
GROUP = st.lists(st.none() | FINITE, max_size=64)


def test_an_advantage_is_the_distance_to_the_mean() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [0.5, -0.5, -0.5, 0.5]


def test_a_masked_sample_has_none_and_does_not_move_the_mean() -> None:
    assert advantages([1.0, None, 0.0]) == [0.5, None, -0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_without_variance_has_no_advantages(kind: AdvantageKind) -> None:
    assert advantages([1.0, 1.0], kind) is None
    assert advantages([0.0, None], kind) is None
    assert advantages([], kind) is None


def test_grpo_divides_by_the_unbiased_deviation() -> None:
    found = advantages([1.0, 0.0, 0.0, 0.0], "grpo")
    assert found == pytest.approx([0.75 / (0.5 + 1e-6), *[-0.25 / (0.5 + 1e-6)] * 3])


def test_rloo_is_the_distance_to_the_mean_of_the_others() -> None:
    assert advantages([1.0, 0.0, 0.5], "rloo") == pytest.approx([0.75, -0.75, 0.0])


def test_reinforce_divides_by_the_deviation_of_all_rewarded_samples_of_the_batch() -> None:
    groups = [[1.0, 0.0], [3.0, -1.0], [5.0, 5.0], [None, None]]
    found = batch_advantages(groups, "reinforce++")
    spread = sqrt((0.25 * 2 + 4 * 2) / 5) + 1e-6
    assert found[0] == pytest.approx([0.5 / spread, -0.5 / spread])
    assert found[1] == pytest.approx([2 / spread, -2 / spread])
    assert found[2] is found[3] is None


@given(GROUP, st.sampled_from(KINDS))
def test_advantages_sum_to_zero(rewards: list[float | None], kind: AdvantageKind) -> None:
    found = advantages(rewards, kind)
    if found is None:
        assert len({reward for reward in rewards if reward is not None}) < 2
    else:
        known = [advantage for advantage in found if advantage is not None]
        assert [a is None for a in found] == [r is None for r in rewards]
        assert abs(fsum(known)) < 1e-6 * max(1.0, *map(abs, known))


@given(GROUP, st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(
    rewards: list[float | None], kind: AdvantageKind, dice: Random
) -> None:
    order = list(range(len(rewards)))
    dice.shuffle(order)
    found = advantages(rewards, kind)
    shuffled = advantages([rewards[index] for index in order], kind)
    if found is None or shuffled is None:
        assert found is shuffled
        return
    for place, index in enumerate(order):
        one, other = found[index], shuffled[place]
        assert one is other or isclose(one or 0.0, other or 0.0, rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(FINITE, min_size=2, max_size=64, unique=True), st.sampled_from(KINDS))
def test_a_higher_reward_has_a_higher_advantage(values: list[float], kind: AdvantageKind) -> None:
    found = advantages(values, kind)
    assert found is not None
    ranked = sorted(range(len(values)), key=values.__getitem__)
    assert [found[index] for index in ranked] == sorted(a for a in found if a is not None)
