"""`/v1/responses`, mostly by the `openai` package."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from server.db import traffic
from tests.fakes.vllm import Fault, ToolCall, Turn
from tests.server.gateway.conftest import NOVICE, Stack

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "adds",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def kinds(events: list[Any]) -> list[str]:
    """The events' types, repeated ones once."""
    found = [event.type for event in events]
    return [kind for at, kind in enumerate(found) if at == 0 or found[at - 1] != kind]


async def streamed(stack: Stack, **fields: Any) -> list[Any]:
    async with stack.openai() as client:
        create: Any = client.responses.create
        stream = await create(model="ttrl", stream=True, **({"input": "2+2"} | fields))
        return [event async for event in stream]


async def test_create(stack: Stack):
    async with stack.openai() as client:
        raw = await client.responses.with_raw_response.create(
            model="ttrl", input="2+2", metadata={"a": "b"}, temperature=0.5
        )
    answer = raw.parse()
    assert answer.output_text == "t1-adder--v2|2+2"
    assert (answer.status, answer.model, answer.object) == ("completed", "ttrl", "response")
    assert (answer.temperature, answer.metadata, answer.tools) == (0.5, {"a": "b"}, [])
    assert raw.headers["x-ttrl-adapter"] == "adder--v2" == answer.to_dict()["system_fingerprint"]
    assert raw.headers["x-request-id"] == answer.id
    [query] = await stack.queries()
    assert (query.id, query.route, query.adapter_version) == (answer.id, "responses", 2)
    assert query.id.startswith("resp_")
    assert (query.eligible, query.reason, query.status) == (True, None, "ok")
    assert query.prompt == [{"role": "user", "content": "2+2"}]
    assert query.params == {"model": "ttrl", "temperature": 0.5}
    assert answer.usage is not None
    assert answer.usage.input_tokens == query.prompt_tokens
    assert answer.usage.output_tokens == query.completion_tokens
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    [row] = await stack.answers(query.id)
    assert (row.text, row.finish_reason, row.reasoning) == ("t1-adder--v2|2+2", "stop", None)


async def test_stream(stack: Stack):
    events = await streamed(stack)
    assert kinds(events) == TEXT_EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    last: Response = events[-1].response
    assert "".join(deltas) == last.output_text == "t1-adder--v2|2+2"
    assert len(deltas) > 1
    assert events[0].response.output == []
    assert events[0].response.usage is None
    [query] = await stack.queries()
    assert query.stream
    assert {e.response.id for e in events if hasattr(e, "response")} == {query.id}
    assert last.usage is not None
    assert last.usage.output_tokens == query.completion_tokens == len("t1-adder--v2|2+2") + 1


async def test_the_streaming_helper(stack: Stack):
    stack.fake.default_answer = Turn("two", "hm", (ToolCall("add", '{"a":2}'), ToolCall("add")))
    async with (
        stack.openai() as client,
        client.responses.stream(model="ttrl", input="2+2", tools=[ADD]) as stream,
    ):
        events = [event async for event in stream]
        final = await stream.get_final_response()
    snapshots = [e.snapshot for e in events if e.type == "response.output_text.delta"]
    assert snapshots == ["t", "tw", "two"]
    assert [item.type for item in final.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert final.output_text == "two"


@pytest.mark.parametrize("chunk_tokens", [1, 3, 100])
async def test_a_stream_ends_with_what_is_answered_whole(stack: Stack, chunk_tokens: int):
    stack.fake.chunk_tokens = chunk_tokens
    stack.fake.default_answer = Turn("two", "hm", (ToolCall("add", '{"a":2}'), ToolCall("add")))
    async with stack.openai() as client:
        whole = await client.responses.create(model="ttrl", input="2+2", tools=[ADD])
    last: Response = (await streamed(stack, tools=[ADD]))[-1].response

    def said(answer: Response) -> Any:
        told: Any = answer.to_dict()
        for item in told["output"]:
            del item["id"]
        return {k: v for k, v in told.items() if k not in ("id", "created_at")}

    assert said(last) == said(whole)
    first, second = await stack.queries()
    rows = [(await stack.answers(query.id))[0] for query in (first, second)]
    assert [(row.text, row.reasoning) for row in rows] == [("two", "hm")] * 2
    assert rows[0].tool_calls == rows[1].tool_calls


async def test_reasoning_is_told_apart(stack: Stack):
    stack.fake.default_answer = Turn("4", "two and two")
    events = await streamed(stack)
    thought = [
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert kinds(events) == TEXT_EVENTS[:2] + thought + TEXT_EVENTS[2:]
    reasoning, message = events[-1].response.output
    assert reasoning.content[0].text == "two and two"
    assert message.content[0].text == events[-1].response.output_text == "4"
    [query] = await stack.queries()
    assert query.eligible
    [row] = await stack.answers(query.id)
    assert (row.text, row.reasoning) == ("4", "two and two")


async def test_a_function_call_in_a_stream(stack: Stack):
    stack.fake.default_answer = ToolCall("add", '{"a":2}')
    events = await streamed(stack, tools=[ADD], tool_choice="required")
    assert kinds(events) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    [call] = events[-1].response.output
    assert (call.type, call.name, call.arguments) == ("function_call", "add", '{"a":2}')
    assert call.call_id == "chatcmpl-tool-0"
    assert call.id != call.call_id
    body = stack.fake.received(CHAT)[0].body
    function = {name: ADD[name] for name in ("name", "description", "parameters", "strict")}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == "required"
    [query] = await stack.queries()
    assert (query.eligible, query.reason) == (False, "tool_calls")
    [row] = await stack.answers(query.id)
    assert row.tool_calls is not None
    assert row.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a":2}'}


async def test_a_turn_of_the_history_is_one_message(stack: Stack):
    stack.fake.default_answer = Turn("let me add", "hm", (ToolCall("add", '{"a":2}'),))
    async with stack.openai() as client:
        question: Any = {"role": "user", "content": [{"type": "input_text", "text": "2+2"}]}
        first = await client.responses.create(model="ttrl", input=[question], tools=[ADD])
        call = first.output[2]
        assert call.type == "function_call"
        said = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
        history: Any = [question, *[item.model_dump() for item in first.output], said]
        await client.responses.create(
            model="ttrl", instructions="be brief", input=history, tools=[ADD]
        )
    function = {"name": "add", "arguments": '{"a":2}'}
    assert stack.fake.received(CHAT)[1].body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "2+2"},
        {
            "role": "assistant",
            "content": "let me add",
            "reasoning": "hm",
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "content": "4", "tool_call_id": call.call_id},
    ]


