"""From the bytes of a body to a request that may go to the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

import msgspec

from server.config import Settings
from server.db.log import storable
from server.errors import BadRequest
from server.gateway.allowlist import (
    DROPPED,
    DROPPED_FROM_MESSAGES,
    REFUSED,
    ChatRequest,
    Common,
    CompletionRequest,
    Message,
    VoteOptions,
)
from server.gateway.json_bounds import check_json
from server.gateway.rendering import Render, plain

RouteName = Literal["chat", "completions", "responses", "messages"]

LEARNABLE_CHARS: Final = 32_768  # a longer prompt is not learned from

PROMPT_FIELDS: Final = frozenset({"messages", "prompt"})
ESCAPED_NUL: Final = b"\\u0000"  # the only way to write NUL in JSON

R = TypeVar("R", bound=msgspec.Struct)

_CHAT = msgspec.json.Decoder(ChatRequest)
_COMPLETION = msgspec.json.Decoder(CompletionRequest)
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"(?:unknown|required) field `(.*)`", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request.

    `upstream` is what the engine gets, but for what is decided later (its `model`, the salt).
    `params` is what the log keeps beside the prompt, which is in the words of chat (or text)
    completions on every route. `render` words the answer. `reason` says why the prompt cannot be
    learned from; None: it can. `vote` is what it says about votes, of chats only.
    """

    route: RouteName
    model: str
    upstream: dict[str, Any]
    prompt: list[Any]
    params: dict[str, Any]
    stream: bool
    render: Render
    store: bool
    reason: str | None
    vote: VoteOptions | None = None


def parse_chat(body: bytes, settings: Settings) -> Asked:
    """Parse the body of `POST /v1/chat/completions`.

    Raises:
        BadRequest: it is malformed, or asks for something that is refused; `param` names the field.
    """
    request = decode(_CHAT, body, REFUSED)
    if len(request.messages) > settings.max_messages:
        raise BadRequest(
            f"At most {settings.max_messages} messages are allowed, not {len(request.messages)}.",
            param="messages",
        )
    for index, message in enumerate(request.messages):
        _check_message(index, message)
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")
    if request.tool_choice not in (None, "none") and not request.tools:
        raise BadRequest("`tool_choice` needs `tools`.", param="tool_choice")
    _check_common(request, settings, num_prompts=1)
    return chat_asked("chat", request, body, _plain(request))


def chat_asked(route: RouteName, request: ChatRequest, body: bytes, render: Render) -> Asked:
    """What is asked with a valid chat, whichever route it came by."""
    upstream = _upstream(request)
    messages: list[dict[str, Any]] = upstream["messages"]
    for message in messages:
        for name in DROPPED_FROM_MESSAGES:
            message.pop(name, None)
    if request.tool_choice not in (None, "none", "auto"):
        _bind_arguments(upstream["tools"])
    asked = _asked(route, request, upstream, messages, body, _chat_reason(request), render)
    return asked if request.ttrl is None else replace(asked, vote=request.ttrl)


def _bind_arguments(tools: list[dict[str, Any]]) -> None:
    """Let the arguments of a call that must come follow its schema, unless the client says not to.
    vLLM 0.32 takes any JSON value for the arguments of a tool that is not `strict`, a bare `0` too.
    """
    for tool in tools:
        function: dict[str, Any] = tool["function"]
        if function.get("parameters"):
            function.setdefault("strict", True)


def parse_completion(body: bytes, settings: Settings) -> Asked:
    """Parse the body of `POST /v1/completions`.

    Raises:
        BadRequest: as `parse_chat`.
    """
    request = decode(_COMPLETION, body, REFUSED)
    _check_common(request, settings, num_prompts=num_prompts(request.prompt))
    upstream = _upstream(request)
    prompt = [upstream["prompt"]]
    return _asked("completions", request, upstream, prompt, body, "not_chat", _plain(request))


def _plain(request: Common) -> Render:
    options = request.stream_options
    return plain(include_usage=options is not None and bool(options.include_usage))


def decode(decoder: msgspec.json.Decoder[R], body: bytes, refused: Mapping[str, str]) -> R:
    """Decode a body. `refused` says of fields why they are; see the allow-lists.

    Raises:
        BadRequest: it is not what the decoder takes; `param` names the field.
    """
    try:
        request = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), refused) from None
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    check_json(body)
    return request


