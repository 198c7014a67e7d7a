"""Attention over few keys on a CPU: two products of matrices, and a softmax between them.

torch's kernel works through long sequences in blocks, and never holds all probabilities. Where a
hundred keys are all that there is, it takes half as long again as the plain way, forward and
backward together, and the probabilities are smaller than what a layer keeps anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST_KEYS = 128  # from some 200 on torch's kernel is faster


class ShortAttention(torch.autograd.Function):
    """The differentiable part, in the dtype of its inputs."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float
    ) -> Tensor:
        """`query` (n, heads, k L, d), `key` and `value` (n, heads, S, d), `mask` (n or 1, 1, L, S)
        is added to the scores of each L queries.
        """
        n, heads, num_queries, depth = query.shape
        num_keys = key.shape[2]
        scaled, key, value = (
            part.reshape(n * heads, -1, depth) for part in (query * scaling, key, value)
        )
        scores = torch.bmm(scaled, key.transpose(1, 2))
        scores.view(n, -1, mask.shape[2], num_keys).add_(mask)
        shares = scores.softmax(-1)
        ctx.save_for_backward(scaled, key, value, shares)
        ctx.scaling, ctx.shapes = scaling, (query.shape, (n, heads, num_keys, depth))
        return torch.bmm(shares, value).view(n, heads, num_queries, depth)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of query, key and value."""
        scaled, key, value, shares = ctx.saved_tensors
        ours, theirs = ctx.shapes
        grad = grads[0].reshape(scaled.shape)
        grad_value = torch.bmm(shares.transpose(1, 2), grad)
        grad_shares = torch.bmm(grad, value.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
        grad_query = torch.bmm(grad_scores, key).mul_(ctx.scaling)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), scaled)
        return grad_query.view(ours), grad_key.view(theirs), grad_value.view(theirs), None, None


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of what is seen as one to add: 0 there, else minus infinity."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