async def test_reasoning_belongs_to_the_answer_of_its_own_turn(stack: Stack):
    def reasoning(*texts: str) -> dict[str, Any]:
        return {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text} for text in texts],
        }

    history = [
        {"role": "user", "content": "2+2"},
        reasoning("cut off"),
        {"role": "user", "content": "go on"},
        reasoning("two ", "and "),
        reasoning("two"),
        reasoning(),
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3+3"},
        {"role": "assistant", "content": "6"},
        {"role": "user", "content": "4+4"},
    ]
    async with stack.http() as http:
        await http.post(RESPONSES, json={"model": "ttrl", "input": history})
    [call] = stack.fake.received(CHAT)
    answers = [one for one in call.body["messages"] if one["role"] == "assistant"]
    assert [answer.get("reasoning") for answer in answers] == ["two and two", None]


class Sum(BaseModel):
    total: int


async def test_parse(stack: Stack):
    stack.fake.default_answer = '{"total": 4}'
    async with stack.openai() as client:
        answer = await client.responses.parse(model="ttrl", input="2+2", text_format=Sum)
    assert answer.output_parsed == Sum(total=4)
    form = stack.fake.received(CHAT)[0].body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["required"] == ["total"]
    assert [query.reason for query in await stack.queries()] == ["structured"]


