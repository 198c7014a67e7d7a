from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.estimators import Ballot
from adapters.vote import harmony
from adapters.waves import Rule, Stop, find_stop, lead_probability

RULE = Rule(confidence=0.99, min_answers=1, min_samples=1, by_view=False)
HARMONY = Rule(confidence=0.99, min_answers=1, min_samples=1, by_view=True)
NEVER = 1 - 1e-30  # no vote is ever this sure: only the lock is left


def ballots(*views: str) -> list[Ballot]:
    """One string a view, one letter a sample; `-` is a sample without an answer."""
    return [
        Ballot(None if letter == "-" else letter, view=view)
        for view, letters in enumerate(views)
        for letter in letters
    ]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 0), (5, 4), (20, 7), (200, 150)])
def test_the_probability_is_the_integral_of_the_beta_density(first: int, second: int) -> None:
    steps, scale = 20_000, (first + second + 1) * comb(first + second, first)
    points = [0.5 + (i + 0.5) / (2 * steps) for i in range(steps)]
    area = sum(scale * p**first * (1 - p) ** second for p in points) / (2 * steps)
    assert lead_probability(first, second) == pytest.approx(area, abs=1e-6)


def test_equal_counts_are_a_coin_toss() -> None:
    assert [lead_probability(n, n) for n in (0, 1, 50)] == [0.5, 0.5, 0.5]


@given(st.integers(0, 60), st.integers(0, 60))
def test_one_of_two_answers_leads(first: int, second: int) -> None:
    assert lead_probability(first, second) + lead_probability(second, first) == pytest.approx(1)


def test_a_unanimous_group_stops_at_once() -> None:
    wanting = Rule(confidence=0.99, min_answers=4, min_samples=32, by_view=False)
    assert find_stop(ballots("aaaa"), [28], wanting) == "unanimous"


def test_a_sample_without_an_answer_is_no_agreement() -> None:
    assert find_stop(ballots("aaaaaaaaaaa-"), [20], RULE) == "decided"
    assert find_stop(ballots("----"), [20], RULE) is None


def test_a_truncated_sample_says_nothing() -> None:
    drawn = [*ballots("aaaa"), Ballot("b", masked=True)]
    assert find_stop(drawn, [20], RULE) == "unanimous"


def test_a_served_answer_votes_but_is_not_rewarded() -> None:
    served = [Ballot("b", rewarded=False)]
    assert find_stop([*ballots("aaaa"), *served], [20], RULE) == "unanimous"
    few = Rule(confidence=0.99, min_answers=1, min_samples=6, by_view=False)
    drawn = ballots("aaaab")
    assert find_stop(drawn, [20], RULE) is None
    assert find_stop([*drawn, *[Ballot("a", rewarded=False)] * 10], [20], RULE) == "decided"
    assert find_stop([*drawn, *[Ballot("a", rewarded=False)] * 10], [20], few) is None


def test_too_few_answers_settle_nothing() -> None:
    rule = Rule(confidence=0.99, min_answers=8, min_samples=1, by_view=False)
    assert find_stop(ballots("aaaa"), [20], rule) is None
    assert find_stop(ballots("aaaa" + "-" * 20), [3], rule) == "hopeless"


def test_a_decided_group_goes_on_until_training_has_its_samples() -> None:
    rule = Rule(confidence=0.99, min_answers=1, min_samples=16, by_view=False)
    assert find_stop(ballots("a" * 14 + "b"), [17], rule) is None
    assert find_stop(ballots("a" * 14 + "bb"), [16], rule) == "decided"


def test_a_locked_vote_stops() -> None:
    assert find_stop(ballots("aab"), [1], RULE) is None  # a tie is still possible
    assert find_stop(ballots("aaab"), [1], RULE) == "decided"


def test_views_that_disagree_get_all_samples() -> None:
    assert find_stop(ballots("a" * 20, "b" * 4, "a" * 20), [4, 20, 4], HARMONY) is None
    assert find_stop(ballots("a" * 20, "b" * 4, "a" * 20), [4, 20, 4], RULE) == "decided"
    assert find_stop(ballots("a" * 9 + "b", "aaab", "aaac"), [9, 9, 9], HARMONY) == "decided"


def test_a_view_that_was_not_asked_has_not_agreed() -> None:
    assert find_stop(ballots("aaaa", "aaaa", ""), [4, 4, 8], HARMONY) is None


