r"""The worker process, `python -m adapters.answers.judge`: are two LaTeX answers equal?

Requests and replies are JSON lines on the standard streams: `["<answer>", "<answer>", <seconds>]`
is answered by `"equal"`, `"different"` or `"late"`, after a first line `"ready"`. It ends when its
input does.

The answers are hostile: sympy may loop or allocate without bound on them. An alarm ends what runs
in Python; the parent kills the process when that does not help; a CPU timer ends it even if the
parent is gone; memory is limited. Only math-verify's LaTeX parser is used, because its parser of
plain expressions evaluates Python.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import Any, BinaryIO, cast

import msgspec

MEMORY_BYTES = 2 * 2**30
READY, EQUAL, DIFFERENT, LATE = "ready", "equal", "different", "late"


class _Late(BaseException):
    """Not an Exception, so that no `except Exception` of a library swallows it."""


def load() -> Callable[[str, str], bool]:
    """Import math-verify (about two seconds) and return the symmetric comparison."""
    import math_verify

    config = (math_verify.LatexExtractionConfig(boxed_match_priority=0),)

    @lru_cache(maxsize=4096)
    def parse(answer: str) -> list[Any]:
        boxed = f"\\boxed{{{answer}}}"
        # Without timeouts of its own: they are in whole seconds and for the main thread only.
        return cast(Any, math_verify.parse)(
            boxed, config, fallback_mode="no_fallback", parsing_timeout=None
        )

    def equal(first: str, second: str) -> bool:
        one, two = parse(first), parse(second)
        if not one or not two:
            return False
        # verify() is not symmetric: equations and intervals are simplified on one side only.
        return math_verify.verify(one, two, timeout_seconds=None) or math_verify.verify(
            two, one, timeout_seconds=None
        )

    return equal


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer one request after the other."""

    def reply(word: str) -> None:
        replies.write(msgspec.json.encode(word) + b"\n")
        replies.flush()

    equal = load()
    reply(READY)
    for line in requests:
        first, second, seconds = msgspec.json.decode(line, type=tuple[str, str, float])
        reply(_judge(equal, first, second, seconds))


def _judge(equal: Callable[[str, str], bool], first: str, second: str, seconds: float) -> str:
    def ring(signum: int, frame: FrameType | None) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, ring)
    # SIGPROF's default action ends the process, also in the middle of a long call into C.
    signal.setitimer(signal.ITIMER_PROF, 2 * seconds + 1)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            verdict = EQUAL if equal(first, second) else DIFFERENT
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Late:
        verdict = LATE
    except Exception:  # the outermost loop; a library's bug on hostile text is no equality
        verdict = DIFFERENT
    signal.setitimer(signal.ITIMER_PROF, 0)
    return verdict


def main() -> None:
    """Take the streams for the protocol; what libraries print goes nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(3000)
    replies = os.fdopen(os.dup(1), "wb")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    serve(cast(BinaryIO, sys.stdin.buffer), replies)


if __name__ == "__main__":
    main()
