"""Several samples in one row of tokens, without padding, and what they have in common only once.

Everything in a decoder but the attention looks at one token at a time. So a micro-batch is a single
row: first the beginnings that several of its samples share (the *prefixes*), one after the other,
then what each sample has of its own. Linear layers and norms see no padding and no token
twice. The attention alone puts the samples' own tokens into a rectangle, lets them attend to their
prefix and to what came before them, and each prefix to itself (Prefix Grouper, arXiv 2506.05433,
with exact gradients, and for several prompts at a time).

It is registered with transformers as an attention of its own, and the layout of the row travels to
it as an argument of the model's call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from adapters.training.short_attention import MOST_KEYS, ShortAttention, added

NAME = "packed"
# What an attention may be asked for beyond scaled products; none of it is done here.
REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias")
TOLERANCE = 1e-2  # of the largest hidden state, in bfloat16 too

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GroupShape:
    """Of samples with a common prefix: how many tokens they have."""

    prefix: int  # its tokens, 0 for none
    lengths: tuple[int, ...]  # own tokens of each sample


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Where some of a row's tokens are as rows of one length, `longest`, filled up on the right."""

    num_rows: int
    longest: int
    slots: Tensor  # (tokens,) where each is in the flat rectangle


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a row of T tokens. The first `split` belong to prefixes."""

    split: int
    position_ids: Tensor  # (1, T)
    prefixes: Rectangle | None  # None: one prefix, or none
    own: Rectangle  # a row for each sample
    owners: Tensor | None  # (samples,) whose prefix each has, where there are several
    mask: Tensor | None  # what own tokens attend to, for each sample or all; None: one sample


def layout_of(groups: Sequence[GroupShape], device: torch.device) -> Layout:
    """The layout of a row: all groups' prefixes, then all groups' samples."""
    sizes = [group.prefix for group in groups]
    lengths = [length for group in groups for length in group.lengths]
    starts = [group.prefix for group in groups for _ in group.lengths]
    own = _rectangle(lengths, device)
    begins = (range(size) for size in sizes)
    goes_on = (range(at, at + length) for at, length in zip(starts, lengths, strict=True))
    several = len(groups) > 1
    mask = None
    if len(lengths) > 1:
        shared = torch.tensor(starts if several else starts[:1], device=device)
        mask = _mask(shared, max(sizes), own.longest)
    return Layout(
        split=sum(sizes),
        position_ids=torch.tensor([_chained((*begins, *goes_on))], device=device),
        prefixes=_rectangle(sizes, device) if several else None,
        own=own,
        owners=_owners(groups, device) if several else None,
        mask=mask,
    )


def _chained(lists: Iterable[Iterable[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def _owners(groups: Sequence[GroupShape], device: torch.device) -> Tensor:
    owners = [at for at, group in enumerate(groups) for _ in group.lengths]
    return torch.tensor(owners, device=device)


def _rectangle(lengths: Sequence[int], device: torch.device) -> Rectangle:
    longest = max(lengths)
    slots = _chained(
        range(row * longest, row * longest + length) for row, length in enumerate(lengths)
    )
    return Rectangle(len(lengths), longest, torch.tensor(slots, device=device))


def _mask(prefixes: Tensor, widest: int, longest: int) -> Tensor:
    """(n, 1, longest, widest + longest) bool, for samples with n lengths of prefixes: a token
    attends to the prefix, not to what fills it up to the widest, and to what came before it.
    """
    shape = (len(prefixes), longest, widest)
    shared = torch.arange(widest, device=prefixes.device) < prefixes[:, None, None]
    past = torch.ones(longest, longest, dtype=torch.bool, device=prefixes.device).tril()
    return torch.cat([shared.expand(shape), past.expand(shape[0], -1, -1)], dim=-1)[:, None]


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
    parts = [part[0].transpose(0, 1) for part in (query, key, value)]
    sizes = [packing.split, len(parts[0]) - packing.split]
    # Cut once: the gradients of two cuts are joined, those of slices are filled up and added.
    first, own = zip(*(part.split(sizes) for part in parts), strict=True)
    made = _attend_rows(own, first[1:], packing, packing.mask, scaling)
    if packing.split:
        made = torch.cat([_attend_prefixes(first, packing, scaling), made])
    return made[None], None


def _attend_prefixes(parts: Sequence[Tensor], packing: Layout, scaling: float | None) -> Tensor:
    """(split, heads, d) of the prefixes' tokens, from their query, key and value."""
    rectangle = packing.prefixes
    if rectangle is None:
        query, key, value = (part.transpose(0, 1)[None] for part in parts)
        return _causal(query, key, value, scaling)[0].transpose(0, 1)
    query, key, value = (_to_rows(part, rectangle) for part in parts)
    made = _causal(query, key, value, scaling).transpose(1, 2)
    return _Gather.apply(made.flatten(0, 1), rectangle.slots)


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    if not _is_short(query, key):
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
    rows, length = len(query), query.shape[2]
    past = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    heaps = query.reshape(rows, key.shape[1], -1, query.shape[-1])
    return _attend(heaps, key, value, past, scaling).view(query.shape)


