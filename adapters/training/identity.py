"""Version 0 of every adapter: one that changes nothing, so that all traffic is on LoRA slots."""

from __future__ import annotations

from pathlib import Path

from adapters.training.adapter_files import (
    ADAPTER_CONFIG,
    identity_tensors,
    lora_config,
    read_adapter,
    write_adapter,
)
from adapters.training.base_model import shapes_without_weights


def ensure_identity(model: str, *, rank: int, alpha: int, folder: Path) -> None:
    """Write an identity adapter in PEFT's format, whole or not at all.

    An adapter that is there already stays as it is (versions are immutable); ValueError if it is
    of another rank, alpha or base model, or not an identity.
    """
    linears = shapes_without_weights(model)
    if (folder / ADAPTER_CONFIG).exists():
        tensors = read_adapter(folder, linears, rank, alpha)
        if any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name):
            raise ValueError(f"{folder} holds an adapter that is not the identity")
        return
    tensors = identity_tensors(linears, rank, seed=0)
    write_adapter(folder, lora_config(linears, rank, alpha), tensors)
