"""Rotary embeddings in one step against those as transformers writes them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.train


def plain_way() -> Any:
    """transformers' own function, which loading a model may have replaced."""
    from transformers.models.qwen2 import modeling_qwen2

    from adapters.training.rotary import Fused

    found: Any = modeling_qwen2.apply_rotary_pos_emb
    return found.plain if isinstance(found, Fused) else found


def parts(dtype: Any = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of four heads, keys of two, and angles, for two rows of five tokens."""
    import torch

    dice = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, heads, 5, 8, generator=dice) for heads in (4, 2))
    angles = torch.rand(2, 5, 4, generator=dice).repeat(1, 1, 2) * 6
    query, key, cos, sin = (part.to(dtype) for part in (query, key, angles.cos(), angles.sin()))
    return query, key, cos, sin


def test_values_and_gradients_are_those_of_the_plain_way() -> None:
    import torch

    from adapters.training.rotary import Fused

    plain, (query, key, cos, sin) = plain_way(), parts()
    weights = (torch.randn_like(query), torch.randn_like(key))
    found: list[tuple[Tensor, ...]] = []
    for one in (plain, Fused(plain)):
        leaves = (query.clone().requires_grad_(), key.clone().requires_grad_())
        made = one(*leaves, cos, sin)
        gradients = torch.autograd.grad(made, leaves, weights)
        found.append((*(y.detach() for y in made), *gradients))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_is_that_of_finite_differences() -> None:
    import torch

    from adapters.training.rotary import Rotary

    query, key, cos, sin = parts(torch.float64)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    leaves = (query.requires_grad_(), key.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: Rotary.apply(q, k, cos, sin), leaves)


def test_in_other_dtypes_it_is_as_it_was() -> None:
    import torch

    from adapters.training.rotary import Fused

    plain, asked = plain_way(), parts(torch.bfloat16)
    for ours, theirs in zip(Fused(plain)(*asked), plain(*asked), strict=True):
        assert torch.equal(ours, theirs)


def test_where_only_a_part_of_a_head_is_turned_it_is_as_it_was() -> None:
    import torch
    from transformers.models.glm4_moe.modeling_glm4_moe import apply_rotary_pos_emb

    from adapters.training.rotary import Fused

    query, key, cos, sin = parts()
    cos, sin = cos[..., 2:6], sin[..., 2:6]
    plain: Any = apply_rotary_pos_emb
    for ours, theirs in zip(
        Fused(plain)(query, key, cos, sin), plain(query, key, cos, sin), strict=True
    ):
        assert torch.equal(ours, theirs)


def turned_by_pairs(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """As models do that turn neighbours against each other, not halves."""
    import torch

    def turn(x: Tensor) -> Tensor:
        pairs = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        return x * cos.unsqueeze(1) + pairs * sin.unsqueeze(1)

    return turn(q), turn(k)


def turned_by_positions(q: Tensor, k: Tensor, freqs: Tensor) -> tuple[Tensor, ...]:
    """Called in another way."""
    return q * freqs, k * freqs


@pytest.mark.parametrize("other", [turned_by_pairs, turned_by_positions])
def test_one_that_computes_something_else_is_left_alone(
    other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from adapters.training.rotary import fuse_rotary

    family: Any = ModuleType("family")
    family.apply_rotary_pos_emb = other
    monkeypatch.setitem(sys.modules, "family", family)
    model = type("Model", (torch.nn.Module,), {"__module__": "family"})()
    assert fuse_rotary(model) == 0
    assert family.apply_rotary_pos_emb is other
    family.apply_rotary_pos_emb = plain_way()
    assert fuse_rotary(model) == 1
    assert family.apply_rotary_pos_emb is not plain_way()
    assert fuse_rotary(model) == 1  # once is enough
    assert family.apply_rotary_pos_emb.plain is plain_way()


def test_the_bundled_kind_of_model_has_it(float32_base: Any) -> None:
    from adapters.training.rotary import fuse_rotary

    assert fuse_rotary(float32_base.model) == 1
