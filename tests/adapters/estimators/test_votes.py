from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.estimators import ESTIMATORS, Ballot, Options, make_estimator
from adapters.vote import NO_CONSENSUS

FEW = Options(min_answers=1)
BALLOT = st.builds(
    Ballot,
    answer=st.none() | st.sampled_from("abcd"),
    view=st.integers(0, 2),
    masked=st.booleans(),
    num_tokens=st.integers(1, 50),
    confidence=st.none() | st.floats(-3, 0).map(lambda value: round(value, 3)),
    rewarded=st.booleans(),
)
GROUP = st.lists(BALLOT, max_size=40)
BY_CLASS = sorted(set(ESTIMATORS) - {"majority_strict"})


def ballots(answers: str) -> list[Ballot]:
    """One ballot a letter; `.` is no answer."""
    names = [None if letter == "." else letter for letter in answers]
    return [Ballot(name, written=name) for name in names]


@pytest.mark.parametrize("name", ["majority", "majority_strict", "harmony", "confidence"])
def test_agreement_with_the_label_is_rewarded(name: str) -> None:
    estimate = make_estimator(name, FEW)(ballots("aab."))
    assert estimate.vote.label == "a"
    assert estimate.rewards == (1.0, 1.0, 0.0, 0.0)


def test_no_answer_earns_nothing_and_a_masked_sample_is_left_out() -> None:
    group = [Ballot("a"), Ballot("a"), Ballot("b"), Ballot(None), Ballot("a", masked=True)]
    assert make_estimator("majority", FEW)(group).rewards == (1.0, 1.0, 0.0, 0.0, None)


def test_a_served_answer_votes_and_is_not_rewarded() -> None:
    group = [Ballot("a"), Ballot("b"), Ballot("b", rewarded=False)]
    estimate = make_estimator("majority", FEW)(group)
    assert estimate.vote.label == "b"
    assert estimate.rewards == (0.0, 1.0, None)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_too_few_answers_give_no_signal(name: str) -> None:
    estimate = make_estimator(name, Options(min_answers=4))(ballots("aab.."))
    assert estimate.vote.label is None
    assert set(estimate.rewards) == {None}


def test_the_strict_vote_splits_over_spellings() -> None:
    group = [
        Ballot("1/2", written="0.5"),
        Ballot("1/2", written=r"\frac12"),
        Ballot("3", written="3"),
        Ballot("3", written="3"),
        Ballot("1/2", written="1/2"),
    ]
    assert make_estimator("majority", FEW)(group).vote.label == "1/2"
    strict = make_estimator("majority_strict", FEW)(group)
    assert strict.vote.label == "3"
    assert strict.vote.majority_ratio == pytest.approx(0.4)


def test_the_strict_vote_rewards_the_class_of_its_string() -> None:
    group = [Ballot("1/2", written="0.5"), Ballot("1/2", written="0.5"), Ballot("1/2", written="½")]
    assert make_estimator("majority_strict", FEW)(group).rewards == (1.0, 1.0, 1.0)


def test_the_strict_vote_gives_a_tie_to_the_first_seen() -> None:
    assert make_estimator("majority_strict", FEW)(ballots("ba")).vote.label == "b"


def test_soft_rewards_are_shares() -> None:
    estimate = make_estimator("soft", FEW)(ballots("aab."))
    assert estimate.rewards == (0.5, 0.5, 0.25, 0.0)


def test_confidence_outweighs_numbers() -> None:
    unsure = [Ballot("a", confidence=-1.0), Ballot("a", confidence=-1.0)]
    group = [*unsure, Ballot("b", confidence=-0.1)]
    assert make_estimator("confidence", FEW)(group).vote.label == "b"
    assert make_estimator("majority", FEW)(group).vote.label == "a"


def test_confidence_without_confidences_is_the_majority() -> None:
    assert make_estimator("confidence", FEW)(ballots("aab")).vote.label == "a"


def test_selective_needs_a_clear_vote() -> None:
    assert make_estimator("selective", FEW)(ballots("aaaabbbb")).vote.reason == NO_CONSENSUS
    assert make_estimator("selective", FEW)(ballots("aaaaabbc")).vote.label == "a"


def test_selective_punishes_rare_answers_that_the_model_is_unsure_of() -> None:
    sure = [Ballot("a", confidence=-0.1)] * 10
    group = [*sure, Ballot("b", confidence=-2.0), Ballot("c", confidence=-0.01), Ballot(None)]
    rewards = make_estimator("selective", FEW)(group).rewards
    assert rewards == (*[1.0] * 10, -1.0, 0.0, -1.0)


def test_selective_teaches_without_a_label() -> None:
    group = [Ballot(letter, confidence=-0.1) for letter in "aaaaaabbbbbb"]
    group.append(Ballot("c", confidence=-2.0))
    estimate = make_estimator("selective", FEW)(group)
    assert estimate.vote.label is None
    assert estimate.rewards == (*[0.0] * 12, -1.0)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="majority_strict"):
        make_estimator("plurality")


@given(GROUP, st.sampled_from(BY_CLASS), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(group: list[Ballot], name: str, dice: Random) -> None:
    estimator = make_estimator(name, FEW)
    order = list(range(len(group)))
    dice.shuffle(order)
    straight, shuffled = estimator(group), estimator([group[index] for index in order])
    assert straight.vote == shuffled.vote
    assert [straight.rewards[index] for index in order] == list(shuffled.rewards)


@given(GROUP, st.sampled_from(sorted(ESTIMATORS)))
def test_masked_and_served_samples_are_never_rewarded(group: list[Ballot], name: str) -> None:
    rewards = make_estimator(name, FEW)(group).rewards
    assert len(rewards) == len(group)
    for ballot, reward in zip(group, rewards, strict=True):
        assert reward is None or (ballot.rewarded and not ballot.masked)


@given(GROUP, st.sampled_from(BY_CLASS), st.permutations("abcd"))
def test_names_of_classes_do_not_matter_where_counts_decide(
    group: list[Ballot], name: str, names: list[str]
) -> None:
    """Renaming the classes renames the label, but for ties, which go by name."""
    renamed = dict(zip("abcd", names, strict=True))
    changed = [
        Ballot(
            renamed[ballot.answer] if ballot.answer else None,
            view=ballot.view,
            masked=ballot.masked,
            confidence=ballot.confidence,
            rewarded=ballot.rewarded,
        )
        for ballot in group
    ]
    one, other = make_estimator(name, FEW)(group).vote, make_estimator(name, FEW)(changed).vote
    assert one.num_answers == other.num_answers
    assert sorted(one.shares.values()) == sorted(other.shares.values())
    top = sorted(one.shares.values(), reverse=True)
    if name in ("majority", "soft") and len(top) > 1 and top[0] > top[1] and one.label:
        assert other.label == renamed[one.label]
