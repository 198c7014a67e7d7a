"""How a route words an engine's answer for its clients.

The engine always speaks chat (or text) completions. A rendering turns that into what the route's
clients expect: almost unchanged here, translated in `server.gateway.responses` and
`server.gateway.messages`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec import json

from server.errors import TTRLError
from server.gateway.rewriting import Rewriter
from server.gateway.sse import DONE, frame
from server.gateway.transcript import Chunk


@dataclass(frozen=True, slots=True)
class Names:
    """What an answer is called: by the engine, and by us. `created` is in Unix seconds."""

    answer_id: str
    engine_name: str
    served_name: str
    label: str
    created: int


class Rendering(Protocol):
    """Words one answer. What streams is returned as whole server-sent events, perhaps none.

    Any method may raise `EngineFailed` where the engine's answer makes no sense.
    """

    def whole(self, data: bytes, chunk: Chunk) -> bytes:
        """The body of an answer that is not streamed."""
        ...

    def event(self, data: bytes, chunk: Chunk) -> bytes:
        """What one event of the engine becomes; `chunk` is what was read of `data`."""
        ...

    def end(self) -> bytes:
        """What ends a stream, sent when the answer is stored."""
        ...

    def failed(self, error: TTRLError) -> bytes:
        """What ends a stream that began and went wrong."""
        ...


Render = Callable[[Names], Rendering]


class PlainRendering:
    """OpenAI's completions: the engine's bytes with public names."""

    def __init__(self, names: Names, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._rewriter = Rewriter(
            answer_id=names.answer_id,
            engine_name=names.engine_name,
            served_name=names.served_name,
            label=names.label,
        )

    def whole(self, data: bytes, chunk: Chunk) -> bytes:
        """The body with public names."""
        return self._rewriter.body(data)

    def event(self, data: bytes, chunk: Chunk) -> bytes:
        """The event with public names; the token counts only for those who asked."""
        if not self._include_usage and not chunk.choices and chunk.usage is not None:
            return b""
        return frame(self._rewriter.event(data))

    def end(self) -> bytes:
        """`[DONE]`."""
        return frame(DONE)

    def failed(self, error: TTRLError) -> bytes:
        """An event with OpenAI's error object."""
        return frame(json.encode(error.body()))


def plain(*, include_usage: bool) -> Render:
    """Renders OpenAI's completions."""
    return partial(PlainRendering, include_usage=include_usage)


def named_event(kind: str, data: object) -> bytes:
    """One server-sent event with a name."""
    return b"".join((b"event: ", kind.encode(), b"\ndata: ", json.encode(data), b"\n\n"))
