"""The gradients of one update, a micro-batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from adapters.batch import LearnerConfig, TrainSample
from adapters.training.loss import k3, policy_losses
from adapters.training.microbatches import MicroBatch, microbatches
from adapters.training.policy import Policy

logger = logging.getLogger(__name__)

CPU_TOKENS = 1024  # at a time on a CPU: more is not faster there, and takes memory


@dataclass(frozen=True, slots=True)
class References:
    """What other policies think of the samples of an update, (T,) each, in the samples' order."""

    old: Sequence[Tensor] | None  # the policy at the start of the step; None: it has one update
    base: Sequence[Tensor] | None  # None: nothing pulls towards the base model

    def of(self, indices: Sequence[int]) -> References:
        """Those of some of the samples."""
        return References(_chosen(self.old, indices), _chosen(self.base, indices))


def _chosen(all_of: Sequence[Tensor] | None, indices: Sequence[int]) -> list[Tensor] | None:
    return None if all_of is None else [all_of[index] for index in indices]


@dataclass(slots=True)
class Sums:
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

    def add(self, **tensors: Tensor) -> None:
        """The values of some tokens."""
        for name, tensor in tensors.items():
            setattr(self, name, getattr(self, name) + tensor.detach().double().sum().item())

    def take(self, other: Sums) -> None:
        """The sums of other tokens."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def split(policy: Policy, samples: Sequence[TrainSample], token_budget: int) -> list[MicroBatch]:
    """The samples in micro-batches for the policy's device."""
    base = policy.base
    if base.device.type == "cpu":
        token_budget = min(token_budget, max(1, CPU_TOKENS // base.workers.count))
    return list(
        microbatches(samples, token_budget=token_budget, packed=base.packed, device=base.device)
    )


def batch_gradients(policy: Policy, samples: Sequence[TrainSample], references: References) -> Sums:
    """Leave the gradients of an update in the policy. Where memory runs out, once more with less:
    gradients are checkpointed from then on, for as long as the base model stays loaded.
    """
    while True:
        try:
            return _all_gradients(policy, samples, references)
        except torch.OutOfMemoryError as error:
            if policy.base.model.is_gradient_checkpointing:
                raise
            logger.warning("out of memory, gradients are checkpointed from here on: %s", error)
        policy.save_memory()  # only now: until here the error has held the tensors


def _all_gradients(policy: Policy, samples: Sequence[TrainSample], references: References) -> Sums:
    num_tokens = sum(len(sample.completion_ids) for sample in samples)
    weights = policy.trained()

    def work(share: Sequence[MicroBatch]) -> tuple[Sums, list[Tensor]]:
        sums, total = Sums(), [torch.zeros_like(weight) for weight in weights]
        for batch in share:
            loss = _summed_loss(policy, batch, references.of(batch.indices), sums) / num_tokens
            for gradient, part in zip(total, torch.autograd.grad(loss, weights), strict=True):
                gradient.add_(part)
        return sums, total

    batches, workers = split(policy, samples, policy.config.token_budget), policy.base.workers
    shares = workers.shares(batches, [batch.input_ids.numel() for batch in batches])
    sums = Sums(tokens=num_tokens)
    for found, gradients in workers.each(work, shares):
        sums.take(found)
        policy.add_gradients(gradients)
    return sums


def _summed_loss(policy: Policy, batch: MicroBatch, references: References, sums: Sums) -> Tensor:
    config: LearnerConfig = policy.config
    logprobs = policy.logprobs(batch, temperature=config.temperature)
    old = None if references.old is None else torch.cat(list(references.old))
    losses = policy_losses(logprobs, old, batch.inference_logprobs, batch.advantages, config)
    before = logprobs if old is None else old
    total = losses.policy
    if references.base is not None:
        kl = k3(logprobs, torch.cat(list(references.base)))
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
