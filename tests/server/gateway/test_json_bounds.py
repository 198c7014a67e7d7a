"""Bodies that are refused whatever their fields mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest
from server.gateway.json_bounds import LARGEST, MAX_DEPTH, SMALLEST, check_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    # Long runs of digits and brackets in texts are what a glance cannot tell from the real ones.
    | st.text(alphabet='[]{}"\\0123456789', max_size=150)
    | st.integers(min_value=-(2**70), max_value=2**70),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)  # fmt: skip


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def integers(value: Any) -> list[int]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for some in inner for number in integers(some)]
    return [value] if isinstance(value, int) else []


def is_refused(body: bytes) -> bool:
    try:
        check_json(body)
    except BadRequest:
        return True
    return False


@given(VALUES, st.sampled_from([0, MAX_DEPTH - 5, MAX_DEPTH + 1]))
def test_exactly_what_is_out_of_bounds_is_refused(value: Any, around: int) -> None:
    for _ in range(around):
        value = [value]
    is_bad = depth(value) > MAX_DEPTH or any(not SMALLEST <= n <= LARGEST for n in integers(value))
    assert is_refused(json.dumps(value).encode()) == is_bad


@pytest.mark.parametrize("number", [SMALLEST, LARGEST])
def test_the_largest_integers_pass(number: int) -> None:
    check_json(b'{"a": %d}' % number)


def test_a_long_body_of_shallow_values_passes() -> None:
    check_json(json.dumps([{"a": [1, "[" * 500]}] * 1000).encode())


def test_digits_that_are_no_integer_pass() -> None:
    check_json(b'{"a": 0.12345678901234567890123, "b": 1e0000000000000000000000001}')
