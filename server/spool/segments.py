"""Segment files of the spool: made, counted, read and removed."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.spool.claims import Claim
from server.spool.files import append_once
from server.spool.frames import Intact, count, scan

logger = logging.getLogger(__name__)

SUFFIX: Final = ".seg"
REFUSED, DAMAGED, KEPT = ".refused", ".damaged", ".kept"  # files for somebody to look at


@dataclass(eq=False, slots=True)
class Segment:
    """One file of records. `opened_at` is in Unix seconds, not after its first record."""

    path: Path
    claim: Claim
    opened_at: int
    size: int = 0
    num_entries: int = 0
    must_stay: bool = False  # something in it could not be written elsewhere


@dataclass(slots=True)
class Reading:
    """A segment whose records are in memory; those before `done` are not needed any more."""

    segment: Segment
    payloads: list[bytes]
    done: int = 0


def new_segment(claim: Claim, serial: int) -> Segment:
    """A segment with no file yet; names sort by serial number."""
    opened_at = int(time.time())
    return Segment(claim.path / f"{serial:010d}-{opened_at}{SUFFIX}", claim, opened_at)


def found_segments(claim: Claim) -> list[Segment]:
    """What another process left, in its order.

    Raises:
        OSError: the directory cannot be read.
    """
    return [_found(path, claim) for path in sorted(claim.path.glob(f"*{SUFFIX}"))]


def _found(path: Path, claim: Claim) -> Segment:
    segment = Segment(path, claim, opened_at=int(path.stat().st_mtime))
    stamp = path.stem.rpartition("-")[2]
    if stamp.isdecimal():
        segment.opened_at = int(stamp)
    try:
        data = path.read_bytes()
    except OSError as error:  # said again, and dealt with, when it is its turn
        logger.error("log spool: %s cannot be read: %s", path, error)
    else:
        segment.size, segment.num_entries = len(data), count(data)
    return segment


def read_segment(segment: Segment, aside: Path) -> list[bytes]:
    """The payloads of all intact records. A torn end is cut off; what is damaged is copied to a
    file beside `aside`, and said.

    Raises:
        OSError: the file cannot be read.
    """
    data = segment.path.read_bytes()
    payloads: list[bytes] = []
    for part in scan(data):
        if isinstance(part, Intact):
            payloads.append(part.payload)
        elif part.is_torn:
            size = part.end - part.start
            logger.warning("log spool: %d bytes of a torn record end %s", size, segment.path)
        else:
            set_aside(segment, aside, data[part.start : part.end], f"damaged at {part.start}")
    return payloads


def set_aside(segment: Segment, aside: Path, data: bytes, reason: str) -> None:
    """Keep what cannot be replayed, loudly; the whole segment stays if there is no room for it."""
    logger.error("log spool: %d bytes of %s: %s", len(data), segment.path, reason)
    try:
        append_once(aside, data)
    except OSError as error:
        logger.error("log spool: %s cannot be written: %s", aside, error)
        segment.must_stay = True
    else:
        logger.error("log spool: they are kept in %s", aside)


def kept_bytes(root: Path) -> int:
    """The size of all files that wait for somebody to look at them, other processes' included."""
    num_bytes = 0
    for suffix in (REFUSED, DAMAGED, KEPT):
        for path in root.glob(f"*{suffix}"):
            with suppress(FileNotFoundError):
                num_bytes += path.stat().st_size
    return num_bytes


def remove_segment(segment: Segment) -> None:
    """Remove the file; or take it out of the queue under another name.

    Raises:
        OSError: it cannot be removed.
    """
    if segment.must_stay:
        kept = segment.claim.path.parent / f"{segment.claim.path.name}-{segment.path.stem}{KEPT}"
        segment.path.rename(kept)
        logger.error("log spool: the whole segment is kept in %s", kept)
    else:
        segment.path.unlink(missing_ok=True)
