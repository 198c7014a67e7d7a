"""From rewards to advantages, a batch of groups at a time.

dr_grpo       A_i = r_i - mean(r), the default                       Dr. GRPO, arXiv 2503.20783
grpo          (r_i - mean(r)) / (std(r) + 1e-6), std with n - 1      GRPO, 2402.03300, as in TTRL
rloo          r_i - mean of the others = n/(n-1) (r_i - mean(r))     RLOO, 2402.14740
reinforce++   (r_i - mean(r)) / (std over the batch + 1e-6)          REINFORCE++, 2501.03262

Division by a group's own deviation weighs questions by their difficulty, which is why it is not the
default. The mean is over all rewarded samples of a group, also those that are not trained on. A
group without variance has nothing to teach and has no advantages at all, so that it never reaches a
forward pass. Its samples, whose advantages are zero in the papers, count in the deviation over the
batch all the same: reinforce++ is the paper's variant with the group's mean as the baseline, which
normalises over all samples (the batch's mean, which it also subtracts, is zero by then).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from typing import Literal

AdvantageKind = Literal["grpo", "dr_grpo", "rloo", "reinforce++"]
Rewards = Sequence[float | None]  # None: masked
EPSILON = 1e-6


def advantages(rewards: Rewards, kind: AdvantageKind = "dr_grpo") -> list[float | None] | None:
    """One group alone; see `batch_advantages`."""
    return batch_advantages([rewards], kind)[0]


def batch_advantages(
    groups: Sequence[Rewards], kind: AdvantageKind
) -> list[list[float | None] | None]:
    """Advantages aligned with the groups' rewards; None for a masked sample, and for a group
    without variance. Those of a group sum to zero.
    """
    centred = [_centred(rewards) for rewards in groups]
    spread = _spread(groups, centred) if kind == "reinforce++" else 0.0
    return [group and _scaled(group, kind, spread) for group in centred]


def _centred(rewards: Rewards) -> list[float | None] | None:
    known = [reward for reward in rewards if reward is not None]
    if len(set(known)) < 2:
        return None
    mean = fsum(known) / len(known)
    return [None if reward is None else reward - mean for reward in rewards]


def _spread(groups: Sequence[Rewards], centred: Sequence[list[float | None] | None]) -> float:
    """The deviation of all rewarded samples of a batch, each from its group's mean."""
    distances = [a for group in centred if group for a in group if a is not None]
    num_rewarded = sum(reward is not None for rewards in groups for reward in rewards)
    return _deviation([*distances, *[0.0] * (num_rewarded - len(distances))])


def _scaled(group: list[float | None], kind: AdvantageKind, spread: float) -> list[float | None]:
    known = [advantage for advantage in group if advantage is not None]
    match kind:
        case "dr_grpo":
            return group
        case "grpo":
            factor = 1 / (_deviation(known) + EPSILON)
        case "rloo":
            factor = len(known) / (len(known) - 1)
        case "reinforce++":
            factor = 1 / (spread + EPSILON)
    return [None if advantage is None else advantage * factor for advantage in group]


def _deviation(centred: Sequence[float]) -> float:
    """Of values whose mean is zero, unbiased."""
    if len(centred) < 2:
        return 0.0
    return sqrt(fsum(value * value for value in centred) / (len(centred) - 1))
