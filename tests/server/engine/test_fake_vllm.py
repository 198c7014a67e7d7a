"""The fake engine itself, where the contract tests against real vLLM do not reach."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from tests.fakes.serving import serve, serve_in_thread, serve_process
from tests.fakes.vllm import EOS, FakeVLLM, Fault, ToolCall, echo

CHAT = "/v1/chat/completions"
BODY = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}


async def test_openai_streams_text_usage_and_finish_reason() -> None:
    fake = FakeVLLM(default_answer=echo)
    async with serve(fake) as url, openai.AsyncOpenAI(base_url=url + "/v1", api_key="x") as client:
        stream = await client.chat.completions.create(
            model="base",
            messages=[{"role": "user", "content": "grüße 🙂"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "grüße 🙂"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("grüße 🙂") + 1


async def test_answers_are_chosen_by_seed_and_choice() -> None:
    fake = FakeVLLM(default_answer=["4", "4", "5"])
    async with serve(fake) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json=BODY | {"n": 4, "seed": 1})
    texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    assert texts == ["4", "5", "4", "4"]


async def test_tool_calls_arrive_streamed_and_not() -> None:
    fake = FakeVLLM(default_answer=ToolCall("add", '{"a":1}'))
    async with serve(fake) as url, openai.AsyncOpenAI(base_url=url + "/v1", api_key="x") as client:
        whole = await client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "hi"}]
        )
        stream = await client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        deltas = [chunk.choices[0] async for chunk in stream]
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.tool_calls is not None
    calls = [call for choice in deltas for call in choice.delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function][:2] == ["add", None]
    assert "".join(c.function.arguments or "" for c in calls if c.function) == '{"a":1}'
    assert deltas[-1].finish_reason == "tool_calls"


async def test_a_client_that_leaves_aborts_its_generation() -> None:
    fake = FakeVLLM()
    never = asyncio.Event()
    fake.script(CHAT, Fault(hold=never))
    async with serve(fake) as url, httpx.AsyncClient(base_url=url) as client:
        request = asyncio.create_task(client.post(CHAT, json=BODY))
        await fake.arrived(1)
        assert fake.in_flight == 1
        request.cancel()
        await fake.idle()
    assert fake.num_aborted == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_dropped_connection_is_a_protocol_error(stream: bool) -> None:
    fake = FakeVLLM()
    fake.script(CHAT, Fault(drop_after=2))
    async with serve(fake) as url, httpx.AsyncClient(base_url=url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, json=BODY | {"stream": stream})
        assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_an_error_in_a_stream_is_an_event_of_a_200() -> None:
    fake = FakeVLLM()
    fake.script(CHAT, Fault(error_after=1, message="broke"))
    async with serve(fake) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json=BODY | {"stream": True})
    events = response.text.split("\n\n")
    assert response.status_code == 200
    assert events[1].startswith('data: {"error":{"message":"broke"')
    assert events[2] == "data: [DONE]"


async def test_token_prompts_and_ids_in_process() -> None:
    transport = httpx.ASGITransport(app=FakeVLLM(default_answer="ab"))
    body = {"prompt": [104, 105], "logprobs": 0, "return_token_ids": True}
    async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
        choice = (await client.post("/v1/completions", json=body)).json()["choices"][0]
    assert choice["prompt_token_ids"] == [104, 105]
    assert choice["token_ids"] == [ord("a"), ord("b"), EOS]
    assert len(choice["logprobs"]["token_logprobs"]) == 3


def test_it_serves_from_a_thread() -> None:
    with serve_in_thread(FakeVLLM()) as url:
        assert httpx.get(url + "/health").status_code == 200


def test_it_serves_from_a_process() -> None:
    with serve_process("--answer", "four") as url:
        response = httpx.post(url + CHAT, json=BODY)
    assert response.json()["choices"][0]["message"]["content"] == "four"
