"""Rotary position embeddings (arXiv 2104.09864) as one step of the computation.

Each half of a head's numbers is turned against the other: y = (a cos - b sin, b cos + a sin). As
transformers writes it, halves are cut, negated, joined, multiplied and added, and for the backward
pass cut, filled up with zeros and added again. Here it is three products into one result, and the
backward pass is the same with the angle turned round: half of the time. The numbers are the same up
to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NAME = "apply_rotary_pos_emb"  # what transformers calls it in each model's module
TOLERANCE = 1e-5

Pair = tuple[Tensor, Tensor]
Apply = Callable[..., Pair]


class Rotary(torch.autograd.Function):
    """The differentiable part, for queries and keys (..., heads, T, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Pair:
        """`cos` and `sin` (..., 1, T, d), the second half of each as the first."""
        ctx.save_for_backward(cos, sin)
        return _turn(query, cos, sin), _turn(key, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of query and key."""
        cos, sin = ctx.saved_tensors
        return (*(_turn(grad, cos, sin, back=True) for grad in grads), None, None)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> Tensor:
    half = x.shape[-1] // 2
    y = x * cos
    way = -1 if back else 1
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-way)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=way)
    return y


@dataclass(frozen=True, slots=True)
class Fused:
    """What stands in the place of transformers' function: `plain`, where it is not for float32."""

    plain: Apply

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **asked: Any
    ) -> Pair:
        """As transformers calls it: `q` and `k` (n, heads, T, d), `cos` and `sin` (n, T, d)."""
        parts = (q, k, cos, sin)
        is_whole = cos.shape[-1] == q.shape[-1]  # some families turn a part of each head
        if args or asked or not is_whole or any(part.dtype != torch.float32 for part in parts):
            return self.plain(q, k, cos, sin, *args, **asked)
        return Rotary.apply(q, k, cos.unsqueeze(1), sin.unsqueeze(1))


def fuse_rotary(model: Any) -> int:
    """Let a model's attention compute as above where that gives what it gives, and say in how many
    of transformers' modules that is so. Other models of the same family in this process share it.
    """
    names = {type(module).__module__ for module in model.modules()}
    return sum(_fuse(sys.modules[name]) for name in sorted(names))


def _fuse(module: Any) -> bool:
    plain: Apply | None = getattr(module, NAME, None)
    if plain is None or isinstance(plain, Fused):
        return plain is not None
    fused = Fused(plain)
    if not _agree(fused, plain):
        return False
    setattr(module, NAME, fused)
    return True


@torch.no_grad()
def _agree(fused: Apply, plain: Apply) -> bool:
    angles = torch.linspace(0, 3, 5)[None, :, None] * torch.linspace(1, 0.1, 4)
    angles = torch.cat([angles, angles], dim=-1)
    query, key = (
        torch.linspace(-1, 2, 80).view(1, 2, 5, 8),
        torch.linspace(3, -2, 40).view(1, 1, 5, 8),
    )
    try:
        theirs = plain(query, key, angles.cos(), angles.sin())
    except (TypeError, RuntimeError, ValueError, IndexError):
        return False  # called in another way
    ours = fused(query, key, angles.cos(), angles.sin())
    return all(
        mine.shape == other.shape and torch.allclose(mine, other, rtol=TOLERANCE, atol=TOLERANCE)
        for mine, other in zip(ours, theirs, strict=True)
    )
