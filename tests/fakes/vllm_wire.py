"""How vLLM 0.32 words its answers: field order, nulls and all, as read in its protocol sources.

Only rendering: what is answered is decided in `tests.fakes.vllm`. The fake's tokenizer is one token
a Unicode code point, so tests can compute token ids without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

EOS = 0x110000
"""Token id of the end of an answer: the first number that is no code point."""

FINGERPRINT = "vllm-0.32.0-fake0000"
SURROGATES = range(0xD800, 0xE000)
CREATED = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in vLLM's shape."""

    status: int
    message: str
    type: str
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """`{"error": {...}}` with the numeric code that vLLM sends."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.status,
            }
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """An answer that calls a tool; `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer of a model with a reasoning and a tool parser: any of the three may be empty."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()

    @property
    def written(self) -> str:
        """All that was generated, in its order; its characters are its tokens."""
        return self.reasoning + self.text + "".join(call.arguments for call in self.calls)


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished answer. `token_ids` ends with EOS when the model stopped by itself."""

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    stop_reason: str | None
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What the answer of one request shares over its choices."""

    id: str
    model: str
    prompt_ids: list[int]
    return_token_ids: bool
    logprobs: bool


def encode(text: str) -> list[int]:
    """Token ids of a text: its code points."""
    return [ord(char) for char in text]


def decode(token_ids: list[int]) -> str:
    """The text of token ids; ids that are no character become U+FFFD, EOS nothing."""
    return "".join(
        "\ufffd" if i in SURROGATES or i > EOS else chr(i) for i in token_ids if i != EOS
    )


def render_chat(messages: list[dict[str, Any]]) -> str:
    """ChatML with the generation prompt."""
    turns = "".join(
        f"<|im_start|>{m.get('role')}\n{_text(m.get('content'))}<|im_end|>\n" for m in messages
    )
    return turns + "<|im_start|>assistant\n"


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def dumps(data: object) -> bytes:
    """Compact UTF-8 JSON, as starlette and pydantic write it."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def event(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + dumps(data) + b"\n\n"


def usage(head: Head, num_completion: int) -> dict[str, Any]:
    """Usage in the order of vLLM's `UsageInfo`."""
    num_prompt = len(head.prompt_ids)
    return {
        "prompt_tokens": num_prompt,
        "total_tokens": num_prompt + num_completion,
        "completion_tokens": num_completion,
    }


def _full_usage(head: Head, choices: list[Choice]) -> dict[str, Any]:
    num = sum(len(choice.token_ids) for choice in choices)
    return usage(head, num) | {"prompt_tokens_details": None, "completion_tokens_details": None}


def _chat_logprobs(token_ids: list[int], logprobs: list[float]) -> dict[str, Any]:
    pairs = zip(token_ids, logprobs, strict=True)
    return {
        "content": [
            {
                "token": decode([i]),
                "logprob": logprob,
                "bytes": list(decode([i]).encode()),
                "top_logprobs": [],
            }
            for i, logprob in pairs
        ]
    }


def _completion_logprobs(token_ids: list[int], logprobs: list[float], at: int) -> dict[str, Any]:
    tokens = [decode([i]) for i in token_ids]
    offsets = [at + sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {
        "text_offset": offsets,
        "token_logprobs": logprobs,
        "tokens": tokens,
        "top_logprobs": [{t: p} for t, p in zip(tokens, logprobs, strict=True)],
    }


def _message(choice: Choice) -> dict[str, Any]:
    reasoning, text, calls = _spans(choice, 0, len(choice.token_ids))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if calls:
        message["tool_calls"] = [
            _tool(choice, at) | {"function": {"name": _call(choice, at).name, "arguments": piece}}
            for at, piece in calls
        ]
    return message | {"reasoning": reasoning or None}


def _call(choice: Choice, at: int) -> ToolCall:
    assert choice.turn is not None
    return choice.turn.calls[at]


def _tool(choice: Choice, at: int) -> dict[str, Any]:
    number = choice.index if at == 0 else f"{choice.index}-{at}"
    return {"id": f"chatcmpl-tool-{number}", "type": "function"}


def _spans(choice: Choice, start: int, end: int) -> tuple[str, str, list[tuple[int, str]]]:
    """What tokens `start:end` are of: reasoning, text, and arguments by call. A call without
    arguments belongs to where it would begin.
    """
    if choice.turn is None:
        return "", choice.text[start:end], []
    turn, at = choice.turn, 0
    found: list[str] = []
    for part in (turn.reasoning, turn.text):
        found.append(choice.text[max(start, at) : max(min(end, at + len(part)), at)])
        at += len(part)
    calls: list[tuple[int, str]] = []
    for number, call in enumerate(turn.calls):
        piece = choice.text[max(start, at) : max(min(end, at + len(call.arguments)), at)]
        if piece or start <= at < end:
            calls.append((number, piece))
        at += len(call.arguments)
    return found[0], found[1], calls


def chat_response(head: Head, choices: list[Choice]) -> dict[str, Any]:
    """Body of a chat completion that is not streamed."""
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": head.model,
        "choices": [
            {
                "index": c.index,
                "message": _message(c),
                "logprobs": _chat_logprobs(c.token_ids, c.logprobs) if head.logprobs else None,
                "finish_reason": c.finish_reason,
                "stop_reason": c.stop_reason,
                "token_ids": c.token_ids if head.return_token_ids else None,
                "routed_experts": None,
            }
            for c in choices
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": _full_usage(head, choices),
        "prompt_logprobs": None,
        "prompt_token_ids": head.prompt_ids if head.return_token_ids else None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def completion_response(head: Head, choices: list[Choice]) -> dict[str, Any]:
    """Body of a text completion that is not streamed."""
    return {
        "id": head.id,
        "object": "text_completion",
        "created": CREATED,
        "model": head.model,
        "choices": [
            {
                "index": c.index,
                "text": c.text,
                "logprobs": _completion_logprobs(c.token_ids, c.logprobs, 0)
                if head.logprobs
                else None,
                "finish_reason": c.finish_reason,
                "stop_reason": c.stop_reason,
                "token_ids": c.token_ids if head.return_token_ids else None,
                "prompt_logprobs": None,
                "prompt_token_ids": head.prompt_ids if head.return_token_ids else None,
                "routed_experts": None,
            }
            for c in choices
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": _full_usage(head, choices),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def chunk(head: Head, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """One streamed object."""
    return {
        "id": head.id,
        "object": kind,
        "created": CREATED,
        "model": head.model,
        "choices": choices,
        **more,
    }


def chat_opening(head: Head, index: int) -> dict[str, Any]:
    """The chunk with the role; the prompt's token ids ride on it."""
    choice = {
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    ids = head.prompt_ids if head.return_token_ids else None
    return chunk(head, "chat.completion.chunk", [choice], prompt_token_ids=ids, prompt_text=None)


def chat_delta(head: Head, choice: Choice, start: int, end: int) -> dict[str, Any]:
    """Tokens `start:end` of a choice; the last one carries the finish reason."""
    ids, is_last = choice.token_ids[start:end], end >= len(choice.token_ids)
    delta = _delta(choice, start, end)
    logprobs = _chat_logprobs(ids, choice.logprobs[start:end]) if head.logprobs else None
    body: dict[str, Any] = {
        "index": choice.index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason if is_last else None,
    }
    if is_last:
        body["stop_reason"] = choice.stop_reason
    body["token_ids"] = ids if head.return_token_ids else None
    return chunk(head, "chat.completion.chunk", [body])


def _delta(choice: Choice, start: int, end: int) -> dict[str, Any]:
    """A call's first piece has its id and name, the others only more of its arguments."""
    reasoning, text, calls = _spans(choice, start, end)
    delta: dict[str, Any] = {}
    if reasoning:
        delta["reasoning"] = reasoning
    if text:
        delta["content"] = text
    for at, piece in calls:
        one: dict[str, Any] = {"index": at, "function": {"arguments": piece}}
        if _starts(choice, at, start, end):
            one = {"index": at} | _tool(choice, at)
            one["function"] = {"name": _call(choice, at).name, "arguments": piece}
        delta.setdefault("tool_calls", []).append(one)
    return delta


def _starts(choice: Choice, at: int, start: int, end: int) -> bool:
    assert choice.turn is not None
    turn = choice.turn
    begin = len(turn.reasoning) + len(turn.text)
    begin += sum(len(call.arguments) for call in turn.calls[:at])
    return start <= begin < end


def completion_delta(head: Head, choice: Choice, start: int, end: int) -> dict[str, Any]:
    """Tokens `start:end` of a choice; the first one carries the prompt's token ids."""
    ids, is_last = choice.token_ids[start:end], end >= len(choice.token_ids)
    body = {
        "index": choice.index,
        "text": visible(choice, start, end),
        "logprobs": _completion_logprobs(ids, choice.logprobs[start:end], start)
        if head.logprobs
        else None,
        "finish_reason": choice.finish_reason if is_last else None,
        "stop_reason": choice.stop_reason if is_last else None,
        "prompt_token_ids": head.prompt_ids if head.return_token_ids and start == 0 else None,
        "token_ids": ids if head.return_token_ids else None,
    }
    return chunk(head, "text_completion", [body])


def visible(choice: Choice, start: int, end: int) -> str:
    """The text of tokens `start:end`, without what a stop string cut off."""
    return choice.text[start:end]
