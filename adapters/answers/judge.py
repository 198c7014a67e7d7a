r"""The worker process, `python -m adapters.answers.judge`: are two LaTeX answers equal?

Requests and replies are JSON lines on the standard streams: `["<answer>", "<answer>", <seconds>]`
is answered by `"equal"`, `"different"` or `"late"`, after a first line `"ready"`. It ends when its
input does.

The answers are hostile: sympy may loop or allocate without bound on them (see
`adapters.answers.confinement`). Only math-verify's LaTeX parser is used, because its parser of
plain expressions evaluates Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO, cast

import msgspec

from adapters.answers.confinement import Late, confine, timed

READY, EQUAL, DIFFERENT, LATE = "ready", "equal", "different", "late"


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
    try:
        return EQUAL if timed(lambda: equal(first, second), seconds) else DIFFERENT
    except Late:
        return LATE
    except Exception:  # the outermost loop; a library's bug on hostile text is no equality
        return DIFFERENT


if __name__ == "__main__":
    serve(*confine())
