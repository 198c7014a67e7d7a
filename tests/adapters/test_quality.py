from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from math import comb, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.quality import (
    Answered,
    Changes,
    Interval,
    bootstrap,
    count_changes,
    ground_truth_ratio,
    label_accuracy,
    maj_at_k,
    measure,
    paired_difference,
    pass_at_k,
    reward_accuracy,
)
from adapters.vote import majority

ANSWERS = st.lists(st.one_of(st.none(), st.sampled_from("abcd")), min_size=1, max_size=9)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)
GROUPS = st.integers(1, 8).flatmap(
    lambda size: st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.lists(st.sampled_from("abcd"), min_size=size, max_size=size).map(tuple),
        ),
        min_size=1,
        max_size=8,
    )
)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.data())
def test_pass_at_k_counts_the_subsets_with_a_right_sample(
    size: tuple[int, int], data: st.DataObject
) -> None:
    n, correct = size
    k = data.draw(st.integers(1, n))
    exact = 1 - comb(n - correct, k) / comb(n, k)
    assert pass_at_k(n, correct, k) == pytest.approx(exact, abs=1e-12)


def test_pass_at_1_is_the_share_that_is_right() -> None:
    assert pass_at_k(8, 2, 1) == pytest.approx(0.25)


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses_impossible_counts(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(n, correct, k)


@given(ANSWERS, st.data())
def test_maj_at_k_is_the_share_of_subsets_whose_vote_is_right(
    answers: list[str | None], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(answers)))
    subsets = list(combinations(answers, k))
    right = sum(majority(subset, min_answers=1).label == "b" for subset in subsets)
    assert maj_at_k(answers, "b", k) == pytest.approx(right / len(subsets))


@given(ANSWERS)
def test_maj_at_1_is_pass_at_1(answers: list[str | None]) -> None:
    assert maj_at_k(answers, "b", 1) == pytest.approx(answers.count("b") / len(answers))


def test_maj_at_k_is_fast_for_many_different_answers() -> None:
    answers = [str(number // 2) for number in range(128)] + ["b"] * 3
    assert 0.0 < maj_at_k(answers, "b", 64) < 1.0


@pytest.mark.parametrize("k", [0, 3])
def test_maj_at_k_needs_k_samples(k: int) -> None:
    with pytest.raises(ValueError, match=f"maj@{k} of 2"):
        maj_at_k(["a", "b"], "a", k)


@given(SHARES, st.integers(0, 5))
def test_an_interval_holds_its_mean_and_stays_within_the_values(
    values: list[float], seed: int
) -> None:
    interval = bootstrap(values, seed=seed, resamples=200)
    low, high = nextafter(min(values), -1), nextafter(max(values), 2)  # means are rounded
    assert low <= interval.low <= interval.high <= high
    assert low <= interval.mean <= high


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = [0.0, 1.0] * 50  # standard error .05: 95 % within .098 of the mean
    interval = bootstrap(values)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.402, abs=0.015)
    assert interval.high == pytest.approx(0.598, abs=0.015)


def test_more_confidence_makes_a_wider_interval() -> None:
    values = [number / 20 for number in range(20)]
    narrow, wide = bootstrap(values, confidence=0.5), bootstrap(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_seed_decides_the_interval() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.7]
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)


def test_a_paired_difference_ignores_how_hard_the_prompts_are() -> None:
    before = [number / 10 for number in range(10)]
    interval = paired_difference([value + 0.1 for value in before], before)
    for bound in (interval.mean, interval.low, interval.high):
        assert bound == pytest.approx(0.1)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="no prompts"):
        bootstrap([])