def _refusal(problem: str, refused: Mapping[str, str]) -> BadRequest:
    """Turn msgspec's description into a sentence and OpenAI's `param`."""
    found = _PLACE.search(problem)
    place, problem = (found[1], problem[: found.start()]) if found else ("", problem)
    field = _FIELD.search(problem)
    if field is not None:
        name = field[1][:100]
        place = f"{place}.{name}" if place else name
        if place in refused:
            return BadRequest(f"`{place}` is not allowed: it {refused[place]}.", param=place)
        if problem.startswith("Object contains"):
            return BadRequest(f"`{place}` is not a field of this request.", param=place)
        return BadRequest(f"`{place}` is missing.", param=place)
    if place in refused:
        return BadRequest(f"`{place}` is not supported: it {refused[place]}.", param=place)
    where = f"`{place}`" if place else "The body"
    return BadRequest(f"{where} is not valid: {problem[:300]}.", param=place or None)


def _check_message(index: int, message: Message) -> None:
    place = f"messages[{index}]"
    if message.role == "assistant":
        if message.content is None and not message.tool_calls:
            raise BadRequest(
                f"`{place}` has neither content nor tool calls.", param=f"{place}.content"
            )
        return
    if message.content is None:
        raise BadRequest(f"`{place}.content` is missing.", param=f"{place}.content")
    if message.tool_calls is not None:
        raise BadRequest("Only an assistant calls tools.", param=f"{place}.tool_calls")
    if (message.role == "tool") != (message.tool_call_id is not None):
        raise BadRequest(
            "`tool_call_id` belongs to each message of the role `tool`, and to no other.",
            param=f"{place}.tool_call_id",
        )


def _check_common(request: Common, settings: Settings, *, num_prompts: int) -> None:
    if num_prompts * (request.n or 1) > settings.max_n:
        raise BadRequest(
            f"At most {settings.max_n} answers can be asked for at once.",
            param="n" if num_prompts == 1 else "prompt",
        )
    if request.stream_options is not None and not request.stream:
        raise BadRequest("`stream_options` needs `stream: true`.", param="stream_options")
    form = request.response_format
    if form is not None and (form.type == "json_schema") != (form.json_schema is not None):
        raise BadRequest(
            "`json_schema` belongs to the type `json_schema`, and to no other.",
            param="response_format.json_schema",
        )


def num_prompts(prompt: str | list[str | int | list[int]]) -> int:
    """How many prompts; token ids in a row are one."""
    if isinstance(prompt, str):
        return 1
    if all(isinstance(item, int) for item in prompt):
        return 1
    kind = type(prompt[0])
    if kind is int or not all(type(item) is kind and item for item in prompt):
        raise BadRequest(
            "`prompt` is a text, a list of texts, token ids, or a list of lists of token ids;"
            " none may be empty.",
            param="prompt",
        )
    return len(prompt)


def _chat_reason(request: ChatRequest) -> str | None:
    if request.tools or any(m.tool_calls or m.role == "tool" for m in request.messages):
        return "tool_calls"
    if request.response_format is not None and request.response_format.type != "text":
        return "structured"
    if request.reasoning_effort is not None:
        return "reasoning"  # it changes the rendered prompt, so the trainer would learn another one
    return "too_long" if _num_chars(request.messages) > LEARNABLE_CHARS else None


def _num_chars(messages: list[Message]) -> int:
    total = 0
    for message in messages:
        if isinstance(message.content, str):
            total += len(message.content)
        elif message.content is not None:
            total += sum(len(part.text) for part in message.content)
    return total


def _upstream(request: Common) -> dict[str, Any]:
    """The fields that are passed; those that were not given (or null) are not there."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    for name in DROPPED:
        fields.pop(name, None)
    return fields


def _asked(
    route: RouteName,
    request: Common,
    upstream: dict[str, Any],
    prompt: list[Any],
    body: bytes,
    reason: str | None,
    render: Render,
) -> Asked:
    params = {k: v for k, v in upstream.items() if k not in PROMPT_FIELDS}
    if ESCAPED_NUL in body:
        prompt, params = storable(prompt), storable(params)
    if request.stream:
        # Always asked for, because the log counts tokens; cut out again for who did not ask.
        upstream["stream_options"] = {"include_usage": True}
        if route == "messages":  # which tells the prompt's tokens first
            upstream["stream_options"]["continuous_usage_stats"] = True
    return Asked(
        route=route,
        model=request.model,
        upstream=upstream,
        prompt=prompt,
        params=params,
        stream=bool(request.stream),
        render=render,
        store=request.store is not False,
        reason=reason,
    )
