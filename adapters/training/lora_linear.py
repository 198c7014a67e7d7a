"""A linear layer with its LoRA pair as one step of the computation: y = x W' + bias + s (x A') B'.

PEFT computes the pair beside the layer, and scales and adds whole outputs afterwards. Here the
additions are part of the matrix products, forward and backward, so nothing of the size of an input
or output is made that is not needed, and nothing is kept for the backward pass but x and x A'. The
numbers are PEFT's up to rounding; W is frozen and gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LoraLinear(torch.autograd.Function):
    """The differentiable part. Under autocast everything is in its dtype, as in its own products;
    gradients of A and B are cast back to theirs by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        """`x` (..., in), `weight` (out, in), `a` (r, in), `b` (out, r)."""
        dtype = _dtype(x)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        weight, a, b = weight.to(dtype), a.to(dtype), b.to(dtype)
        low = flat @ a.t()
        y = flat @ weight.t() if bias is None else torch.addmm(bias.to(dtype), flat, weight.t())
        y.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of `x`, where something before it is trained, and of A and B."""
        flat, low, weight, a, b = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_low, a).view(ctx.shape)
        grad_b = (grad.t() @ low).mul_(ctx.scale)
        return grad_x, None, None, grad_low.t() @ flat, grad_b, None


def fuse(layer: Any, adapter: str) -> None:
    """Let one of PEFT's linear layers compute as above, with one of its adapters or none."""
    a, b, scale = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]
    base = layer.base_layer

    def forward(x: Tensor) -> Tensor:
        if layer.disable_adapters:
            return base(x)
        return LoraLinear.apply(x, base.weight, base.bias, a, b, scale)

    layer.forward = forward


def _dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