def test_measure_names_what_it_measures() -> None:
    prompts = [Answered("a", ("a", "a", "b", None)), Answered("a", ("b", "b", "b", "a"))]
    measured = measure(prompts, pass_ks=[2], maj_ks=[3])
    assert measured["mean@4"].mean == pytest.approx(0.375)
    assert measured["pass@2"].mean == pytest.approx((5 / 6 + 1 / 2) / 2)
    # "a" wins the ties of the first prompt by its name; the second loses every subset.
    assert measured["maj@3"].mean == pytest.approx(0.5)
    assert set(measured) == {"mean@4", "pass@2", "maj@3"}


def test_unequal_groups_have_a_mean_without_a_size() -> None:
    measured = measure([Answered("a", ("a",)), Answered("a", ("a", "b"))])
    assert measured["mean"].mean == pytest.approx(0.75)


def test_label_accuracy_is_a_share_of_the_labels() -> None:
    assert label_accuracy(["a", None, "b", "a"], ["a", "a", "a", "a"]) == pytest.approx(2 / 3)
    assert label_accuracy([None], ["a"]) is None


def test_a_masked_sample_is_not_counted() -> None:
    prompts = [Answered("a", ("a", "b", "a")), Answered("a", ("b",))]
    assert reward_accuracy(prompts, [[1.0, None, 0.0], [None]]) == pytest.approx(0.5)
    assert reward_accuracy(prompts, [[None] * 3, [None]]) is None


def test_a_wrong_sample_that_gets_no_reward_is_a_lucky_hit() -> None:
    prompt = Answered("z", ("a", "a", "b", "c"))
    assert reward_accuracy([prompt], [[1.0, 1.0, 0.0, 0.0]]) == pytest.approx(0.5)


@given(GROUPS)
def test_the_identity_of_reward_accuracy_and_label_accuracy(
    groups: Sequence[tuple[str, tuple[str, ...]]],
) -> None:
    prompts = [Answered(truth, answers) for truth, answers in groups]
    votes = [majority(prompt.answers, min_answers=1) for prompt in prompts]
    rewards = [
        [float(answer == vote.label) for answer in prompt.answers]
        for prompt, vote in zip(prompts, votes, strict=True)
    ]
    accuracy = label_accuracy([vote.label for vote in votes], [p.truth for p in prompts])
    assert accuracy is not None
    wrong = [
        1 - vote.majority_ratio - prompt.mean
        for prompt, vote in zip(prompts, votes, strict=True)
        if vote.label != prompt.truth
    ]
    luck = sum(wrong) / len(wrong) if wrong else 0.0
    expected = accuracy + (1 - accuracy) * luck
    assert reward_accuracy(prompts, rewards) == pytest.approx(expected)


def test_ground_truth_ratio_is_the_share_of_right_samples() -> None:
    assert ground_truth_ratio([Answered("a", ("a", "b")), Answered("a", ())]) == 0.25
    assert ground_truth_ratio([]) is None


def test_learned_and_corrupted_prompts_cross_both_thresholds() -> None:
    before = [0.30, 0.29, 0.9, 0.14, 0.15, 0.0]
    after = [0.14, 0.00, 0.2, 0.30, 0.90, 0.1]
    assert count_changes(before, after) == Changes(
        learned=1, corrupted=1, num_unsolved=2, num_solvable=2
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_learning_backwards_is_corruption(pairs: list[tuple[float, float]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    forth, back = count_changes(before, after), count_changes(after, before)
    assert (forth.learned, forth.corrupted) == (back.corrupted, back.learned)


@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(
    groups: Sequence[tuple[str, tuple[str, ...]]], shuffler: random.Random
) -> None:
    prompts = [Answered(truth, answers) for truth, answers in groups]
    k = len(prompts[0].answers)
    shuffled = [Answered(p.truth, tuple(shuffler.sample(p.answers, k))) for p in prompts]
    one = measure(prompts, pass_ks=[k], maj_ks=[1])
    other = measure(shuffled, pass_ks=[k], maj_ks=[1])
    assert one == other


def test_intervals_compare_by_value() -> None:
    assert bootstrap([1.0, 1.0]) == Interval(1.0, 1.0, 1.0)
