"""Samples as padded tensors, a bounded number of tokens at a time.

The samples of a group share their prompt, so it is computed once for all of them: its tokens but
the last are the *prefix* of their micro-batch (their keys and values are computed once, with
gradients; Prefix Grouper, arXiv 2506.05433). Samples whose prompt few others have are padded whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.batch import TrainSample

PADDING_ID = 0  # never seen: attention is causal and padding is on the right
MIN_SHARED = 4  # samples of one prompt from which a micro-batch of their own pays


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some samples of a batch. N is the number of their completion tokens, sample after sample."""

    indices: tuple[int, ...]  # of the samples in the batch
    lengths: tuple[int, ...]  # completion tokens of each sample; they sum to N
    prefix_ids: Tensor | None  # (1, prompt - 1) what comes before each row of input_ids
    input_ids: Tensor  # (samples, longest) rest of the prompt, completion, padding
    positions: Tensor  # (N,) flat indices into input_ids of the tokens that predict the targets
    targets: Tensor  # (N,) completion token ids
    inference_logprobs: Tensor  # (N,) float32
    advantages: Tensor  # (N,) float32


def check_samples(samples: Sequence[TrainSample], *, num_ids: int, max_tokens: int | None) -> None:
    """Raises ValueError, naming the sample, unless each can be trained on."""
    if not samples:
        raise ValueError("no samples")
    for index, sample in enumerate(samples):
        if problem := _problem(sample, num_ids, max_tokens):
            raise ValueError(f"sample {index}: {problem}")


def _problem(sample: TrainSample, num_ids: int, max_tokens: int | None) -> str | None:
    ids = [*sample.prompt_ids, *sample.completion_ids]
    if not sample.prompt_ids or not sample.completion_ids:
        return "an empty prompt or completion"
    if min(ids) < 0 or max(ids) >= num_ids:
        return f"token ids outside 0..{num_ids - 1}"
    if max_tokens is not None and len(ids) > max_tokens:
        return f"{len(ids)} tokens, and the model takes {max_tokens}"
    return None


def check_advantages(samples: Sequence[TrainSample]) -> None:
    """Raises ValueError unless each token has a finite advantage and log-probability."""
    for index, sample in enumerate(samples):
        num_tokens = len(sample.completion_ids)
        for name in ("inference_logprobs", "advantages"):
            values: list[float] = getattr(sample, name)
            if len(values) != num_tokens:
                raise ValueError(f"sample {index}: {len(values)} {name} for {num_tokens} tokens")
            if not all(map(math.isfinite, values)):
                raise ValueError(f"sample {index}: {name} that are not finite")


def microbatches(
    samples: Sequence[TrainSample],
    *,
    token_budget: int,
    share_prompts: bool,
    device: torch.device,
) -> Iterator[MicroBatch]:
    """Split a batch: no part has more padded tokens than the budget, unless one sample has.

    A shared prefix is not counted: were it, a long one would be computed once for each sample.
    """
    for indices, prefix in _groups(samples, share_prompts):
        order = sorted(indices, key=lambda index: -_num_tokens(samples[index]))
        start = 0
        while start < len(order):
            longest = _num_tokens(samples[order[start]]) - prefix
            size = max(1, token_budget // longest)
            yield _pad(samples, order[start : start + size], prefix, device)
            start += size


def _groups(samples: Sequence[TrainSample], share_prompts: bool) -> Iterator[tuple[list[int], int]]:
    """Indices of samples that go together, with the length of their common prefix."""
    rest: list[int] = []
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        by_prompt.setdefault(tuple(sample.prompt_ids), []).append(index)
    for prompt, indices in by_prompt.items():
        if share_prompts and len(prompt) > 1 and len(indices) >= MIN_SHARED:
            yield indices, len(prompt) - 1
        else:
            rest.extend(indices)
    yield rest, 0


def _num_tokens(sample: TrainSample) -> int:
    return len(sample.prompt_ids) + len(sample.completion_ids)


def _pad(
    samples: Sequence[TrainSample], indices: list[int], prefix: int, device: torch.device
) -> MicroBatch:
    chosen = [samples[index] for index in indices]
    longest = max(map(_num_tokens, chosen)) - prefix
    input_ids = torch.full((len(chosen), longest), PADDING_ID, dtype=torch.long)
    positions: list[int] = []
    targets: list[int] = []
    logprobs: list[float] = []
    advantages: list[float] = []
    for row, sample in enumerate(chosen):
        ids = [*sample.prompt_ids[prefix:], *sample.completion_ids]
        input_ids[row, : len(ids)] = torch.tensor(ids)
        first = row * longest + len(sample.prompt_ids) - prefix - 1
        positions.extend(range(first, first + len(sample.completion_ids)))
        targets.extend(sample.completion_ids)
        logprobs.extend(sample.inference_logprobs)
        advantages.extend(sample.advantages)
    return MicroBatch(
        indices=tuple(indices),
        lengths=tuple(len(sample.completion_ids) for sample in chosen),
        prefix_ids=torch.tensor([chosen[0].prompt_ids[:prefix]], device=device) if prefix else None,
        input_ids=input_ids.to(device),
        positions=torch.tensor(positions, device=device),
        targets=torch.tensor(targets, device=device),
        inference_logprobs=torch.tensor(logprobs, dtype=torch.float32, device=device),
        advantages=torch.tensor(advantages, dtype=torch.float32, device=device),
    )
