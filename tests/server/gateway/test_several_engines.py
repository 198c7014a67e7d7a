"""A request that has not produced a byte goes to another engine; a half-streamed one never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from server.gateway.engine_http import EngineGone, EngineHttp, EngineResponse, EngineUnreachable
from tests.fakes.vllm import Fault
from tests.server.gateway.conftest import Stack, chat, running

CHAT, LOAD = "/v1/chat/completions", "/v1/load_lora_adapter"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[Stack]:
    """Two engines; the first is asked first."""
    async with running(tmp_path, num_engines=2) as stack:
        stack.deps.pool.engines[1].in_flight = 100
        yield stack


async def ask(stack: Stack, *, stream: bool = False) -> str:
    """The whole answer's body."""
    async with stack.http() as http:
        response = await http.post(CHAT, json=chat(stream=stream))
    assert response.status_code == 200
    return response.text


def asked(stack: Stack) -> list[int]:
    """How often each engine was asked."""
    return [len(fake.received(CHAT)) for fake in stack.fakes]


DYING = Fault(status=500, message="EngineCore encountered an issue. See stack trace")


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        (Fault(drop_after=0), True),
        (Fault(status=503), True),
        (Fault(status=503), False),
        (DYING, True),
        (DYING, False),
    ],
)
async def test_another_engine_answers_before_the_first_byte(
    pair: Stack, fault: Fault, stream: bool
) -> None:
    pair.fakes[0].script(CHAT, fault)
    await ask(pair, stream=stream)
    assert asked(pair) == [1, 1]
    assert len(await pair.queries()) == 1


async def test_an_error_instead_of_the_first_event_is_not_a_byte(pair: Stack) -> None:
    event = b'data: {"error": {"message": "full", "code": 503}}\n\ndata: [DONE]\n\n'
    pair.fakes[0].script(CHAT, Fault(garbage=event))
    assert "[DONE]" in await ask(pair, stream=True)
    assert asked(pair) == [1, 1]


async def test_a_half_streamed_answer_is_not_begun_anew(pair: Stack) -> None:
    pair.fakes[0].script(CHAT, Fault(drop_after=2))
    body = await ask(pair, stream=True)
    assert '"error"' in body
    assert asked(pair) == [1, 0]


async def test_what_may_kill_engines_meets_two_at_most(tmp_path: Path) -> None:
    async with running(tmp_path, num_engines=4) as stack:
        for fake in stack.fakes:
            fake.script(CHAT, Fault(drop_after=0))
        async with stack.http() as http:
            response = await http.post(CHAT, json=chat(stream=True))
        assert response.status_code == 503
        assert sum(asked(stack)) == 2


async def test_what_ends_an_engines_process_meets_two_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def post(_http: EngineHttp, url: str, *_: object) -> EngineResponse:
        if url in sent:  # nobody listens there any more
            raise EngineUnreachable("refused")
        sent.append(url)
        raise EngineGone("reset")

    monkeypatch.setattr(EngineHttp, "post", post)
    async with running(tmp_path, num_engines=4) as stack, stack.http() as http:
        assert (await http.post(CHAT, json=chat())).status_code == 503
    assert len(sent) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_waiting_for_a_wedged_engine_ends_when_it_is_put_aside(
    pair: Stack, stream: bool
) -> None:
    wedged, fake = pair.deps.pool.engines[0], pair.fakes[0]
    fake.script(CHAT, Fault(hold=asyncio.Event()))
    asking = asyncio.create_task(ask(pair, stream=stream))
    await fake.arrived(1)
    pair.deps.pool.set_state(wedged, "away", "wedged")
    await asking
    assert asked(pair) == [1, 1]
    await fake.idle()
    assert fake.num_aborted == 1
    assert [engine.in_flight for engine in pair.deps.pool.engines] == [0, 100]


async def test_an_engine_that_cannot_load_the_version_is_passed_over(pair: Stack) -> None:
    pair.fakes[0].restart()
    pair.deps.pool.engines[0].loaded.clear()
    pair.deps.pool.engines[1].loaded.clear()
    pair.fakes[0].script(LOAD, Fault(status=500, message="torn"))
    await ask(pair)
    assert asked(pair) == [0, 1]


async def test_a_refused_request_is_not_asked_again(pair: Stack) -> None:
    pair.fakes[0].script(CHAT, Fault(status=400, message="no"))
    async with pair.http() as http:
        assert (await http.post(CHAT, json=chat())).status_code == 400
    assert asked(pair) == [1, 0]


async def test_all_turns_are_given_back(pair: Stack) -> None:
    faults = (Fault(), Fault(drop_after=0), Fault(drop_after=2), Fault(status=400), DYING)
    pair.fakes[0].script(CHAT, *faults)
    async with pair.http() as http:
        for _ in faults:
            await http.post(CHAT, json=chat(stream=True))
    for engine in pair.deps.pool.engines:
        assert not engine.turns.is_used("t1-adder--v2")
        assert engine.turns.num_waiting == 0
