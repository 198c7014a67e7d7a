"""The grouped LoRA operations against the shipped ones, and against no LoRA at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of vLLM's own imports
]

SLOT_IDS: list[int | None] = [11, 12, 13]
RANK, NUM_INPUTS, WIDTHS, VOCABULARY = 8, 24, (16, 8, 8), 40
ADAPTERS_ONLY = (11, 13, 11, 12, 13, 13, 12)
MIXED = (0, 13, 0, 11, 11, 0, 13)
BASE_ROWS = [0, 2, 5]


def wrapper(kind: str, ids: Sequence[int], *, is_prefill: bool) -> Any:
    """A LoRA wrapper of vLLM in the state in which a batch of these adapters is run."""
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from adapters.vllm_plugin.grouped import GroupedPunicaWrapper

    made = {"shipped": PunicaWrapperCPU, "grouped": GroupedPunicaWrapper}[kind](32, 32, "cpu")
    mapping = LoRAMapping(tuple(ids), tuple(ids), is_prefill=is_prefill)
    made.update_metadata(mapping, SLOT_IDS, len(SLOT_IDS) + 1, VOCABULARY)
    return made


def random(*shape: int, dtype: Any = None, seed: int = 0) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def linear_weights(dtype: Any) -> dict[str, Any]:
    slots = len(SLOT_IDS)
    return {
        "lora_a_stacked": tuple(
            random(slots, 1, RANK, NUM_INPUTS, dtype=dtype, seed=i) for i in range(len(WIDTHS))
        ),
        "lora_b_stacked": tuple(
            random(slots, 1, width, RANK, dtype=dtype, seed=9 + i) for i, width in enumerate(WIDTHS)
        ),
        "scale": 1.0,
        "output_slices": WIDTHS,
    }


def linear(kind: str, ids: Sequence[int], *, is_prefill: bool, dtype: Any) -> Any:
    y = random(len(ids), sum(WIDTHS), dtype=dtype, seed=5)
    x = random(len(ids), NUM_INPUTS, dtype=dtype, seed=6)
    wrapper(kind, ids, is_prefill=is_prefill).add_lora_linear(y, x, **linear_weights(dtype))
    return y


@pytest.mark.parametrize("is_prefill", [True, False], ids=["prefill", "decode"])
@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
@pytest.mark.parametrize("ids", [ADAPTERS_ONLY, (12, 12), (13,)], ids=["three", "one", "one row"])
def test_adapter_rows_get_what_the_shipped_operations_give(
    ids: Sequence[int], dtype_name: str, is_prefill: bool
) -> None:
    import torch

    dtype = getattr(torch, dtype_name)
    found = linear("grouped", ids, is_prefill=is_prefill, dtype=dtype)
    expected = linear("shipped", ids, is_prefill=is_prefill, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * 5)


@pytest.mark.parametrize("is_prefill", [True, False], ids=["prefill", "decode"])
def test_base_rows_in_a_mixed_batch_are_left_alone(is_prefill: bool) -> None:
    import torch

    found = linear("grouped", MIXED, is_prefill=is_prefill, dtype=torch.float32)
    untouched = random(len(MIXED), sum(WIDTHS), seed=5)
    alone = linear("grouped", [i or 12 for i in MIXED], is_prefill=is_prefill, dtype=torch.float32)
    assert torch.equal(found[BASE_ROWS], untouched[BASE_ROWS])
    others = [row for row in range(len(MIXED)) if row not in BASE_ROWS]
    torch.testing.assert_close(found[others], alone[others])


def test_the_metadata_of_the_last_batch_counts() -> None:
    import torch
    from vllm.lora.layers import LoRAMapping

    made = wrapper("grouped", MIXED, is_prefill=True)
    made.update_metadata(LoRAMapping((0, 0), (0, 0), is_prefill=False), SLOT_IDS, 4, VOCABULARY)
    y = random(2, sum(WIDTHS))
    before = y.clone()
    made.add_lora_linear(y, random(2, NUM_INPUTS), **linear_weights(torch.float32))
    assert torch.equal(y, before)


def logits(kind: str, ids: Sequence[int]) -> Any:
    a = random(len(SLOT_IDS), 1, RANK, NUM_INPUTS, seed=1)
    b = random(len(SLOT_IDS), 1, VOCABULARY + 8, RANK, seed=2)  # padded, as vLLM does
    y = random(len(ids), VOCABULARY, seed=5)
    x = random(len(ids), NUM_INPUTS, seed=6)
    wrapper(kind, ids, is_prefill=False).add_lora_logits(y, x, a, b, 1.0)
    return y


def embedding(kind: str, ids: Sequence[int]) -> Any:
    b = random(len(SLOT_IDS), 1, NUM_INPUTS, RANK, seed=2)
    y = random(len(ids), NUM_INPUTS, seed=5)
    x = random(len(ids), RANK, seed=6)
    wrapper(kind, ids, is_prefill=True).add_lora_embedding(y, x, b, add_input=True)
    return y


def shrink_then_expand(kind: str, ids: Sequence[int]) -> Any:
    import torch

    weights = linear_weights(torch.float32)
    made = wrapper(kind, ids, is_prefill=True)
    buffers = torch.zeros(len(WIDTHS), len(ids), RANK)
    made.add_shrink(buffers, random(len(ids), NUM_INPUTS, seed=6), weights["lora_a_stacked"], 0.5)
    y = random(len(ids), sum(WIDTHS) + 3, seed=5)
    made.add_expand(y, buffers, weights["lora_b_stacked"], WIDTHS, offset_start=3)
    return y


def full_linear(kind: str, ids: Sequence[int]) -> Any:
    import torch

    slots = len(SLOT_IDS)
    y = random(len(ids), 4, seed=5)
    wrapper(kind, ids, is_prefill=False).apply_lora_full_linear(
        y,
        random(len(ids), NUM_INPUTS, seed=6),
        random(slots, 4, NUM_INPUTS, seed=1),
        random(slots, 4, seed=2),
        torch.tensor([True, False, True]),
    )
    return y


PATHS = [logits, embedding, shrink_then_expand, full_linear]


@pytest.mark.parametrize("path", PATHS)
def test_the_other_paths_give_what_the_shipped_ones_give(path: Any) -> None:
    import torch

    found, expected = path("grouped", ADAPTERS_ONLY), path("shipped", ADAPTERS_ONLY)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("path", PATHS)
def test_the_other_paths_leave_base_rows_alone(path: Any) -> None:
    import torch

    mixed, base = path("grouped", MIXED), path("grouped", [0] * len(MIXED))
    assert torch.equal(mixed[BASE_ROWS], base[BASE_ROWS])
    assert not torch.equal(mixed, base)
