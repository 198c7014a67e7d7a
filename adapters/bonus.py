"""A bonus for thinking longer, on samples that have the label (off by default).

RLSP (arXiv 2502.06773) adds an exploration reward, such as one in proportion to the length, to the
reward of the outcome. Ours is bounded on three sides, because the outcome here is a vote and length
is easily hacked: only samples with the label get it, it is relative to the longest sample of the
same group, and it never exceeds half of the reward that the label itself is worth:

    bonus_i = scale * min(1, tokens_i / longest) * 1[a_i = label],    scale <= 1/2
"""

from __future__ import annotations

from collections.abc import Sequence

MOST = 0.5  # of the reward of 1 for the label: a longer wrong answer never beats a right one


def exploration_bonus(
    num_tokens: Sequence[int], has_label: Sequence[bool], scale: float
) -> list[float]:
    """What to add to each sample's reward, in [0, `MOST`].

    Args:
        num_tokens: length of each sample that is rewarded; leave truncated ones out, or the longest
            is always the token limit.
        has_label: whether its answer is the label, aligned with `num_tokens`.
        scale: the bonus of the longest sample, 0 for none.

    Raises:
        ValueError: the two sequences differ in length.
    """
    longest = max(num_tokens, default=0)
    capped = min(max(scale, 0.0), MOST)
    return [
        capped * tokens / longest if right and longest > 0 else 0.0
        for tokens, right in zip(num_tokens, has_label, strict=True)
    ]
