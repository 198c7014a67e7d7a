"""Votes that stream, and votes on the other dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.gateway.conftest import Stack, chat
from tests.server.gateway.votes.asking import LIVE, boxed, streamed

DIALECTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"model": "ttrl", "input": "2+2"}),
    (
        "/v1/messages",
        {"model": "ttrl", "max_tokens": 50, "messages": [{"role": "user", "content": "2+2"}]},
    ),
]


async def test_a_stream_tells_progress_and_then_the_chosen_answer(stack: Stack):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "4")
    options = {"include_usage": True}
    events = await streamed(stack, **chat(ttrl={"votes": 4}, stream_options=options))
    comments = [event for event in events if event.startswith(":")]
    assert comments[-1] == ": 4 of 4 votes, leading .75"
    assert events[: len(comments)] == comments
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[len(comments) : -1]]
    texts = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "".join(texts) == r"I think \boxed{4}"
    *_, last, usage = chunks
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (last["ttrl"]["label"], last["ttrl"]["majority_ratio"]) == ("4", 0.75)
    assert usage["usage"]["completion_tokens"] == 4 * (len(r"I think \boxed{4}") + 1)
    assert {chunk["model"] for chunk in chunks} == {"ttrl"}
    assert {chunk["system_fingerprint"] for chunk in chunks} == {"adder--v2"}


async def test_openais_client_reads_both(stack: Stack):
    stack.fake.answers[LIVE] = r"\boxed{4}"
    extra: dict[str, Any] = {"ttrl": {"votes": 8}}
    async with stack.openai() as client:
        asked: list[Any] = [{"role": "user", "content": "2+2"}]
        whole = await client.chat.completions.create(model="ttrl", messages=asked, extra_body=extra)
        stream = await client.chat.completions.create(
            model="ttrl", messages=asked, extra_body=extra, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert whole.model_extra is not None
    assert whole.model_extra["ttrl"]["label"] == "4"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content == r"\boxed{4}"


@pytest.mark.parametrize(("path", "body"), DIALECTS)
async def test_the_other_dialects_vote_too(stack: Stack, path: str, body: dict[str, Any]):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "4")
    async with stack.http() as http:
        whole = (await http.post(path, json=body | {"ttrl": {"votes": 4}})).json()
    assert (whole["ttrl"]["label"], whole["ttrl"]["sampled"]) == ("4", 4)
    assert r"\\boxed{4}" in json.dumps(whole)
    assert whole["usage"]["output_tokens"] == 4 * (len(r"I think \boxed{4}") + 1)
    events = await streamed(stack, path, **body, ttrl={"votes": 4})
    [told] = [event for event in events if event.startswith(": ttrl ")]
    assert json.loads(told.removeprefix(": ttrl "))["majority_ratio"] == 0.75
    assert r"\\boxed{4}" in "".join(events)
    assert [len(await stack.answers(query.id)) for query in await stack.queries()] == [4, 4]


@pytest.mark.parametrize(("path", "body"), DIALECTS)
async def test_the_other_dialects_refuse_what_is_none(
    stack: Stack, path: str, body: dict[str, Any]
):
    async with stack.http() as http:
        response = await http.post(path, json=body | {"ttrl": {"votes": -1}})
    assert response.status_code == 400
    assert "ttrl.votes" in response.text