async def test_the_fields_that_are_passed(stack: Stack):
    async with stack.openai() as client:
        await client.responses.create(
            model="ttrl",
            input="2+2",
            max_output_tokens=9,
            top_p=0.5,
            top_logprobs=2,
            reasoning={"effort": "low", "summary": "auto"},
            text={"format": {"type": "json_object"}, "verbosity": "low"},
            tools=[ADD],
            tool_choice={"type": "function", "name": "add"},
            parallel_tool_calls=False,
            truncation="disabled",
            include=["reasoning.encrypted_content"],
            user="u",
            service_tier="auto",
            extra_body={"seed": 3, "top_k": 2, "stop": ["x"], "background": False},
        )
    body = stack.fake.received(CHAT)[0].body
    del body["tools"], body["messages"]
    assert body == {
        "model": "t1-adder--v2",
        "cache_salt": "tenant-1",
        "max_completion_tokens": 9,
        "top_p": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "seed": 3,
        "top_k": 2,
        "stop": ["x"],
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs(stack: Stack, stream: bool):
    answer: Any
    include: Any = ["message.output_text.logprobs"]
    if stream:
        events = await streamed(stack, include=include)
        deltas = [e.logprobs[0].token for e in events if e.type == "response.output_text.delta"]
        assert "".join(deltas) == "t1-adder--v2|2+2"
        answer = events[-1].response
    else:
        async with stack.openai() as client:
            answer = await client.responses.create(model="ttrl", input="2+2", include=include)
    tokens = [score.token for score in answer.output[0].content[0].logprobs]
    assert "".join(tokens) == "t1-adder--v2|2+2"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_cut_is_incomplete(stack: Stack, stream: bool):
    answer: Any
    if stream:
        events = await streamed(stack, max_output_tokens=3)
        assert events[-1].type == "response.incomplete"
        answer = events[-1].response
    else:
        async with stack.openai() as client:
            answer = await client.responses.create(model="ttrl", input="2+2", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.output[0].status, answer.output_text) == ("incomplete", "t1-")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_is_a_message_all_the_same(stack: Stack, stream: bool):
    answer: Any
    stack.fake.default_answer = ""
    if stream:
        events = await streamed(stack)
        assert kinds(events) == [kind for kind in TEXT_EVENTS if not kind.endswith("text.delta")]
        answer = events[-1].response
    else:
        async with stack.openai() as client:
            answer = await client.responses.create(model="ttrl", input="2+2")
    assert answer.output[0].content[0].text == ""


async def test_store_false_is_not_logged(stack: Stack):
    async with stack.openai() as client:
        answer = await client.responses.create(model="ttrl", input="2+2", store=False)
    assert answer.to_dict()["store"] is False
    assert await stack.queries() == []


async def test_the_last_event_is_kept_back_until_the_row_is_committed(stack: Stack):
    stack.recorder.may_store.clear()
    reading = asyncio.create_task(streamed(stack))
    await stack.recorder.handed_in.wait()
    assert not reading.done()
    assert await stack.queries() == []
    stack.recorder.may_store.set()
    assert (await reading)[-1].type == "response.completed"


async def test_an_engine_that_dies_in_the_middle(stack: Stack):
    stack.fake.script(CHAT, Fault(drop_after=4))
    with pytest.raises(openai.APIError, match="went away") as caught:
        await streamed(stack)
    assert caught.value.code == "engine_unavailable"
    [query] = await stack.queries()
    assert (query.status, query.route) == ("error", "responses")
    assert [row.text for row in await stack.answers(query.id)] == ["t1-"]


async def test_the_error_event(stack: Stack):
    stack.fake.script(CHAT, Fault(error_after=2, message="secret"))
    async with stack.http() as http:
        response = await http.post(
            RESPONSES, json={"model": "ttrl", "input": "2+2", "stream": True}
        )
    assert "secret" not in response.text
    name, data = response.text.rstrip("\n").split("\n\n")[-1].split("\n")
    assert name == "event: error"
    assert '"type":"error"' in data
    assert '"code":"engine_error"' in data


async def test_tool_calls_that_are_mixed_up(stack: Stack):
    pieces = "".join(
        f'data: {{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":{at},"id":"c{at}",'
        '"function":{"name":"f","arguments":"{"}}]}}]}\n\n'
        for at in (0, 1, 0)
    )
    stack.fake.script(CHAT, Fault(garbage=f"{pieces}data: [DONE]\n\n".encode()))
    with pytest.raises(openai.APIError, match="mixed up"):
        await streamed(stack, tools=[ADD])


async def test_why_an_earlier_response_is_refused(stack: Stack):
    async with stack.openai() as client:
        with pytest.raises(openai.BadRequestError, match="send the whole conversation in `input`"):
            await client.responses.create(model="ttrl", input="a", previous_response_id="resp_1")
        with pytest.raises(openai.NotFoundError, match="nothing is kept"):
            await client.responses.retrieve("resp_1")


async def test_another_tenants_version_is_unknown(stack: Stack):
    async with stack.openai(NOVICE) as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="ttrl@v1", input="a")


async def test_a_question_is_one_prompt_on_every_route(stack: Stack):
    async with stack.openai() as client, stack.http() as http:
        await client.responses.create(model="ttrl", input="2+2", instructions="be brief")
        await client.responses.create(
            model="ttrl",
            input=[
                {"role": "system", "content": "be brief"},
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "2+2"}],
                },
            ],
        )
        await client.chat.completions.create(
            model="ttrl",
            messages=[
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "2+2"},
            ],
        )
        message = {"role": "user", "content": [{"type": "text", "text": "2+2"}]}
        asked = {"model": "ttrl", "max_tokens": 9, "system": "be brief", "messages": [message]}
        await http.post("/v1/messages", json=asked)
    queries = await stack.queries()
    assert [query.route for query in queries] == ["responses", "responses", "chat", "messages"]
    assert len({query.fingerprint for query in queries}) == 1
    async with stack.database.transaction(write=False) as session:
        recent = await traffic.recent_queries(session, 1, limit=10)
    assert {query_id for query_id, _ in recent} == {query.id for query in queries}
