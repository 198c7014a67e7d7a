"""Rewards against a label, and group-relative advantages.

    r_i = 1[a_i = label],    A_i = r_i - mean(r)

That is GRPO's advantage (arXiv 2402.03300) without the division by the standard deviation, which
weighs questions by their difficulty (Dr. GRPO, arXiv 2503.20783). The mean is over the whole group.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum


def rewards(answers: Sequence[str | None], label: str) -> list[float]:
    """1.0 for each answer that is the label, 0.0 for others and for samples without an answer."""
    return [1.0 if answer == label else 0.0 for answer in answers]


def advantages(rewards: Sequence[float]) -> list[float] | None:
    """Each reward minus the group's mean, aligned with `rewards`; they sum to zero.

    Returns None for a group without variance (an empty one too): it has nothing to teach, and is
    dropped before any forward pass.
    """
    if len(set(rewards)) < 2:
        return None
    mean = fsum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]
