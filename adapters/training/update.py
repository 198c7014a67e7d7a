"""Updates of the adapter on a batch of samples, and scoring without one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from adapters.batch import LearnerConfig, Stepped, TrainSample
from adapters.training.gradients import References, Sums, batch_gradients, split
from adapters.training.microbatches import MicroBatch, check_advantages, check_samples
from adapters.training.policy import Policy
from adapters.training.schedule import learning_rate


def update(policy: Policy, samples: Sequence[TrainSample]) -> Stepped:
    """One step: `epochs` times `minibatches` updates, each on the mean loss over its tokens.

    Raises NoAdapter, ValueError about a sample, or FloatingPointError; then the adapter and the
    optimizer are as before the step.
    """
    started = time.perf_counter()
    config = policy.config
    _check(policy, samples)
    check_advantages(samples)
    references, sums = _references(policy, samples), Sums()
    if references.old is None:
        _update_once(policy, samples, references, sums)
    else:
        _update_often(policy, samples, references, sums)
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
        learning_rate=learning_rate(config, policy.num_updates - 1),
    )


def _references(policy: Policy, samples: Sequence[TrainSample]) -> References:
    """Only those that the loss needs: by default none, and no forward pass for them."""
    config = policy.config

    def scores(under: str) -> list[Tensor]:
        return _scores(policy, samples, under, config.temperature, config.token_budget)

    return References(
        old=scores("adapter") if config.epochs * config.minibatches > 1 else None,
        base=scores("base") if config.kl_coef else None,
    )


def _update_often(
    policy: Policy, samples: Sequence[TrainSample], references: References, sums: Sums
) -> None:
    """Several updates on mini-batches, against the policy as it is now; all of them or none."""
    plan = minibatches(len(samples), policy.config, seed=policy.num_updates)
    with ExitStack() as undo:
        undo.callback(policy.restore, policy.snapshot())
        for chosen in plan:
            part = [samples[index] for index in chosen]
            _update_once(policy, part, references.of(chosen), sums)
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
    policy: Policy, samples: Sequence[TrainSample], references: References, sums: Sums
) -> None:
    """One optimizer update."""
    policy.drop_gradients()
    try:
        sums.take(batch_gradients(policy, samples, references))
        sums.grad_norm += policy.apply_gradients(learning_rate(policy.config, policy.num_updates))
    finally:
        policy.drop_gradients()
    sums.updates += 1


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
    scores = _scores(policy, samples, under, temperature, token_budget)
    return [values.tolist() for values in scores]


def _scores(
    policy: Policy,
    samples: Sequence[TrainSample],
    under: str,
    temperature: float,
    token_budget: int,
) -> list[Tensor]:
    """(T,) log-probabilities of each sample, without gradients."""

    @torch.no_grad()
    def score_batch(batch: MicroBatch) -> Sequence[Tensor]:
        return policy.logprobs(batch, temperature=temperature).split(batch.lengths)

    batches = split(policy, samples, token_budget)
    with policy.under(under):
        found = policy.base.workers.each(score_batch, batches)
    by_index = {
        index: values
        for batch, scores in zip(batches, found, strict=True)
        for index, values in zip(batch.indices, scores, strict=True)
    }
    return [by_index[index] for index in range(len(samples))]


def _check(policy: Policy, samples: Sequence[TrainSample]) -> None:
    limit = getattr(policy.base.model.config, "max_position_embeddings", None)
    check_samples(samples, num_ids=policy.num_ids, max_tokens=limit)
