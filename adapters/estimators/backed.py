"""A label that the incumbent hardly ever gives is not learned.

What is learned from some prompts changes the answers to others that were not visited yet: a fact
that occurs in few prompts is overwritten by its neighbours, all samples agree on the wrong answer
by the first visit, and the vote drives it home. The weights that the cycle began with still answer
as before. So some samples of a first visit are theirs: they vote, nothing is trained on them, and a
label that is none of their answers abstains. Four of them miss a label that the incumbent gives in
.4 of its answers at .13 of the visits, and let one of .02 pass at .08.

Ours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from adapters.estimators.ballots import Ballot, Estimate, Estimator, no_signal

UNBACKED = "unbacked"


@dataclass(frozen=True, slots=True)
class Backed:
    """One prompt's: `backing` is what the incumbent answered at this visit, named as the ballots'
    answers are.
    """

    estimator: Estimator
    backing: Collection[str | None]

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The inner estimate; none where its label is not backed."""
        estimate = self.estimator(ballots)
        if estimate.vote.label is None or estimate.vote.label in self.backing:
            return estimate
        return no_signal(replace(estimate.vote, label=None, reason=UNBACKED), ballots)
