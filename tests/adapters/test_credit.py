from __future__ import annotations

import pytest

from adapters.credit import CreditRules, assign_credit
from adapters.estimators import Ballot, Estimate, Options, make_estimator

MAJORITY = make_estimator("majority", Options(min_answers=1))


def group(answers: str) -> tuple[list[Ballot], Estimate]:
    ballots = [Ballot(letter, num_tokens=10 + index) for index, letter in enumerate(answers)]
    return ballots, MAJORITY(ballots)


def test_each_group_has_its_own_baseline() -> None:
    first, second = assign_credit([group("aab"), group("aabb")], CreditRules())
    assert first.advantages == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert second.advantages == (0.5, 0.5, -0.5, -0.5)


def test_a_unanimous_group_has_rewards_and_no_advantages() -> None:
    (credit,) = assign_credit([group("aaa")], CreditRules())
    assert credit.rewards == (1.0, 1.0, 1.0)
    assert credit.advantages is None


def test_the_published_choice_takes_its_baseline_from_the_first_samples() -> None:
    rules = CreditRules(train_samples=2, downsample="first")
    (credit,) = assign_credit([group("abaa")], rules)
    assert credit.advantages == (0.5, -0.5, None, None)
    (none,) = assign_credit([group("aab")], rules)
    assert none.advantages is None


def test_the_choice_by_variance_keeps_the_baseline_of_all() -> None:
    rules = CreditRules(train_samples=2)
    (credit,) = assign_credit([group("aaab")], rules)
    assert credit.advantages == (0.25, None, None, -0.75)


def test_the_weight_of_a_group_scales_its_advantages() -> None:
    ballots, estimate = group("ab")
    (credit,) = assign_credit(
        [(ballots, Estimate(estimate.vote, estimate.rewards, 0.5))], CreditRules()
    )
    assert credit.advantages == (0.25, -0.25)


def test_the_bonus_goes_to_long_samples_with_the_label() -> None:
    (credit,) = assign_credit([group("aab")], CreditRules(exploration_bonus=0.12))
    assert credit.rewards == pytest.approx((1.1, 1.11, 0.0))


def test_tokens_of_unanimous_groups_count_in_the_mean() -> None:
    ballots = [Ballot(letter, num_tokens=10) for letter in "aabb"]
    settled = [Ballot("a", num_tokens=5)] * 4
    trained, idle = assign_credit(
        [(ballots, MAJORITY(ballots)), (settled, MAJORITY(settled))], CreditRules()
    )
    assert idle.advantages is None
    assert trained.advantages == pytest.approx([1 / 3, 1 / 3, -1 / 3, -1 / 3])  # 40 of 60 tokens


def test_of_a_unanimous_group_no_more_count_than_would_be_trained() -> None:
    ballots = [Ballot(letter, num_tokens=10) for letter in "ab"]
    settled = [Ballot("a", num_tokens=10)] * 8
    trained, _ = assign_credit(
        [(ballots, MAJORITY(ballots)), (settled, MAJORITY(settled))], CreditRules(train_samples=2)
    )
    assert trained.advantages == (0.25, -0.25)


def test_a_group_that_abstained_does_not_count() -> None:
    nothing = [Ballot(None, num_tokens=10)] * 4
    trained, _ = assign_credit([group("ab"), (nothing, MAJORITY(nothing))], CreditRules())
    assert trained.advantages == (0.5, -0.5)
