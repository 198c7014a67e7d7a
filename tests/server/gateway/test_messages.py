"""`/v1/messages`, by the events and shapes that Anthropic documents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fakes.vllm import Fault, ToolCall, Turn
from tests.server.gateway.conftest import ADDER, Stack, collect, running

CHAT, MESSAGES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"
ADD = {"name": "add", "description": "adds", "input_schema": {"type": "object", "properties": {}}}
USER = {"role": "user", "content": "2+2"}


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "ttrl", "max_tokens": 100, "messages": [USER]} | fields


async def post(stack: Stack, path: str = MESSAGES, **fields: Any) -> httpx.Response:
    async with stack.http() as http:
        return await http.post(path, json=asked(**fields))


async def streamed(stack: Stack, **fields: Any) -> list[dict[str, Any]]:
    """The events' data; each is named as its data says."""
    response = await post(stack, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events: list[dict[str, Any]] = []
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The Message that a client builds of the events, as Anthropic's do."""
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    message: dict[str, Any] = events[0]["message"]
    arguments: dict[int, str] = {}
    for event in events[1:-1]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            assert event["index"] == len(message["content"]) - 1
            if delta["type"] == "input_json_delta":
                arguments.setdefault(event["index"], "")
                arguments[event["index"]] += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] += delta[name]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return message


async def test_a_message(stack: Stack):
    response = await post(stack)
    [query] = await stack.queries()
    assert response.json() == {
        "id": query.id,
        "type": "message",
        "role": "assistant",
        "model": "ttrl",
        "system_fingerprint": "adder--v2",
        "content": [{"type": "text", "text": "t1-adder--v2|2+2"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": query.prompt_tokens,
            "output_tokens": query.completion_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }
    assert response.headers["request-id"] == response.headers["x-request-id"] == query.id
    assert response.headers["x-ttrl-adapter"] == "adder--v2"
    assert query.id.startswith("msg_")
    assert (query.route, query.eligible, query.reason) == ("messages", True, None)
    assert query.prompt == [USER]
    assert query.params == {"model": "ttrl", "max_tokens": 100}
    [row] = await stack.answers(query.id)
    assert (row.text, row.finish_reason) == ("t1-adder--v2|2+2", "stop")


async def test_the_events_of_a_stream(stack: Stack):
    stack.fake.default_answer = "ab"
    events = await streamed(stack)
    [query] = await stack.queries()
    start, *middle = events
    assert start["message"]["usage"]["input_tokens"] == query.prompt_tokens
    assert start["message"]["content"] == []
    assert middle == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": query.prompt_tokens,
                "output_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        },
        {"type": "message_stop"},
    ]
    assert (query.stream, query.completion_tokens) == (True, 3)


@pytest.mark.parametrize("chunk_tokens", [1, 3, 100])
async def test_a_stream_builds_what_is_answered_whole(stack: Stack, chunk_tokens: int):
    stack.fake.chunk_tokens = chunk_tokens
    stack.fake.default_answer = Turn(
        "two", "hm", (ToolCall("add", '{"a":2}'), ToolCall("add", '{"b":[]}'))
    )
    whole = (await post(stack, tools=[ADD])).json()
    built = accumulated(await streamed(stack, tools=[ADD]))
    assert {**built, "id": ""} == {**whole, "id": ""}
    assert whole["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "two"},
        {"type": "tool_use", "id": "chatcmpl-tool-0", "name": "add", "input": {"a": 2}},
        {"type": "tool_use", "id": "chatcmpl-tool-0-1", "name": "add", "input": {"b": []}},
    ]
    assert whole["stop_reason"] == "tool_use"
    for query in await stack.queries():
        [row] = await stack.answers(query.id)
        assert (row.text, row.reasoning) == ("two", "hm")
        assert row.tool_calls is not None
        assert [call["function"]["arguments"] for call in row.tool_calls] == ['{"a":2}', '{"b":[]}']
        assert query.reason == "tool_calls"


async def test_the_history_becomes_a_chat(stack: Stack):
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "2+2", "cache_control": None}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "let me add"},
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
                {"type": "text", "text": "sure?"},
                {"type": "text", "text": "really?"},
            ],
        },
    ]
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    response = await post(stack, messages=turns, system=system, tools=[ADD])
    assert response.status_code == 200, response.text
    function = {"name": "add", "arguments": '{"a":2}'}
    messages = [
        {"role": "system", "content": "be brief"},
        USER,
        {
            "role": "assistant",
            "content": "let me add",
            "reasoning": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "sure?"}, {"type": "text", "text": "really?"}],
        },
    ]
    assert stack.fake.received(CHAT)[0].body["messages"] == messages
    assert [query.prompt for query in await stack.queries()] == [messages]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
    ],
)
async def test_tool_choice(stack: Stack, choice: dict[str, Any], sent: Any):
    choice = choice | {"disable_parallel_tool_use": True}
    await post(stack, tools=[ADD], tool_choice=choice)
    body = stack.fake.received(CHAT)[0].body
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (sent, False)
    function: dict[str, Any] = {"name": "add", "description": "adds"}
    function["parameters"] = ADD["input_schema"]
    if sent not in ("auto", "none"):
        function["strict"] = True
    assert body["tools"] == [{"type": "function", "function": function}]


