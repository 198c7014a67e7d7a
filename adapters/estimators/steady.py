"""A prompt is not trained on at a visit whose label is another than that of the visit before.

Training on one prompt changes the answers of others, and a label that it has turned would be
driven home by the next visits. So a visit whose label is another than that of the visit before
abstains; if the next one votes the same again, it is trained on. A label that was wrong by chance
costs a visit this way, one that was right and drifted is not lost.

Ours. TTRL-Guard (arXiv 2605.19444; adapters.estimators.guard) weighs such prompts down instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapters.estimators.ballots import Ballot, Estimate, Estimator, no_signal

FLIPPED = "flipped"


@dataclass(frozen=True, slots=True)
class Steady:
    """One prompt's: `before` is the label of its last visit that had one, named as the ballots'
    answers are; None where there was none.
    """

    estimator: Estimator
    before: str | None

    def __call__(self, ballots: Sequence[Ballot]) -> Estimate:
        """The inner estimate; its label alone, without rewards, where that is a new one."""
        estimate = self.estimator(ballots)
        if self.before is None or estimate.vote.label in (None, self.before):
            return estimate
        return no_signal(replace(estimate.vote, reason=FLIPPED), ballots)
