"""Samples as tensors, a bounded number of tokens at a time, sorted by length.

Where the model can be packed (packing.py), a micro-batch is one row of tokens without padding. The
samples of a group share their prompt, so it is computed once for all of them: its tokens but the
last are the *prefix* of their micro-batch. Samples whose prompt few others have are packed whole.
Where it cannot, each sample is a row, padded to the longest of its micro-batch. A sample's last
token is only predicted, never read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from adapters.batch import TrainSample
from adapters.training.packing import Layout, layout_of

PADDING_ID = 0  # never seen: attention is causal and padding is on the right
MIN_SHARED = 4  # samples of one prompt from which a micro-batch of their own pays

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some samples of a batch. N is the number of their completion tokens, sample after sample."""

    indices: tuple[int, ...]  # of the samples in the batch
    lengths: tuple[int, ...]  # completion tokens of each sample; they sum to N
    layout: Layout | None  # None: padded
    input_ids: Tensor  # packed (1, T), or padded (samples, longest)
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
    packed: bool,
    device: torch.device,
) -> Iterator[MicroBatch]:
    """Split a batch: no part has more tokens than the budget (in the attention of a packed one, and
    all through a padded one, each sample counts as the longest), unless one sample has.

    A shared prefix is not counted: were it, a long one would be computed once for each sample.
    """
    for indices, prefix in _groups(samples, packed):
        rest = sorted(indices, key=lambda index: -_num_tokens(samples[index]))
        while rest:
            most = max(1, token_budget // (_num_tokens(samples[rest[0]]) - prefix))
            size = -(-len(rest) // -(-len(rest) // most))  # as many parts as needed, of one size
            yield _micro_batch(samples, rest[:size], prefix, packed, device)
            rest = rest[size:]


def _groups(samples: Sequence[TrainSample], packed: bool) -> Iterator[tuple[list[int], int]]:
    """Indices of samples that go together, with the length of their common prefix."""
    rest: list[int] = []
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        by_prompt.setdefault(tuple(sample.prompt_ids), []).append(index)
    for prompt, indices in by_prompt.items():
        if packed and len(prompt) > 1 and len(indices) >= MIN_SHARED:
            yield indices, len(prompt) - 1
        else:
            rest.extend(indices)
    yield rest, 0


def _num_tokens(sample: TrainSample) -> int:
    """That the model reads."""
    return len(sample.prompt_ids) + len(sample.completion_ids) - 1


def _micro_batch(
    samples: Sequence[TrainSample],
    indices: list[int],
    prefix: int,
    packed: bool,
    device: torch.device,
) -> MicroBatch:
    chosen = [samples[index] for index in indices]
    rows = [[*s.prompt_ids[prefix:], *s.completion_ids[:-1]] for s in chosen]
    lengths = [len(row) for row in rows]
    if packed:
        layout = layout_of(prefix, lengths, device)
        input_ids = [[*chosen[0].prompt_ids[:prefix], *(token for row in rows for token in row)]]
        starts = [prefix + start for start in accumulate(lengths[:-1], initial=0)]
    else:
        layout, longest = None, max(lengths)
        input_ids = [row + [PADDING_ID] * (longest - len(row)) for row in rows]
        starts = list(range(0, len(rows) * longest, longest))
    return MicroBatch(
        indices=tuple(indices),
        lengths=tuple(len(sample.completion_ids) for sample in chosen),
        layout=layout,
        input_ids=torch.tensor(input_ids, device=device),
        positions=torch.tensor(_positions(chosen, starts, prefix), device=device),
        targets=torch.tensor(_flat(s.completion_ids for s in chosen), device=device),
        inference_logprobs=_numbers((s.inference_logprobs for s in chosen), device),
        advantages=_numbers((s.advantages for s in chosen), device),
    )


def _positions(chosen: Sequence[TrainSample], starts: Sequence[int], prefix: int) -> list[int]:
    """Of the tokens that predict: the prompt's last and all of the completion but its last."""
    return [
        start + len(sample.prompt_ids) - prefix - 1 + at
        for sample, start in zip(chosen, starts, strict=True)
        for at in range(len(sample.completion_ids))
    ]


def _flat(lists: Iterable[Sequence[T]]) -> list[T]:
    return [value for values in lists for value in values]


def _numbers(lists: Iterable[Sequence[float]], device: torch.device) -> Tensor:
    return torch.tensor(_flat(lists), dtype=torch.float32, device=device)
