from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.lora_files import check_config, check_weights
from adapters.manifest import PoisonedAdapter
from tests.adapters.lora import ALPHA, CONFIG, MODULE, RANK, pair, safetensors

WHERE = Path("somewhere")
WHOLE = safetensors(pair())


def _check_weights(content: bytes) -> None:
    check_weights(WHERE, io.BytesIO(content), len(content), rank=RANK)


def _with_header(header: object, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_plain_adapter_passes(dtype: str) -> None:
    _check_weights(safetensors(pair(dtype=dtype)))
    check_config(WHERE, json.dumps(CONFIG).encode(), rank=RANK, alpha=ALPHA)


def test_what_peft_leaves_out_is_plain() -> None:
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}
    check_config(WHERE, json.dumps(config).encode(), rank=RANK, alpha=ALPHA)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("r", RANK + 1),
        ("r", float(RANK)),
        ("r", str(RANK)),
        ("lora_alpha", ALPHA * 2),
        ("bias", "all"),
        ("use_dora", True),
        ("use_rslora", True),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 64}),
        ("alpha_pattern", {"q_proj": 64}),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("init_lora_weights", "pissa"),
    ],
)
def test_any_other_config_is_refused_by_the_field(field: str, value: Any) -> None:
    content = json.dumps({**CONFIG, field: value}).encode()
    with pytest.raises(PoisonedAdapter, match=f"adapter_config.json: {field} is"):
        check_config(WHERE, content, rank=RANK, alpha=ALPHA)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_a_config_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(PoisonedAdapter, match=r"adapter_config\.json: not"):
        check_config(WHERE, content, rank=RANK, alpha=ALPHA)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_weights_that_are_not_finite_are_refused(dtype: str, bad: float) -> None:
    tensors = pair(dtype=dtype)
    tensors[f"{MODULE}.lora_B.weight"][1][3, 2] = bad
    with pytest.raises(PoisonedAdapter, match=r"lora_B\.weight: holds NaN or infinite"):
        _check_weights(safetensors(tensors))


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0x7F81])
def test_bfloat16_weights_that_are_not_finite_are_refused(bits: int) -> None:
    tensors = pair(dtype="BF16")
    tensors[f"{MODULE}.lora_A.weight"][1][0, 0] = bits
    with pytest.raises(PoisonedAdapter, match="NaN or infinite"):
        _check_weights(safetensors(tensors))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(PoisonedAdapter, match=r"adapter_model\.safetensors"):
        _check_weights(WHOLE[:length])


@given(st.binary(max_size=200))
def test_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(PoisonedAdapter):
        _check_weights(content)


def test_bytes_behind_the_data_are_refused() -> None:
    with pytest.raises(PoisonedAdapter, match="bytes of data"):
        _check_weights(WHOLE + b"x")


A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "no tensors"),
        (pair(rank=RANK + 1), "for rank 4"),
        ({A: pair()[A]}, "one of the pair"),
        ({**pair(), "lm_head.weight": pair()[A]}, "not a LoRA weight"),
        ({**pair(), f"{MODULE}.lora_embedding_A": pair()[A]}, "not a LoRA weight"),
        ({A: ("F32", np.zeros(RANK, "<f4")), B: pair()[B]}, "shape"),
        ({A: ("F32", np.zeros((RANK, 0), "<f4")), B: pair()[B]}, "shape"),
        ({A: ("I64", np.zeros((RANK, 6), "<i8")), B: pair()[B]}, "dtype 'I64'"),
        ({A: ("F64", np.zeros((RANK, 6), "<f8")), B: pair()[B]}, "dtype 'F64'"),
    ],
)
def test_tensors_that_are_no_lora_of_the_rank_are_refused(tensors: Any, reason: str) -> None:
    with pytest.raises(PoisonedAdapter, match=reason):
        _check_weights(safetensors(tensors))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack("<Q", 2**63), "header of"),
        (struct.pack("<Q", 100) + b"{}", "header of"),
        (_with_header(b"nope"), "not JSON"),
        (_with_header(b"[" * 100_000), "not JSON"),
        (_with_header([]), "not an object"),
        (_with_header({A: 5}), "no valid shape"),
        (
            _with_header({A: {"dtype": "F32", "shape": [4, 6], "data_offsets": [0]}}),
            "no valid shape",
        ),
        (
            _with_header({A: {"dtype": "F32", "shape": [4, -6], "data_offsets": [0, 96]}}),
            "no valid",
        ),
        (
            _with_header({A: {"dtype": "F32", "shape": [True, 6], "data_offsets": [0, 24]}}),
            "no valid",
        ),
        (_with_header({A: {"dtype": ["F32"], "shape": [4, 6], "data_offsets": [0, 96]}}), "dtype"),
        (
            _with_header({A: {"dtype": "F32", "shape": [4, 6], "data_offsets": [0, 95]}}),
            "do not fit",
        ),
        (
            _with_header({A: {"dtype": "F32", "shape": [4, 6], "data_offsets": [8, 104]}}),
            "do not fit",
        ),
        (
            _with_header(
                {
                    A: {"dtype": "F32", "shape": [4, 6], "data_offsets": [0, 96]},
                    B: {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96]},
                },
                b"\0" * 96,
            ),
            "do not fit",
        ),
        (
            _with_header({A: {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 96]}}),
            "do not fit",
        ),
    ],
)
def test_a_layout_that_lies_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(PoisonedAdapter, match=reason):
        _check_weights(content)