async def test_the_fields_that_are_passed(stack: Stack):
    await post(
        stack,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["x"],
        metadata={"user_id": "u"},
        service_tier="auto",
        thinking={"type": "disabled"},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    schema = {"name": "answer", "schema": {"type": "object"}}
    assert stack.fake.received(CHAT)[0].body == {
        "model": "t1-adder--v2",
        "cache_salt": "tenant-1",
        "messages": [USER],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["x"],
        "reasoning_effort": "none",
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    assert [query.reason for query in await stack.queries()] == ["structured"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "stopped"),
    [
        ({"stop_sequences": ["|"]}, ("stop_sequence", "|")),
        ({"max_tokens": 3}, ("max_tokens", None)),
        ({}, ("end_turn", None)),
    ],
)
async def test_why_an_answer_ended(
    stack: Stack, fields: dict[str, Any], stopped: tuple[str, str | None], stream: bool
):
    if stream:
        message = accumulated(await streamed(stack, **fields))
    else:
        message = (await post(stack, **fields)).json()
    assert (message["stop_reason"], message["stop_sequence"]) == stopped


@pytest.mark.parametrize("arguments", ["{", "[1]", "é"])
async def test_arguments_that_are_no_object(stack: Stack, arguments: str):
    stack.fake.default_answer = ToolCall("add", arguments)
    message = (await post(stack, tools=[ADD])).json()
    assert message["content"][0]["input"] == {"INVALID_JSON": arguments}


async def test_an_empty_answer_has_no_blocks(stack: Stack):
    stack.fake.default_answer = ""
    assert (await post(stack)).json()["content"] == []
    events = await streamed(stack)
    assert [e["type"] for e in events] == ["message_start", "message_delta", "message_stop"]


async def test_store_false_is_not_logged(stack: Stack):
    assert (await post(stack, store=False)).status_code == 200
    assert await stack.queries() == []


async def test_what_newer_clients_send(stack: Stack):
    """Fields and values of version 2 of Anthropic's package that mean nothing to an engine."""
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "4", "toolset_name": "t"}
    use = {"type": "tool_use", "id": "c1", "name": "add", "input": {}, "toolset_name": "t"}
    response = await post(
        stack,
        speed="standard",
        diagnostics={"previous_message_id": "msg_1"},
        thinking={"type": "between_tools"},
        messages=[
            USER,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ],
    )
    assert response.status_code == 200, response.text
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert stack.fake.received(CHAT)[0].body == {
        "model": "t1-adder--v2",
        "cache_salt": "tenant-1",
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
        ],
        "max_tokens": 100,
    }


