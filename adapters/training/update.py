"""Updates of the adapter on a batch of samples, and scoring without one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
from adapters.training.schedule import learning_rate

CPU_TOKENS = 2048  # in a micro-batch on CPU, where more does not fit into caches and is slower


@dataclass(slots=True)
class _Sums:
    """Sums over completion tokens, so that the parts of a batch add up; and over updates."""

    tokens: int = 0
    loss: float = 0.0
    mismatch: float = 0.0
    mismatch_kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    kl_base: float = 0.0
    updates: int = 0
    grad_norm: float = 0.0
    learning_rate: float = 0.0  # of the last update

    def add(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self, name, getattr(self, name) + tensor.detach().double().sum().item())


def update(policy: Policy, samples: Sequence[TrainSample]) -> Stepped:
    """One step: `epochs` times `minibatches` updates, each on the mean loss over its tokens.

    Raises NoAdapter, ValueError about a sample, or FloatingPointError; then the adapter and the
    optimizer are as before the step.
    """
    started = time.perf_counter()
    config = policy.config
    _check(policy, samples)
    check_advantages(samples)
    sums = _Sums()
    if config.epochs * config.minibatches == 1:
        _update_once(policy, samples, None, sums)
    else:
        _update_often(policy, samples, sums)
    return Stepped(
        loss=sums.loss / sums.tokens,
        grad_norm=sums.grad_norm / sums.updates,
        num_samples=len(samples),
        num_tokens=sum(len(sample.completion_ids) for sample in samples),
        mismatch=sums.mismatch / sums.tokens,
        mismatch_kl=sums.mismatch_kl / sums.tokens,
        clip_fraction=sums.clipped / sums.tokens,
        entropy=sums.entropy / sums.tokens,
        kl_base=sums.kl_base / sums.tokens if config.kl_coef else None,
        seconds=time.perf_counter() - started,
        num_updates=sums.updates,
        learning_rate=sums.learning_rate,
    )


def _update_often(policy: Policy, samples: Sequence[TrainSample], sums: _Sums) -> None:
    """Several updates on mini-batches, against the policy as it is now; all of them or none."""
    config = policy.config
    old = [
        torch.tensor(values, device=policy.base.device)
        for values in score(
            policy,
            samples,
            under="adapter",
            temperature=config.temperature,
            token_budget=config.token_budget,
        )
    ]
    plan = minibatches(len(samples), config, seed=policy.num_updates)
    with ExitStack() as undo:
        undo.callback(policy.restore, policy.snapshot())
        for chosen in plan:
            part = [samples[index] for index in chosen]
            _update_once(policy, part, [old[index] for index in chosen], sums)
        undo.pop_all()


def minibatches(num_samples: int, config: LearnerConfig, *, seed: int) -> Iterator[list[int]]:
    """The samples of each update of a step: in each epoch all of them, in another order.

    Mini-batches are cut from a random order of all samples, so that each has samples of many
    prompts; TTRL's own are cut from an order that balances lengths, to the same effect. Their
    sizes differ by one sample at most, and none is empty.
    """
    order = list(range(num_samples))
    num_parts = min(config.minibatches, num_samples)
    for epoch in range(config.epochs):
        random.Random(f"{config.seed} {seed} {epoch}").shuffle(order)
        for part in range(num_parts):
            yield order[part::num_parts]


def _update_once(
    policy: Policy, samples: Sequence[TrainSample], old: Sequence[Tensor] | None, sums: _Sums
) -> None:
    """One optimizer update. `old`: of each sample, (T,) log-probabilities at the step's start."""
    config = policy.config
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    rate = learning_rate(config, policy.num_updates)
    policy.drop_gradients()
    try:
        for batch in _parts(policy, samples, config.token_budget):
            before = None if old is None else torch.cat([old[index] for index in batch.indices])
            (_summed_loss(policy, config, batch, before, sums) / num_tokens).backward()
        sums.grad_norm += policy.apply_gradients(rate)
    finally:
        policy.drop_gradients()
    sums.tokens += num_tokens
    sums.updates += 1
    sums.learning_rate = rate


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


def _summed_loss(
    policy: Policy, config: LearnerConfig, batch: MicroBatch, old: Tensor | None, sums: _Sums
) -> Tensor:
    logprobs = policy.logprobs(batch, temperature=config.temperature)
    losses = policy_losses(logprobs, old, batch.inference_logprobs, batch.advantages, config)
    before = logprobs if old is None else old
    total = losses.policy
    if config.kl_coef:
        kl = k3(logprobs, policy.base_logprobs(batch, temperature=config.temperature))
        total = total + config.kl_coef * kl
        sums.add(kl_base=kl)
    sums.add(
        loss=total,
        mismatch=(before - batch.inference_logprobs).abs(),
        mismatch_kl=k3(batch.inference_logprobs, before),
        clipped=losses.clipped,
        entropy=-before,
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
        packed=base.packed,
        device=base.device,
    )
