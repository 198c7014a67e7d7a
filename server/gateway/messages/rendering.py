"""Words an engine's chat completion as Anthropic's Message: whole, or as the events of a stream."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from server.errors import TTRLError
from server.gateway.items import Item, Items, Step
from server.gateway.rendering import Names, named_event
from server.gateway.transcript import Chunk, Usage

STOP_REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use"}
UNREADABLE: Final = "INVALID_JSON"  # where arguments stand that are no JSON object


class MessagesRendering:
    """Words one answer."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._items = Items()
        self._has_begun = False

    def whole(self, data: bytes, chunk: Chunk) -> bytes:
        """The Message."""
        self._items.take(chunk)
        self._items.finish()
        blocks = [_block(item) for item in self._items.all]
        usage = _usage(self._items.usage)
        return msgspec.json.encode(self._message(blocks, usage) | self._stopped())

    def event(self, data: bytes, chunk: Chunk) -> bytes:
        """The events that a chunk becomes; the first one also starts the Message."""
        steps = self._items.take(chunk)
        frames = self._begin()
        frames += [_step(step) for step in steps]
        return b"".join(frames)

    def end(self) -> bytes:
        """What closes the last block and the Message."""
        frames = self._begin()
        frames += [_step(step) for step in self._items.finish()]
        usage = _usage(self._items.usage)
        frames.append(_event("message_delta", delta=self._stopped(), usage=usage))
        frames.append(_event("message_stop"))
        return b"".join(frames)

    def failed(self, error: TTRLError) -> bytes:
        """Anthropic's error event."""
        return named_event("error", error.anthropic_body())

    def _begin(self) -> list[bytes]:
        if self._has_begun:
            return []
        self._has_begun = True
        usage = _usage(self._items.usage) | {"output_tokens": 0}
        unfinished = {"stop_reason": None, "stop_sequence": None}
        return [_event("message_start", message=self._message([], usage) | unfinished)]

    def _message(self, blocks: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self._names.answer_id,
            "type": "message",
            "role": "assistant",
            "model": self._names.served_name,
            "system_fingerprint": self._names.label,
            "content": blocks,
            "usage": usage,
        }

    def _stopped(self) -> dict[str, str | None]:
        """Why the answer ended."""
        items = self._items
        if items.finish_reason == "stop" and isinstance(items.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": items.stop_reason}
        reason = STOP_REASONS.get(items.finish_reason or "", "end_turn")
        if reason == "end_turn" and items.has_calls:
            reason = "tool_use"  # an engine says `stop` where a named tool had to be called
        return {"stop_reason": reason, "stop_sequence": None}


def _event(kind: str, **fields: Any) -> bytes:
    return named_event(kind, {"type": kind, **fields})


def _step(step: Step) -> bytes:
    at = step.item.place
    if step.moment == "open":
        return _event("content_block_start", index=at, content_block=_empty_block(step.item))
    if step.moment == "piece":
        return _event("content_block_delta", index=at, delta=_delta(step.item, step.text))
    closed = _event("content_block_stop", index=at)
    if step.item.kind == "reasoning":  # clients wait for it; there is nothing to sign
        delta = {"type": "signature_delta", "signature": ""}
        return _event("content_block_delta", index=at, delta=delta) + closed
    return closed


def _empty_block(item: Item) -> dict[str, Any]:
    if item.kind == "text":
        return {"type": "text", "text": ""}
    if item.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": item.call_id, "name": item.name, "input": {}}


def _delta(item: Item, text: str) -> dict[str, str]:
    if item.kind == "text":
        return {"type": "text_delta", "text": text}
    if item.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "input_json_delta", "partial_json": text}


def _block(item: Item) -> dict[str, Any]:
    block = _empty_block(item)
    if item.kind == "call":
        return block | {"input": _arguments(item.text)}
    return block | {str(block["type"]): item.text}


def _arguments(text: str) -> dict[str, Any]:
    """A call's arguments as an object, even where the model wrote none that can be read."""
    try:
        decoded: Any = msgspec.json.decode(text) if text else {}
    except (msgspec.MsgspecError, RecursionError):
        decoded = None
    return cast(dict[str, Any], decoded) if isinstance(decoded, dict) else {UNREADABLE: text}


def _usage(usage: Usage | None) -> dict[str, int]:
    """Anthropic counts what the prefix cache had apart from the input."""
    if usage is None:
        usage = Usage()
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    return {
        "input_tokens": (usage.prompt_tokens or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens or 0,
    }
