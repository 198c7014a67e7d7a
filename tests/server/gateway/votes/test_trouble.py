"""What goes wrong while a vote is held."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.vllm import Ask, Fault
from tests.server.gateway.conftest import Stack, chat, running
from tests.server.gateway.votes.asking import (
    CHAT,
    LIVE,
    boxed,
    refused,
    set_tenant,
    streamed,
    vote,
)


def locks(ask: Ask) -> str:
    """With 16 votes at full confidence: 8 of 9 in the first wave, one short one in the second."""
    if ask.body["n"] == 9:
        return r"\boxed{5}" if ask.index == 8 else r"\boxed{4}"
    return r"\boxed{4}" if ask.index == 0 else "." * 100


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_change_the_label_is_cancelled(stack: Stack, stream: bool):
    stack.fake.answers[LIVE] = locks
    # Seven openings, seven pieces of eight tokens, and the end of the short answer.
    stack.fake.script(CHAT, Fault(), Fault(stall_after=15))
    ttrl = {"votes": 16, "confidence": 1}
    if stream:
        events = await streamed(stack, **chat(ttrl=ttrl))
        assert events[-1] == "data: [DONE]"
        assert ": 10 of 16 votes, leading .90" in events
    else:
        told = (await vote(stack, ttrl=ttrl))["ttrl"]
        assert (told["sampled"], told["cancelled"], told["decided"]) == (10, 6, True)
    await stack.fake.idle()
    assert stack.fake.num_aborted == 1
    [query] = await stack.queries()
    answers = await stack.answers(query.id)
    assert [answer.finish_reason for answer in answers] == ["stop"] * 10 + [None] * 6
    assert query.completion_tokens == 10 * 10 + 6 * 8


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_all_samples(stack: Stack, stream: bool):
    stack.fake.script(CHAT, Fault(stall_after=8))
    async with stack.http() as http:
        asking = asyncio.create_task(http.post(CHAT, json=chat(ttrl={"votes": 8}, stream=stream)))
        await stack.fake.arrived(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await stack.fake.idle()
    assert stack.fake.num_aborted == 1
    await stack.recorder.stored.wait()
    [query] = await stack.queries()
    assert query.status == "aborted"
    assert not query.eligible


async def test_what_an_engine_owed_when_it_died_is_drawn_again(stack: Stack):
    stack.fake.answers[LIVE] = boxed("4", "5")
    stack.fake.script(CHAT, Fault(drop_after=6))
    body = await vote(stack, ttrl={"votes": 4})
    told = body["ttrl"]
    assert (told["sampled"], told["cancelled"], told["majority_ratio"]) == (4, 3, 0.5)
    assert [request.body["n"] for request in stack.fake.received(CHAT)] == [3, 3, 1]
    [query] = await stack.queries()
    assert len(await stack.answers(query.id)) == 7
    tokens = len(boxed("4")[0]) + 1
    assert body["usage"]["completion_tokens"] == query.completion_tokens == 4 * tokens + 3 * 8


@pytest.mark.parametrize("stream", [False, True])
async def test_engines_that_die_again_and_again_are_an_error(stack: Stack, stream: bool):
    stack.fake.script(CHAT, *[Fault(drop_after=1)] * 3)
    said = await refused(stack, **chat(ttrl={"votes": 4}, stream=stream))
    assert said[:2] == (503, "engine_unavailable")
    assert len(stack.fake.received(CHAT)) == 3
    assert await stack.queries() == []


async def test_an_error_after_progress_is_an_event(stack: Stack):
    stack.fake.answers[LIVE] = boxed("4", "5")
    stack.fake.script(CHAT, Fault(), Fault(error_after=0))
    events = await streamed(stack, **chat(ttrl={"votes": 8}))
    assert events[0].startswith(": ")
    assert '"code":"engine_error"' in events[-1]
    [query] = await stack.queries()
    assert (query.status, query.eligible) == ("error", False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("says", "status"), [(400, 400), (429, 429), (500, 502)])
async def test_an_engines_refusal_is_the_requests(
    stack: Stack, stream: bool, says: int, status: int
):
    stack.fake.script(CHAT, Fault(status=says))
    said = await refused(stack, **chat(ttrl={"votes": 4}, stream=stream))
    assert said[0] == status
    assert await stack.queries() == []


@pytest.mark.parametrize("says", [b"data: [DONE]\n\n", b"data: {}\n\ndata: [DONE]\n\n", b"data: ["])
async def test_an_engine_that_makes_no_sense(stack: Stack, says: bytes):
    stack.fake.script(CHAT, *[Fault(garbage=says)] * 3)
    said = await refused(stack, **chat(ttrl={"votes": 4}))
    assert said[0] in (502, 503)
    assert await stack.queries() == []


async def test_a_vote_that_takes_too_long(tmp_path: Path):
    async with running(tmp_path, request_timeout_s=0.05) as stack:
        stack.fake.script(CHAT, Fault(stall_after=4))
        said = await refused(stack, **chat(ttrl={"votes": 4}))
        assert said[:2] == (502, "engine_error")
        await stack.fake.idle()


async def test_a_kind_of_answer_that_is_not_installed(stack: Stack):
    options = {"entry_point": "nobody-has-this"}
    await set_tenant(stack, answer="python", answer_options=options)
    body = await vote(stack, ttrl={"votes": 2})
    assert (body["ttrl"]["label"], body["ttrl"]["reason"]) == (None, "unjudged")
    assert body["ttrl"]["sampled"] == 2
    assert body["choices"][0]["message"]["content"] == f"{LIVE}|2+2"
