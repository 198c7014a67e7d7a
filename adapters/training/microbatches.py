"""Samples as padded tensors, a bounded number of tokens at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.batch import TrainSample

PADDING_ID = 0  # never seen: attention is causal and padding is on the right


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some samples of a batch. N is the number of their completion tokens, sample after sample."""

    indices: tuple[int, ...]  # of the samples in the batch
    lengths: tuple[int, ...]  # completion tokens of each sample; they sum to N
    input_ids: Tensor  # (samples, longest) prompt, completion, padding
    positions: Tensor  # (N,) flat indices into input_ids of the tokens that predict the targets
    targets: Tensor  # (N,) completion token ids
    inference_logprobs: Tensor  # (N,) float32
    advantages: Tensor  # (N,) float32, each sample's advantage at each of its tokens


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
    """Raises ValueError unless each sample has a finite advantage and log-probabilities."""
    for index, sample in enumerate(samples):
        if len(sample.inference_logprobs) != len(sample.completion_ids):
            raise ValueError(
                f"sample {index}: {len(sample.inference_logprobs)} log-probabilities for "
                f"{len(sample.completion_ids)} tokens"
            )
        if not all(map(math.isfinite, [sample.advantage, *sample.inference_logprobs])):
            raise ValueError(f"sample {index}: numbers that are not finite")


def microbatches(
    samples: Sequence[TrainSample], *, token_budget: int, device: torch.device
) -> Iterator[MicroBatch]:
    """Split a batch, longest samples first, so that no part has more padded tokens than the
    budget (a single sample may).
    """
    order = sorted(range(len(samples)), key=lambda index: -_num_tokens(samples[index]))
    start = 0
    while start < len(order):
        size = max(1, token_budget // _num_tokens(samples[order[start]]))
        yield _pad(samples, order[start : start + size], device)
        start += size


def _num_tokens(sample: TrainSample) -> int:
    return len(sample.prompt_ids) + len(sample.completion_ids)


def _pad(samples: Sequence[TrainSample], indices: list[int], device: torch.device) -> MicroBatch:
    chosen = [samples[index] for index in indices]
    longest = max(map(_num_tokens, chosen))
    input_ids = torch.full((len(chosen), longest), PADDING_ID, dtype=torch.long)
    positions: list[int] = []
    targets: list[int] = []
    logprobs: list[float] = []
    advantages: list[float] = []
    for row, sample in enumerate(chosen):
        ids = [*sample.prompt_ids, *sample.completion_ids]
        input_ids[row, : len(ids)] = torch.tensor(ids)
        first = row * longest + len(sample.prompt_ids) - 1
        positions.extend(range(first, first + len(sample.completion_ids)))
        targets.extend(sample.completion_ids)
        logprobs.extend(sample.inference_logprobs)
        advantages.extend([sample.advantage] * len(sample.completion_ids))
    return MicroBatch(
        indices=tuple(indices),
        lengths=tuple(len(sample.completion_ids) for sample in chosen),
        input_ids=input_ids.to(device),
        positions=torch.tensor(positions, device=device),
        targets=torch.tensor(targets, device=device),
        inference_logprobs=torch.tensor(logprobs, dtype=torch.float32, device=device),
        advantages=torch.tensor(advantages, dtype=torch.float32, device=device),
    )
