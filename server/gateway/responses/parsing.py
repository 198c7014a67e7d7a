"""From the body of `POST /v1/responses` to a chat."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from server.config import Settings
from server.errors import BadRequest
from server.gateway import allowlist as chat
from server.gateway.parsing import Asked, chat_asked, decode
from server.gateway.responses.allowlist import (
    LOGPROBS,
    REFUSED_RESPONSES,
    Content,
    InputItem,
    NamedFunction,
    ResponsesRequest,
    TextFormat,
)
from server.gateway.responses.rendering import ResponsesRendering

_DECODER = msgspec.json.Decoder(ResponsesRequest)


def parse_responses(body: bytes, settings: Settings) -> Asked:
    """Parse the body of `POST /v1/responses`.

    Raises:
        BadRequest: it is malformed, or asks for something that is refused; `param` names the field.
    """
    request = decode(_DECODER, body, REFUSED_RESPONSES)
    if not isinstance(request.input, str) and len(request.input) > settings.max_messages:
        raise BadRequest(
            f"At most {settings.max_messages} items are allowed, not {len(request.input)}.",
            param="input",
        )
    if request.tool_choice not in (None, "none", "auto") and not request.tools:
        raise BadRequest("`tool_choice` needs `tools`.", param="tool_choice")
    with_logprobs = bool(request.top_logprobs) or LOGPROBS in (request.include or ())
    asked = chat.ChatRequest(
        messages=_Conversation(request).messages,
        max_completion_tokens=request.max_output_tokens,
        response_format=_response_format(request),
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        logprobs=True if with_logprobs else None,
        top_logprobs=request.top_logprobs if with_logprobs else None,
        ttrl=request.ttrl,
        **_tools(request),
        **{name: getattr(request, name) for name in chat.SAMPLING},
    )
    render = partial(ResponsesRendering, echo=_echo(request), with_logprobs=with_logprobs)
    return chat_asked("responses", asked, body, render)


class _Conversation:
    """The chat that a request's input means. An assistant's turn is one message, as in a chat: its
    reasoning, its text and its calls.
    """

    def __init__(self, request: ResponsesRequest) -> None:
        self.messages: list[chat.Message] = []
        self._thought: str | None = None
        if request.instructions:
            self.messages.append(chat.Message("system", request.instructions))
        if isinstance(request.input, str):
            self.messages.append(chat.Message("user", request.input))
            return
        for index, item in enumerate(request.input):
            self._add(item, f"input[{index}]")
        if len(self.messages) == bool(request.instructions):
            raise BadRequest("`input` says nothing.", param="input")

    def _add(self, item: InputItem, place: str) -> None:
        match item.type:
            case "reasoning":
                thought = "".join(part.text or "" for part in _parts(item.content))
                self._thought = ((self._thought or "") + thought) or None
            case "item_reference":
                raise BadRequest(
                    "No item is kept between requests: send the item itself. Clients do so when"
                    " they are told `store: false`.",
                    param=place,
                )
            case "function_call":
                self._add_call(item, place)
            case "function_call_output":
                call_id = _given(item.call_id, f"{place}.call_id")
                said = _content(_given(item.output, f"{place}.output"))
                self._thought = None
                self.messages.append(chat.Message("tool", said, tool_call_id=call_id))
            case _:
                role = _given(item.role, f"{place}.role")
                content = _content(_given(item.content, f"{place}.content"))
                message = chat.Message(role, content)
                if role == "assistant":
                    self._think(message)
                self._thought = None  # what came to no answer in its own turn is no later one's
                self.messages.append(message)

    def _add_call(self, item: InputItem, place: str) -> None:
        function = chat.CalledFunction(
            _given(item.name, f"{place}.name"), _given(item.arguments, f"{place}.arguments")
        )
        call = chat.ToolCall(_given(item.call_id, f"{place}.call_id"), "function", function)
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant":
            last = chat.Message("assistant")
            self.messages.append(last)
        self._think(last)
        if last.tool_calls is None:
            last.tool_calls = []
        elif len(last.tool_calls) == chat.MAX_TOOLS:
            raise BadRequest(f"At most {chat.MAX_TOOLS} calls a turn are allowed.", param=place)
        last.tool_calls.append(call)

    def _think(self, message: chat.Message) -> None:
        if self._thought is not None:
            message.reasoning = (message.reasoning or "") + self._thought
            self._thought = None


def _given(value: Any, param: str) -> Any:
    if value is None:
        raise BadRequest(f"`{param}` is missing.", param=param)
    return value


def _parts(content: Content | None) -> list[Any]:
    return content if isinstance(content, list) else []


def _content(content: Content) -> str | list[chat.Part]:
    """Text as a chat has it; several parts stay apart, for the engine's template to join."""
    if isinstance(content, str):
        return content
    texts = [part.text or part.refusal or "" for part in content]
    if len(texts) < 2:
        return "".join(texts)
    return [chat.Part("text", text) for text in texts]


def _response_format(request: ResponsesRequest) -> chat.ResponseFormat | None:
    form = request.text.format if request.text else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return chat.ResponseFormat("json_object")
    return chat.ResponseFormat("json_schema", _schema(form))


def _schema(form: TextFormat) -> chat.JSONSchema:
    name = _given(form.name, "text.format.name")
    schema = _given(form.schema, "text.format.schema")
    return chat.JSONSchema(name, schema, form.description, form.strict)


def _tools(request: ResponsesRequest) -> dict[str, Any]:
    """The tools and how they are chosen; nothing of it without tools."""
    if not request.tools:
        return {}
    choice = request.tool_choice
    if isinstance(choice, NamedFunction):
        choice = chat.NamedTool("function", chat.FunctionName(choice.name))
    return {
        "tools": [
            chat.Tool(
                "function",
                chat.FunctionTool(tool.name, tool.description, tool.parameters, tool.strict),
            )
            for tool in request.tools
        ],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _echo(request: ResponsesRequest) -> dict[str, Any]:
    """What the answer says again of the request, defaults filled in, as OpenAI does."""
    given: dict[str, Any] = msgspec.to_builtins(request)
    effort = request.reasoning.effort if request.reasoning else None
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": given.get("metadata", {}),
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": effort, "summary": None},
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}} | given.get("text", {}),
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": given.get("tools", []),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": request.user,
        "background": False,
    }
