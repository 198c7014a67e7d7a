"""Samples as tensors, a bounded number of tokens at a time, sorted by length.

Where the model can be packed (packing.py), a micro-batch is one row of tokens without padding. The
samples of a group share their prompt, so it is computed once for all of them: its tokens but the
last are their *prefix*. Samples whose prompt no other has are packed whole. Small groups share a
row, because a row that is too short costs more a token. Where the model cannot be packed, each
sample is a row, padded to the longest of its micro-batch. A sample's last token is only predicted,
never read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TypeVar

import torch
from torch import Tensor

from adapters.batch import TrainSample
from adapters.training.packing import Group, Layout, layout_of

MOST_WASTE = 1.5  # keys of a row of several prompts, of the budget or what they have apart
PADDING_ID = 0  # never seen: attention is causal and padding is on the right

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


@dataclass(frozen=True, slots=True)
class _Part:
    """Samples that go together, sorted by length, the longest first."""

    indices: tuple[int, ...]
    prefix: int  # tokens of the prompt that are computed once for all of them
    longest: int  # own tokens of the first

    @property
    def area(self) -> int:
        """Own tokens, where each sample counts as the longest."""
        return len(self.indices) * self.longest


def microbatches(
    samples: Sequence[TrainSample],
    *,
    token_budget: int,
    packed: bool,
    device: torch.device,
) -> Iterator[MicroBatch]:
    """Split a batch: no part has more tokens than the budget (in the attention of a packed one, and
    all through a padded one, each sample counts as the longest), unless one sample has.

    The prefix of a group that has a row for itself is not counted: were it, a long one would be
    computed once for each sample.
    """
    parts = list(_parts(samples, token_budget, packed))
    for row in _rows(parts, token_budget) if packed else [[part] for part in parts]:
        yield _micro_batch(samples, row, packed, device)


def _parts(samples: Sequence[TrainSample], token_budget: int, packed: bool) -> Iterator[_Part]:
    """Groups, those that are too large in as many parts as needed, of one size."""
    for indices, prefix in _groups(samples, packed):
        rest = sorted(indices, key=lambda index: -_num_tokens(samples[index]))
        while rest:
            longest = _num_tokens(samples[rest[0]]) - prefix
            most = max(1, token_budget // longest)
            size = -(-len(rest) // -(-len(rest) // most))
            yield _Part(tuple(rest[:size]), prefix, longest)
            rest = rest[size:]


def _groups(samples: Sequence[TrainSample], packed: bool) -> Iterator[tuple[list[int], int]]:
    """Indices of samples that go together, with the length of their common prefix."""
    rest: list[int] = []
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        by_prompt.setdefault(tuple(sample.prompt_ids), []).append(index)
    for prompt, indices in by_prompt.items():
        if packed and len(prompt) > 1 and len(indices) > 1:
            yield indices, len(prompt) - 1
        else:
            rest.extend(indices)
    yield rest, 0


def _rows(parts: Sequence[_Part], token_budget: int) -> list[list[_Part]]:
    """Each part goes into the first row that has room for it, the largest parts first."""
    rows: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: -part.area - part.prefix):
        for row in rows:
            together = [*row, part]
            apart = sum(_num_keys([one]) for one in together)
            is_narrow = _num_keys(together) <= MOST_WASTE * max(token_budget, apart)
            if _row_tokens(together) <= token_budget and is_narrow:
                row.append(part)
                break
        else:
            rows.append([part])
    return rows


def _row_tokens(row: Sequence[_Part]) -> int:
    """What the parts have in one row, if each sample counts as the longest."""
    num_samples = sum(len(part.indices) for part in row)
    return num_samples * max(part.longest for part in row) + sum(part.prefix for part in row)


def _num_keys(row: Sequence[_Part]) -> int:
    """What the attention of the row holds: each sample has room for the longest prefix."""
    num_samples = sum(len(part.indices) for part in row)
    return num_samples * (max(p.longest for p in row) + max(p.prefix for p in row))


def _num_tokens(sample: TrainSample) -> int:
    """That the model reads."""
    return len(sample.prompt_ids) + len(sample.completion_ids) - 1


def _micro_batch(
    samples: Sequence[TrainSample], row: Sequence[_Part], packed: bool, device: torch.device
) -> MicroBatch:
    indices = tuple(index for part in row for index in part.indices)
    chosen = [samples[index] for index in indices]
    shared = [part.prefix for part in row for _ in part.indices]
    read = [
        [*sample.prompt_ids[prefix:], *sample.completion_ids[:-1]]
        for sample, prefix in zip(chosen, shared, strict=True)
    ]
    lengths = [len(tokens) for tokens in read]
    if packed:
        prefixes = _flat(samples[part.indices[0]].prompt_ids[: part.prefix] for part in row)
        layout = layout_of(_layout_groups(row, lengths), device)
        input_ids = [[*prefixes, *_flat(read)]]
        starts = list(accumulate(lengths[:-1], initial=len(prefixes)))
    else:
        layout, longest = None, max(lengths)
        input_ids = [tokens + [PADDING_ID] * (longest - len(tokens)) for tokens in read]
        starts = list(range(0, len(read) * longest, longest))
    return MicroBatch(
        indices=indices,
        lengths=tuple(len(sample.completion_ids) for sample in chosen),
        layout=layout,
        input_ids=torch.tensor(input_ids, device=device),
        positions=torch.tensor(_positions(chosen, starts, lengths), device=device),
        targets=torch.tensor(_flat(s.completion_ids for s in chosen), device=device),
        inference_logprobs=_numbers((s.inference_logprobs for s in chosen), device),
        advantages=_numbers((s.advantages for s in chosen), device),
    )


def _layout_groups(row: Sequence[_Part], lengths: Sequence[int]) -> list[Group]:
    rest = iter(lengths)
    return [Group(part.prefix, tuple(islice(rest, len(part.indices)))) for part in row]


def _positions(
    chosen: Sequence[TrainSample], starts: Sequence[int], lengths: Sequence[int]
) -> list[int]:
    """Of the tokens that predict: the prompt's last and all of the completion but its last."""
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    return _flat(
        range(end - len(sample.completion_ids), end)
        for sample, end in zip(chosen, ends, strict=True)
    )


def _flat(lists: Iterable[Sequence[T]]) -> list[T]:
    return [value for values in lists for value in values]


def _numbers(lists: Iterable[Sequence[float]], device: torch.device) -> Tensor:
    return torch.tensor(_flat(lists), dtype=torch.float32, device=device)
