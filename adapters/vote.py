"""From the answers of a group to its label.

`majority` is TTRL's estimator (arXiv 2504.16084): the most frequent answer is the label.

`harmony` follows Self-Harmony (arXiv 2511.01191): the votes of one question are split over V views
(other phrasings that keep the answer), and the label is the answer whose shares over the views have
the highest harmonic mean,

    label = argmax_a  V / sum_v 1 / (share_v(a) + 1 / (2 n_v)),

so an answer that one phrasing provokes and the others do not is worth little. Our deviations: V may
be any number, the half vote keeps the mean defined where a view lacks the answer, and the vote
abstains unless two views have the same top answer, because agreement between views tells a right
label from a wrong one where the majority ratio does not.

Answers are class representatives of `adapters.answers.Equivalence`: equal strings are equal
answers. None is a sample without an answer; it never votes, but it counts in every share. All
results are independent of the order of the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

NO_ANSWER = "no_answer"
NO_CONSENSUS = "no_consensus"


@dataclass(frozen=True, slots=True)
class Vote:
    """What a group voted. `label` is None when it abstained. `reason` says why nothing is learned
    from it.
    """

    label: str | None
    reason: str | None  # None | NO_ANSWER | NO_CONSENSUS | an estimator's own
    majority_ratio: float  # share of the label (abstained: of the top answer) in all samples
    num_samples: int
    num_answers: int  # samples with an answer
    shares: Mapping[str, float]  # answer -> its share in all samples
    view_agreement: float | None  # pairs of views with one top answer; None with fewer than 2 views


def majority(answers: Sequence[str | None], *, min_answers: int) -> Vote:
    """The most frequent answer; ties go to the lexicographically smallest."""
    counts = _count(answers)
    return _vote(counts, len(answers), _top(counts, counts), None, min_answers)


def harmony(answers: Sequence[str | None], views: Sequence[int], *, min_answers: int) -> Vote:
    """The answer on which the views agree best; equals `majority` where there is only one view.

    Args:
        answers: one per sample, None where there is no answer.
        views: the view that each sample was asked through, aligned with `answers`.
        min_answers: fewer answers than this and the vote abstains.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(answers) != len(views):
        raise ValueError(f"{len(answers)} answers but {len(views)} views")
    sizes = Counter(views)
    if len(sizes) < 2:
        return majority(answers, min_answers=min_answers)
    total = _count(answers)
    by_view = {
        view: _count([a for a, v in zip(answers, views, strict=True) if v == view])
        for view in sizes
    }
    tops = [_top(counts, total) for counts in by_view.values()]
    agreeing = [a is not None and a == b for a, b in combinations(tops, 2)]
    agreement = sum(agreeing) / len(agreeing)
    label = _most_harmonious(by_view, sizes, total)
    return _vote(total, len(answers), label, agreement, min_answers)


def _most_harmonious(
    by_view: Mapping[int, Counter[str]], sizes: Mapping[int, int], total: Counter[str]
) -> str | None:
    """The answer with the highest harmonic mean of its smoothed shares."""

    def cost(answer: str) -> Fraction:
        # 1 / (c/n + 1/2n) = 2n / (2c + 1). Exact, so that ties are ties in any order of the views.
        return sum(
            (Fraction(2 * sizes[v], 2 * counts[answer] + 1) for v, counts in by_view.items()),
            Fraction(),
        )

    return min(total, key=lambda answer: (cost(answer), -total[answer], answer), default=None)


def _count(answers: Sequence[str | None]) -> Counter[str]:
    return Counter(answer for answer in answers if answer is not None)


def _top(counts: Counter[str], tie_break: Counter[str]) -> str | None:
    """The most frequent answer; ties by the counts of all views, then by name."""
    return min(counts, key=lambda a: (-counts[a], -tie_break[a], a), default=None)


def _vote(
    counts: Counter[str],
    num_samples: int,
    top: str | None,
    view_agreement: float | None,
    min_answers: int,
) -> Vote:
    num_answers = counts.total()
    reason = None
    if top is None or num_answers < min_answers:
        reason = NO_ANSWER
    elif view_agreement == 0.0:
        reason = NO_CONSENSUS
    return Vote(
        label=None if reason else top,
        reason=reason,
        majority_ratio=counts[top] / num_samples if top is not None else 0.0,
        num_samples=num_samples,
        num_answers=num_answers,
        shares={answer: counts[answer] / num_samples for answer in sorted(counts)},
        view_agreement=view_agreement,
    )
