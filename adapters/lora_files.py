"""Whether an adapter's two files hold what an engine may load: a plain LoRA of the agreed rank with
finite weights. Reads the safetensors format itself, because numpy has no bfloat16.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from adapters.manifest import CONFIG_NAME, WEIGHTS_NAME, PoisonedAdapter

MAX_CONFIG_BYTES = 256 * 1024
MAX_HEADER_BYTES = 16 * 2**20
CHUNK_BYTES = 8 * 2**20
# What changes how the weights act, with the values that leave them plain LoRA.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "init_lora_weights": (True, False, "gaussian", None),  # others change the base's weights
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "monteclora_config": (None,),
    "kasa_config": (None,),
    "arrow_config": (None,),
    "velora_config": (None,),
    "megatron_config": (None,),
}
_TENSOR = re.compile(r"(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class _Float:
    """How a dtype is stored: its bits as integers, and the exponent bits that mark NaN and inf."""

    bits: np.dtype[Any]
    exponent: int


_FLOATS = {
    "F32": _Float(np.dtype("<u4"), 0x7F800000),
    "F16": _Float(np.dtype("<u2"), 0x7C00),
    "BF16": _Float(np.dtype("<u2"), 0x7F80),
}


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def check_config(directory: Path, content: bytes, *, rank: int, alpha: int) -> None:
    """Refuse an `adapter_config.json` that is not plain LoRA of this rank and alpha.

    Raises:
        PoisonedAdapter: with the field that is wrong.
    """
    try:
        loaded: object = json.loads(content)
    except (ValueError, RecursionError):
        raise PoisonedAdapter(directory, f"{CONFIG_NAME}: not JSON") from None
    if not isinstance(loaded, dict):
        raise PoisonedAdapter(directory, f"{CONFIG_NAME}: not an object")
    config = cast(dict[str, Any], loaded)
    wanted = {"peft_type": ("LORA",), "r": (rank,), "lora_alpha": (alpha,), **PLAIN}
    for field, allowed in wanted.items():
        value = config.get(field, allowed[0] if field in PLAIN else None)
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise PoisonedAdapter(
                directory, f"{CONFIG_NAME}: {field} is {value!r:.80}, not {allowed[0]!r}"
            )


def check_weights(directory: Path, file: BinaryIO, size: int, *, rank: int) -> None:
    """Refuse a safetensors file that is cut off, overlaps, is not LoRA of this rank, or holds NaN
    or infinite weights.

    Args:
        directory: named in the error.
        file: open for reading, at any position.
        size: its length in bytes.
        rank: rows of each A and columns of each B.

    Raises:
        PoisonedAdapter: with the tensor that is wrong.
    """
    try:
        tensors, data_start = _read_header(file, size)
        _check_layout(tensors, size - data_start)
        _check_pairs(tensors, rank)
        for tensor in tensors:
            _check_finite(file, data_start, tensor)
    except ValueError as error:
        raise PoisonedAdapter(directory, f"{WEIGHTS_NAME}: {error}") from None


def _read_header(file: BinaryIO, size: int) -> tuple[list[_Tensor], int]:
    file.seek(0)
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError("cut off before its header")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    try:
        loaded: object = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON") from None
    if not isinstance(loaded, dict):
        raise ValueError("its header is not an object")
    header = cast(dict[str, object], loaded)
    header.pop("__metadata__", None)
    return [_tensor(name, entry) for name, entry in header.items()], 8 + length


def _tensor(name: str, entry: object) -> _Tensor:
    fields = cast(dict[str, Any], entry) if isinstance(entry, dict) else {}
    shape, offsets = _naturals(fields.get("shape")), _naturals(fields.get("data_offsets"))
    dtype: object = fields.get("dtype")
    if shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"{name:.120}: no valid shape and offsets")
    if not isinstance(dtype, str) or dtype not in _FLOATS:
        raise ValueError(f"{name:.120}: dtype {dtype!r:.40} is not one of {', '.join(_FLOATS)}")
    return _Tensor(name, dtype, shape, offsets[0], offsets[1])


def _naturals(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = tuple(i for i in cast(list[object], value) if type(i) is int and 0 <= i < 2**63)
    return items if len(items) == len(cast(list[object], value)) else None


def _check_layout(tensors: list[_Tensor], data_size: int) -> None:
    """The tensors fill the data exactly, without gaps and overlaps."""
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
        expected = math.prod(tensor.shape) * _FLOATS[tensor.dtype].bits.itemsize
        if tensor.begin != position or tensor.end - tensor.begin != expected:
            raise ValueError(f"{tensor.name:.120}: its bytes do not fit its shape and place")
        position = tensor.end
    if position != data_size:
        raise ValueError(f"{position} bytes of tensors but {data_size} bytes of data")


def _check_pairs(tensors: list[_Tensor], rank: int) -> None:
    """Every tensor is an A (rank, in) or a B (out, rank), and they come in pairs."""
    sides: dict[str, set[str]] = {}
    for tensor in tensors:
        match = _TENSOR.fullmatch(tensor.name)
        if match is None:
            raise ValueError(f"{tensor.name:.120}: not a LoRA weight")
        axis = 0 if match["side"] == "A" else 1
        if len(tensor.shape) != 2 or 0 in tensor.shape or tensor.shape[axis] != rank:
            raise ValueError(
                f"{tensor.name:.120}: shape {list(tensor.shape)!s:.60} for rank {rank}"
            )
        sides.setdefault(match["module"], set()).add(match["side"])
    if not sides:
        raise ValueError("no tensors")
    single = sorted(module for module, found in sides.items() if found != {"A", "B"})
    if single:
        raise ValueError(f"{single[0]:.120}: one of the pair lora_A, lora_B is missing")


def _check_finite(file: BinaryIO, data_start: int, tensor: _Tensor) -> None:
    kind = _FLOATS[tensor.dtype]
    file.seek(data_start + tensor.begin)
    for chunk in _chunks(file, tensor.end - tensor.begin):
        bits = np.frombuffer(chunk, dtype=kind.bits)
        if bool(np.any((bits & kind.exponent) == kind.exponent)):
            raise ValueError(f"{tensor.name:.120}: holds NaN or infinite weights")


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = file.read(min(size, CHUNK_BYTES))
        if len(chunk) < min(size, CHUNK_BYTES):
            raise ValueError("cut off in its data")
        size -= len(chunk)
        yield chunk
