"""Whatever the network makes of a stream, the same events come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import EngineFailed
from server.gateway.sse import EventSplitter, frame, payload

LINES = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
    max_size=3,
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    splitter = EventSplitter()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in zip(places, places[1:], strict=False)]
    return [event for piece in pieces for event in splitter.feed(piece)]


@given(st.lists(LINES, max_size=5), ENDS, st.lists(st.integers(min_value=0), max_size=20))
def test_any_chunking_gives_the_same_events(events: list[list[str]], end: str, cuts: list[int]):
    stream = "".join("".join(line + end for line in lines) + end for lines in events).encode()
    assert split(stream, cuts) == ["\n".join(lines).encode() for lines in events]


@given(st.binary(max_size=60), st.lists(st.integers(min_value=0), max_size=60))
def test_chunking_of_noise_changes_nothing(noise: bytes, cuts: list[int]):
    stream = noise.replace(b"a", b"\n").replace(b"b", b"\r")
    assert split(stream, cuts) == split(stream, [])


def test_byte_by_byte():
    stream = 'data: {"a":"é€😀"}\r\n\r\ndata: [DONE]\r\n\r\n'.encode()
    events = split(stream, list(range(len(stream))))
    assert events == ['data: {"a":"é€😀"}'.encode(), b"data: [DONE]"]


def test_an_unfinished_event_is_kept_back():
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: b\n") == [b"data: a"]
    assert splitter.feed(b"\n") == [b"data: b"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n"])
def test_an_event_over_the_bound_is_an_error(chunk: bytes):
    with pytest.raises(EngineFailed):
        EventSplitter(max_event_bytes=64).feed(chunk)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b"data:  x", b" x"),
        (b"data:", b""),
        (b"data: a\ndata: b", b"a\nb"),
        (b"event: e\nid: 1\ndata: a", b"a"),
        (b": keep-alive", None),
        (b"event: ping", None),
    ],
)
def test_payload(event: bytes, data: bytes | None):
    assert payload(event) == data


@given(st.binary().filter(lambda data: b"\n" not in data and b"\r" not in data))
def test_a_framed_payload_comes_back(data: bytes):
    [event] = EventSplitter().feed(frame(data))
    assert payload(event) == data
