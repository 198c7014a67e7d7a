"""Segments read back after anything that can happen to a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.spool.frames import HEADER_BYTES, MAGIC, Damaged, Intact, count, frame, scan

payloads = st.lists(st.binary(max_size=40) | st.just(MAGIC) | st.builds(frame, st.binary()))


def intact(data: bytes) -> list[bytes]:
    return [part.payload for part in scan(data) if isinstance(part, Intact)]


def damaged(data: bytes) -> list[Damaged]:
    return [part for part in scan(data) if isinstance(part, Damaged)]


@given(payloads)
def test_what_was_written_is_read(written: list[bytes]):
    data = b"".join(map(frame, written))
    assert intact(data) == written
    assert damaged(data) == []
    assert count(data) == len(written)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3))
def test_cut_off_at_every_byte_only_the_last_record_is_torn(written: list[bytes]):
    data = b"".join(map(frame, written))
    ends = [0]
    for payload in written:
        ends.append(ends[-1] + HEADER_BYTES + len(payload))
    for cut in range(len(data) + 1):
        num_whole = sum(end <= cut for end in ends[1:])
        assert intact(data[:cut]) == written[:num_whole]
        torn = [Damaged(ends[num_whole], cut, is_torn=True)] if cut > ends[num_whole] else []
        assert damaged(data[:cut]) == torn


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_costs_one_record(written: list[bytes], data: st.DataObject):
    frames = [frame(payload) for payload in written]
    hit = data.draw(st.integers(0, len(frames) - 1))
    bit = data.draw(st.integers(0, 8 * len(frames[hit]) - 1))
    flipped = bytearray(frames[hit])
    flipped[bit // 8] ^= 1 << bit % 8
    content = b"".join([*frames[:hit], bytes(flipped), *frames[hit + 1 :]])
    start = sum(map(len, frames[:hit]))
    assert intact(content) == written[:hit] + written[hit + 1 :]
    # A whole record that was acknowledged is never taken for a torn one, the last one included.
    assert damaged(content) == [Damaged(start, start + len(frames[hit]), is_torn=False)]


@given(st.binary(max_size=200))
def test_any_bytes_are_accounted_for(data: bytes):
    parts = list(scan(data))
    assert [part.start for part in parts] == [0, *(part.end for part in parts)][: len(parts)]
    assert (parts[-1].end if parts else 0) == len(data)


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_reading_goes_on_behind_garbage(first: bytes, garbage: bytes, last: bytes):
    assert intact(frame(first) + garbage + frame(last)) == [first, last]


def test_zeros_at_the_end_are_torn():
    data = frame(b"a") + bytes(100)
    assert damaged(data) == [Damaged(HEADER_BYTES + 1, len(data), is_torn=True)]


@given(st.text())
def test_no_text_can_be_taken_for_a_frame(text: str):
    assert MAGIC[:1] not in text.encode("utf-8", "surrogatepass")
