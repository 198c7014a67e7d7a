"""Which prompts are worth their samples, from what their earlier groups voted.

`learning_impact` is LIMR's score (Learning Impact Measurement, arXiv 2502.11886): how closely the
curve of a prompt's rewards follows the mean curve of all prompts. With r_i^k the mean reward of
prompt i at its k-th visit, and rbar^k the mean over prompts,

    s_i = 1 - sum_k (r_i^k - rbar^k)^2 / sum_k (1 - rbar^k)^2

so 1 is the mean curve itself; a prompt that is always right while the others still learn has 0, and
one that goes against them less.

`signal` is the variance p (1 - p) of binary rewards, which is what a group-relative gradient is in
proportion to.

Our deviations: rewards are pseudo-rewards, so r_i^k is the share of the label in the group, and 0
where it abstained (nothing was rewarded). Prompts are visited at different times, so k counts each
prompt's own visits, and both sums run over those that the prompt has (LIMR fills gaps from the next
epoch). Where all prompts are always right the score is 0, not 0/0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

MIN_VISITS = 3  # a curve of fewer points follows any other
RECENT = 3  # visits that `signal` looks at: older ones are of another policy
_TINY = 1e-9

Curve = Sequence[float]
"""A prompt's mean reward in [0, 1] at each of its visits, oldest first."""


def learning_impact(curves: Mapping[str, Curve]) -> dict[str, float]:
    """LIMR's score of each prompt with at least `MIN_VISITS` visits, at most 1."""
    longest = max(map(len, curves.values()), default=0)
    means = [
        _mean([curve[k] for curve in curves.values() if len(curve) > k]) for k in range(longest)
    ]
    return {
        prompt: _alignment(curve, means)
        for prompt, curve in curves.items()
        if len(curve) >= MIN_VISITS
    }


def _alignment(curve: Curve, means: Sequence[float]) -> float:
    away = fsum((reward - mean) ** 2 for reward, mean in zip(curve, means, strict=False))
    room = fsum((1 - mean) ** 2 for _, mean in zip(curve, means, strict=False))
    return 1 - away / room if room > _TINY else 0.0


def signal(curve: Curve) -> float:
    """Mean p (1 - p) of the last visits, in [0, 1/4]; 0 without any."""
    return _mean([p * (1 - p) for p in curve[-RECENT:]])


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values) if values else 0.0
