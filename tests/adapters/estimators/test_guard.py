from __future__ import annotations

from random import Random

import pytest

from adapters.estimators import Ballot, Guard, Options, Visit, make_estimator
from adapters.estimators.guard import GUARDED, flip_rate

MAJORITY = make_estimator("majority", Options(min_answers=1))
SPLIT = [Ballot("a"), Ballot("a"), Ballot("b"), Ballot("b"), Ballot("a")]  # majority ratio .6
SURE = [*[Ballot("a")] * 9, Ballot("b")]


class Never(Random):
    def random(self) -> float:
        return 1.0


class Always(Random):
    def random(self) -> float:
        return 0.0


def test_the_flip_rate_counts_changes() -> None:
    assert flip_rate([]) == 0.0
    assert flip_rate(["a", "a", "b", None, "a"]) == pytest.approx(2 / 3)


def test_a_first_visit_counts_fully() -> None:
    estimate = Guard(MAJORITY, [], Never())(SPLIT)
    assert estimate == MAJORITY(SPLIT)


def test_flips_take_weight() -> None:
    assert Guard(MAJORITY, [Visit("b", 0.5)], Never())(SPLIT).weight == pytest.approx(0.5)


def test_a_sure_vote_after_flips_is_suspicious() -> None:
    assert Guard(MAJORITY, [Visit("b", 0.5)], Never())(SURE).weight == pytest.approx(0.35)


def test_a_vote_that_never_flipped_is_weighed_down_once_it_is_sure() -> None:
    steady = [Visit("a", 0.8)] * 4
    assert Guard(MAJORITY, steady[:3], Never())(SURE).weight == 1.0
    assert Guard(MAJORITY, steady, Never())(SURE).weight == pytest.approx(0.85)


def test_a_settled_vote_that_once_flipped_may_be_skipped() -> None:
    visits = [Visit("b", 0.7), *[Visit("a", 0.8)] * 3]
    skipped = Guard(MAJORITY, visits, Always())(SURE)
    assert skipped.vote.reason == GUARDED
    assert set(skipped.rewards) == {None}
    assert Guard(MAJORITY, visits, Never())(SURE).vote.label == "a"


def test_without_a_label_there_is_nothing_to_guard() -> None:
    silent = [Ballot(None)] * 3
    assert Guard(MAJORITY, [Visit("b", 0.5)], Always())(silent) == MAJORITY(silent)
