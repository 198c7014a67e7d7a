from __future__ import annotations

import random
from collections.abc import Sequence
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.vote import Vote, harmony, majority

ANSWERS = st.one_of(st.none(), st.sampled_from("abcd"))
SAMPLES = st.lists(st.tuples(ANSWERS, st.integers(0, 3)), max_size=40)
SHUFFLER = st.randoms(use_true_random=False)


def _harmony(samples: Sequence[tuple[str | None, int]], min_answers: int = 1) -> Vote:
    return harmony([a for a, _ in samples], [v for _, v in samples], min_answers=min_answers)


def test_the_most_frequent_answer_is_the_label() -> None:
    vote = majority(["a", "b", "a", None], min_answers=1)
    assert vote.label == "a"
    assert vote.reason is None
    assert vote.majority_ratio == 0.5
    assert (vote.num_samples, vote.num_answers) == (4, 3)
    assert vote.shares == {"a": 0.5, "b": 0.25}
    assert vote.view_agreement is None


def test_samples_without_an_answer_do_not_vote() -> None:
    assert majority([None, None, None, "a"], min_answers=1).label == "a"


@pytest.mark.parametrize("answers", [[], [None, None], ["a", "a", None]])
def test_too_few_answers_abstain(answers: list[str | None]) -> None:
    vote = majority(answers, min_answers=3)
    assert vote.label is None
    assert vote.reason == "no_answer"


def test_nothing_to_vote_on_abstains_even_without_a_minimum() -> None:
    vote = majority([None], min_answers=0)
    assert (vote.label, vote.reason, vote.majority_ratio) == (None, "no_answer", 0.0)


def test_ties_go_to_the_smallest_answer() -> None:
    assert majority(["b", "a"], min_answers=1).label == "a"
    assert majority(["a", "b"], min_answers=1).label == "a"


def test_harmony_prefers_what_all_views_say_to_what_one_view_shouts() -> None:
    samples = [("x", 0)] * 8 + [("y", 0)] * 2
    for view in (1, 2):
        samples += [("y", view)] * 5 + [("z", view)] * 4 + [("x", view)]
    answers = [a for a, _ in samples]
    assert answers.count("y") > answers.count("x")
    assert _harmony(samples).label == "y"
    loud = [("x", 0)] * 10 + [("y", 0)] * 1 + [("y", 1)] * 4 + [("y", 2)] * 4
    assert majority([a for a, _ in loud], min_answers=1).label == "x"
    assert _harmony(loud).label == "y"


@given(SAMPLES)
def test_the_label_has_the_highest_harmonic_mean_of_smoothed_shares(
    samples: list[tuple[str | None, int]],
) -> None:
    views = {view: [a for a, v in samples if v == view] for _, view in samples}

    def mean(answer: str) -> float:
        shares = [said.count(answer) / len(said) + 0.5 / len(said) for said in views.values()]
        return len(shares) / sum(1 / share for share in shares)

    label = _harmony(samples).label
    if label is not None and len(views) > 1:
        assert all(mean(label) >= mean(a) - 1e-9 for a, _ in samples if a is not None)


def test_views_that_disagree_abstain() -> None:
    vote = _harmony([("a", 0), ("b", 1), ("c", 2)])
    assert (vote.label, vote.reason, vote.view_agreement) == (None, "no_consensus", 0.0)


def test_two_views_of_three_are_a_consensus() -> None:
    vote = _harmony([("a", 0), ("a", 1), ("c", 2)])
    assert vote.label == "a"
    assert vote.view_agreement == pytest.approx(1 / 3)


def test_a_view_without_answers_agrees_with_none() -> None:
    vote = _harmony([("a", 0), (None, 1)])
    assert vote.reason == "no_consensus"


def test_too_few_answers_come_before_no_consensus() -> None:
    assert _harmony([("a", 0), ("b", 1)], min_answers=3).reason == "no_answer"


def test_answers_and_views_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="2 answers but 1 views"):
        harmony(["a", "b"], [0], min_answers=1)


@given(st.lists(ANSWERS, max_size=30), SHUFFLER, st.integers(0, 5))
def test_majority_does_not_depend_on_the_order(
    answers: list[str | None], shuffler: random.Random, min_answers: int
) -> None:
    before = majority(answers, min_answers=min_answers)
    shuffler.shuffle(answers)
    assert majority(answers, min_answers=min_answers) == before


@given(SAMPLES, SHUFFLER, st.integers(0, 5))
def test_harmony_does_not_depend_on_the_order(
    samples: list[tuple[str | None, int]], shuffler: random.Random, min_answers: int
) -> None:
    before = _harmony(samples, min_answers)
    shuffler.shuffle(samples)
    assert _harmony(samples, min_answers) == before


@given(SAMPLES, st.permutations(range(4)))
def test_harmony_does_not_depend_on_how_views_are_numbered(
    samples: list[tuple[str | None, int]], renumbered: list[int]
) -> None:
    before = _harmony(samples)
    after = _harmony([(answer, renumbered[view]) for answer, view in samples])
    assert after == before


@given(st.lists(ANSWERS, max_size=30), st.integers(0, 5))
def test_harmony_of_one_view_is_the_majority(answers: list[str | None], min_answers: int) -> None:
    one = harmony(answers, [0] * len(answers), min_answers=min_answers)
    assert one == majority(answers, min_answers=min_answers)


@given(SAMPLES)
def test_a_vote_adds_up(samples: list[tuple[str | None, int]]) -> None:
    vote = _harmony(samples)
    missing = vote.num_samples - vote.num_answers
    total = sum(vote.shares.values()) + (missing / vote.num_samples if samples else 1.0)
    assert isclose(total, 1.0)
    assert (vote.label is None) == (vote.reason is not None)
    assert vote.label is None or vote.majority_ratio == vote.shares[vote.label]
    assert vote.view_agreement is None or 0.0 <= vote.view_agreement <= 1.0
