"""Makes adapter directories as PEFT writes them, without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RANK, ALPHA = 4, 8
CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "demo/model",
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj"],
    "modules_to_save": None,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "init_lora_weights": True,
}
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = Mapping[str, tuple[str, np.ndarray[Any, Any]]]


def pair(rank: int = RANK, dtype: str = "F32", module: str = MODULE) -> dict[str, Any]:
    """The A (rank, 6) and B (5, rank) of one module; BF16 is given by its bits."""
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    a = np.arange(rank * 6).reshape(rank, 6).astype(kinds[dtype])
    b = np.zeros((5, rank), dtype=kinds[dtype])
    return {f"{module}.lora_A.weight": (dtype, a), f"{module}.lora_B.weight": (dtype, b)}


def safetensors(tensors: Tensors) -> bytes:
    """The file format: header length, JSON header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, values) in tensors.items():
        content = values.tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += content
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def write_adapter(
    directory: Path, *, config: Mapping[str, Any] | None = None, weights: bytes | None = None
) -> Path:
    """An adapter directory, whole unless something else is asked for."""
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    content = safetensors(pair()) if weights is None else weights
    (directory / "adapter_model.safetensors").write_bytes(content)
    return directory
