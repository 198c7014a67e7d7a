"""The fused LoRA layer against PEFT's own, and against finite differences."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.train


def lora_layer(dtype: Any, *, bias: bool) -> Any:
    """A linear layer as PEFT wraps it, with a pair that is not the identity."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5, bias=bias, dtype=dtype))
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["0"])
    layer: Any = inject_adapter_in_model(config, model).get_submodule("0")
    layer.requires_grad_(False)
    for part in (layer.lora_A, layer.lora_B):
        torch.nn.init.normal_(part["default"].weight.requires_grad_())
    return layer


def outcome(layer: Any, x: Any) -> list[Any]:
    """Output, and gradients of the input and of A and B."""
    import torch

    x = x.clone().requires_grad_()
    pair = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *pair])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 7)])
def test_it_computes_what_peft_computes(bias: bool, shape: tuple[int, ...]) -> None:
    import torch

    from adapters.training.lora_linear import fuse

    layer, x = lora_layer(torch.float32, bias=bias), torch.randn(shape)
    expected = outcome(layer, x)
    fuse(layer, "default")
    for found, wanted in zip(outcome(layer, x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_under_autocast_it_is_as_near_to_the_exact_result_as_peft() -> None:
    import torch

    from adapters.training.lora_linear import fuse

    layer, x = lora_layer(torch.bfloat16, bias=True), torch.randn(6, 7, dtype=torch.bfloat16)
    exact = outcome(lora_layer(torch.bfloat16, bias=True).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        peft = outcome(layer, x)
        fuse(layer, "default")
        fused = outcome(layer, x)
    for ours, theirs, wanted in zip(fused, peft, exact, strict=True):
        assert ours.dtype == theirs.dtype
        scale = wanted.abs().max()
        assert (ours - wanted).abs().max() <= (theirs - wanted).abs().max() + 0.01 * scale


def test_gradients_are_those_of_finite_differences() -> None:
    import torch

    from adapters.training.lora_linear import LoraLinear

    layer = lora_layer(torch.float64, bias=True).double()
    pair = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]

    def apply(x: Any, a: Any, b: Any) -> Any:
        return LoraLinear.apply(x, layer.base_layer.weight, layer.base_layer.bias, a, b, 2.0)

    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(apply, (x, *pair))


def test_without_the_adapter_it_is_the_base_layer() -> None:
    import torch

    from adapters.training.lora_linear import fuse

    layer, x = lora_layer(torch.float32, bias=True), torch.randn(2, 7)
    fuse(layer, "default")
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.base_layer(x))
