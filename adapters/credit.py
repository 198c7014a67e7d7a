"""Credit: from the estimates of a batch's groups to the advantage of each sample.

rewards -> exploration bonus -> (TTRL's choice of the first K) -> advantages -> weight of the group
-> (choice of the K samples with the highest variance). The published code takes mean and deviation
over the first K samples that it trains on; the choice by variance keeps the baseline of all.

The loss is a mean over tokens (DAPO, arXiv 2503.14476), in the published code over those of all
samples. A group with equal rewards has no gradient and never reaches a forward pass here, but its
tokens still count: advantages are scaled by the share of tokens that are trained. Without that the
few contested groups of a nearly settled batch would move the weights as much as a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.advantage import AdvantageKind, batch_advantages
from adapters.bonus import exploration_bonus
from adapters.downsample import Downsampling, downsample
from adapters.estimators import Ballot, Estimate


@dataclass(frozen=True, slots=True)
class CreditRules:
    """How rewards become advantages; the fields and defaults of `ttrl_client.types.Learning`."""

    advantage: AdvantageKind = "dr_grpo"
    train_samples: int | None = None  # None: all
    downsample: Downsampling = "max_variance"
    exploration_bonus: float = 0.0


@dataclass(frozen=True, slots=True)
class Credit:
    """One group's. Both are aligned with its ballots; None: the sample is masked or left out.
    `advantages` is None for a group without variance: it never reaches a forward pass.
    """

    rewards: tuple[float | None, ...]
    advantages: tuple[float | None, ...] | None


def assign_credit(
    batch: Sequence[tuple[Sequence[Ballot], Estimate]], rules: CreditRules
) -> list[Credit]:
    """The credit of each group of a batch of (ballots, estimate)."""
    rewards = [_with_bonus(ballots, estimate, rules) for ballots, estimate in batch]
    used = rewards
    if rules.train_samples is not None and rules.downsample == "first":
        used = [downsample(group, rules.train_samples, "first") for group in rewards]
    advantages = batch_advantages(used, rules.advantage)
    chosen = [
        None if found is None else _chosen(found, estimate.weight, rules)
        for found, (_, estimate) in zip(advantages, batch, strict=True)
    ]
    share = _trained_share([ballots for ballots, _ in batch], used, chosen, rules)
    return [
        Credit(tuple(group), None if found is None else _scaled(found, share))
        for group, found in zip(rewards, chosen, strict=True)
    ]


def _trained_share(
    ballots: Sequence[Sequence[Ballot]],
    rewards: Sequence[Sequence[float | None]],
    chosen: Sequence[tuple[float | None, ...] | None],
    rules: CreditRules,
) -> float:
    """Tokens of the chosen samples, of these and those that equal rewards leave out."""
    trained, idle = 0, 0
    for group, rewarded, found in zip(ballots, rewards, chosen, strict=True):
        if found is not None:
            trained += _num_tokens(group, found)
        else:
            kept = rewarded
            if rules.train_samples is not None:
                kept = downsample(rewarded, rules.train_samples, "first")
            idle += _num_tokens(group, kept)
    return trained / (trained + idle) if idle else 1.0


def _num_tokens(ballots: Sequence[Ballot], values: Sequence[float | None]) -> int:
    return sum(
        ballot.num_tokens
        for ballot, value in zip(ballots, values, strict=True)
        if value is not None
    )


def _scaled(advantages: Sequence[float | None], share: float) -> tuple[float | None, ...]:
    return tuple(None if advantage is None else share * advantage for advantage in advantages)


def _with_bonus(
    ballots: Sequence[Ballot], estimate: Estimate, rules: CreditRules
) -> list[float | None]:
    if not rules.exploration_bonus:
        return list(estimate.rewards)
    places = [place for place, reward in enumerate(estimate.rewards) if reward is not None]
    bonuses = exploration_bonus(
        [ballots[place].num_tokens for place in places],
        [ballots[place].answer == estimate.vote.label for place in places],
        rules.exploration_bonus,
    )
    bonus_of = dict(zip(places, bonuses, strict=True))
    return [
        None if reward is None else reward + bonus_of[place]
        for place, reward in enumerate(estimate.rewards)
    ]


def _chosen(
    advantages: Sequence[float | None], weight: float, rules: CreditRules
) -> tuple[float | None, ...]:
    weighed = [None if advantage is None else weight * advantage for advantage in advantages]
    if rules.train_samples is None or rules.downsample == "first":
        return tuple(weighed)
    return tuple(downsample(weighed, rules.train_samples, rules.downsample))
