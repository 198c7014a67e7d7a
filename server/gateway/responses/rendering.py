"""Words an engine's chat completion as a Response: whole, or as the typed events of a stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.errors import EngineFailed, TTRLError
from server.gateway.items import Item, Items, Step
from server.gateway.rendering import Names, named_event
from server.gateway.transcript import Chunk, Usage

ID_PREFIXES: Final = {"reasoning": "rs_", "text": "msg_", "call": "fc_"}


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


class _ScoredChoice(msgspec.Struct):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Scored(msgspec.Struct):
    """Log-probabilities of a chunk, which are read only when they are asked for."""

    choices: list[_ScoredChoice] = []


_SCORED = msgspec.json.Decoder(_Scored)


class ResponsesRendering:
    """Words one answer; `echo` is what it says again of the request."""

    def __init__(self, names: Names, *, echo: dict[str, Any], with_logprobs: bool) -> None:
        self._names = names
        self._echo = echo
        self._with_logprobs = with_logprobs
        self._items = Items()
        self._logprobs: dict[int, list[Any]] = {}  # by the item's place
        self._number = 0
        self._has_begun = False

    def whole(self, data: bytes, chunk: Chunk) -> bytes:
        """The Response."""
        for step in self._items.take(chunk):
            if step.moment == "piece" and step.item.kind == "text":
                self._score(step.item, data)
        self._items.finish(or_text=True)
        return msgspec.json.encode(self._response(self._final_status()))

    def event(self, data: bytes, chunk: Chunk) -> bytes:
        """The events that a chunk becomes; the first one also opens the Response."""
        frames = self._begin()
        is_scored = False
        for step in self._items.take(chunk):
            scores: list[Any] = []
            if step.moment == "piece" and step.item.kind == "text" and not is_scored:
                scores, is_scored = self._score(step.item, data), True
            frames += self._step(step, scores)
        return b"".join(frames)

    def end(self) -> bytes:
        """What closes the items and the Response."""
        frames = self._begin()
        for step in self._items.finish(or_text=True):
            frames += self._step(step, [])
        status = self._final_status()
        frames.append(self._event(f"response.{status}", response=self._response(status)))
        return b"".join(frames)

    def failed(self, error: TTRLError) -> bytes:
        """OpenAI's error event. Its fields are also where they stand in a chat's stream, because
        that is what makes the official client raise.
        """
        inner = error.body()["error"]
        told = {name: inner[name] for name in ("code", "message", "param")}
        return self._event("error", **told, error=inner)

    def _begin(self) -> list[bytes]:
        if self._has_begun:
            return []
        self._has_begun = True
        response = self._response("in_progress")
        kinds = ("response.created", "response.in_progress")
        return [self._event(kind, response=response) for kind in kinds]

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return named_event(kind, {"type": kind, "sequence_number": number, **fields})

    def _score(self, item: Item, data: bytes) -> list[Any]:
        if not self._with_logprobs:
            return []
        try:
            choices = _SCORED.decode(data).choices
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise EngineFailed("The engine's log-probabilities cannot be read.") from None
        scores = [
            score
            for choice in choices
            if choice.index == 0 and choice.logprobs is not None
            for score in choice.logprobs.content or ()
        ]
        self._logprobs.setdefault(item.place, []).extend(scores)
        return scores

    def _step(self, step: Step, scores: list[Any]) -> list[bytes]:
        item = step.item
        at: dict[str, Any] = {"item_id": self._id(item), "output_index": item.place}
        if step.moment == "open":
            added = self._item(item, "in_progress", is_empty=True)
            frames = [
                self._event("response.output_item.added", output_index=item.place, item=added)
            ]
            if item.kind != "call":
                part = self._part(item, is_empty=True)
                frames.append(
                    self._event("response.content_part.added", **at, content_index=0, part=part)
                )
            return frames
        if step.moment == "piece":
            return [self._piece(item, at, step.text, scores)]
        return self._close(item, at)

    def _piece(self, item: Item, at: dict[str, Any], text: str, scores: list[Any]) -> bytes:
        if item.kind == "call":
            return self._event("response.function_call_arguments.delta", **at, delta=text)
        at = at | {"content_index": 0, "delta": text}
        if item.kind == "reasoning":
            return self._event("response.reasoning_text.delta", **at)
        return self._event("response.output_text.delta", **at, logprobs=scores)

    def _close(self, item: Item, at: dict[str, Any]) -> list[bytes]:
        done = self._item(item, self._item_status(item))
        if item.kind == "call":
            told = {"arguments": item.text, "name": item.name}
            frames = [self._event("response.function_call_arguments.done", **at, **told)]
        else:
            at = at | {"content_index": 0}
            part = self._part(item)
            if item.kind == "reasoning":
                frames = [self._event("response.reasoning_text.done", **at, text=item.text)]
            else:
                scores = part["logprobs"]
                frames = [
                    self._event("response.output_text.done", **at, text=item.text, logprobs=scores)
                ]
            frames.append(self._event("response.content_part.done", **at, part=part))
        frames.append(self._event("response.output_item.done", output_index=item.place, item=done))
        return frames

    def _id(self, item: Item) -> str:
        unique = self._names.answer_id.partition("_")[2]
        return f"{ID_PREFIXES[item.kind]}{unique}_{item.place}"

    def _part(self, item: Item, *, is_empty: bool = False) -> dict[str, Any]:
        text = "" if is_empty else item.text
        if item.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        scores = self._logprobs.get(item.place, [])
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": scores}

    def _item(self, item: Item, status: str, *, is_empty: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self._id(item), "status": status}
        content = [] if is_empty else [self._part(item)]
        if item.kind == "reasoning":
            return told | {"type": "reasoning", "summary": [], "content": content}
        if item.kind == "text":
            return told | {"type": "message", "role": "assistant", "content": content}
        return told | {
            "type": "function_call",
            "call_id": item.call_id,
            "name": item.name,
            "arguments": "" if is_empty else item.text,
        }

    def _item_status(self, item: Item) -> str:
        is_last = item is self._items.all[-1]
        return "incomplete" if is_last and self._items.is_cut else "completed"

    def _final_status(self) -> str:
        return "incomplete" if self._items.is_cut else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        has_ended = status != "in_progress"
        items = self._items.all if has_ended else []
        return {
            "id": self._names.answer_id,
            "object": "response",
            "created_at": self._names.created,
            "status": status,
            "error": None,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "model": self._names.served_name,
            "system_fingerprint": self._names.label,
            "output": [self._item(item, self._item_status(item)) for item in items],
            "usage": _usage(self._items.usage) if has_ended else None,
            **self._echo,
        }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    had, thought = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = (had.cached_tokens if had else None) or 0
    reasoning = (thought.reasoning_tokens if thought else None) or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + completion,
    }
