"""Does the grouped wrapper compute LoRA on this vLLM? Checked on small random tensors against the
plainest loop, before it is put in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from vllm.lora.layers import LoRAMapping

from adapters.vllm_plugin.grouped import GroupedPunicaWrapper

SLOT_IDS: list[int | None] = [7, None, 9]  # adapter ids by slot; slot 2 is the last: the trap
RANK, NUM_INPUTS, WIDTHS = 4, 6, (5, 3)
BATCHES = {  # adapter ids of the rows; 0 is the base model
    "mixed": (0, 7, 9, 7, 0, 9, 9, 0),
    "one adapter": (9, 9, 9),
    "base only": (0, 0),
    "neighbours": (7, 7, 9, 9, 0),
}


def wrapper_for(ids: Sequence[int], *, is_prefill: bool) -> GroupedPunicaWrapper:
    """A wrapper in the state in which vLLM runs a batch whose rows have these adapters."""
    wrapper = GroupedPunicaWrapper(16, 16, "cpu")
    mapping = LoRAMapping(tuple(ids), tuple(ids), is_prefill=is_prefill)
    wrapper.update_metadata(mapping, SLOT_IDS, len(SLOT_IDS) + 1, 32)
    return wrapper


def reference(
    y: Tensor, x: Tensor, a: Sequence[Tensor], b: Sequence[Tensor], ids: Sequence[int]
) -> Tensor:
    """y plus LoRA, row by row."""
    result = y.clone()
    for row, adapter in enumerate(ids):
        if adapter == 0:
            continue
        slot = SLOT_IDS.index(adapter)
        parts = [x[row] @ a[i][slot, 0].T @ b[i][slot, 0].T for i in range(len(a))]
        result[row] += torch.cat(parts)
    return result


def self_test() -> str | None:
    """What is wrong, or None."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    slots = len(SLOT_IDS)
    a = tuple(random(slots, 1, RANK, NUM_INPUTS) for _ in WIDTHS)
    b = tuple(random(slots, 1, width, RANK) for width in WIDTHS)
    for is_prefill in (True, False):
        for name, ids in BATCHES.items():
            wrapper = wrapper_for(ids, is_prefill=is_prefill)
            x, y = random(len(ids), NUM_INPUTS), random(len(ids), sum(WIDTHS))
            expected = reference(y, x, a, b, ids)
            base = torch.tensor(ids) == 0
            before = y[base].clone()
            wrapper.add_lora_linear(y, x, a, b, 1.0, WIDTHS)
            if not torch.allclose(y, expected, rtol=1e-4, atol=1e-5):
                return f"wrong numbers for a batch ({name}, prefill {is_prefill})"
            if not torch.equal(y[base], before):
                return f"base rows changed in a batch ({name}, prefill {is_prefill})"
    return _reload(a, b, random)


def _reload(
    a: tuple[Tensor, ...], b: tuple[Tensor, ...], random: Callable[..., Tensor]
) -> str | None:
    """Are new weights in an old slot seen, written as vLLM writes them?"""
    ids = BATCHES["one adapter"]
    wrapper = wrapper_for(ids, is_prefill=True)
    x = random(len(ids), NUM_INPUTS)
    slot = SLOT_IDS.index(ids[0])
    for _ in range(2):
        y = random(len(ids), sum(WIDTHS))
        expected = reference(y, x, a, b, ids)
        wrapper.add_lora_linear(y, x, a, b, 1.0, WIDTHS)
        if not torch.allclose(y, expected, rtol=1e-4, atol=1e-5):
            return "wrong numbers after an adapter has taken another's slot"
        with torch.inference_mode():
            b[0][slot] = 0
            b[0][slot, 0, : WIDTHS[0], :RANK].copy_(random(WIDTHS[0], RANK))
    return None
