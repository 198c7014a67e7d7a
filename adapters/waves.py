"""When a group has enough votes: samples are drawn in waves, after each the vote may be decided.

With v1 votes for the leading answer and v2 for the next, a uniform prior says
(Adaptive-Consistency, arXiv 2305.11860, Beta criterion)

    P(p1 > p2) = 1 - I_{1/2}(v1 + 1, v2 + 1) = 2^-n  sum_{k <= v1} C(n, k),    n = v1 + v2 + 1,

computed in integers. A vote is decided when that reaches `confidence`, or when it is *locked*: when
no outcome of the samples that are still to come could change the label.

One vote over several views (adapters.vote.harmony) is another matter: its label is the answer with
the highest harmonic mean of shares, and it abstains unless two views agree. If the leading answer
leads in every view, it leads the harmonic mean too, because each term of the mean grows with the
answer's count in that view. So such a vote is decided when the pooled counts are, and *every* view
has that leader at its top. A view that says otherwise is what the samples are for, so the group
then gets all of them. The lock is exact here as well: the leader must win even if all that comes
goes to one other answer, and must keep the top of two views.

A group whose samples all give one answer is settled whatever the label is: equal rewards teach
nothing (ESC, arXiv 2401.10480, stops at a unanimous window for the label's sake). It stops at once,
and is not trained on. Any other group stops when it is decided, but not before it has the samples
that training wants. It also stops when there cannot be enough answers any more.

Our deviations: answers are classes of equal answers; served answers vote, but say nothing about
unanimity; there is a least number of answers. Stopping when the leader is ahead makes the majority
ratio of a stopped group a little too high, as any optional stopping does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb
from typing import Literal

from adapters.estimators.ballots import Ballot

Stop = Literal["unanimous", "decided", "hopeless"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a group's vote needs before its sampling may end."""

    confidence: float  # P(p1 > p2) that counts as decided
    min_answers: int  # fewer, and the vote abstains
    min_samples: int  # that training wants; truncated ones do not count
    by_view: bool  # the label is the one on which the views agree (harmony)


def find_stop(ballots: Sequence[Ballot], remaining: Sequence[int], rule: Rule) -> Stop | None:
    """Why no more samples are needed; None: draw the next wave.

    Args:
        ballots: what was sampled so far, and served answers.
        remaining: samples still to come at most, by view; its length is the number of views.
        rule: what the vote needs.
    """
    views = _Views.of(ballots, remaining)
    num_answers = sum(views.total.values())
    if num_answers + sum(remaining) < rule.min_answers:
        return "hopeless"
    if num_answers < rule.min_answers:
        return None
    if _is_unanimous(ballots) and (not rule.by_view or views.all_agree):
        return "unanimous"
    if sum(ballot.earns for ballot in ballots) < rule.min_samples:
        return None
    return "decided" if _is_decided(views, rule) else None


def lead_probability(first: int, second: int) -> float:
    """P(p1 > p2) after `first` votes for one answer and `second` for another, in (0, 1)."""
    n = first + second + 1
    return float(_sum_of_binomials(n, first) / Fraction(2) ** n)


@lru_cache(maxsize=4096)
def _sum_of_binomials(n: int, last: int) -> int:
    return sum(comb(n, k) for k in range(last + 1))


def _is_unanimous(ballots: Sequence[Ballot]) -> bool:
    """Whether all samples that can be rewarded give one answer."""
    return len({ballot.answer for ballot in ballots if ballot.earns} | {None}) == 2 and all(
        ballot.answer is not None for ballot in ballots if ballot.earns
    )


@dataclass(frozen=True, slots=True)
class _Views:
    """Counts of answers, pooled and by view."""

    total: Counter[str]
    by_view: Mapping[int, Counter[str]]
    sizes: Mapping[int, int]  # all ballots of a view, with an answer or without
    remaining: Sequence[int]

    @classmethod
    def of(cls, ballots: Sequence[Ballot], remaining: Sequence[int]) -> _Views:
        by_view = {view: Counter[str]() for view in range(len(remaining))}
        for ballot in ballots:
            if ballot.vote is not None:
                by_view[ballot.view][ballot.vote] += 1
        total = Counter[str]()
        for counts in by_view.values():
            total.update(counts)
        return cls(total, by_view, Counter(ballot.view for ballot in ballots), remaining)

    @property
    def leader(self) -> str:
        """The most frequent answer."""
        return min(self.total, key=lambda answer: (-self.total[answer], answer))

    def lead(self, counts: Mapping[str, int]) -> tuple[int, int]:
        """Votes for the leader, and the most for any other answer."""
        others = [count for answer, count in counts.items() if answer != self.leader]
        return counts.get(self.leader, 0), max(others, default=0)

    @property
    def all_agree(self) -> bool:
        """Whether the leader is at the top of every view; ties go to it, as in the vote."""
        leads = [self.lead(counts) for counts in self.by_view.values()]
        return all(first > 0 and first >= second for first, second in leads)


def _is_decided(views: _Views, rule: Rule) -> bool:
    first, second = views.lead(views.total)
    certain = lead_probability(first, second) >= rule.confidence
    if not rule.by_view or len(views.by_view) < 2:
        return certain or first - second > sum(views.remaining)
    return (certain and views.all_agree) or _is_locked(views)


def _is_locked(views: _Views) -> bool:
    """Whether the harmonic vote ends with the leader as its label, whatever comes."""
    to_come = dict(enumerate(views.remaining))
    leads = {view: views.lead(counts) for view, counts in views.by_view.items()}
    if sum(first - second > to_come[view] for view, (first, second) in leads.items()) < 2:
        return False

    def cost(counts: Mapping[int, int]) -> Fraction:  # as in adapters.vote
        return sum(
            (
                Fraction(2 * (views.sizes[view] + to_come[view]), 2 * count + 1)
                for view, count in counts.items()
            ),
            Fraction(),
        )

    worst = cost({view: first for view, (first, _) in leads.items()})
    unseen = cost(to_come)
    others = [
        cost({view: counts[answer] + to_come[view] for view, counts in views.by_view.items()})
        for answer in views.total
        if answer != views.leader
    ]
    return worst < min([unseen, *others])
