from __future__ import annotations

from adapters.estimators import Backed, Ballot, Options, make_estimator
from adapters.estimators.backed import UNBACKED

MAJORITY = make_estimator("majority", Options(min_answers=1))
VOTES = [Ballot("a"), Ballot("a"), Ballot("b")]


def test_a_label_that_the_incumbent_gave_is_learned() -> None:
    assert Backed(MAJORITY, {"b", "a"})(VOTES) == MAJORITY(VOTES)


def test_a_label_that_it_did_not_give_is_none() -> None:
    estimate = Backed(MAJORITY, {"b", None})(VOTES)
    assert (estimate.vote.label, estimate.vote.reason) == (None, UNBACKED)
    assert estimate.rewards == (None, None, None)
    assert estimate.vote.shares == MAJORITY(VOTES).vote.shares


def test_an_incumbent_without_answers_backs_nothing() -> None:
    assert Backed(MAJORITY, ())(VOTES).vote.label is None


def test_a_vote_that_abstains_keeps_its_own_reason() -> None:
    abstains = make_estimator("majority", Options(min_answers=4))
    assert Backed(abstains, ())(VOTES) == abstains(VOTES)
