"""A prompt whose truth is known needs no vote to know what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adapters.estimators.ballots import Ballot, Estimate, rewarded


def told(truth: str, ballots: Sequence[Ballot], voted: Estimate) -> Estimate:
    """The estimate with the truth as the label in the place of what was voted: rewards are 1 for it
    and 0 for everything else. Nothing of the vote's own doubts is left, such as a guard's weight.

    The majority ratio becomes the truth's share, which is the group's pass@1; the agreement of the
    views stays what it was. So does a group without any answer: it says nothing about its prompt.

    Args:
        truth: as a class representative of the ballots' answers.
        ballots: of one group.
        voted: what an estimator made of them.
    """
    if voted.vote.num_answers == 0:
        return voted
    share = sum(ballot.vote == truth for ballot in ballots) / len(ballots)
    vote = replace(voted.vote, label=truth, reason=None, majority_ratio=share)
    return rewarded(vote, ballots, lambda ballot: float(ballot.answer == truth))
