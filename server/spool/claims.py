"""Which spool directory belongs to which process: one each, held by a lock on the directory.

The lock is the system's (`flock`), so it ends with its process, however that ends; what is left
behind is adopted by the process that starts next. A new directory is locked before it gets its
name, so nobody can adopt it in between.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.spool.files import sync_directory

DRAFT = "."  # begins the name of a directory that is not ready


@dataclass(frozen=True, slots=True)
class Claim:
    """A directory that is ours until it is released. Names sort by the time of making."""

    path: Path
    descriptor: int

    def release(self) -> None:
        """Give it up, and remove it if it is empty."""
        with suppress(OSError):  # not empty, or gone: both are as they should be
            self.path.rmdir()
        os.close(self.descriptor)


def make_claim(root: Path) -> Claim:
    """A new directory of our own.

    Raises:
        OSError: it cannot be made.
    """
    is_new = not root.is_dir()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_new:
        sync_directory(root.parent)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    draft = root / f"{DRAFT}{name}"
    draft.mkdir(mode=0o700)
    claim = _lock(draft)
    if claim is None:
        raise BlockingIOError(f"{draft} was taken")
    try:
        draft.rename(root / name)
        claim = Claim(root / name, claim.descriptor)
        sync_directory(root)
    except OSError:
        claim.release()
        raise
    return claim


def adopt_claims(root: Path) -> list[Claim]:
    """The directories that no living process holds, oldest first: they are ours from now on.

    Raises:
        OSError: the root cannot be read.
    """
    if not root.is_dir():
        return []
    claims: list[Claim] = []
    for path in sorted(root.iterdir()):
        # A draft is empty: its maker is about to lock it, or died before it had a name.
        if path.name.startswith(DRAFT) or not path.is_dir():
            continue
        claim = _lock(path)
        if claim is not None:
            claims.append(claim)
    return claims


def _lock(path: Path) -> Claim | None:
    """The claim, or None where somebody else holds it or has just removed it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return Claim(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
