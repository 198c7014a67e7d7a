"""LoRA for a batch of tokens, grouped by adapter.

Rows with the same adapter are found once per engine step. Each layer then takes one product with A
per adapter in the batch, for all slices of the layer together, and one with B per slice; rows
without an adapter (index -1) are not touched, nor are layers that an adapter leaves as they are.
Dtypes are those of the shipped operations: x A in float32, its product with B in the output's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from adapters.vllm_plugin.prepared import Pair, PreparedWeights, matrix

Rows = slice | Tensor  # a slice where the rows are neighbours: no copy is needed then
Groups = list[tuple[int, Rows]]  # slot of the adapter, and its rows


def group_rows(slots: Tensor) -> Groups:
    """The rows of each slot in `slots` (rows,), without those of -1."""
    groups: Groups = []
    numbers = slots.tolist()
    for slot in sorted(set(numbers) - {-1}):
        rows = [row for row, number in enumerate(numbers) if number == slot]
        if rows[-1] - rows[0] + 1 == len(rows):
            groups.append((slot, slice(rows[0], rows[-1] + 1)))
        else:
            groups.append((slot, torch.tensor(rows, device=slots.device)))
    return groups


def shrink(x: Tensor, weights: Tensor, scale: float) -> Tensor:
    """x A in float32: (rows, rank)."""
    product = x.float() @ weights.float().T
    return product if scale == 1.0 else product * scale


def expand(y: Tensor, rows: Rows, x: Tensor, weights: Tensor, *, add: bool) -> None:
    """y[rows] += x B, or = without `add`, in y's dtype. B may have fewer rows than y has columns:
    vLLM pads vocabularies.
    """
    columns = min(weights.size(0), y.size(1))
    weights = weights[:columns].to(y.dtype)
    x = x.to(y.dtype)
    target = y[:, :columns]
    if isinstance(rows, slice):
        block = target[rows]
        if add:
            block.addmm_(x, weights.T)
        else:
            torch.mm(x, weights.T, out=block)
    elif add:
        target.index_add_(0, rows, x @ weights.T)
    else:
        target[rows] = x @ weights.T


def add_pair(
    y: Tensor, rows: Rows, x: Tensor, pair: Pair, widths: tuple[int, ...], scale: float
) -> None:
    """y[rows] += x[rows] A B, slice by slice; a B may be wider than its slice, as in `expand`."""
    shrunk = x[rows].float() @ pair.a
    if scale != 1.0:
        shrunk *= scale
    shrunk = shrunk.to(y.dtype)
    start = 0
    for number, (b, width) in enumerate(zip(pair.b, widths, strict=True)):
        part = shrunk if len(pair.b) == 1 else shrunk.narrow(1, number * pair.rank, pair.rank)
        if b.size(1) > width:
            b = b[:, :width]
        end = start + b.size(1)
        if isinstance(rows, slice):
            y[rows, start:end].addmm_(part, b)
        else:
            y[:, start:end].index_add_(0, rows, part @ b)
        start += width


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """The shipped wrapper with grouped operations; same arguments, same results for LoRA rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._token_groups: Groups = []
        self._sampler_groups: Groups = []
        self._weights = PreparedWeights()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called by vLLM when the batch's adapters, or their slots, have changed."""
        super().update_metadata(*args, **kwargs)
        self._token_groups = group_rows(self.token_lora_indices)
        self._sampler_groups = group_rows(self.sampler_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """y[rows, slice] += x[rows] A B * scale, for each slice and adapter."""
        x = x.view(-1, x.shape[-1])
        y = y.view(-1, y.shape[-1])
        for slot, rows in self._token_groups:
            pair = self._weights.pair(lora_a_stacked, lora_b_stacked, slot, y.dtype)
            if pair is not None:
                add_pair(y, rows, x, pair, output_slices, scale)

    def add_shrink(
        self,
        y: tuple[Tensor, ...] | Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y[i][rows] = x[rows] A_i * scale (layers sharded over processes call this by itself)."""
        x = x.view(-1, x.shape[-1])
        for buffer, stacked in zip(y, lora_a_stacked, strict=True):
            flat = buffer.view(-1, buffer.shape[-1])
            for slot, rows in self._token_groups:
                shrunk = shrink(x[rows], matrix(stacked, slot), scale)
                flat[rows, : shrunk.size(1)] = shrunk.to(flat.dtype)

    def add_expand(
        self,
        y: Tensor,
        x: tuple[Tensor, ...] | Tensor,
        lora_b_stacked: tuple[Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[rows, slice i] += x[i][rows] B_i."""
        y = y.view(-1, y.shape[-1])
        start = offset_start
        for inputs, stacked, width in zip(x, lora_b_stacked, output_slices, strict=True):
            target = y[:, start : start + width]
            for slot, rows in self._token_groups:
                expand(target, rows, inputs[rows], matrix(stacked, slot), add=add_inputs)
            start += width

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """y[rows] += x[rows] B; x has been looked up in A."""
        for slot, rows in self._token_groups:
            expand(y, rows, x[rows], matrix(lora_b_stacked, slot), add=add_inputs)

    def add_lora_logits(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensor,
        lora_b_stacked: Tensor,
        scale: float,
        *,
        buffer: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """y[rows] += x[rows] A B * scale, for the rows that are sampled from."""
        y = y.view(-1, y.shape[-1])
        x = x.view(-1, x.shape[-1])
        for slot, rows in self._sampler_groups:
            pair = self._weights.pair((lora_a_stacked,), (lora_b_stacked,), slot, y.dtype)
            if pair is not None:
                add_pair(y, rows, x, pair, (y.size(1),), scale)

    def apply_lora_full_linear(
        self,
        y: Tensor,
        x: Tensor,
        weight_stacked: Tensor,
        bias_stacked: Tensor,
        module_enabled: Tensor,
    ) -> None:
        """y[rows] = x[rows] W + bias where the adapter brings a whole layer (classifiers)."""
        output = torch.zeros((x.size(0), weight_stacked.size(-2)), device=x.device)
        for slot, rows in self._sampler_groups:
            output[rows] = shrink(x[rows], matrix(weight_stacked, slot), 1.0)
        y.copy_(self._select_full_linear_output(y, output, bias_stacked, module_enabled))
