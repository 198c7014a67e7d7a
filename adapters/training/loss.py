"""The loss, per completion token: a clipped, importance-weighted policy gradient.

DeepSeekMath (arXiv 2402.03300) eq. 3, without the division by the sample's length: the mean is
over all completion tokens (DAPO, arXiv 2503.14476, eq. 8), and the clip range may be asymmetric
(the same). Advantages come with the samples. With pi the policy that is trained, pi_old the one at
the start of the step and mu the engine's,

    r_t    = pi(o_t) / pi_old(o_t)                                   ratio, with the gradient
    lo, hi = 0, 1 + `clip_high`           if A_t >= 0                PPO's clip (arXiv 1707.06347)
             1 - `clip_low`, `dual_clip`  if A_t < 0                 dual clip (arXiv 1912.09729)
    v_t    = min(pi_old(o_t) / mu(o_t), `tis_cap`)                   truncated importance sampling
    k3_t   = pi_base(o_t) / pi(o_t) - log(pi_base(o_t) / pi(o_t)) - 1
    loss   = 1/N sum_t [ - v_t A_t clamp(r_t, lo, hi)  +  `kl_coef` k3_t ]

which is PPO's min(r A, clip(r) A), with max(..., c A) for A < 0, written as one clamp: its gradient
is - v A r grad log pi inside the range, and 0 outside. v_t is a constant (Yao et al. 2025, "Your
efficient RL framework secretly brings you off-policy RL training"); without `tis_cap` it is 1. k3
is eq. 4 of DeepSeekMath, its reference the base model: the same weights with the adapter disabled.

One update per step, the default, has a cheaper form. pi_old is the policy at hand: r_t = 1 without
a forward pass for it. Then

    v_t = min(rho_t, `tis_cap`) if rho_t = pi(o_t) / mu(o_t) is inside the clip range, else 0

Our deviations, each on purpose:
- That clip of one update: r_t cannot leave the range, so the range is applied to the difference in
  numerics between engine and trainer (and to staleness, if any), as if mu were pi_old. A clipped
  token adds nothing to the loss. Without `tis_cap` the engine's log-probabilities are not used.
- log r_t is cut at +-20, so that a ratio is never infinite. Only tokens that the range has clipped
  long before get there; but PPO has no upper end for A < 0 if there is no dual clip.
- k3 has no importance weight, and is not cut at 10 (as the published code does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.batch import LearnerConfig

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Per-token terms of the loss; sums over tokens are divided by the batch's token count."""

    policy: Tensor  # (N,) differentiable
    clipped: Tensor  # (N,) bool, no gradient for this token


def policy_losses(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    inference_logprobs: Tensor,
    advantages: Tensor,
    config: LearnerConfig,
) -> TokenLosses:
    """The first term, before the mean. All are (N,) in nats; only `logprobs` has a gradient.

    `old_logprobs` is None where the step has one update.
    """
    lowest, highest = _range(advantages, config)
    if old_logprobs is None:
        return _only_update(logprobs, inference_logprobs, advantages, (lowest, highest), config)
    gap = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = gap.exp()
    weighted = -_weight(old_logprobs, inference_logprobs, config) * advantages
    clipped = (ratio < lowest) | (ratio > highest)
    return TokenLosses(weighted * ratio.clamp(lowest, highest), clipped.detach())


def _only_update(
    logprobs: Tensor,
    inference_logprobs: Tensor,
    advantages: Tensor,
    clip: tuple[Tensor, Tensor],
    config: LearnerConfig,
) -> TokenLosses:
    fixed = logprobs.detach()
    weight = _weight(fixed, inference_logprobs, config)
    ratio = (fixed - inference_logprobs).exp()
    clipped = (ratio < clip[0]) | (ratio > clip[1])
    if config.tis_cap is None:
        clipped = torch.zeros_like(clipped)
    weight = weight.masked_fill(clipped, 0.0)
    return TokenLosses(-weight * advantages * (logprobs - fixed).exp(), clipped)


def _range(advantages: Tensor, config: LearnerConfig) -> tuple[Tensor, Tensor]:
    """(N,) lowest and highest ratio with a gradient. Tokens without advantage have neither end."""
    lowest = torch.where(advantages < 0, 1 - config.clip_low, 0.0)
    dual = math.inf if config.dual_clip is None else config.dual_clip
    highest = torch.where(advantages > 0, 1 + config.clip_high, math.inf)
    return lowest, highest.masked_fill(advantages < 0, dual)


def _weight(trainer: Tensor, inference: Tensor, config: LearnerConfig) -> Tensor:
    if config.tis_cap is None:
        return torch.ones_like(trainer)
    return (trainer - inference).exp().clamp(max=config.tis_cap)


def k3(sampled_from: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate of KL(sampled_from || other), per token: never negative, low variance.

    Both are (N,) log-probabilities of tokens sampled from the first.
    """
    difference = other - sampled_from
    return difference.exp() - difference - 1