def _attend_rows(
    parts: Sequence[Tensor],
    shared: Sequence[Tensor],
    packing: Layout,
    mask: Tensor,
    scaling: float | None,
) -> Tensor:
    """(T - split, heads, d) of the samples' own tokens, from their query, key and value, and key
    and value of the prefixes.

    Query heads that share a key head are laid one after the other as if they were more tokens, so
    that keys and values are not repeated for them.
    """
    num_rows, longest = packing.own.num_rows, packing.own.longest
    query, *keys = parts
    num_kv, depth = keys[0].shape[1], query.shape[-1]
    stacked = query.shape[1] // num_kv
    rows = _to_rows(query, packing.own)
    rows = rows.reshape(num_rows, num_kv, stacked * longest, depth)
    key, value = (
        _all_keys(prefixes, own, packing) for prefixes, own in zip(shared, keys, strict=True)
    )
    made = _attend(rows, key, value, mask, scaling)
    made = made.view(num_rows, num_kv, stacked, longest, depth).permute(0, 3, 1, 2, 4)
    return _Gather.apply(made.reshape(num_rows * longest, -1, depth), packing.own.slots)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None
) -> Tensor:
    """There are so and so many times the mask's queries, one heap after the other."""
    if _is_short(query, key):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return ShortAttention.apply(query, key, value, added(mask, query.dtype), scale)
    times = query.shape[2] // mask.shape[2]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask.repeat(1, 1, times, 1), scale=scaling
    )


def _is_short(query: Tensor, key: Tensor) -> bool:
    """Whether the plain way is faster here, and as exact."""
    return (
        query.device.type == "cpu"
        and key.shape[2] <= MOST_KEYS
        and query.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


def _all_keys(prefixes: Tensor, own: Tensor, packing: Layout) -> Tensor:
    """(samples, kv heads, widest prefix + longest, d) from (tokens, kv heads, d) of both."""
    rows = _to_rows(own, packing.own)
    if not packing.split:
        return rows
    if packing.prefixes is None or packing.owners is None:
        shared = prefixes.transpose(0, 1).expand(len(rows), -1, -1, -1)
    else:
        shared = _to_rows(prefixes, packing.prefixes)[packing.owners]
    return torch.cat([shared, rows], dim=2)


def _to_rows(tokens: Tensor, rectangle: Rectangle) -> Tensor:
    """(rows, heads, longest, d) from (tokens, heads, d)."""
    size = rectangle.num_rows * rectangle.longest
    rows = _Spread.apply(tokens, rectangle.slots, size)
    return rows.view(rectangle.num_rows, rectangle.longest, *rows.shape[1:]).transpose(1, 2)


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
    layout = layout_of([GroupShape(2, (3, 3, 3))], model.device)
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
