"""The splitter against a plain reading of the standard: any bytes, cut anywhere."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from server.gateway.sse import EventSplitter, payload
from tests.fuzz.cases import fuzzed

PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"data: ", b"data:", b": c", b"event: e", b"{}", b"[DONE]", b"\xe2\x82"]
)
streams = st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join)


def plainly(stream: bytes) -> list[bytes]:
    """The whole events of a stream that is there as a whole."""
    lines = re.sub(rb"\r\n?", b"\n", stream)
    return [event for part in lines.split(b"\n\n")[:-1] if (event := part.strip(b"\n"))]


@fuzzed(200)
@given(streams, st.lists(st.integers(0, 200), max_size=20))
def test_any_cut_gives_the_events_of_the_whole(stream: bytes, cuts: list[int]) -> None:
    splitter = EventSplitter()
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    found: list[bytes] = []
    for start, end in zip(places, places[1:], strict=False):
        found += splitter.feed(stream[start:end])
    assert found == plainly(stream)
    for event in found:
        data = payload(event)
        assert (data is None) == (re.search(rb"(^|\n)data:", event) is None)
