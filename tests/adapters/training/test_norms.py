"""Norms in one step against norms as transformers writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.train


def norm(size: int = 24) -> Any:
    """As in a model, with a weight that is not one."""
    import torch
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    made: Any = Qwen2RMSNorm(size, eps=1e-3)
    made.weight.data = torch.linspace(-1, 2, size)
    return made.requires_grad_(False)


def test_values_and_gradients_are_those_of_the_plain_way() -> None:
    import torch

    from adapters.training.norms import fuse_norms

    plain, fused = norm(), norm()
    assert fuse_norms(torch.nn.Sequential(fused)) == 1
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)) * 3
    x[0, 0] = 0.0
    weights = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
    found: list[tuple[Tensor, Tensor]] = []
    for one in (plain, fused):
        leaf = x.clone().requires_grad_()
        y = one(leaf)
        (gradient,) = torch.autograd.grad((y * weights).sum(), leaf)
        found.append((y.detach(), gradient))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_is_that_of_finite_differences() -> None:
    import torch

    from adapters.training.norms import RmsNorm

    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight, 1e-3), (x,))


def test_in_other_dtypes_norms_are_as_they_were() -> None:
    import torch

    from adapters.training.norms import fuse_norms

    plain, fused = norm().bfloat16(), norm().bfloat16()
    fuse_norms(torch.nn.Sequential(fused))
    x = torch.randn(4, 24).bfloat16()
    assert torch.equal(fused(x), plain(x))


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    import torch

    from adapters.training.norms import fuse_norms

    odd = norm()
    forward = odd.forward
    odd.forward = lambda x: forward(x) + x  # as those whose weight is kept as the part over one
    assert fuse_norms(torch.nn.Sequential(odd)) == 0
    x = torch.randn(4, 24)
    assert torch.equal(odd(x), forward(x) + x)


def test_the_norms_of_the_bundled_kind_of_model_are_fused(float32_base: Any) -> None:
    layer = float32_base.model.base_model.layers[0]
    assert "forward" in vars(layer.input_layernorm)
