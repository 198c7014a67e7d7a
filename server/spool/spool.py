"""A bounded queue of records on disk, which outlives its process.

Records are added to segment files, each call synced once, and read back in the same order. Only
whole segments are removed, after all their records have been dealt with, so a record may be read
again after a crash: whoever takes records must be able to skip those that it knows.

All methods block on the disk. The object belongs to one thread; `num_entries`, `num_bytes` and
`oldest_at` may be read from others.
"""

from __future__ import annotations

import errno
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.spool.claims import Claim, adopt_claims, make_claim
from server.spool.files import AppendedFile, append_once
from server.spool.frames import frame
from server.spool.segments import (
    DAMAGED,
    REFUSED,
    Reading,
    Segment,
    found_segments,
    kept_bytes,
    new_segment,
    read_segment,
    remove_segment,
    set_aside,
)

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 4 * 2**20  # as much is in memory while it is replayed
PROBE_BYTES: Final = 64 * 2**10
# What a flood of requests does to every file, and says nothing of this one.
PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SpoolFull(Exception):
    """The bound is reached."""


class NotNow(Exception):
    """No file can be read at the moment; what is in the spool stays there."""


@dataclass(frozen=True, slots=True)
class Records:
    """Payloads from the head of the queue; `is_last` when nothing stands behind them."""

    payloads: list[bytes]
    is_last: bool