def letters(most: int) -> st.SearchStrategy[str]:
    """Mostly `a`, so that votes are locked often enough."""
    return st.lists(st.sampled_from("aaaaaabc-"), max_size=most).map("".join)


@settings(max_examples=150)
@given(st.lists(letters(5), min_size=2, max_size=3), st.data())
def test_no_outcome_changes_a_locked_harmony(views: list[str], data: st.DataObject) -> None:
    remaining = [data.draw(st.integers(0, 2)) for _ in views]
    rule = Rule(confidence=NEVER, min_answers=1, min_samples=1, by_view=True)
    if find_stop(ballots(*views), remaining, rule) != "decided":
        return
    labels: set[str | None] = set()
    for outcome in product("abcz-", repeat=sum(remaining)):
        rest = iter(outcome)
        whole = [
            v + "".join(next(rest) for _ in range(n)) for v, n in zip(views, remaining, strict=True)
        ]
        drawn = ballots(*whole)
        vote = harmony([b.answer for b in drawn], [b.view for b in drawn], min_answers=1)
        labels.add(vote.label)
    assert len(labels) == 1
    assert None not in labels


@settings(max_examples=150)
@given(letters(9), st.integers(0, 4))
def test_no_outcome_changes_a_locked_majority(votes: str, remaining: int) -> None:
    rule = Rule(confidence=NEVER, min_answers=1, min_samples=1, by_view=False)
    if find_stop(ballots(votes), [remaining], rule) != "decided":
        return
    counts = [Counter(votes + "".join(rest)) for rest in product("abcz-", repeat=remaining)]
    tops = {min((a for a in c if a != "-"), key=lambda a: (-c[a], a)) for c in counts}
    assert len(tops) == 1


def simulate(
    shares: Sequence[float], stop: Callable[[Sequence[Ballot], int], Stop | None], trials: int
) -> tuple[float, float]:
    """Mean samples in waves of 8 of at most 64, and how often the label is that of all 64."""
    dice = random.Random(7)
    names = [f"{index:02}" for index in range(len(shares))]
    num_drawn, agreed = 0, 0
    for _ in range(trials):
        votes = [Ballot(name) for name in dice.choices(names, shares, k=64)]
        drawn = next(n for n in range(8, 65, 8) if n == 64 or stop(votes[:n], 64 - n))
        num_drawn += drawn
        agreed += top(votes[:drawn]) == top(votes)
    return num_drawn / trials, agreed / trials


def top(votes: Sequence[Ballot]) -> str | None:
    counts = Counter(ballot.answer for ballot in votes)
    return min(counts, key=lambda answer: (-counts[answer], str(answer)))


def tail(*heads: float) -> list[float]:
    """The rest in answers of .04 at most."""
    rest = 1 - sum(heads)
    num = max(1, round(rest / 0.04))
    return [*heads, *[rest / num] * num]


@pytest.mark.parametrize(
    ("shares", "lock", "likely", "certain"),
    [
        (tail(0.9), 40.0, 8.6, 12.5),
        (tail(0.7), 43.9, 12.4, 19.0),
        (tail(0.5), 50.7, 21.4, 31.8),
        (tail(0.5, 0.3), 57.5, 40.3, 54.3),
        (tail(0.35, 0.3), 62.4, 54.7, 62.6),
        (tail(0.2), 62.5, 55.0, 62.2),
        (tail(0.17, 0.1), 63.5, 60.1, 63.6),
    ],
)
def test_samples_saved_of_sixty_four(
    shares: list[float], lock: float, likely: float, certain: float
) -> None:
    """The table of docs/algorithm.md, from 400 trials instead of 1,500."""
    found: list[float] = []
    for confidence in (NEVER, 0.95, 0.99):
        rule = Rule(confidence, min_answers=1, min_samples=1, by_view=False)
        num_drawn, agreed = simulate(shares, lambda b, r, rule=rule: decided(b, r, rule), 400)
        found.append(num_drawn)
        assert agreed >= {NEVER: 1.0, 0.95: 0.95, 0.99: 0.985}[confidence]
    assert found == pytest.approx([lock, likely, certain], abs=4)


def decided(votes: Sequence[Ballot], remaining: int, rule: Rule) -> Stop | None:
    """Without the rule for unanimous groups, which the table leaves out."""
    return find_stop([*votes, Ballot(None)], [remaining], rule)
