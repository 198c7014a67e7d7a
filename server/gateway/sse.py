"""Server-sent events: cuts a stream of bytes into events, whatever the network made of it."""

from __future__ import annotations

from typing import Final

from server.errors import EngineFailed

MAX_EVENT_BYTES: Final = 16 * 2**20
DONE: Final = b"[DONE]"


class EventSplitter:
    """Collects bytes and hands out whole events, without their blank line.

    Lines may end in LF, CRLF or CR, and a chunk may end anywhere, also inside a character or
    between CR and LF. Events come out with LF.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._max_event_bytes = max_event_bytes
        self._ends_in_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes; empty ones are left out.

        Raises:
            EngineFailed: an event is larger than the bound.
        """
        if self._ends_in_cr or b"\r" in chunk:
            chunk = self._unify(chunk)
        searched = max(len(self._buffer) - 1, 0)
        self._buffer += chunk
        if self._buffer.find(b"\n\n", searched) < 0:
            self._check(len(self._buffer))
            return []
        *events, rest = bytes(self._buffer).split(b"\n\n")
        self._buffer = bytearray(rest)
        events = [stripped for event in events if (stripped := event.strip(b"\n"))]
        self._check(max(map(len, [*events, rest])))
        return events

    def _unify(self, chunk: bytes) -> bytes:
        """Turn CRLF and CR into LF; the LF of a CRLF that was cut in two is swallowed."""
        if self._ends_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._ends_in_cr = False
        if chunk:
            self._ends_in_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EngineFailed("The engine sent an event that is too large.")


def payload(event: bytes) -> bytes | None:
    """The data of an event; None for a comment or an event without data."""
    if event.startswith(b"data: ") and event.find(b"\n") < 0:
        return event[6:]
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines) if lines else None


def frame(data: bytes) -> bytes:
    """One event."""
    return b"data: " + data + b"\n\n"
