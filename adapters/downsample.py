"""Which samples of a group are trained on, where there are more than `train_samples`.

`first` is TTRL as published: the first K of the samples that voted (arXiv 2504.16084,
"vote-then-downsample"). `max_variance` is PODS (arXiv 2504.13818): the K samples whose rewards
have the highest variance. With rewards of 0 and 1 that is min(K/2, minority) samples of the
minority, filled up from the majority; with any others it is some number of the highest and the
rest of the lowest (PODS, theorem 1), found by a scan over K + 1 splits.

PODS takes mean and deviation over the K that are left. Ours keep the baseline of *all* rewarded
samples (adapters.credit): a balanced half would make every group look as if p were 1/2. Advantages
of one group are an increasing function of its rewards, so the choice can be made on either.

Both are functions of the samples in their order alone; of equal rewards the earlier sample stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Literal

Downsampling = Literal["first", "max_variance"]


def downsample(advantages: Sequence[float | None], k: int, how: Downsampling) -> list[float | None]:
    """The advantages of the `k` samples to train on, None for the rest; aligned with `advantages`.

    A sample without advantage (None) is never chosen and does not count.

    Raises:
        ValueError: `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k: {k} < 1")
    known = [index for index, value in enumerate(advantages) if value is not None]
    if len(known) <= k:
        return list(advantages)
    if how == "first":
        kept = set(known[:k])
    else:
        values = [value for value in advantages if value is not None]
        kept = {known[place] for place in _most_varied(values, k)}
    return [value if index in kept else None for index, value in enumerate(advantages)]


def _most_varied(values: Sequence[float], k: int) -> list[int]:
    """Places of the `k` values with the highest variance."""
    ordered = sorted(values)
    low = _num_lowest(ordered, k)
    wanted = Counter([*ordered[:low], *ordered[len(values) - k + low :]])
    places: list[int] = []
    for place, value in enumerate(values):
        if wanted[value] > 0:
            wanted[value] -= 1
            places.append(place)
    return places


def _num_lowest(ordered: Sequence[float], k: int) -> int:
    """How many of the lowest values are in the subset of `k` with the highest variance; of equally
    good splits the most even one.

    Exact: a split that only rounding prefers would depend on the platform.
    """
    exact = [Fraction(value) for value in ordered]
    sums = [Fraction(), *accumulate(exact)]
    squares = [Fraction(), *accumulate(value * value for value in exact)]

    def variance(low: int) -> Fraction:  # times k squared
        high = len(ordered) - (k - low)
        total = sums[low] + sums[-1] - sums[high]
        return k * (squares[low] + squares[-1] - squares[high]) - total * total

    return max(range(k + 1), key=lambda low: (variance(low), -abs(2 * low - k), low))
