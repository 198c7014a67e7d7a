"""What the fake engine answers to one request: refusals, choices, streamed events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes import vllm_wire as wire
from tests.fakes.vllm_wire import EOS, Choice, Head, Problem, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class Ask:
    """One choice that wants an answer. `index` counts the request's choices."""

    model: str
    route: str  # "chat" | "completions"
    prompt: str
    messages: list[dict[str, Any]] | None
    index: int
    seed: int | None
    body: dict[str, Any]
    adapter_path: str | None

    @property
    def question(self) -> str:
        """The last message's content, or the prompt."""
        return self.prompt if not self.messages else str(self.messages[-1].get("content"))


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's whole answer, before it is sent."""

    head: Head
    choices: list[Choice]

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest choice."""
        return max(len(choice.token_ids) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the engine serves at the moment."""

    base: str
    adapters: Mapping[str, str]
    max_model_len: int
    answer: Callable[[Ask], str | ToolCall | Turn]

    def unknown(self, model: str | None) -> Problem | None:
        """vLLM's 404 for a model that is not loaded."""
        if not model or model == self.base or model in self.adapters:
            return None
        text = f"The model `{model}` does not exist. Valid aliases: {self.base}."
        return Problem(404, text, "NotFoundError", "model")


def plan(serving: Serving, body: dict[str, Any], is_chat: bool, request_id: str) -> Plan | Problem:
    """The whole answer to one request, or why it is refused."""
    refusal = _refusal(serving, body, is_chat)
    if refusal is not None:
        return refusal
    messages = body["messages"] if is_chat else None
    prompt = wire.render_chat(messages) if messages is not None else body["prompt"]
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    prompts = [
        wire.encode(p) if isinstance(p, str) else p for p in (prompt if several else [prompt])
    ]
    ids = max(prompts, key=len)
    if len(ids) >= serving.max_model_len:
        text = f"This model's maximum context length is {serving.max_model_len} tokens. However,"
        text += f" your prompt contains {len(ids)} input tokens."
        return _bad(text, "input_tokens", len(ids))
    head = Head(
        id=f"chatcmpl-{request_id}" if is_chat else f"cmpl-{request_id}",
        model=body.get("model") or serving.base,
        prompt_ids=ids,
        return_token_ids=bool(body.get("return_token_ids")),
        logprobs=bool(body.get("logprobs")) if is_chat else body.get("logprobs") is not None,
    )
    num = body.get("n") or 1
    asks = [
        Ask(
            model=head.model,
            route="chat" if is_chat else "completions",
            prompt=wire.decode(prompts[index // num]),
            messages=messages,
            index=index,
            seed=body.get("seed"),
            body=body,
            adapter_path=serving.adapters.get(head.model),
        )
        for index in range(num * len(prompts))
    ]
    room = serving.max_model_len - len(ids)
    return Plan(head, [_choice(ask, serving.answer(ask), room) for ask in asks])


def _refusal(serving: Serving, body: dict[str, Any], is_chat: bool) -> Problem | None:
    if body.get("stream_options") and not body.get("stream"):
        return _bad("Stream options can only be defined when `stream=True`.", "stream_options")
    if is_chat and not isinstance(body.get("messages"), list):
        return missing("messages")
    if not is_chat and not body.get("prompt"):
        text = "Either prompt or prompt_embeds must be provided and non-empty."
        return _bad(text, "prompt")
    unknown = serving.unknown(body.get("model"))
    if unknown is not None:
        return unknown
    n = body.get("n")
    if n is not None and n < 1:
        return Problem(400, f"n must be at least 1, got {n}.", "BadRequestError")
    if n is not None and n > 1 and body.get("temperature") == 0:
        text = f"n must be 1 when using greedy sampling, got {n}."
        return Problem(400, text, "BadRequestError")
    limit = _limit(body)
    if limit is not None and limit < 1:
        return _bad(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    return None


def missing(field: str) -> Problem:
    """vLLM's 400 for a field that is not there."""
    text = f"1 validation error:\n  {{'type': 'missing', 'loc': 'body.{field}'}}"
    return Problem(400, text, "Bad Request", f"body.{field}")


def _bad(message: str, param: str, value: int | None = None) -> Problem:
    note = f"parameter={param}" + (f", value={value}" if value is not None else "")
    return Problem(400, f"{message} ({note})", "BadRequestError", param)


def _limit(body: dict[str, Any]) -> int | None:
    limit = body.get("max_completion_tokens")
    return body.get("max_tokens") if limit is None else limit


def _choice(ask: Ask, answer: str | ToolCall | Turn, room: int) -> Choice:
    if isinstance(answer, ToolCall):
        answer = Turn(calls=(answer,))
    turn = answer if isinstance(answer, Turn) else None
    text = answer if isinstance(answer, str) else answer.written
    text, stop = _cut(text, ask.body.get("stop"))
    limit = _limit(ask.body)
    if limit is None:
        limit = 16 if ask.route == "completions" else room
    # What a stop string cuts off the text is still among the tokens.
    ids = wire.encode(text + stop) if stop else [*wire.encode(text), EOS]
    is_cut = len(ids) > min(limit, room)
    ids = ids[: min(limit, room)]
    return Choice(
        index=ask.index,
        text=text[: len(ids)],
        token_ids=ids,
        logprobs=[-((31 * i + 7 * at + ask.index) % 97) / 64 for at, i in enumerate(ids)],
        finish_reason="length" if is_cut else "tool_calls" if turn and turn.calls else "stop",
        stop_reason=None if is_cut else stop,
        turn=turn,
    )


def _cut(text: str, stop: str | list[str] | None) -> tuple[str, str | None]:
    """The text up to the first stop string, and that string."""
    stops = [stop] if isinstance(stop, str) else stop or []
    found = [(text.index(s), s) for s in stops if s in text]
    if not found:
        return text, None
    at, which = min(found)
    return text[:at], which


def stream_events(plan: Plan, body: dict[str, Any], is_chat: bool, size: int) -> list[bytes]:
    """The events of a stream but `[DONE]`: choices interleaved, as a real batch's are."""
    head, events = plan.head, list[dict[str, Any]]()
    options = body.get("stream_options") or {}
    size = max(size, body.get("stream_interval") or 1)

    def add(event: dict[str, Any], num_tokens: int) -> None:  # of this choice, so far
        if options.get("continuous_usage_stats"):
            event["usage"] = wire.usage(head, num_tokens)
        events.append(event)

    for choice in plan.choices if is_chat else ():
        add(wire.chat_opening(head, choice.index), 0)
    delta = wire.chat_delta if is_chat else wire.completion_delta
    for start in range(0, plan.num_tokens, size):
        for choice in plan.choices:
            if start < len(choice.token_ids):
                end = min(start + size, len(choice.token_ids))
                add(delta(head, choice, start, start + size), end)
    if options.get("include_usage"):
        kind = "chat.completion.chunk" if is_chat else "text_completion"
        total = wire.usage(head, sum(len(c.token_ids) for c in plan.choices))
        more = {"usage": total, "system_fingerprint": wire.FINGERPRINT}
        events.append(wire.chunk(head, kind, [], **more))
    else:
        events[-1]["system_fingerprint"] = wire.FINGERPRINT
    return [wire.event(data) for data in events]
