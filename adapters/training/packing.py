"""Several samples in one row of tokens, without padding, and their common prompt only once.

Everything in a decoder but the attention looks at one token at a time. So a micro-batch is a single
row: first the prompt's tokens that all its samples share (the *prefix*), then what each sample has
of its own. Linear layers and norms see no padding and no token twice. The attention alone puts the
samples' own tokens into a rectangle, lets them attend to the prefix and to what came before them,
and the prefix to itself (Prefix Grouper, arXiv 2506.05433, with exact gradients).

It is registered with transformers as an attention of its own, and the layout of the row travels to
it as an argument of the model's call.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "packed"
# What an attention may be asked for beyond scaled products; none of it is done here.
REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias")
TOLERANCE = 1e-2  # of the largest hidden state, in bfloat16 too

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples are in a row of T tokens, of which the first `prefix` belong to all."""

    prefix: int
    lengths: tuple[int, ...]  # own tokens of each sample; prefix and these sum to T
    position_ids: Tensor  # (1, T)
    slots: Tensor  # (T - prefix,) where each own token is in the flat rectangle
    mask: Tensor | None  # (longest, prefix + longest) what attends to what; None: one sample


def layout_of(prefix: int, lengths: Sequence[int], device: torch.device) -> Layout:
    """The layout of a prefix and samples with so many tokens of their own."""
    longest = max(lengths)
    slots = [row * longest + at for row, length in enumerate(lengths) for at in range(length)]
    positions = [*range(prefix), *(prefix + at for length in lengths for at in range(length))]
    mask = None
    if len(lengths) > 1:
        mask = torch.ones(longest, prefix + longest, dtype=torch.bool, device=device).tril(prefix)
    return Layout(
        prefix=prefix,
        lengths=tuple(lengths),
        position_ids=torch.tensor([positions], device=device),
        slots=torch.tensor(slots, device=device),
        mask=mask,
    )


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Layout,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: (1, heads, T, d) in, (1, T, heads, d) out."""
    if any(asked.get(name) is not None for name in REFUSED) or attention_mask is not None:
        raise ValueError("this model's attention cannot be packed")
    if packing.mask is None:  # one sample: the row is its sequence
        return _causal(query, key, value, scaling).transpose(1, 2), None
    split = packing.prefix
    own = _attend_rows(query[0, :, split:], (key[0], value[0]), packing, packing.mask, scaling)
    if not split:
        return own[None], None
    first = _causal(query[:, :, :split], key[:, :, :split], value[:, :, :split], scaling)
    return torch.cat([first[0].transpose(0, 1), own])[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )


def _attend_rows(
    query: Tensor,
    keys: tuple[Tensor, Tensor],
    packing: Layout,
    mask: Tensor,
    scaling: float | None,
) -> Tensor:
    """(T - prefix, heads, d) of the samples' own tokens.

    Query heads that share a key head are laid one after the other as if they were more tokens, so
    that keys and values are not repeated for them.
    """
    num_rows, longest = len(packing.lengths), mask.shape[0]
    num_kv, depth = keys[0].shape[0], query.shape[-1]
    stacked = query.shape[0] // num_kv
    rows = _spread(query.transpose(0, 1), packing.slots, num_rows * longest)
    rows = rows.view(num_rows, longest, num_kv, stacked, depth).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(num_rows, num_kv, stacked * longest, depth)
    key, value = (_all_keys(part, packing, num_rows, longest) for part in keys)
    made = scaled_dot_product_attention(
        rows, key, value, attn_mask=mask.repeat(stacked, 1), scale=scaling
    )
    made = made.view(num_rows, num_kv, stacked, longest, depth).permute(0, 3, 1, 2, 4)
    return _Gather.apply(made.reshape(num_rows * longest, -1, depth), packing.slots)


def _all_keys(packed: Tensor, packing: Layout, num_rows: int, longest: int) -> Tensor:
    """(rows, kv heads, prefix + longest, d) from (kv heads, T, d)."""
    split = packing.prefix
    own = _spread(packed[:, split:].transpose(0, 1), packing.slots, num_rows * longest)
    own = own.view(num_rows, longest, *own.shape[1:]).transpose(1, 2)
    if not split:
        return own
    return torch.cat([packed[None, :, :split].expand(num_rows, -1, -1, -1), own], dim=2)


def _spread(tokens: Tensor, slots: Tensor, size: int) -> Tensor:
    return _Spread.apply(tokens, slots, size)


class _Spread(torch.autograd.Function):
    """(size, ...) with the tokens at their slots, zero elsewhere. No slot is used twice."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots)
        return tokens.new_zeros(size, *tokens.shape[1:]).index_copy_(0, slots, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """The reverse."""

    @staticmethod
    def forward(ctx: Any, rectangle: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.shape = rectangle.shape
        return rectangle.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        return grad.new_zeros(ctx.shape).index_copy_(0, ctx.saved_tensors[0], grad), None


@torch.no_grad()
def try_packing(model: Any) -> bool:
    """Let a model compute packed rows, if its results stay what they are; else it is as before."""
    if not getattr(model, "_supports_attention_backend", False):
        return False
    decoder, before = model.base_model, model.config._attn_implementation
    rows = torch.arange(1, 10, device=model.device).view(3, 3) % model.config.vocab_size
    prefix = rows.new_tensor([2, 1])
    whole = torch.cat([prefix.expand(3, -1), rows], dim=1)
    plain = decoder(input_ids=whole, use_cache=False).last_hidden_state[:, 2:]
    layout = layout_of(2, (3, 3, 3), model.device)
    AttentionInterface.register(NAME, attention)
    try:
        model.set_attn_implementation(NAME)
        packed = run_packed(decoder, torch.cat([prefix, rows.flatten()])[None], layout)
        same = (packed[2:].view_as(plain) - plain).abs().max() <= TOLERANCE * plain.abs().max()
    except (TypeError, ValueError, RuntimeError) as error:
        logger.info("samples are padded, not packed: %s", error)
        same = False
    if not same:
        model.set_attn_implementation(before)
    return bool(same)


def run_packed(decoder: Any, input_ids: Tensor, layout: Layout) -> Tensor:
    """(T, d) last hidden states of a packed row."""
    made = decoder(
        input_ids=input_ids, position_ids=layout.position_ids, use_cache=False, packing=layout
    )
    return made.last_hidden_state[0]
