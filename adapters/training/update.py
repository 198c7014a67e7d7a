"""One update of the adapter on a batch of samples, and scoring without one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.batch import LearnerConfig, Stepped, TrainSample
from adapters.training.loss import k3, policy_losses
from adapters.training.microbatches import (
    MicroBatch,
    check_advantages,
    check_samples,
    microbatches,
)
from adapters.training.policy import Policy

CPU_TOKENS = 2048  # in a micro-batch on CPU, where more does not fit into caches and is slower


@dataclass(slots=True)
class _Sums:
    """Sums over completion tokens, so that the parts of a batch add up."""

    loss: float = 0.0
    mismatch: float = 0.0
    mismatch_kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    kl_base: float = 0.0

    def add(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self, name, getattr(self, name) + tensor.detach().double().sum().item())


def update(policy: Policy, samples: Sequence[TrainSample]) -> Stepped:
    """One optimizer step on the mean loss over all completion tokens of the batch.

    Raises NoAdapter, ValueError about a sample, or FloatingPointError; then the adapter and the
    optimizer are as before.
    """
    started = time.perf_counter()
    config = policy.config
    _check(policy, samples)
    check_advantages(samples)
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    sums = _Sums()
    policy.drop_gradients()
    try:
        for batch in _parts(policy, samples, config.token_budget):
            (_summed_loss(policy, config, batch, sums) / num_tokens).backward()
        grad_norm = policy.apply_gradients()
    finally:
        policy.drop_gradients()
    return Stepped(
        loss=sums.loss / num_tokens,
        grad_norm=grad_norm,
        num_samples=len(samples),
        num_tokens=num_tokens,
        mismatch=sums.mismatch / num_tokens,
        mismatch_kl=sums.mismatch_kl / num_tokens,
        clip_fraction=sums.clipped / num_tokens,
        entropy=sums.entropy / num_tokens,
        kl_base=sums.kl_base / num_tokens if config.kl_coef else None,
        seconds=time.perf_counter() - started,
    )


def score(
    policy: Policy,
    samples: Sequence[TrainSample],
    *,
    under: str,
    temperature: float,
    token_budget: int,
) -> list[list[float]]:
    """Per-token log-probabilities of each sample's completion under "adapter" or "base"."""
    if under not in ("adapter", "base"):
        raise ValueError(f'policy is "adapter" or "base", not {under!r}')
    _check(policy, samples)
    logprobs: list[list[float]] = [[] for _ in samples]
    score_batch = policy.logprobs if under == "adapter" else policy.base_logprobs
    with torch.no_grad():
        for batch in _parts(policy, samples, token_budget):
            scores = score_batch(batch, temperature=temperature).split(batch.lengths)
            for index, values in zip(batch.indices, scores, strict=True):
                logprobs[index] = values.tolist()
    return logprobs


def _summed_loss(policy: Policy, config: LearnerConfig, batch: MicroBatch, sums: _Sums) -> Tensor:
    logprobs = policy.logprobs(batch, temperature=config.temperature)
    losses = policy_losses(
        logprobs,
        batch.inference_logprobs,
        batch.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        tis_cap=config.tis_cap,
    )
    total = losses.policy
    if config.kl_coef:
        kl = k3(logprobs, policy.base_logprobs(batch, temperature=config.temperature))
        total = total + config.kl_coef * kl
        sums.add(kl_base=kl)
    sums.add(
        loss=total,
        mismatch=(logprobs - batch.inference_logprobs).abs(),
        mismatch_kl=k3(batch.inference_logprobs, logprobs),
        clipped=losses.clipped,
        entropy=-logprobs,
    )
    return total.sum()


def _check(policy: Policy, samples: Sequence[TrainSample]) -> None:
    limit = getattr(policy.base.model.config, "max_position_embeddings", None)
    check_samples(samples, num_ids=policy.num_ids, max_tokens=limit)


def _parts(
    policy: Policy, samples: Sequence[TrainSample], token_budget: int
) -> Iterator[MicroBatch]:
    base = policy.base
    if base.device.type == "cpu":
        token_budget = min(token_budget, CPU_TOKENS)
    return microbatches(
        samples,
        token_budget=token_budget,
        share_prompts=base.shares_prompts,
        device=base.device,
    )
