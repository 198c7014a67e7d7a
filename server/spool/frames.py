"""How entries stand in a segment file: frames, one after the other.

A frame is a header and a payload. The header is the magic number, the payload's length, the
payload's CRC-32, and the CRC-32 of those twelve bytes: a length that can be trusted tells a record
that was being written when the machine stopped from one that was damaged later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final
from zlib import crc32

# 0xF5 is in no UTF-8 text: nothing that a client wrote can be taken for the start of a frame.
MAGIC: Final = b"\xf5TS1"
_CHECKED: Final = Struct("<4sII")
_HEADER: Final = Struct("<4sIII")
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Intact:
    """A frame that is as it was written; `start` and `end` are offsets in the file."""

    start: int
    end: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no frame. Torn: the end of a file, of which less was written than meant."""

    start: int
    end: int
    is_torn: bool


def frame(payload: bytes) -> bytes:
    """The payload with its header."""
    checked = _CHECKED.pack(MAGIC, len(payload), crc32(payload))
    return checked + crc32(checked).to_bytes(4, "little") + payload


def scan(data: bytes) -> Iterator[Intact | Damaged]:
    """Every byte of a segment, in order: frames, and what stands between them."""
    at = 0
    while at < len(data):
        found = _intact(data, at)
        if found is None:
            end = _next_intact(data, at + 1)
            is_torn = end == len(data) and _is_torn(data, at)
            yield Damaged(at, end, is_torn)
            at = end
        else:
            yield found
            at = found.end


def count(data: bytes) -> int:
    """How many frames a segment seems to hold, by its headers alone."""
    at = num = 0
    while (length := _length(data, at)) is not None and at + HEADER_BYTES + length <= len(data):
        at += HEADER_BYTES + length
        num += 1
    return num


def _length(data: bytes, at: int) -> int | None:
    """The payload's length, if a header that can be trusted stands here."""
    if at + HEADER_BYTES > len(data):
        return None
    magic, length, _, checksum = _HEADER.unpack_from(data, at)
    if magic != MAGIC or checksum != crc32(data[at : at + _CHECKED.size]):
        return None
    return length


def _intact(data: bytes, at: int) -> Intact | None:
    length = _length(data, at)
    if length is None or at + HEADER_BYTES + length > len(data):
        return None
    payload = data[at + HEADER_BYTES : at + HEADER_BYTES + length]
    checksum = int.from_bytes(data[at + 8 : at + 12], "little")
    if crc32(payload) != checksum:
        return None
    return Intact(at, at + HEADER_BYTES + length, payload)


def _next_intact(data: bytes, start: int) -> int:
    """Where the next frame begins; the file's end where there is none."""
    at = data.find(MAGIC, start)
    while at >= 0:
        if _intact(data, at) is not None:
            return at
        at = data.find(MAGIC, at + 1)
    return len(data)


def _is_torn(data: bytes, at: int) -> bool:
    """Whether the file ends inside a frame, or in the zeros that some file systems leave."""
    length = _length(data, at)
    if length is not None:
        return at + HEADER_BYTES + length > len(data)
    return len(data) - at < HEADER_BYTES or not any(data[at:])
