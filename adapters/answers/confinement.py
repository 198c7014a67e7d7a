"""What a process that reads hostile text does to itself first: few rights, little memory, a clock.

An alarm ends what runs in Python; the parent kills the process when that does not help; a CPU timer
ends it even if the parent is gone; memory is limited; what libraries print goes nowhere.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import BinaryIO, TypeVar, cast

MEMORY_BYTES = 2 * 2**30

Result = TypeVar("Result")


class Late(BaseException):
    """Not an Exception, so that no `except Exception` of a library swallows it."""


def confine() -> tuple[BinaryIO, BinaryIO]:
    """Set the limits, and take the standard streams for requests and replies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(3000)
    replies = os.fdopen(os.dup(1), "wb")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    return cast(BinaryIO, sys.stdin.buffer), replies


def timed(call: Callable[[], Result], seconds: float) -> Result:
    """The call's result. Raises Late when the alarm rings first."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise Late

    signal.signal(signal.SIGALRM, ring)
    # SIGPROF's default action ends the process, also in the middle of a long call into C.
    signal.setitimer(signal.ITIMER_PROF, 2 * seconds + 1)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
