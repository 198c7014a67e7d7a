"""Log entries as bytes and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.db.log import LogEntry, LoggedAnswer
from server.spool.entries import NotEncodable, decode, encode

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
answers = st.builds(
    LoggedAnswer,
    st.integers(0, 64),
    text,
    st.none() | st.lists(values, max_size=2),
    st.none() | text,
)
numbers = st.none() | st.integers(0, 2**31)
entries = st.builds(
    LogEntry,
    id=text,
    tenant_id=st.integers(1, 2**62),
    route=text,
    prompt=st.lists(values, max_size=3),
    fingerprint=text,
    eligible=st.booleans(),
    reason=st.none() | text,
    params=st.dictionaries(text, values, max_size=3),
    adapter_version=st.integers(0, 2**31),
    stream=st.booleans(),
    status=text,
    prompt_tokens=numbers,
    completion_tokens=numbers,
    latency_ms=st.floats(0, 1e9),
    first_byte_ms=st.none() | st.floats(0, 1e9),
    created_at=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    answers=st.lists(answers, max_size=3).map(tuple),
)


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: LogEntry):
    assert decode(encode(entry)) == entry


@given(entries, st.sampled_from(["\ud800", 2**80, object()]))
def test_a_value_without_a_form_is_refused(entry: LogEntry, value: Any):
    entry.params["x"] = value
    with pytest.raises(NotEncodable):
        encode(entry)


@given(st.binary(max_size=100))
def test_bytes_that_are_no_entry_are_refused(data: bytes):
    with pytest.raises(NotEncodable):
        decode(data)