class Spool:
    """The spool under `root`; `max_bytes` bounds what it holds, what it adopted included."""

    def __init__(self, root: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_entries = 0
        self.num_bytes = 0
        self.num_refused = 0  # records put aside since the start
        self._num_kept_bytes = 0  # in files that wait for somebody to look at them
        self._root = root
        self._segment_bytes = segment_bytes
        self._own: Claim | None = None
        self._segments: deque[Segment] = deque()
        self._file: AppendedFile | None = None  # of the last segment, while it is added to
        self._reading: Reading | None = None  # of the first segment
        self._serial = 0

    @property
    def oldest_at(self) -> int | None:
        """Unix seconds; no record is older."""
        try:
            return self._segments[0].opened_at
        except IndexError:
            return None

    def adopt(self) -> None:
        """Take over what processes that are gone have left.

        Raises:
            OSError: the root cannot be read.
        """
        self._num_kept_bytes = kept_bytes(self._root)
        for claim in adopt_claims(self._root):
            found = found_segments(claim)
            if not found:
                claim.release()
                continue
            num_entries = sum(segment.num_entries for segment in found)
            logger.warning("log spool: adopting %d entries of %s", num_entries, claim.path)
            self._segments += found
            self.num_entries += num_entries
            self.num_bytes += sum(segment.size for segment in found)

    def has_room(self, num_bytes: int) -> bool:
        """Whether so much more is within the bound."""
        return self.num_bytes + self._num_kept_bytes + num_bytes <= self.max_bytes

    def _count_kept(self) -> None:
        """Look what waits for somebody: files come to it, and are removed by hand."""
        with suppress(OSError):  # what was counted before is near enough
            self._num_kept_bytes = kept_bytes(self._root)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add records at the end; they are on disk on return. On an error some may be.

        Raises:
            SpoolFull: there is no room for all of them within the bound.
            OSError: the disk is full or broken; the spool is as before, and may be tried again.
        """
        frames = [frame(payload) for payload in payloads]
        size = sum(map(len, frames))
        if not self.has_room(size):
            self._count_kept()
            if not self.has_room(size):
                raise SpoolFull
        begin = 0
        while begin < len(frames):
            begin += self._append_some(frames[begin:])

    def _append_some(self, frames: Sequence[bytes]) -> int:
        """Add as many as the segment takes, at least one; how many."""
        file = self._open_segment()
        room = self._segment_bytes - file.size
        num = size = 0
        while num < len(frames) and (not num or size + len(frames[num]) <= room):
            size += len(frames[num])
            num += 1
        segment = self._segments[-1]
        try:
            file.append(b"".join(frames[:num]))
        except OSError:
            self._seal()
            if not segment.num_entries:
                self._drop_empty(segment)
            raise
        segment.num_entries += num
        segment.size += size
        self.num_entries += num
        self.num_bytes += size
        if file.size >= self._segment_bytes:
            self._seal()
        return num

    def _open_segment(self) -> AppendedFile:
        if self._file is None:
            if self._own is None:
                self._own = make_claim(self._root)
            self._serial += 1
            segment = new_segment(self._own, self._serial)
            self._file = AppendedFile(segment.path)
            self._segments.append(segment)
        return self._file

    def _seal(self) -> None:
        """Let the next record begin a new segment."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _drop_empty(self, segment: Segment) -> None:
        self._segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink()

    def head(self, limit: int) -> Records | None:
        """The first records, at most `limit`; None when there are none. They stay until `done`.

        Raises:
            NotNow: too many files are open, or there is no memory; it may be tried again.
        """
        self._count_kept()  # whoever waits for room asks for the head again and again
        while self._segments:
            reading = self._read()
            end = reading.done + limit
            if reading.done < len(reading.payloads):
                is_last = len(self._segments) == 1 and end >= len(reading.payloads)
                return Records(reading.payloads[reading.done : end], is_last)
            self._remove_first()
        return None

    def _read(self) -> Reading:
        if self._reading is None:
            segment = self._segments[0]
            if len(self._segments) == 1:
                self._seal()
            try:
                payloads = read_segment(segment, self._aside(segment, DAMAGED))
            except OSError as error:
                logger.error("log spool: %s cannot be read: %s", segment.path, error)
                if error.errno in PASSING:
                    raise NotNow from error
                payloads, segment.must_stay = [], True
            self.num_entries += len(payloads) - segment.num_entries
            segment.num_entries = len(payloads)
            self._reading = Reading(segment, payloads)
        return self._reading

    def done(self, num: int) -> None:
        """The first `num` records are stored elsewhere: forget them."""
        assert self._reading is not None
        self._reading.done += num
        self._reading.segment.num_entries -= num
        self.num_entries -= num
        if self._reading.done >= len(self._reading.payloads):
            self._remove_first()

    def put_aside(self, reason: str) -> None:
        """Keep the first record in a file of its own kind, and go on without it."""
        assert self._reading is not None
        reading = self._reading
        data = frame(reading.payloads[reading.done])
        set_aside(reading.segment, self._aside(reading.segment, REFUSED), data, reason)
        self.num_refused += 1
        self._num_kept_bytes += len(data)
        self.done(1)

    def _aside(self, segment: Segment, kind: str) -> Path:
        return self._root / f"{segment.claim.path.name}{kind}"

    def _remove_first(self) -> None:
        segment = self._segments.popleft()
        self._reading = None
        self.num_entries -= segment.num_entries
        self.num_bytes -= segment.size
        try:
            remove_segment(segment)
        except OSError as error:  # it is read again after a restart, which hurts nobody
            logger.error("log spool: %s cannot be removed: %s", segment.path, error)
        self._count_kept()  # it may be in there, whole or in part
        is_adopted = segment.claim is not self._own
        if is_adopted and all(one.claim is not segment.claim for one in self._segments):
            segment.claim.release()

    def probe(self) -> bool:
        """Whether the disk takes anything at all: tried out with a file that is removed again."""
        path = self._root / f"{secrets.token_hex(8)}.probe"
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            append_once(path, bytes(PROBE_BYTES))
        except OSError:
            return False
        finally:
            with suppress(OSError):
                path.unlink()
        return True

    def close(self) -> None:
        """Leave what is left to the process that starts next."""
        self._seal()
        claims = {id(segment.claim): segment.claim for segment in self._segments}
        if self._own is not None:
            claims[id(self._own)] = self._own
        for claim in claims.values():
            claim.release()
