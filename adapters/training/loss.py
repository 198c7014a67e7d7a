"""The loss, per completion token: GRPO with one update per rollout batch.

DeepSeekMath (arXiv 2402.03300) eq. 3 as amended by Dr. GRPO (arXiv 2503.20783): the advantage is
A = r - mean(r) over the group, without the division by the standard deviation; and by DAPO (arXiv
2503.14476) eq. 8: the mean is over all completion tokens of the batch, not within each sample
first, and the clip range is asymmetric. With pi the trainer's policy and mu the engine's,

    rho_t  = pi(o_t) / mu(o_t)                                          importance ratio
    w_t    = min(rho_t, C)       C = `tis_cap`
             0, if A > 0 and rho_t > 1 + `clip_high`, or A < 0 and rho_t < 1 - `clip_low`
    loss   = - 1/N sum_t stop(w_t) * A * pi(o_t) / stop(pi(o_t))  +  beta * 1/N sum_t k3_t
    k3_t   = pi_base(o_t) / pi(o_t) - log(pi_base(o_t) / pi(o_t)) - 1   beta = `kl_coef`

so that its gradient is - 1/N sum_t w_t A grad log pi(o_t), plus beta times that of k3.

Our deviations, each on purpose:
- The old policy is the engine's, by the log-probabilities that it returned with the samples. There
  is one update per batch, so the trainer's own old policy is the policy at hand: its ratio would
  be 1, its clip would do nothing, and its forward pass is saved. rho_t then measures what is left:
  the difference in numerics between the two programs, and staleness of the samples, if any.
- The clip is PPO's: a token that has already moved past the range in the direction of its
  advantage gets no gradient. Here it also adds nothing to the loss's value.
- The cap is that of truncated importance sampling (Yao et al. 2025, "off-policy RL"): where the
  clip leaves rho_t unbounded (A < 0), the weight is cut at C, and the gradient stays.
- k3 is that of eq. 4 of DeepSeekMath with the base model (adapter disabled) as the reference,
  without an importance weight: samples are from the policy at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Per-token terms of the loss; sums over tokens are divided by the batch's token count."""

    policy: Tensor  # (N,) differentiable
    clipped: Tensor  # (N,) bool, no gradient for this token


def policy_losses(
    logprobs: Tensor,
    inference_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    tis_cap: float,
) -> TokenLosses:
    """The first term, before the mean. All arguments are (N,); only `logprobs` has a gradient."""
    fixed = logprobs.detach()
    ratio = (fixed - inference_logprobs).exp()
    clipped = ((advantages > 0) & (ratio > 1 + clip_high)) | (
        (advantages < 0) & (ratio < 1 - clip_low)
    )
    weight = ratio.clamp(max=tis_cap).masked_fill(clipped, 0.0)
    return TokenLosses(
        policy=-weight * advantages * (logprobs - fixed).exp(),
        clipped=clipped,
    )


def k3(sampled_from: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate of KL(sampled_from || other), per token: never negative, low variance.

    Both are (N,) log-probabilities of tokens sampled from the first.
    """
    difference = other - sampled_from
    return difference.exp() - difference - 1