async def test_the_key_of_anthropics_clients(stack: Stack):
    headers = {"x-api-key": ADDER, "anthropic-version": "2023-06-01"}
    async with stack.http(headers=headers) as http:
        del http.headers["Authorization"]
        assert (await http.post(MESSAGES, json=asked())).status_code == 200
        assert (await http.post(COUNT, json=asked())).status_code == 400  # it takes no max_tokens
        assert (await http.get("/v1/models")).status_code == 200
        http.headers["x-api-key"] = "sk-wrong"
        response = await http.post(MESSAGES, json=asked())
    assert response.status_code == 401
    error = response.json()["error"]
    # The words are OpenAI's: clients that wrap several providers look for them.
    assert error == {"type": "authentication_error", "message": "Incorrect API key provided."}


async def test_count_tokens(stack: Stack):
    body = {"model": "ttrl", "messages": [USER], "system": "be brief", "tools": [ADD]}
    async with stack.http() as http:
        response = await http.post(COUNT, json=body)
    answer = (await post(stack, system="be brief")).json()
    assert response.json() == {"input_tokens": answer["usage"]["input_tokens"]}
    [received] = stack.fake.received("/tokenize")
    assert received.body["model"] == "t1-adder--v2"
    assert received.body["messages"][0] == {"role": "system", "content": "be brief"}
    assert received.body["tools"][0]["function"]["name"] == "add"
    assert len(await stack.queries()) == 1


@pytest.mark.parametrize("fault", [Fault(garbage=b"{}"), Fault(status=500)])
async def test_a_count_that_fails(stack: Stack, fault: Fault):
    stack.fake.script("/tokenize", fault)
    async with stack.http() as http:
        response = await http.post(COUNT, json={"model": "ttrl", "messages": [USER]})
    assert (response.status_code, response.json()["error"]["type"]) == (502, "api_error")


async def test_the_last_events_are_kept_back_until_the_row_is_committed(stack: Stack):
    stack.recorder.may_store.clear()
    received: list[str] = []
    async with (
        stack.http() as http,
        http.stream("POST", MESSAGES, json=asked(stream=True)) as response,
    ):
        reading = asyncio.create_task(collect(response, received))
        await stack.recorder.handed_in.wait()
        assert not reading.done()
        assert "message_delta" not in "".join(received)
        assert await stack.queries() == []
        stack.recorder.may_store.set()
        await reading
    assert "message_stop" in received[-1]


async def test_an_engine_that_dies_in_the_middle(stack: Stack):
    stack.fake.script(CHAT, Fault(drop_after=4))
    *events, last = await streamed(stack)
    assert last == {
        "type": "error",
        "error": {
            "type": "overloaded_error",
            "message": "The engine went away while it answered.",
        },
    }
    assert events[-1]["type"] == "content_block_delta"
    [query] = await stack.queries()
    assert query.status == "error"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", MESSAGES, asked(model="gpt-4o"), 404, "not_found_error"),
        ("POST", COUNT, {"model": "gpt-4o", "messages": [USER]}, 404, "not_found_error"),
        ("GET", MESSAGES, None, 405, "invalid_request_error"),
        ("POST", f"{MESSAGES}/batches", {}, 404, "not_found_error"),
        ("GET", f"{MESSAGES}/nothing", None, 404, "not_found_error"),
    ],
)
async def test_other_errors_are_anthropics_too(
    stack: Stack, method: str, path: str, body: Any, status: int, kind: str
):
    async with stack.http() as http:
        response = await http.request(method, path, json=body)
    assert response.status_code == status
    told = response.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert set(told["error"]) == {"type", "message"}


async def test_a_body_that_is_too_large(tmp_path: Any):
    async with running(tmp_path, max_body_bytes=2000) as stack:
        response = await post(stack, system="x" * 2000)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "request_too_large"


async def test_an_engine_that_is_away(stack: Stack):
    stack.fake.script(CHAT, Fault(status=503))
    response = await post(stack)
    assert (response.status_code, response.json()["error"]["type"]) == (503, "overloaded_error")
    assert response.headers["retry-after"]
