"""The learning rate's course over a cycle."""

from __future__ import annotations

import math

from adapters.batch import LearnerConfig


def learning_rate(config: LearnerConfig, num_updates: int) -> float:
    """The rate of the next update, after `num_updates` of them.

    It rises linearly over the first `warmup` of `total_updates`, then stays, or falls to 0 along
    half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts). Deviation from
    the usual schedulers: the first update has a rate of its share, not of 0, which would waste it.
    """
    rising = round(config.warmup * config.total_updates)
    if num_updates < rising:
        return config.learning_rate * (num_updates + 1) / rising
    if config.schedule == "constant":
        return config.learning_rate
    done = (num_updates - rising) / max(1, config.total_updates - rising)
    return config.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2
