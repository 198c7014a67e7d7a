"""Samples as tensors, a bounded number of tokens at a time, sorted by length.

Where the model can be packed (packing.py), a micro-batch is one row of tokens without padding, and
what its samples have in common is in it once (prefixes.py). Small groups share a row, because a row
that is too short costs more a token. Where the model cannot be packed, each sequence is a row,
padded to the longest of its micro-batch. A sequence's last token is only predicted, never read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from adapters.batch import TrainSample
from adapters.training.packing import GroupShape, Layout, layout_of
from adapters.training.prefixes import Group, Read, group, sequences_of

MOST_WASTE = 1.5  # keys of a row of several groups, of the budget or what they have apart
PADDING_ID = 0  # never seen: attention is causal and padding is on the right


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some samples of a batch. N is the number of their completion tokens, sample after sample; U
    is that of different tokens after different ones before, which are predicted once.
    """

    indices: tuple[int, ...]  # of the samples in the batch
    lengths: tuple[int, ...]  # completion tokens of each sample; they sum to N
    layout: Layout | None  # None: padded
    input_ids: Tensor  # packed (1, T), or padded (sequences, longest)
    positions: Tensor  # (U,) flat indices into input_ids of the tokens that predict the targets
    targets: Tensor  # (U,) completion token ids
    copies: Tensor | None  # (N,) indices of positions and targets; None: U is N
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
    all through a padded one, each sequence counts as the longest), unless one sequence has.

    The prefix of a group that has a row for itself is not counted: were it, a long one would be
    computed once for each sequence.
    """
    sequences = sequences_of(samples)
    groups = group(sequences, token_budget) if packed else [Group(tuple(sequences), 0)]
    parts = [part for whole in groups for part in _parts(whole, token_budget)]
    for row in _rows(parts, token_budget) if packed else [[part] for part in parts]:
        yield _micro_batch(samples, row, packed, device)


def _parts(whole: Group, token_budget: int) -> Iterator[Group]:
    """A group, or as many as are needed, of one size, where it is too large."""
    rest = sorted(whole.sequences, key=lambda sequence: -len(sequence.tokens))
    while rest:
        most = max(1, token_budget // (len(rest[0].tokens) - whole.prefix))
        size = -(-len(rest) // -(-len(rest) // most))
        yield Group(tuple(rest[:size]), whole.prefix)
        rest = rest[size:]


def _rows(parts: Sequence[Group], token_budget: int) -> list[list[Group]]:
    """Each part goes into the first row that has room for it, the largest parts first."""
    rows: list[list[Group]] = []
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


def _row_tokens(row: Sequence[Group]) -> int:
    """What the parts have in one row, if each sequence counts as the longest."""
    num_sequences = sum(len(part.sequences) for part in row)
    return num_sequences * max(part.longest for part in row) + sum(part.prefix for part in row)


def _num_keys(row: Sequence[Group]) -> int:
    """What the attention of the row holds: each sequence has room for the longest prefix."""
    num_sequences = sum(len(part.sequences) for part in row)
    return num_sequences * (max(p.longest for p in row) + max(p.prefix for p in row))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sequence is in the flat input: its first tokens, and its own."""

    sequence: Read
    prefix: int
    prefix_at: int
    own_at: int

    def predicting(self, sample: TrainSample) -> Iterable[int]:
        """Positions of the prompt's last token and all of the completion but its last."""
        first, end = len(sample.prompt_ids) - 1, len(self.sequence.tokens)
        shift, split = self.own_at - self.prefix, max(first, self.prefix)
        shared = range(self.prefix_at + first, self.prefix_at + self.prefix)
        return chain(shared, range(shift + split, shift + end))


def _micro_batch(
    samples: Sequence[TrainSample], row: Sequence[Group], packed: bool, device: torch.device
) -> MicroBatch:
    input_ids, places = _packed(row) if packed else _padded(row)
    indices = tuple(index for place in places for index in place.sequence.indices)
    chosen = [samples[index] for index in indices]
    positions, targets, copies = _once(
        torch.tensor(_flat(p.predicting(samples[i]) for p in places for i in p.sequence.indices)),
        torch.tensor(_flat(sample.completion_ids for sample in chosen)),
    )
    return MicroBatch(
        indices=indices,
        lengths=tuple(len(sample.completion_ids) for sample in chosen),
        layout=layout_of(list(map(_shape, row)), device) if packed else None,
        input_ids=torch.tensor(input_ids, device=device),
        positions=positions.to(device),
        targets=targets.to(device),
        copies=None if copies is None else copies.to(device),
        inference_logprobs=_numbers((s.inference_logprobs for s in chosen), device),
        advantages=_numbers((s.advantages for s in chosen), device),
    )


def _packed(row: Sequence[Group]) -> tuple[list[list[int]], list[_Place]]:
    """All prefixes, then what each sequence has of its own."""
    prefixes = _flat(part.sequences[0].tokens[: part.prefix] for part in row)
    starts = accumulate((part.prefix for part in row), initial=0)
    at, own, places = len(prefixes), [], []
    for part, prefix_at in zip(row, starts, strict=False):  # the last one is the end
        for sequence in part.sequences:
            places.append(_Place(sequence, part.prefix, prefix_at, at))
            own.append(sequence.tokens[part.prefix :])
            at += len(own[-1])
    return [[*prefixes, *_flat(own)]], places


def _padded(row: Sequence[Group]) -> tuple[list[list[int]], list[_Place]]:
    """A row for each sequence."""
    sequences = [sequence for part in row for sequence in part.sequences]
    longest = max(len(sequence.tokens) for sequence in sequences)
    places = [_Place(sequence, 0, 0, at * longest) for at, sequence in enumerate(sequences)]
    fill = [PADDING_ID] * longest
    return [[*sequence.tokens, *fill][:longest] for sequence in sequences], places


def _shape(part: Group) -> GroupShape:
    own = tuple(len(sequence.tokens) - part.prefix for sequence in part.sequences)
    return GroupShape(part.prefix, own)


def _once(positions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """(N,) positions and targets with each pair once, (U,), and where each is, unless U is N."""
    num_ids = int(targets.max()) + 1
    pairs, copies = (positions * num_ids + targets).unique(return_inverse=True)
    if len(pairs) == len(positions):
        return positions, targets, None
    return pairs // num_ids, pairs % num_ids, copies


def _flat(lists: Iterable[Iterable[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def _numbers(lists: Iterable[Sequence[float]], device: torch.device) -> Tensor:
    return torch.tensor(list(chain.from_iterable(lists)), dtype=torch.float32, device=device)
