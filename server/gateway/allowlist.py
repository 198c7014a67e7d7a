"""What a request may say: the explicit table of fields, for each route.

Each field of a route's struct is in one of three groups:

- passed to the engine, within the bounds written here;
- accepted from OpenAI clients and dropped (`DROPPED`), because they mean nothing to an engine;
- accepted only where it asks for nothing (its type is `None`, or a single literal).

Everything else is refused by name: `REFUSED` says why where a tenant must not control the field,
and a field that nobody knows is refused too, so that a misspelt one is not ignored in silence. What
the gateway sets itself is in `server.gateway.parsing`.

`null` always means "not given". When a key is repeated, the last one counts; the engine never sees
the others.

The other dialects, `/v1/responses` and `/v1/messages`, have tables of their own beside their
translation; `docs/api.md` shows all of them, and a test compares it with the code.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

INT64 = 2**63 - 1
MAX_TOOLS = 128
MAX_STOPS = 16

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Object = dict[str, Any]


class Part(Struct, forbid_unknown_fields=True):
    """A content part. Text only: the engine would fetch whatever an image's URL points to."""

    type: Literal["text"]
    text: str


class CalledFunction(Struct, forbid_unknown_fields=True):
    """What an assistant's tool call asked for; `arguments` is JSON text."""

    name: Name
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    """A tool call of an earlier assistant turn."""

    id: Name
    type: Literal["function"]
    function: CalledFunction


class Message(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Meta(min_length=1)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Name | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class FunctionTool(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionTool


class FunctionName(Struct, forbid_unknown_fields=True):
    """The name of a function."""

    name: Name


class NamedTool(Struct, forbid_unknown_fields=True):
    """The tool that the model must call."""

    type: Literal["function"]
    function: FunctionName


class JSONSchema(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The schema that the answer follows."""

    name: Name
    schema: Object
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = None


class StreamOptions(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class VoteOptions(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`ttrl` of a request: how many answers are voted on, at most, and how sure the vote must be to
    end before. What is not said is the tenant's default.
    """

    votes: Count | None = None
    confidence: Annotated[float, Meta(gt=0.5, le=1)] | None = None


class Sampling(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What every OpenAI route takes."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None
    ) = None
    seed: Annotated[int, Meta(ge=-INT64 - 1, le=INT64)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    user: str | None = None
    metadata: Object | None = None
    service_tier: str | None = None


SAMPLING: Final = Sampling.__struct_fields__


class Common(Sampling, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What the routes that reach the engine take. The bound of `n` comes from the settings."""

    n: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_tokens: Count | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None


class ChatRequest(Common, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    modalities: Annotated[list[Literal["text"]], Meta(max_length=1)] | None = None
    ttrl: VoteOptions | None = None
    verbosity: str | None = None
    prediction: Object | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Object | None = None
    prompt_cache_retention: str | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    web_search_options: None = None
    moderation: None = None


class CompletionRequest(Common, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/completions`."""

    # One text, or a list of: texts; token ids; lists of token ids. Told apart in `parsing`.
    prompt: (
        Annotated[str, Meta(min_length=1)]
        | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    )
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    suffix: None = None


DROPPED: Final = (
    "user",
    "metadata",
    "service_tier",
    "store",
    "stream_options",
    "ttrl",
    "modalities",
    "verbosity",
    "prediction",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "echo",
    "best_of",
)
"""Accepted and never passed on. `store`, `stream_options` and `ttrl` are obeyed by the gateway
itself.
"""

OBEYED: Final = ("model", "store", "stream_options", "ttrl")
"""What the gateway itself decides or obeys; the engine hears its own version of it, or nothing."""

DROPPED_FROM_MESSAGES: Final = ("refusal", "annotations")
"""Fields of OpenAI's answers that clients send back with the history."""

_BY_SERVER = "is set by the server"
_TEMPLATE = "would change how the prompt is rendered"
_ENGINE = "addresses the engine's internals"
_FORMAT = "is not supported; use `response_format`"
_PROMPT = "would return or change parts of the prompt's processing"

REFUSED: Final[dict[str, str]] = {
    "priority": _BY_SERVER,
    "cache_salt": _BY_SERVER,
    "request_id": _BY_SERVER,
    "session_id": _BY_SERVER,
    "include_reasoning": _BY_SERVER,
    "chat_template": _TEMPLATE,
    "chat_template_kwargs": _TEMPLATE,
    "add_generation_prompt": _TEMPLATE,
    "continue_final_message": _TEMPLATE,
    "add_special_tokens": _TEMPLATE,
    "documents": _TEMPLATE,
    "truncate_prompt_tokens": _TEMPLATE,
    "truncation_side": _TEMPLATE,
    "vllm_xargs": _ENGINE,
    "kv_transfer_params": _ENGINE,
    "ec_transfer_params": _ENGINE,
    "mm_processor_kwargs": _ENGINE,
    "media_io_kwargs": _ENGINE,
    "prompt_embeds": _ENGINE,
    "stream_interval": _ENGINE,
    "structured_outputs": _FORMAT,
    "guided_json": _FORMAT,
    "guided_regex": _FORMAT,
    "guided_choice": _FORMAT,
    "guided_grammar": _FORMAT,
    "prompt_logprobs": _PROMPT,
    "return_token_ids": _PROMPT,
    "return_prompt_text": _PROMPT,
    "logprob_token_ids": _PROMPT,
}
"""Engine fields that a tenant must not control, and why."""
