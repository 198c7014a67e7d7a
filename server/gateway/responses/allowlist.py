"""What a request to `/v1/responses` may say; the rules are those of `server.gateway.allowlist`.

No response is kept, so whatever names an earlier one is refused: clients send the conversation.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from server.gateway.allowlist import (
    MAX_TOOLS,
    REFUSED,
    Count,
    Effort,
    FunctionName,
    Name,
    Object,
    Sampling,
    VoteOptions,
)

MAX_ITEMS: Final = 65_536  # the bound that counts comes from the settings, as for messages


class Part(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A content part, of the input or of an earlier answer. Text only."""

    type: Literal["input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"]
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = None
    prompt_cache_breakpoint: Any = None


Content = str | list[Part]


class InputItem(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An item of the conversation: a message (which needs no `type`), a function call, what the
    function said, or reasoning; a reference is refused with its reason. Which fields belong to
    which is checked in `parsing`.
    """

    type: (
        Literal["message", "function_call", "function_call_output", "reasoning", "item_reference"]
        | None
    ) = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | None = None
    call_id: Name | None = None
    name: Name | None = None
    arguments: str | None = None
    output: Content | None = None
    summary: list[Part] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    encrypted_content: str | None = None
    parsed_arguments: Any = None
    is_async: Any = field(default=None, name="async")
    async_: Any = None  # what the official client's `model_dump` makes of it
    caller: Any = None
    namespace: None = None


class FunctionTool(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class NamedFunction(FunctionName, forbid_unknown_fields=True, kw_only=True):
    """The function that the model must call."""

    type: Literal["function"]


class TextFormat(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The form of the answer; all but `type` belong to `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema: Object | None = None
    description: str | None = None
    strict: bool | None = None


class Text(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How the answer is written."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How much the model thinks, as far as its template knows."""

    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class StreamOptions(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Options of a stream."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Sampling, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/responses`."""

    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_ITEMS)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: Annotated[list[str], Meta(max_length=32)] | None = None
    stream_options: StreamOptions | None = None
    max_tool_calls: Count | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Object | None = None
    prompt_cache_retention: str | None = None
    ttrl: VoteOptions | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    context_management: None = None
    moderation: None = None


LOGPROBS: Final = "message.output_text.logprobs"
"""The only value of `include` that means something here."""

DROPPED_RESPONSES: Final = (
    "user",
    "metadata",
    "service_tier",
    "stream_options",
    "max_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
"""Accepted and never passed on; `metadata` and `user` are given back in the answer."""

OBEYED_RESPONSES: Final = ("model", "store", "include", "ttrl")

_STATELESS = "needs responses to be kept, and none is: send the whole conversation in `input`"

REFUSED_RESPONSES: Final[dict[str, str]] = REFUSED | {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "background": "needs responses to be kept, and none is: wait for the answer, or stream it",
    "prompt": "names a template that is kept elsewhere; send its text in `input`",
    "truncation": "would drop a part of the conversation; only `disabled` is known",
    "context_management": "would change the conversation",
    "moderation": "needs a moderation model, and there is none",
    "structured_outputs": "is not supported; use `text.format`",
    "response_format": "is the field of chat completions; use `text.format`",
    "messages": "is the field of chat completions; use `input`",
    "max_tokens": "is the field of chat completions; use `max_output_tokens`",
    "max_completion_tokens": "is the field of chat completions; use `max_output_tokens`",
    "reasoning_effort": "is the field of chat completions; use `reasoning.effort`",
    "n": "is the field of chat completions; one answer is given",
}
"""Fields that are refused, and why."""
