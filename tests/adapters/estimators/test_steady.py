from __future__ import annotations

from adapters.estimators import Ballot, Options, Steady, make_estimator
from adapters.estimators.steady import FLIPPED

MAJORITY = make_estimator("majority", Options(min_answers=1))
VOTES = [Ballot("a"), Ballot("a"), Ballot("b")]


def test_a_first_visit_is_trained_on() -> None:
    assert Steady(MAJORITY, None)(VOTES) == MAJORITY(VOTES)


def test_a_label_that_stays_is_trained_on() -> None:
    assert Steady(MAJORITY, "a")(VOTES) == MAJORITY(VOTES)


def test_a_new_label_is_told_and_not_trained_on() -> None:
    estimate = Steady(MAJORITY, "b")(VOTES)
    assert estimate.vote.label == "a"
    assert estimate.vote.reason == FLIPPED
    assert estimate.rewards == (None, None, None)


def test_a_vote_that_abstains_keeps_its_own_reason() -> None:
    abstains = make_estimator("majority", Options(min_answers=4))
    assert Steady(abstains, "b")(VOTES) == abstains(VOTES)
