"""What a request to `/v1/messages` may say; the rules are those of `server.gateway.allowlist`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from server.gateway.allowlist import (
    MAX_STOPS,
    MAX_TOOLS,
    REFUSED,
    Count,
    Name,
    Object,
    StopText,
    VoteOptions,
)


class TextBlock(
    Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="text"
):
    """Text; the only kind of content that a text engine takes."""

    text: str
    cache_control: Any = None
    citations: Any = None


class ToolUseBlock(
    Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="tool_use"
):
    """A tool call of an earlier assistant turn."""

    id: Name
    name: Name
    input: Object
    cache_control: Any = None
    caller: Any = None
    toolset_name: str | None = None


class ToolResultBlock(
    Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="tool_result"
):
    """What a tool said. `is_error` is accepted; a chat has no place for it."""

    tool_use_id: Name
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: Any = None
    toolset_name: str | None = None


class ThinkingBlock(
    Struct, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="thinking"
):
    """Reasoning of an earlier assistant turn."""

    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(
    Struct,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="redacted_thinking",
):
    """Reasoning that nobody here can read; it is left out."""

    data: str


Block = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Message(Struct, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(min_length=1)]


class Tool(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A tool that the model may call; `input_schema` is a JSON schema."""

    name: Name
    input_schema: Object
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None
    input_examples: list[Any] | None = None


class ToolChoice(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How a tool is chosen; `name` belongs to `tool`."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`disabled` asks the model's template for no reasoning; the others are its default. A budget
    is not enforced: `max_tokens` is.
    """

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Count | None = None
    display: str | None = None


class JSONFormat(Struct, forbid_unknown_fields=True):
    """The schema that the answer follows."""

    type: Literal["json_schema"]
    schema: Object


class OutputConfig(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The form of the answer, and how long the model may think."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JSONFormat | None = None


class Conversation(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is counted, and answered."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None
    speed: str | None = None
    mcp_servers: Annotated[list[Any], Meta(max_length=0)] | None = None
    context_management: None = None
    container: None = None


class CountRequest(Conversation, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/messages/count_tokens`."""


class MessagesRequest(Conversation, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The body of `POST /v1/messages`; `store` and `ttrl` are ours, as on the other
    routes.
    """

    max_tokens: Count
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    store: bool | None = None
    metadata: Object | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    ttrl: VoteOptions | None = None
    diagnostics: Object | None = None


DROPPED_MESSAGES: Final = (
    "metadata",
    "service_tier",
    "inference_geo",
    "cache_control",
    "speed",
    "diagnostics",
)
"""Accepted and never passed on. The engine's prefix cache needs no `cache_control`."""

OBEYED_MESSAGES: Final = ("model", "store", "ttrl")

REFUSED_MESSAGES: Final[dict[str, str]] = REFUSED | {
    "mcp_servers": "names servers that would be called from here, and none is",
    "context_management": "would change the conversation",
    "container": "names a container, and there is none",
    "n": "is the field of chat completions; one answer is given",
    "stop": "is the field of chat completions; use `stop_sequences`",
    "max_completion_tokens": "is the field of chat completions; use `max_tokens`",
    "response_format": "is the field of chat completions; use `output_config.format`",
    "structured_outputs": "is not supported; use `output_config.format`",
}
"""Fields that are refused, and why."""
