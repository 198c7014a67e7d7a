"""What the process does before it imports anything large: keep its pipes clean, and its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import BinaryIO

PR_SET_PDEATHSIG = 1


def claim_stdout() -> BinaryIO:
    """The process's standard output, for replies alone: whatever libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


def die_with_parent(parent: int | None = None) -> None:
    """Ask Linux to kill this process when its parent dies, or now if it is not `parent` any more.
    Elsewhere the closed input ends it.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died just before
        os.kill(os.getpid(), signal.SIGKILL)
