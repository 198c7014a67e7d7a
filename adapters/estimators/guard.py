"""A guard around any estimator: trusts a prompt less whose label flips from visit to visit.

TTRL-Guard (arXiv 2605.19444) keeps, for each prompt, the labels and majority ratios of its visits.
While labels still flip, the vote is unstable; once they stopped flipping on a wrong answer, that
answer is locked in. With FR the share of flips among the visits that are remembered, MR the
majority ratio of this visit:

    w = 1 - FR / 2;   MR > .6 and FR > .3: w *= .7;
    never flipped, at least 5 visits, mean MR > .6: w *= .85;   w >= .1            (FRS)
    had flipped, at least 5 visits, mean MR of the last 5 > .6: skipped, with probability .7  (RCSU)

Our deviations: the skip is a fair function of the seed that is passed in, not capped at a quarter
of the batch, because an online batch may be one prompt; the penalty for never flipping is applied
once a visit, not at most five times in all; the exploration bonus for minority answers (MPS) is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import fsum
from random import Random

from adapters.estimators.ballots import Ballot, Estimate, Estimator, no_signal

GUARDED = "guarded"
SURE, FLIPPING, LEAST = 0.6, 0.3, 0.1
SETTLED_VISITS = 5
SKIP_PROBABILITY = 0.7


@dataclass(frozen=True, slots=True)
class Visit:
    """What one earlier visit of a prompt voted."""

    label: str | None
    majority_ratio: float


def flip_rate(labels: Sequence[str | None]) -> float:
    """Share of changes between one label and the next; visits without a label are left out."""
    known = [label for label in labels if label is not None]
    flips = [float(before != after) for before, after in pairwise(known)]
    return fsum(flips) / len(flips) if flips else 0.0


@dataclass(frozen=True, slots=True)
class Guard:
    """One prompt's guard: `visits` are its earlier ones, oldest first."""

    estimator: Estimator
    visits: Sequence[Visit]
    dice: Random

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The inner estimate with its weight, or none."""
        estimate = self.estimator(ballots)
        if estimate.vote.label is None:
            return estimate
        history = [*self.visits, Visit(estimate.vote.label, estimate.vote.majority_ratio)]
        rate = flip_rate([visit.label for visit in history])
        ratios = [visit.majority_ratio for visit in history[-SETTLED_VISITS:]]
        settled = len(history) >= SETTLED_VISITS and fsum(ratios) / len(ratios) > SURE
        if rate > 0 and settled and self.dice.random() < SKIP_PROBABILITY:
            vote = replace(estimate.vote, label=None, reason=GUARDED)
            return no_signal(vote, ballots)
        weight = 1 - rate / 2
        if estimate.vote.majority_ratio > SURE and rate > FLIPPING:
            weight *= 0.7
        if rate == 0 and settled:
            weight *= 0.85
        return replace(estimate, weight=estimate.weight * max(LEAST, weight))
