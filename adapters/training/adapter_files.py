"""An adapter on disk: PEFT's two files, and the optimizer's state beside them.

Tensor names are PEFT's (`base_model.model.<layer>.lora_A.weight`), in both. Nothing is pickled.
Folders appear whole: written next to their place, synced, and renamed into it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.training.base_model import LinearShape

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
STATE_FILE = "state.safetensors"


def tensor_name(linear: str, part: str) -> str:
    """PEFT's name of a LoRA matrix; `part` is `lora_A` or `lora_B`."""
    return f"base_model.model.{linear}.{part}.weight"


def tensor_shapes(linears: Iterable[LinearShape], rank: int) -> dict[str, tuple[int, int]]:
    """Name -> shape of all tensors of an adapter: A is (rank, inputs), B is (outputs, rank)."""
    shapes: dict[str, tuple[int, int]] = {}
    for linear in linears:
        shapes[tensor_name(linear.name, "lora_A")] = (rank, linear.num_inputs)
        shapes[tensor_name(linear.name, "lora_B")] = (linear.num_outputs, rank)
    return shapes


def identity_tensors(linears: Iterable[LinearShape], rank: int, seed: int) -> dict[str, Tensor]:
    """An adapter that changes nothing (B = 0), ready to be trained (A uniform, as in PEFT)."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in tensor_shapes(linears, rank).items():
        tensors[name] = torch.zeros(shape)
        if "lora_A" in name:
            torch.nn.init.kaiming_uniform_(tensors[name], a=math.sqrt(5), generator=generator)
    return tensors


def lora_config(linears: Iterable[LinearShape], rank: int, alpha: int) -> LoraConfig:
    """PEFT's configuration of our adapters: all linear layers, no bias, no dropout."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted({linear.name.rpartition(".")[2] for linear in linears}),
        task_type="CAUSAL_LM",
        inference_mode=False,
    )


def write_adapter(folder: Path, config: LoraConfig, tensors: Mapping[str, Tensor]) -> list[Path]:
    """Write what vLLM and PEFT load; a folder that is there already is replaced."""
    settings = config.to_dict()
    settings["inference_mode"] = True
    settings["target_modules"] = sorted(settings["target_modules"])

    def fill(place: Path) -> None:
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (place / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        _write_tensors(place / ADAPTER_WEIGHTS, tensors)

    return _write_folder(folder, fill)


def read_adapter(
    folder: Path, linears: Iterable[LinearShape], rank: int, alpha: int
) -> dict[str, Tensor]:
    """The adapter's tensors as stored. Raises ValueError where it is not one of this rank, alpha
    and base model, or holds numbers that are not finite; OSError if it cannot be read.
    """
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder} does not hold a LoRA adapter")
    found = (settings.get("r"), settings.get("lora_alpha"))
    if found != (rank, alpha):
        raise ValueError(f"{folder} has (rank, alpha) {found}, not {(rank, alpha)}")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    check_tensors(tensors, tensor_shapes(linears, rank), folder)
    return tensors


def check_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Raises ValueError unless names and shapes are exactly these and all numbers are finite."""
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise ValueError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}")
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(f"{folder} has {len(extra)} unknown tensors, the first is {extra[0]}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{folder}: {name} is {tuple(tensors[name].shape)}, not {shape}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ValueError(f"{folder}: {name} holds numbers that are not finite")


def write_state(folder: Path, tensors: Mapping[str, Tensor]) -> list[Path]:
    """Write an optimizer's state; a folder that is there already is replaced."""
    return _write_folder(folder, lambda place: _write_tensors(place / STATE_FILE, tensors))


def read_state(folder: Path) -> dict[str, Tensor]:
    """What `write_state` wrote."""
    return load_file(folder / STATE_FILE)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it 0600, and the engine may be another user


def _write_folder(folder: Path, fill: Callable[[Path], Any]) -> list[Path]:
    """Fill a new folder, sync it, and rename it to `folder`. Returns the final paths."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid4().hex}.new")
    old = fresh.with_suffix(".old")
    fresh.mkdir()
    try:
        fill(fresh)
        names = sorted(path.name for path in fresh.iterdir())
        for path in [*(fresh / name for name in names), fresh]:
            _sync(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return [folder / name for name in names]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
