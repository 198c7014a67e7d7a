"""An answer as a row of items: reasoning, text, tool calls, each whole before the next begins.

That is how both the Responses and the Messages API tell an answer. The engine's chunks are cut into
steps here: an item opens, grows by pieces, and closes. A whole answer is one large chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from server.errors import EngineFailed
from server.gateway.transcript import CalledFunction, CallPiece, Choice, Chunk, Usage

Kind = Literal["reasoning", "text", "call"]
Moment = Literal["open", "piece", "close"]


@dataclass(slots=True)
class Item:
    """A part of an answer; `place` counts from 0. `call_id` and `name` are a tool call's."""

    kind: Kind
    place: int
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """All of it so far: what was written, or a call's arguments as JSON text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to an item; `text` is the piece that was added."""

    moment: Moment
    item: Item
    text: str = ""


class Items:
    """The items of one answer, as they come."""

    def __init__(self) -> None:
        self.all: list[Item] = []
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self._open: Item | None = None
        self._calls: dict[int, Item] = {}

    @property
    def is_cut(self) -> bool:
        """Whether the answer was longer than it might be."""
        return self.finish_reason == "length"

    @property
    def has_calls(self) -> bool:
        """Whether the answer calls tools."""
        return bool(self._calls)

    def take(self, chunk: Chunk) -> list[Step]:
        """The steps that a chunk means. Only one choice is asked for, so others do not count.

        Raises:
            EngineFailed: it goes on with a tool call that another item has followed.
        """
        self.usage = chunk.usage or self.usage
        steps: list[Step] = []
        for choice in chunk.choices:
            if choice.index == 0:
                self._take_choice(choice, steps)
        return steps

    def finish(self, *, or_text: bool = False) -> list[Step]:
        """Close what is open. With `or_text` an answer without items has an empty text."""
        steps: list[Step] = []
        if not self.all and or_text:
            self._begin(Item("text", 0), steps)
        self._close(steps)
        return steps

    def _take_choice(self, choice: Choice, steps: list[Step]) -> None:
        piece = choice.delta or choice.message
        if piece is not None:
            if thought := piece.thought:
                self._write("reasoning", thought, steps)
            if piece.content:
                self._write("text", piece.content, steps)
            for position, call in enumerate(piece.tool_calls or ()):
                self._call(position, call, steps)
        self.finish_reason = choice.finish_reason or self.finish_reason
        self.stop_reason = choice.stop_reason or self.stop_reason

    def _write(self, kind: Kind, text: str, steps: list[Step]) -> None:
        if self._open is None or self._open.kind != kind:
            self._begin(Item(kind, len(self.all)), steps)
        self._add(text, steps)

    def _call(self, position: int, piece: CallPiece, steps: list[Step]) -> None:
        index = piece.get("index")
        key = position if index is None else index
        function: CalledFunction = piece.get("function") or {}
        item = self._calls.get(key)
        if item is None:
            place = len(self.all)
            call_id, name = piece.get("id") or f"call_{place}", function.get("name") or ""
            item = self._calls[key] = Item("call", place, call_id, name)
            self._begin(item, steps)
        elif item is not self._open:
            raise EngineFailed("The engine mixed up its tool calls.")
        if arguments := function.get("arguments"):
            self._add(arguments, steps)

    def _begin(self, item: Item, steps: list[Step]) -> None:
        self._close(steps)
        self._open = item
        self.all.append(item)
        steps.append(Step("open", item))

    def _add(self, text: str, steps: list[Step]) -> None:
        assert self._open is not None
        self._open.pieces.append(text)
        steps.append(Step("piece", self._open, text))

    def _close(self, steps: list[Step]) -> None:
        if self._open is not None:
            steps.append(Step("close", self._open))
            self._open = None
