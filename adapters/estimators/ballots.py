"""What goes into an estimator, and what comes out: one ballot a sample, one estimate a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.vote import Vote


@dataclass(frozen=True, slots=True)
class Ballot:
    """One sample as an estimator sees it."""

    answer: str | None  # its class's representative; None: no answer
    written: str | None = None  # the answer as extracted, before classes
    view: int = 0
    masked: bool = False  # truncated: neither votes nor is rewarded
    num_tokens: int = 0
    confidence: float | None = None  # mean log-probability of its tokens, nats
    rewarded: bool = True  # False: other weights' or a served answer; votes, is not trained on

    @property
    def vote(self) -> str | None:
        """The answer that it votes for."""
        return None if self.masked else self.answer

    @property
    def earns(self) -> bool:
        """Whether it may have a reward at all. No answer earns 0, which is not the same."""
        return self.rewarded and not self.masked


@dataclass(frozen=True, slots=True)
class Estimate:
    """A group's label and rewards. `rewards` is aligned with the ballots; None: the sample is
    masked, or the group gives no signal. `weight` scales the group's advantages.
    """

    vote: Vote
    rewards: tuple[float | None, ...]
    weight: float = 1.0

    @property
    def has_signal(self) -> bool:
        """Whether rewards differ: a group without variance has nothing to teach."""
        return len({reward for reward in self.rewards if reward is not None}) > 1


Estimator = Callable[[Sequence[Ballot]], Estimate]


def no_signal(vote: Vote, ballots: Sequence[Ballot]) -> Estimate:
    """The estimate of a group that abstained."""
    return Estimate(vote, (None,) * len(ballots))


def rewarded(vote: Vote, ballots: Sequence[Ballot], reward: Callable[[Ballot], float]) -> Estimate:
    """Each ballot that may earn gets what `reward` says."""
    return Estimate(vote, tuple(reward(ballot) if ballot.earns else None for ballot in ballots))
