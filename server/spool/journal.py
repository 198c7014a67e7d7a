"""The log's journal: records that are on disk before they are in the database.

Segment files like the spool's, in a directory of its own beside the spool's. A record is forgotten
once it is stored elsewhere, and a segment is removed with its last record; nothing is ever read
here. What is left when a process dies is adopted by the next one and replayed as any spool is, so
records that the database had already are read again, and skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from server.spool.claims import Claim, make_claim
from server.spool.files import AppendedFile
from server.spool.frames import frame
from server.spool.segments import Segment, new_segment, remove_segment
from server.spool.spool import SpoolFull

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 2**20  # what a crash lets the next process read again
MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Kept:
    """A record in the journal."""

    journal: Journal
    segment: Segment

    def forget(self) -> None:
        """It is stored elsewhere, or never will be."""
        self.journal.forget(self.segment)


class Journal:
    """The journal under `root`. Its methods block on the disk, and may be called from any thread.

    `max_bytes` bounds its files: those whose records are all forgotten are gone.
    """

    def __init__(
        self, root: Path, *, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._writing = Lock()  # held while the disk works
        self._books = Lock()  # never: whoever forgets a record waits for nobody's disk
        self._claim: Claim | None = None
        self._is_closed = False
        self._num_bytes = 0
        self._file: AppendedFile | None = None  # of `_last`, while it is added to
        self._last: Segment | None = None
        self._serial = 0

    @property
    def num_bytes(self) -> int:
        """What its files take on disk."""
        return self._num_bytes

    def open(self) -> None:
        """Take a directory. What others have left was adopted before, so it is older than this.

        Raises:
            OSError: none can be made now; the next record tries again.
        """
        self._claim = make_claim(self._root)

    def append(self, payloads: Sequence[bytes]) -> list[Kept]:
        """Add records; they are on disk on return.

        Raises:
            SpoolFull: there is no room within the bound.
            OSError: the disk is full or broken; on disk they may be all the same, which is as if
                the process had died before they were answered.
        """
        data = b"".join(map(frame, payloads))
        if self._num_bytes + len(data) > self._max_bytes:
            raise SpoolFull
        with self._writing:
            file, segment = self._open_segment()
            try:
                file.append(data)
            except OSError:
                self._seal()
                raise
            with self._books:
                segment.num_entries += len(payloads)
                segment.size += len(data)
                self._num_bytes += len(data)
            if segment.size >= self._segment_bytes:
                self._seal()
        return [Kept(self, segment)] * len(payloads)

    def forget(self, segment: Segment) -> None:
        """One of the segment's records is not needed any more."""
        with self._books:
            segment.num_entries -= 1
            if segment is not self._last:
                self._remove_if_done(segment)

    def close(self) -> None:
        """Remove what is not needed; leave the rest to the process that starts next."""
        with self._writing:
            self._is_closed = True
            self._seal()
            if self._claim is not None:
                self._claim.release()
                self._claim = None

    def _open_segment(self) -> tuple[AppendedFile, Segment]:
        if self._file is None or self._last is None:
            if self._is_closed:
                raise OSError("the journal is closed")
            if self._claim is None:
                self.open()
                assert self._claim is not None
            self._serial += 1
            self._last = new_segment(self._claim, self._serial)
            self._file = AppendedFile(self._last.path)
        return self._file, self._last

    def _seal(self) -> None:
        """Let the next record begin a new segment."""
        if self._file is not None:
            self._file.close()
            self._file = None
        with self._books:
            segment, self._last = self._last, None
            if segment is not None:
                self._remove_if_done(segment)

    def _remove_if_done(self, segment: Segment) -> None:
        if segment.num_entries:
            return
        self._num_bytes -= segment.size
        try:
            remove_segment(segment)
        except OSError as error:  # its records are read again after a restart, and skipped
            logger.error("log journal: %s cannot be removed: %s", segment.path, error)
