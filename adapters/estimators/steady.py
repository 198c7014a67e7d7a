"""A prompt is not trained on at a visit whose label is another than its anchor.

Training on one prompt changes the answers of others, and a label that it has turned would be
driven home by the next visits. So a cycle's first label of a prompt is its anchor, since it is of
weights that have learned the least, and visits with another label abstain to the end of the cycle.
The anchor of a cycle's first visit is the last label of the cycles before: where the two differ,
the new one costs a visit. A first label that was wrong by chance costs the prompt, not what others
teach about it.

Ours. TTRL-Guard (arXiv 2605.19444; adapters.estimators.guard) weighs such prompts down instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapters.estimators.ballots import Ballot, Estimate, Estimator, no_signal

FLIPPED = "flipped"


@dataclass(frozen=True, slots=True)
class Steady:
    """One prompt's: `anchor` is named as the ballots' answers are; None where there is none."""

    estimator: Estimator
    anchor: str | None

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The inner estimate; its label alone, without rewards, where that is a new one."""
        estimate = self.estimator(ballots)
        if self.anchor is None or estimate.vote.label in (None, self.anchor):
            return estimate
        return no_signal(replace(estimate.vote, reason=FLIPPED), ballots)
