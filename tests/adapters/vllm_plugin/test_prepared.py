"""Weights that are kept ready must never be another adapter's."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own imports
]

RANK, NUM_INPUTS, WIDTHS, NUM_SLOTS = 4, 6, (5, 3), 3


def layer() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A and B of all slots of a layer, as vLLM keeps them."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a = tuple(torch.randn(NUM_SLOTS, 1, RANK, NUM_INPUTS, generator=generator) for _ in WIDTHS)
    b = tuple(torch.randn(NUM_SLOTS, 1, width, RANK, generator=generator) for width in WIDTHS)
    return a, b


def test_the_slices_stand_side_by_side() -> None:
    import torch

    from adapters.vllm_plugin.prepared import prepare

    a, b = layer()
    pair = prepare(a, b, 1, torch.float32)
    assert pair is not None
    assert pair.a.shape == (NUM_INPUTS, RANK * len(WIDTHS))
    assert torch.equal(pair.a[:, RANK:], a[1][1, 0].T)
    assert torch.equal(pair.b[1], b[1][1, 0].T)


def test_weights_are_prepared_once() -> None:
    import torch

    from adapters.vllm_plugin.prepared import PreparedWeights

    weights, (a, b) = PreparedWeights(), layer()
    first = weights.pair(a, b, 0, torch.float32)
    assert weights.pair(a, b, 0, torch.float32) is first
    assert weights.pair(a, b, 1, torch.float32) is not first
    other = weights.pair(a, b, 0, torch.bfloat16)
    assert other is not None
    assert other.b[0].dtype == torch.bfloat16


@pytest.mark.parametrize("which", [0, 1], ids=["A", "B"])
@pytest.mark.parametrize("slice_", [0, 1])
def test_a_write_is_seen_under_inference_mode_too(which: int, slice_: int) -> None:
    import torch

    from adapters.vllm_plugin.prepared import PreparedWeights, prepare

    weights, both = PreparedWeights(), layer()
    old = weights.pair(*both, 2, torch.float32)
    with torch.inference_mode():
        target = both[which][slice_]
        target[2, 0, : target.size(2)].copy_(torch.ones(target.shape[2:]))
    new = weights.pair(*both, 2, torch.float32)
    expected = prepare(*both, 2, torch.float32)
    assert old is not None
    assert new is not None
    assert expected is not None
    assert torch.equal(new.a, expected.a)
    assert all(torch.equal(x, y) for x, y in zip(new.b, expected.b, strict=True))
    assert not torch.equal(
        torch.cat([old.a.flatten(), *map(torch.flatten, old.b)]),
        torch.cat([new.a.flatten(), *map(torch.flatten, new.b)]),
    )


def test_an_adapter_that_adds_nothing_is_left_out_until_it_does() -> None:
    import torch

    from adapters.vllm_plugin.prepared import PreparedWeights

    weights, (a, b) = PreparedWeights(), layer()
    for stacked in b:
        stacked[0] = 0
    assert weights.pair(a, b, 0, torch.float32) is None
    b[1][0, 0, 2, 2] = 1e-30
    assert weights.pair(a, b, 0, torch.float32) is not None


def test_weights_whose_writes_are_not_counted_are_not_kept() -> None:
    import torch

    from adapters.vllm_plugin.prepared import PreparedWeights

    weights = PreparedWeights()
    with torch.inference_mode():
        a, b = layer()
        weights.pair(a, b, 0, torch.float32)
        b[0][0] = 7
        pair = weights.pair(a, b, 0, torch.float32)
    assert pair is not None
    assert (pair.b[0] == 7).all()
