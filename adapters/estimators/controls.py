"""Estimators for experiments only: what learning looks like with perfect labels, and without any.

`Oracle` is the limit of the method. `Random` and `FormatOnly` must not improve a model: where they
do, a benchmark measures something other than learning (Spurious Rewards, arXiv 2506.10947).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random as Dice

from adapters.estimators.ballots import Ballot, Estimate, rewarded
from adapters.estimators.votes import majority_of


@dataclass(frozen=True, slots=True)
class Oracle:
    """The true answer is the label."""

    truth: str  # as a class representative

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """1 for the truth, 0 for everything else."""
        vote = majority_of(ballots, 0)
        share = vote.shares.get(self.truth, 0.0)
        vote = replace(vote, label=self.truth, reason=None, majority_ratio=share)
        return rewarded(vote, ballots, lambda ballot: float(ballot.answer == self.truth))


@dataclass(frozen=True, slots=True)
class Random:
    """A fair coin for each sample."""

    dice: Dice

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """Rewards that know nothing."""
        vote = majority_of(ballots, 0)
        return rewarded(vote, ballots, lambda _ballot: float(self.dice.random() < 0.5))


@dataclass(frozen=True, slots=True)
class FormatOnly:
    """Any answer is a good answer."""

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """1 where there is an answer."""
        vote = majority_of(ballots, 0)
        return rewarded(vote, ballots, lambda ballot: float(ballot.answer is not None))


@dataclass(frozen=True, slots=True)
class Inverted:
    """Minority answers are good answers: makes harmful updates for testing the gate."""

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """1 for everything but the majority."""
        vote = majority_of(ballots, 0)
        return rewarded(vote, ballots, lambda ballot: float(ballot.answer != vote.label))
