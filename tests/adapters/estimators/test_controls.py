from __future__ import annotations

from random import Random as Dice

from adapters.estimators import Ballot
from adapters.estimators.controls import FormatOnly, Inverted, Oracle, Random

GROUP = [Ballot("a"), Ballot("a"), Ballot("b"), Ballot(None), Ballot("b", masked=True)]


def test_the_oracle_knows_better_than_the_vote() -> None:
    estimate = Oracle("b")(GROUP)
    assert estimate.vote.label == "b"
    assert estimate.rewards == (0.0, 0.0, 1.0, 0.0, None)
    assert Oracle("c")(GROUP).rewards == (0.0, 0.0, 0.0, 0.0, None)


def test_random_rewards_are_seeded_coins() -> None:
    many = [Ballot("a")] * 400
    rewards = Random(Dice(1))(many).rewards
    assert rewards == Random(Dice(1))(many).rewards
    assert 150 < sum(reward or 0.0 for reward in rewards) < 250
    assert Random(Dice(1))(GROUP).rewards[4] is None


def test_any_answer_has_a_format() -> None:
    assert FormatOnly()(GROUP).rewards == (1.0, 1.0, 1.0, 0.0, None)


def test_the_inverted_vote_rewards_the_minority() -> None:
    assert Inverted()(GROUP).rewards == (0.0, 0.0, 1.0, 1.0, None)
