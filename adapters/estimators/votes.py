"""Estimators that vote: a label, and rewards against it.

majority          label: the most frequent class (TTRL, arXiv 2504.16084)
majority_strict   the most frequent *string*, the first seen wins a tie, as in the published code
harmony           the highest harmonic mean over views (Self-Harmony, 2511.01191; adapters.vote)
soft              as majority; the reward is the answer's share p(a_i), which is the core of DARE
                  (2601.21804) and RESTRAIN (2510.02172)
confidence        the largest sum of weights exp(c_i / T), c_i a sample's mean log-probability
                  (CISC, 2502.06233; SCOPE, 2512.15146)
selective         as majority, if p1 >= tau and p1 - p2 > margin; -1 for rare answers that the model
                  is unsure of, and for no answer (SCRL, 2603.19880)

All others reward 1 for a sample whose class is the label's, 0 for the rest.

Deviations. All but majority_strict count classes of equal answers. selective: SCRL takes the mean
entropy of a class from the full distribution; the mean of -log p of its sampled tokens is an
unbiased estimate of it and needs no more than the engine already returns. confidence: weights are
normalised over the group, so only differences of confidence count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, fsum

from adapters.estimators.ballots import Ballot, Estimate, no_signal, rewarded
from adapters.vote import NO_CONSENSUS, Vote, harmony, majority


@dataclass(frozen=True, slots=True)
class Options:
    """Knobs of the estimators."""

    min_answers: int = 8
    confidence_temperature: float = 0.1  # nats a token; small differences count
    min_share: float = 0.375  # selective: tau of the positive label
    min_margin: float = 0.125  # selective: p1 - p2
    rare_share: float = 0.125  # selective: answers below it may be negative labels


@dataclass(frozen=True, slots=True)
class Majority:
    """The most frequent class is the label."""

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """Rewards are 1 for the label, 0 for everything else."""
        return _binary(majority_of(ballots, self.options.min_answers), ballots)


@dataclass(frozen=True, slots=True)
class Harmony:
    """The class on which the views agree best is the label."""

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """As `Majority` where there is one view; without a label where no two views agree."""
        vote = harmony(
            [ballot.vote for ballot in ballots],
            [ballot.view for ballot in ballots],
            min_answers=self.options.min_answers,
        )
        return _binary(vote, ballots)


@dataclass(frozen=True, slots=True)
class MajorityStrict:
    """The published vote, over strings. For comparison: equal answers split their votes."""

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The label is the class of the winning string; its shares are those of the strings."""
        written = [None if ballot.vote is None else ballot.written for ballot in ballots]
        counts = Counter(text for text in written if text is not None)  # in order of appearance
        if not counts or counts.total() < self.options.min_answers:
            return no_signal(majority_of(ballots, self.options.min_answers), ballots)
        winner = max(counts, key=lambda text: counts[text])
        label = next(b.answer for b, text in zip(ballots, written, strict=True) if text == winner)
        vote = Vote(
            label=label,
            reason=None,
            majority_ratio=counts[winner] / len(ballots),
            num_samples=len(ballots),
            num_answers=counts.total(),
            shares={text: counts[text] / len(ballots) for text in sorted(counts)},
            view_agreement=None,
        )
        return _binary(vote, ballots)


@dataclass(frozen=True, slots=True)
class Soft:
    """An answer's share is its reward: no label is declared right."""

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The label is only reported."""
        vote = majority_of(ballots, self.options.min_answers)
        if vote.label is None:
            return no_signal(vote, ballots)
        return rewarded(
            vote, ballots, lambda b: 0.0 if b.answer is None else vote.shares.get(b.answer, 0.0)
        )


@dataclass(frozen=True, slots=True)
class Confidence:
    """Votes weighted by the model's confidence in the sample."""

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """As `Majority` where no ballot has a confidence."""
        vote = majority_of(ballots, self.options.min_answers)
        if vote.label is None:
            return no_signal(vote, ballots)
        best = max((b.confidence for b in ballots if b.confidence is not None), default=0.0)
        weights: defaultdict[str, list[float]] = defaultdict(list)
        for ballot in ballots:
            if ballot.vote is not None:
                below = 0.0 if ballot.confidence is None else ballot.confidence - best
                weights[ballot.vote].append(exp(below / self.options.confidence_temperature))
        label = min(weights, key=lambda answer: (-fsum(weights[answer]), answer))
        return _binary(replace(vote, label=label, majority_ratio=vote.shares[label]), ballots)


@dataclass(frozen=True, slots=True)
class Selective:
    """A label only where the vote is clear, and negative labels where an answer is rare and
    unsure.
    """

    options: Options = Options()

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """+1 for the label, -1 for negative labels and for no answer, 0 for the rest."""
        vote = majority_of(ballots, self.options.min_answers)
        if vote.label is None:
            return no_signal(vote, ballots)
        label = vote.label if self._is_clear(vote) else None
        negative = self._negative(vote, ballots) - {label}
        shown = vote if label else replace(vote, label=None, reason=NO_CONSENSUS)
        if label is None and not negative:
            return no_signal(shown, ballots)

        def reward(ballot: Ballot) -> float:
            if ballot.answer is None or ballot.answer in negative:
                return -1.0
            return float(ballot.answer == label)

        return rewarded(shown, ballots, reward)

    def _is_clear(self, vote: Vote) -> bool:
        first, second = (*sorted(vote.shares.values(), reverse=True), 0.0)[:2]
        return first >= self.options.min_share and first - second > self.options.min_margin

    def _negative(self, vote: Vote, ballots: Sequence[Ballot]) -> set[str | None]:
        """Rare answers whose samples have at least the group's mean entropy."""
        entropies: defaultdict[str, list[float]] = defaultdict(list)
        for ballot in ballots:
            if ballot.vote is not None and ballot.confidence is not None:
                entropies[ballot.vote].append(-ballot.confidence)
        known = [value for values in entropies.values() for value in values]
        mean = fsum(known) / len(known) if known else 0.0
        return {
            answer
            for answer, values in entropies.items()
            if vote.shares[answer] < self.options.rare_share and fsum(values) / len(values) >= mean
        }


def majority_of(ballots: Sequence[Ballot], min_answers: int) -> Vote:
    """The plain vote by class."""
    return majority([ballot.vote for ballot in ballots], min_answers=min_answers)


def _binary(vote: Vote, ballots: Sequence[Ballot]) -> Estimate:
    """1 for the label, 0 for other answers and for none; no signal without a label."""
    if vote.label is None:
        return no_signal(vote, ballots)
    return rewarded(vote, ballots, lambda ballot: float(ballot.answer == vote.label))
