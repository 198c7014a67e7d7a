"""The weights of one adapter in one layer, ready to be multiplied with, and kept until they change.

vLLM keeps all adapters of a layer in one tensor, with a row for each slot. To cut an adapter out of
it, transpose, convert and join takes longer than the products do when few rows are sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """A and B of one adapter, contiguous: y[:, slice i] += (x A)[:, slice i] B_i."""

    a: Tensor  # (inputs, slices * rank), float32
    b: tuple[Tensor, ...]  # (rank, outputs) of each slice, in the dtype of the output
    rank: int


@dataclass(frozen=True, slots=True)
class _Entry:
    stacked: tuple[Tensor, ...]  # kept alive, so that their ids stay theirs
    versions: tuple[int, ...]
    dtype: torch.dtype
    pair: Pair | None

    def is_current(self, dtype: torch.dtype) -> bool:
        """Whether nobody has written since: torch counts writes, those through views too."""
        # A list: this runs for each layer in each step, and a generator takes twice as long.
        versions = tuple([tensor._version for tensor in self.stacked])
        return self.versions == versions and self.dtype == dtype


def matrix(stacked: Tensor, slot: int) -> Tensor:
    """One adapter's matrix out of (slots, 1, outputs, inputs) or (slots, outputs, inputs)."""
    weights = stacked[slot]
    return weights[0] if weights.dim() == 3 else weights


def prepare(a: Sequence[Tensor], b: Sequence[Tensor], slot: int, dtype: torch.dtype) -> Pair | None:
    """The pair of a slot; None where B is zero, as in the identity adapter: it adds nothing.

    Args:
        a: (slots, 1, rank, inputs) of each slice.
        b: (slots, 1, outputs, rank) of each slice.
        slot: of the adapter.
        dtype: of the output.
    """
    bs = [matrix(stacked, slot) for stacked in b]
    if not any(bool(weights.any()) for weights in bs):
        return None
    joined = torch.cat([matrix(stacked, slot) for stacked in a]).float()
    return Pair(
        a=joined.T.contiguous(),
        b=tuple(weights.to(dtype).T.contiguous() for weights in bs),
        rank=bs[0].size(1),
    )


class PreparedWeights:
    """Pairs by layer and slot. One is made anew when the layer's tensors have been written to."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, int], _Entry] = {}

    def pair(
        self, a: Sequence[Tensor], b: Sequence[Tensor], slot: int, dtype: torch.dtype
    ) -> Pair | None:
        """As `prepare`."""
        key = (id(b[0]), slot)
        entry = self._entries.get(key)
        if entry is not None and entry.is_current(dtype):
            return entry.pair
        made = prepare(a, b, slot, dtype)
        stacked = (*a, *b)
        if not any(tensor.is_inference() for tensor in stacked):  # theirs are not counted
            versions = tuple(tensor._version for tensor in stacked)
            self._entries[key] = _Entry(stacked, versions, dtype, made)
        return made
