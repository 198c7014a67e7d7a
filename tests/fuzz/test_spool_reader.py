"""A spool after anything that can happen to its files: no crash, no wrong record, nothing twice
that stands there once.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.spool.entries import NotEncodable, decode, encode
from server.spool.frames import Intact, count, frame, scan
from server.spool.spool import Spool
from tests.fuzz.cases import fuzzed
from tests.server.gateway.test_recorder import entry

RECORDS = [encode(entry(f"q{number}")) for number in range(4)] + [b"", b"\xf5TS1", bytes(20)]
records = st.lists(st.sampled_from(RECORDS), max_size=6)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """What was written, and what stands in the file after some damage that copies nothing."""
    written = draw(records)
    data = bytearray(b"".join(map(frame, written)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "remove", "zero"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=30))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 30))]
        elif how == "zero" and data:
            end = min(len(data), at + draw(st.integers(1, 30)))
            data[at:end] = bytes(end - at)
    return written, bytes(data)


@fuzzed(200)
@given(damaged())
def test_nothing_is_read_that_was_not_written(case: tuple[list[bytes], bytes]) -> None:
    written, data = case
    parts = list(scan(data))
    found = [part.payload for part in parts if isinstance(part, Intact)]
    assert not Counter(found) - Counter(written)
    assert _is_in_order(found, written)
    assert [part.start for part in parts] == [0, *(part.end for part in parts)][: len(parts)]
    assert (parts[-1].end if parts else 0) == len(data)
    assert count(data) >= 0


def _is_in_order(found: list[bytes], written: list[bytes]) -> bool:
    rest = iter(written)
    return all(payload in rest for payload in found)


@fuzzed(8)
@given(st.lists(damaged(), min_size=1, max_size=3), st.integers(1, 4))
def test_a_damaged_directory_is_adopted_and_emptied(
    files: list[tuple[list[bytes], bytes]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as root:
        left = Path(root) / "00000000000000000001-dead"
        left.mkdir()
        for serial, (_, data) in enumerate(files):
            (left / f"{serial:010d}-0.seg").write_bytes(data)
        spool = Spool(Path(root), max_bytes=2**20)
        spool.adopt()
        found: list[bytes] = []
        while (head := spool.head(limit)) is not None:
            found += head.payloads
            spool.done(len(head.payloads))
        assert (spool.num_entries, spool.num_bytes, spool.oldest_at) == (0, 0, None)
        spool.append([b"after"])
        spool.close()
        assert _is_in_order(found, [payload for written, _ in files for payload in written])
        assert not left.exists()


@fuzzed(50)
@given(st.sampled_from(RECORDS[:4]), st.data())
def test_bytes_that_are_almost_an_entry(record: bytes, data: st.DataObject) -> None:
    changed = bytearray(record)
    for _ in range(data.draw(st.integers(1, 5))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(changed))
    except NotEncodable:
        return
    encode(decoded)
