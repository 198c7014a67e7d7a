"""The worker process, `python -m adapters.answers.entry_point NAME`: a function finds answers.

NAME is an installed entry point of the group `ttrl.answers`: a function from the text of a response
to its answer, or to None. Two answers are equal if the function returns equal strings.

Requests and replies are JSON lines on the standard streams: `["<text>", <seconds>]` is answered by
`{"answer": "<answer>"}`, or `{"answer": null}` where the function found none, raised, was late, or
returned something else than a string; a first line `"ready"` says that it could be loaded. The
process is confined as the judge is, so that an error or an endless loop stays in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, BinaryIO

import msgspec

from adapters.answers.confinement import Late, confine, timed
from adapters.answers.judge import READY

GROUP = "ttrl.answers"


class Found(msgspec.Struct):
    """The reply to a request."""

    answer: str | None


def load(name: str) -> Callable[[str], Any]:
    """The function of that name. Raises SystemExit if there is none."""
    for entry_point in entry_points(group=GROUP, name=name):
        return entry_point.load()
    raise SystemExit(f"no entry point {name!r} in the group {GROUP}")


def serve(requests: BinaryIO, replies: BinaryIO, name: str) -> None:
    """Answer one request after the other."""
    find = load(name)
    encode = msgspec.json.Encoder().encode
    replies.write(encode(READY) + b"\n")
    replies.flush()
    for line in requests:
        text, seconds = msgspec.json.decode(line, type=tuple[str, float])
        replies.write(encode(Found(_find(find, text, seconds))) + b"\n")
        replies.flush()


def _find(find: Callable[[str], Any], text: str, seconds: float) -> str | None:
    try:
        answer = timed(lambda: find(text), seconds)
    except (Late, SystemExit, KeyboardInterrupt):
        return None
    except Exception:  # the outermost loop; somebody else's bug is no answer
        return None
    return answer[:8192] if isinstance(answer, str) else None


if __name__ == "__main__":
    serve(*confine(), sys.argv[1])
