"""From the body of `POST /v1/messages` to a chat."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.config import Settings
from server.errors import BadRequest
from server.gateway import allowlist as chat
from server.gateway.messages.allowlist import (
    REFUSED_MESSAGES,
    Conversation,
    CountRequest,
    Message,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from server.gateway.messages.rendering import MessagesRendering
from server.gateway.parsing import Asked, chat_asked, decode

SCHEMA_NAME: Final = "answer"  # a chat's schema has a name, Anthropic's has none

_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountRequest)


def parse_messages(body: bytes, settings: Settings) -> Asked:
    """Parse the body of `POST /v1/messages`.

    Raises:
        BadRequest: it is malformed, or asks for something that is refused; `param` names the field.
    """
    request = decode(_MESSAGES, body, REFUSED_MESSAGES)
    asked = chat.ChatRequest(
        model=request.model,
        messages=_chat(request, settings),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=request.stop_sequences or None,
        stream=request.stream,
        store=request.store,
        ttrl=request.ttrl,
        response_format=_response_format(request),
        reasoning_effort=_effort(request),
        **_tools(request),
    )
    return chat_asked("messages", asked, body, MessagesRendering)


def parse_count(body: bytes, settings: Settings) -> tuple[str, dict[str, Any]]:
    """The model, and what of the body of `POST /v1/messages/count_tokens` the engine counts.

    Raises:
        BadRequest: as `parse_messages`.
    """
    request = decode(_COUNT, body, REFUSED_MESSAGES)
    counted = {"messages": _chat(request, settings), "tools": _tools(request).get("tools")}
    return request.model, {
        name: msgspec.to_builtins(value) for name, value in counted.items() if value is not None
    }


def _chat(request: Conversation, settings: Settings) -> list[chat.Message]:
    if len(request.messages) > settings.max_messages:
        raise BadRequest(
            f"At most {settings.max_messages} messages are allowed, not {len(request.messages)}.",
            param="messages",
        )
    if request.messages[-1].role == "assistant":
        raise BadRequest(
            "The last message is the user's: an answer cannot be begun for the model.",
            param=f"messages[{len(request.messages) - 1}].role",
        )
    converted: list[chat.Message] = []
    if request.system:
        converted.append(chat.Message("system", _content(request.system)))
    for index, message in enumerate(request.messages):
        place = f"messages[{index}].content"
        if message.role == "assistant":
            converted.append(_assistant(message, place))
        else:
            converted += _asked_by(message, place)
    return converted


def _assistant(message: Message, place: str) -> chat.Message:
    """An assistant's turn: its reasoning, its text and its calls in one message."""
    if isinstance(message.content, str):
        return chat.Message("assistant", message.content)
    texts: list[TextBlock] = []
    calls: list[chat.ToolCall] = []
    thoughts: list[str] = []
    for index, block in enumerate(message.content):
        match block:
            case TextBlock():
                texts.append(block)
            case ThinkingBlock():
                thoughts.append(block.thinking)
            case ToolUseBlock():
                arguments = msgspec.json.encode(block.input).decode()
                function = chat.CalledFunction(block.name, arguments)
                calls.append(chat.ToolCall(block.id, "function", function))
            case ToolResultBlock():
                raise _misplaced("tool_result", "user", f"{place}[{index}]")
            case _:
                pass
    if len(calls) > chat.MAX_TOOLS:
        raise BadRequest(f"At most {chat.MAX_TOOLS} calls a turn are allowed.", param=place)
    return chat.Message(
        "assistant",
        _content(texts) if texts or not calls else None,
        tool_calls=calls or None,
        reasoning="".join(thoughts) or None,
    )


def _asked_by(message: Message, place: str) -> list[chat.Message]:
    """A user's turn (or a system one): what tools said is a message each, as in a chat."""
    role = "system" if message.role == "system" else "user"
    if isinstance(message.content, str):
        return [chat.Message(role, message.content)]
    converted: list[chat.Message] = []
    texts: list[TextBlock] = []
    for index, block in enumerate(message.content):
        match block:
            case TextBlock():
                texts.append(block)
            case ToolResultBlock() if role == "user":
                if texts:
                    converted.append(chat.Message("user", _content(texts)))
                    texts = []
                said = "" if block.content is None else _content(block.content)
                converted.append(chat.Message("tool", said, tool_call_id=block.tool_use_id))
            case ToolResultBlock():
                raise _misplaced("tool_result", "user", f"{place}[{index}]")
            case _:
                kind = block.__struct_config__.tag
                raise _misplaced(str(kind), "assistant", f"{place}[{index}]")
    if texts:
        converted.append(chat.Message(role, _content(texts)))
    return converted


def _misplaced(kind: str, role: str, place: str) -> BadRequest:
    return BadRequest(f"A block of the type `{kind}` belongs to the role `{role}`.", param=place)


def _content(content: str | list[TextBlock]) -> str | list[chat.Part]:
    """Text as a chat has it; several parts stay apart, for the engine's template to join."""
    if isinstance(content, str):
        return content
    if len(content) < 2:
        return "".join(block.text for block in content)
    return [chat.Part("text", block.text) for block in content]


def _response_format(request: MessagesRequest) -> chat.ResponseFormat | None:
    form = request.output_config.format if request.output_config else None
    if form is None:
        return None
    return chat.ResponseFormat("json_schema", chat.JSONSchema(SCHEMA_NAME, form.schema))


def _effort(request: MessagesRequest) -> chat.Effort | None:
    if request.thinking is not None and request.thinking.type == "disabled":
        return "none"
    effort = request.output_config.effort if request.output_config else None
    return "xhigh" if effort == "max" else effort


def _tools(request: Conversation) -> dict[str, Any]:
    """The tools and how they are chosen; nothing of it without tools.

    Raises:
        BadRequest: a tool must be called, and there is none, or it is not named.
    """
    choice = request.tool_choice
    if choice is not None and (choice.type == "tool") != (choice.name is not None):
        raise BadRequest(
            "`name` belongs to the type `tool`, and to no other.", param="tool_choice.name"
        )
    if not request.tools:
        if choice is not None and choice.type in ("any", "tool"):
            raise BadRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return {}
    fields: dict[str, Any] = {
        "tools": [
            chat.Tool(
                "function",
                chat.FunctionTool(tool.name, tool.description, tool.input_schema, tool.strict),
            )
            for tool in request.tools
        ]
    }
    if choice is not None:
        words = {"auto": "auto", "any": "required", "none": "none"}
        fields["tool_choice"] = words.get(choice.type) or chat.NamedTool(
            "function", chat.FunctionName(choice.name or "")
        )
        if choice.disable_parallel_tool_use:
            fields["parallel_tool_calls"] = False
    return fields
