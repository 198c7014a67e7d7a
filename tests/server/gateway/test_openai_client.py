"""The `openai` package works unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.fakes.vllm import ToolCall, Turn
from tests.server.gateway.conftest import ADDER, NOVICE, Stack

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "2+2"}]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}


async def test_chat(stack: Stack):
    async with stack.openai() as client:
        answer = await client.chat.completions.create(model="ttrl", messages=MESSAGES)
    assert answer.choices[0].message.content == "t1-adder--v2|2+2"
    assert answer.model == "ttrl"
    assert answer.system_fingerprint == "adder--v2"
    [query] = await stack.queries()
    assert query.id == answer.id
    assert (query.tenant_id, query.route, query.adapter_version) == (1, "chat", 2)
    assert (query.status, query.eligible, query.reason, query.stream) == ("ok", True, None, False)
    assert query.prompt == MESSAGES
    assert answer.usage is not None
    assert query.prompt_tokens == answer.usage.prompt_tokens
    assert query.completion_tokens == answer.usage.completion_tokens
    assert query.latency_ms > 0
    [row] = await stack.answers(answer.id)
    assert (row.text, row.finish_reason) == ("t1-adder--v2|2+2", "stop")


async def test_chat_stream(stack: Stack):
    async with stack.openai() as client:
        stream = await client.chat.completions.create(model="ttrl", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "t1-adder--v2|2+2"
    assert {c.model for c in chunks} == {"ttrl"}
    assert {c.system_fingerprint for c in chunks} == {"adder--v2"}
    assert all(c.usage is None and c.choices for c in chunks)
    [query] = await stack.queries()
    assert {c.id for c in chunks} == {query.id}
    assert query.stream
    assert query.completion_tokens == len("t1-adder--v2|2+2") + 1
    assert query.first_byte_ms is not None
    [row] = await stack.answers(query.id)
    assert (row.text, row.finish_reason) == ("t1-adder--v2|2+2", "stop")


async def test_the_synchronous_client(stack: Stack):
    def ask() -> tuple[str | None, str]:
        http = DefaultHttpxClient(trust_env=False, verify=False)
        with OpenAI(base_url=f"{stack.url}/v1", api_key=ADDER, http_client=http) as client:
            answer = client.chat.completions.create(model="ttrl", messages=MESSAGES)
            stream = client.chat.completions.create(model="ttrl", messages=MESSAGES, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return answer.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == ("t1-adder--v2|2+2", "t1-adder--v2|2+2")
    assert len(await stack.queries()) == 2


async def test_include_usage(stack: Stack):
    async with stack.openai() as client:
        stream = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert usage is not None
    assert usage.completion_tokens == len("t1-adder--v2|2+2") + 1
    assert (chunks[-1].model, chunks[-1].system_fingerprint) == ("ttrl", "adder--v2")


@pytest.mark.parametrize("stream", [False, True])
async def test_n_logs_every_answer(stack: Stack, stream: bool):
    stack.fake.answers["t1-adder--v2"] = ["four", "five", "six"]
    async with stack.openai() as client:
        answer = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, n=3, seed=1, stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            async for _ in answer:
                pass
    [query] = await stack.queries()
    rows = await stack.answers(query.id)
    assert [(row.choice, row.text) for row in rows] == [(0, "five"), (1, "six"), (2, "four")]
    assert query.params["n"] == 3
    assert query.params["seed"] == 1


async def test_stop_and_max_tokens(stack: Stack):
    stack.fake.default_answer = "one two three"
    async with stack.openai() as client:
        stopped = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, stop=[" three"]
        )
        cut = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, max_completion_tokens=3
        )
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == (
        "one two",
        "stop",
    )
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one", "length")


async def test_logprobs(stack: Stack):
    async with stack.openai() as client:
        answer = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, logprobs=True, top_logprobs=2
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == "t1-adder--v2|2+2"
    assert stack.fake.received("/v1/chat/completions")[0].body["top_logprobs"] == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_passed_through_and_logged(stack: Stack, stream: bool):
    stack.fake.default_answer = ToolCall("add", '{"a":2}')
    async with stack.openai() as client:
        answer = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, tools=[TOOL], tool_choice="auto", stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            async for _ in answer:
                pass
    assert stack.fake.received("/v1/chat/completions")[0].body["tools"] == [TOOL]
    [query] = await stack.queries()
    [row] = await stack.answers(query.id)
    assert row.tool_calls is not None
    assert row.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a":2}'}
    assert row.finish_reason == "tool_calls"
    assert (query.eligible, query.reason) == (False, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_passed_through_and_logged_apart(stack: Stack, stream: bool):
    stack.fake.default_answer = Turn("4", "two and two")
    async with stack.openai() as client:
        answer: Any = await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, stream=stream
        )
        if stream:
            deltas = [chunk.choices[0].delta.to_dict() async for chunk in answer]
            thought = "".join(delta.get("reasoning") or "" for delta in deltas)
        else:
            thought = answer.choices[0].message.to_dict()["reasoning"]
    assert thought == "two and two"
    [query] = await stack.queries()
    [row] = await stack.answers(query.id)
    assert (row.text, row.reasoning) == ("4", "two and two")
    assert query.eligible


async def test_response_format_is_passed_through(stack: Stack):
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    async with stack.openai() as client:
        await client.chat.completions.create(model="ttrl", messages=MESSAGES, response_format=form)
    assert stack.fake.received("/v1/chat/completions")[0].body["response_format"] == form
    assert [query.reason for query in await stack.queries()] == ["structured"]


async def test_completions(stack: Stack):
    async with stack.openai() as client:
        answer = await client.completions.create(model="ttrl", prompt="2+2", max_tokens=99)
        stream = await client.completions.create(
            model="ttrl", prompt="2+2", max_tokens=99, stream=True
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert answer.choices[0].text == text == "t1-adder--v2|2+2"
    whole, streamed = await stack.queries()
    assert whole.id == answer.id
    assert (whole.route, whole.prompt, whole.reason) == ("completions", ["2+2"], "not_chat")
    assert not whole.eligible
    assert [row.text for row in await stack.answers(streamed.id)] == [text]


async def test_token_ids_as_prompt(stack: Stack):
    async with stack.openai() as client:
        answer = await client.completions.create(model="ttrl", prompt=[65, 66], max_tokens=99)
    assert answer.choices[0].text == "t1-adder--v2|AB"
    assert [query.prompt for query in await stack.queries()] == [[[65, 66]]]


@pytest.mark.parametrize(
    ("key", "model", "engine_name", "label"),
    [
        (ADDER, "ttrl", "t1-adder--v2", "adder--v2"),
        (ADDER, "ttrl@v1", "t1-adder--v1", "adder--v1"),
        (ADDER, "ttrl@base", "identity", "adder--v0"),
        (NOVICE, "ttrl", "identity", "novice--v0"),
    ],
)
async def test_the_key_and_the_model_decide_the_version(
    stack: Stack, key: str, model: str, engine_name: str, label: str
):
    async with stack.openai(key) as client:
        raw = await client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == f"{engine_name}|2+2"
    assert (answer.model, answer.system_fingerprint) == (model, label)
    assert raw.headers["x-ttrl-adapter"] == label
    assert raw.headers["x-request-id"] == answer.id


async def test_another_tenants_version_is_unknown(stack: Stack):
    async with stack.openai(NOVICE) as client:
        for model in ("ttrl@v1", "t1-adder--v1", "t1-adder--v2", "identity"):
            with pytest.raises(openai.NotFoundError) as caught:
                await client.chat.completions.create(model=model, messages=MESSAGES)
            assert caught.value.code == "model_not_found"
    assert stack.fake.received("/v1/chat/completions") == []


async def test_models(stack: Stack):
    async with stack.openai() as client:
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("ttrl@v1")
    assert names == ["ttrl", "ttrl@base", "ttrl@v2", "ttrl@v1"]
    assert one.id == "ttrl@v1"
    async with stack.openai(NOVICE) as client:
        assert [model.id async for model in client.models.list()] == ["ttrl", "ttrl@base"]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("ttrl@v1")


async def test_a_wrong_key(stack: Stack):
    async with stack.openai("sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="ttrl", messages=MESSAGES)
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_the_history_of_an_openai_client_is_taken(stack: Stack):
    async with stack.openai() as client:
        answer = await client.chat.completions.create(model="ttrl", messages=MESSAGES)
        turn: Any = answer.choices[0].message.model_dump()
        again: list[Any] = [*MESSAGES, turn, {"role": "user", "content": "sure?"}]
        second = await client.chat.completions.create(model="ttrl", messages=again)
    assert second.choices[0].message.content == "t1-adder--v2|sure?"
    sent = stack.fake.received("/v1/chat/completions")[1].body["messages"][1]
    assert sent == {"role": "assistant", "content": "t1-adder--v2|2+2"}


@pytest.mark.parametrize(
    ("choice", "strict", "sent"),
    [
        ("required", None, True),
        ({"type": "function", "function": {"name": "add"}}, None, True),
        ("required", False, False),  # the client's word counts
        ("auto", None, None),
    ],
)
async def test_the_arguments_of_a_call_that_must_come_follow_the_schema(
    stack: Stack, choice: Any, strict: bool | None, sent: bool | None
):
    """vLLM binds them for `strict` tools alone."""
    function = dict(TOOL["function"]) | ({} if strict is None else {"strict": strict})
    tool: Any = {"type": "function", "function": function}
    async with stack.openai() as client:
        await client.chat.completions.create(
            model="ttrl", messages=MESSAGES, tools=[tool], tool_choice=choice
        )
    [request] = stack.fake.received("/v1/chat/completions")
    assert request.body["tools"][0]["function"].get("strict") is sent
