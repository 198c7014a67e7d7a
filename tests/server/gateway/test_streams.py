"""The relay of streams, byte by byte: what goes out when, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from server.db.models import Query
from server.errors import LogUnavailable
from tests.fakes.vllm import Fault
from tests.server.gateway.conftest import Stack, chat, collect, running

CHAT = "/v1/chat/completions"


def events_of(text: str) -> list[Any]:
    """The events' data; JSON is parsed."""
    assert text.endswith("\n\n")
    data = [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


async def stream_of(stack: Stack, **fields: Any) -> httpx.Response:
    async with stack.http() as http:
        return await http.post(CHAT, json=chat(stream=True, **fields))


async def only_query(stack: Stack) -> Query:
    [query] = await stack.queries()
    return query


async def test_headers_and_end(stack: Stack):
    response = await stream_of(stack)
    query = await only_query(stack)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-ttrl-adapter"] == "adder--v2"
    assert response.headers["x-request-id"] == query.id
    assert events_of(response.text)[-1] == "[DONE]"


async def test_nothing_internal_is_in_the_events(stack: Stack):
    stack.fake.default_answer = "four"
    response = await stream_of(stack, stream_options={"include_usage": True})
    assert "t1-adder" not in response.text
    assert "vllm" not in response.text
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    assert {(c["model"], c["system_fingerprint"]) for c in chunks} == {("ttrl", "adder--v2")}
    assert chunks[-1]["usage"]["completion_tokens"] == 5


async def test_text_that_looks_like_the_protocol_is_left_alone(stack: Stack):
    text = '"model":"t1-adder--v2","system_fingerprint":"x"\n\ndata: [DONE]\n\n\r\n€😀\0'
    stack.fake.default_answer = text
    response = await stream_of(stack)
    *chunks, _done = events_of(response.text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text
    [row] = await stack.answers((await only_query(stack)).id)
    assert row.text == text.replace("\0", "\u2400")


async def test_events_go_out_as_they_come(stack: Stack):
    stack.fake.default_answer = "abc"
    stack.fake.token_delay_s = 0.05
    async with stack.http() as http, http.stream("POST", CHAT, json=chat(stream=True)) as response:
        texts = response.aiter_text()
        first = await anext(texts)
        assert stack.fake.in_flight == 1  # there is more to come, and some is here already
        rest = "".join([text async for text in texts])
    assert events_of(first)[0]["choices"]
    assert events_of(rest)[-1] == "[DONE]"


async def test_done_is_kept_back_until_the_row_is_committed(stack: Stack):
    stack.recorder.may_store.clear()
    received: list[str] = []
    async with stack.http() as http, http.stream("POST", CHAT, json=chat(stream=True)) as response:
        reading = asyncio.create_task(collect(response, received))
        await stack.recorder.handed_in.wait()
        assert await stack.queries() == []
        assert not reading.done()
        assert "[DONE]" not in "".join(received)
        stack.recorder.may_store.set()
        await reading
    assert events_of("".join(received))[-1] == "[DONE]"
    assert (await only_query(stack)).status == "ok"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_generation(stack: Stack, stream: bool):
    stack.fake.default_answer = "a" * 1000
    stack.fake.token_delay_s = 0.01
    async with stack.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(stream=stream)))
        await stack.fake.arrived(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await stack.fake.idle()
    assert stack.fake.num_aborted == 1
    await stack.recorder.stored.wait()
    query = await only_query(stack)
    assert (query.status, query.eligible, query.stream) == ("aborted", False, stream)


async def test_a_partial_answer_is_logged_as_aborted(stack: Stack):
    stack.fake.default_answer = "a" * 1000
    stack.fake.token_delay_s = 0.01
    async with stack.http() as http, http.stream("POST", CHAT, json=chat(stream=True)) as response:
        async for text in response.aiter_text():
            if '"content":"a"' in text:
                break
    await stack.fake.idle()
    await stack.recorder.stored.wait()
    query = await only_query(stack)
    assert (query.status, query.eligible, query.reason) == ("aborted", False, "aborted")
    assert query.first_byte_ms is not None
    [row] = await stack.answers(query.id)
    assert set(row.text) == {"a"}
    assert len(row.text) < 1000
    assert row.finish_reason is None


async def test_an_engine_that_dies_in_the_middle(stack: Stack):
    stack.fake.script(CHAT, Fault(drop_after=4))
    response = await stream_of(stack)
    assert response.status_code == 200
    *chunks, last = events_of(response.text)
    assert set(last) == {"error"}
    assert last["error"]["code"] == "engine_unavailable"
    assert len(chunks) == 4
    query = await only_query(stack)
    assert (query.status, query.reason) == ("error", "error")
    assert [row.text for row in await stack.answers(query.id)] == ["t1-"]


async def test_an_error_event_in_the_middle(stack: Stack):
    stack.fake.script(CHAT, Fault(error_after=2, message="secret /srv/vllm/x.py t1-adder--v2"))
    response = await stream_of(stack)
    *chunks, last = events_of(response.text)
    assert last["error"]["code"] == "engine_error"
    assert "secret" not in response.text
    assert len(chunks) == 2
    assert (await only_query(stack)).status == "error"


async def test_an_error_as_the_first_event_has_a_status(stack: Stack):
    stack.fake.script(CHAT, Fault(error_after=0, message="no"))
    response = await stream_of(stack)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "engine_error"
    assert await stack.queries() == []


async def test_an_event_that_cannot_be_read(stack: Stack):
    stack.fake.script(CHAT, Fault(garbage=b"data: {broken\n\n"))
    response = await stream_of(stack)
    assert response.status_code == 502
    assert await stack.queries() == []


async def test_comments_pass_after_the_first_event(stack: Stack):
    first = b'{"id":"x","model":"y","choices":[{"index":0,"delta":{"content":"4"}}]}'
    body = b": early\n\ndata: " + first + b"\n\n: keep-alive\n\ndata: [DONE]\n\n"
    stack.fake.script(CHAT, Fault(garbage=body))
    response = await stream_of(stack)
    chunk, comment, done, end = response.text.split("\n\n")
    query = await only_query(stack)
    assert json.loads(chunk.removeprefix("data: ")) == {
        "id": query.id,
        "model": "ttrl",
        "choices": [{"index": 0, "delta": {"content": "4"}}],
        "system_fingerprint": "adder--v2",
    }
    assert (comment, done, end) == (": keep-alive", "data: [DONE]", "")


async def test_a_log_that_fails_ends_the_stream_with_an_error(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(_entry: Any) -> None:
        raise LogUnavailable("The query log cannot be written at the moment.")

    monkeypatch.setattr(stack.deps.recorder, "record", refuse)
    response = await stream_of(stack)
    last = events_of(response.text)[-1]
    assert last["error"]["code"] == "log_unavailable"
    assert "[DONE]" not in response.text


async def test_a_stream_that_takes_too_long(tmp_path: Any):
    async with running(tmp_path, request_timeout_s=0.3) as stack:
        stack.fake.default_answer = "a" * 1000
        stack.fake.token_delay_s = 0.01
        response = await stream_of(stack)
        assert events_of(response.text)[-1]["error"]["code"] == "engine_error"
        await stack.fake.idle()
        assert stack.fake.num_aborted == 1
        assert (await only_query(stack)).status == "error"


async def test_the_connection_to_the_engine_is_used_again(stack: Stack):
    for _ in range(3):
        await stream_of(stack)
    assert stack.deps.upstream.num_connections == 1
