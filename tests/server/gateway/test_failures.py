"""What a client sees when an engine, the log or the room for requests is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server.gateway.engine_errors import engine_error
from server.gateway.recorder import PROMISED_BYTES
from tests.fakes.serving import serve
from tests.fakes.vllm import Fault
from tests.server.gateway.conftest import Stack, chat, running

CHAT = "/v1/chat/completions"


async def ask(stack: Stack, **fields: Any) -> tuple[int, str, dict[str, str]]:
    """Status, error code (or "") and headers."""
    async with stack.http() as http:
        response = await http.post(CHAT, json=chat(**fields))
    code = "" if response.status_code == 200 else response.json()["error"]["code"]
    return response.status_code, code, dict(response.headers)


async def test_store_false_is_answered_and_not_logged(stack: Stack):
    assert (await ask(stack, store=False))[0] == 200
    assert (await ask(stack, store=False, stream=True))[0] == 200
    assert await stack.queries() == []
    assert "store" not in stack.fake.received(CHAT)[0].body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_lost_the_version_gets_it_back(stack: Stack, stream: bool):
    await ask(stack)
    stack.fake.restart()
    status, _, headers = await ask(stack, stream=stream)
    assert (status, headers["x-ttrl-adapter"]) == (200, "adder--v2")
    assert stack.fake.adapters["t1-adder--v2"] == "/adapters/t1/v2"
    assert len(await stack.queries()) == 2


async def test_a_pinned_version_is_loaded_on_demand(stack: Stack):
    assert "t1-adder--v1" not in stack.fake.adapters
    assert (await ask(stack, model="ttrl@v1"))[0] == 200
    assert stack.fake.adapters["t1-adder--v1"] == "/adapters/t1/v1"


async def test_a_version_that_stays_unknown_is_tried_twice(stack: Stack):
    stack.fake.script(CHAT, Fault(status=404), Fault(status=404))
    assert (await ask(stack))[:2] == (502, "engine_error")
    assert len(stack.fake.received(CHAT)) == 2


async def test_no_engine_is_ready(stack: Stack):
    stack.deps.pool.set_state(stack.deps.pool.engines[0], "starting")
    status, code, headers = await ask(stack)
    assert (status, code) == (503, "engine_unavailable")
    assert int(headers["retry-after"]) >= 1


async def test_another_engine_answers_when_one_cannot_be_reached(tmp_path: Path):
    async with running(tmp_path, num_engines=2) as stack:
        gone, here = stack.deps.pool.engines
        gone.url = "http://127.0.0.1:1"
        here.in_flight = 100  # the other one is asked first
        assert (await ask(stack))[0] == 200
        assert gone.state == "away"
        assert len(stack.fakes[1].received(CHAT)) == 1
        assert [engine.in_flight for engine in stack.deps.pool.engines] == [0, 100]


async def test_the_only_engine_cannot_be_reached(stack: Stack):
    stack.deps.pool.engines[0].url = "http://127.0.0.1:1"
    status, code, headers = await ask(stack)
    assert (status, code) == (503, "engine_unavailable")
    assert "retry-after" in headers
    assert await stack.queries() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_while_it_answers(stack: Stack, stream: bool):
    stack.fake.script(CHAT, Fault(drop_after=0))
    status, code, headers = await ask(stack, stream=stream)
    assert (status, code) == (503, "engine_unavailable")
    assert "retry-after" in headers
    assert await stack.queries() == []


@pytest.mark.parametrize(
    ("engine_says", "status", "code"),
    [
        (400, 400, "invalid_request"),
        (422, 400, "invalid_request"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_exceeded"),
        (401, 502, "engine_error"),
        (500, 502, "engine_error"),
        (503, 503, "engine_unavailable"),
    ],
)
async def test_the_engines_errors(stack: Stack, engine_says: int, status: int, code: str):
    message = "t1-adder--v2 at /srv/models/secret/x.json is bad"
    stack.fake.script(CHAT, Fault(status=engine_says, message=message))
    async with stack.http() as http:
        response = await http.post(CHAT, json=chat())
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert "t1-adder" not in response.text
    assert "/srv" not in response.text
    if engine_says in (400, 413):
        assert response.json()["error"]["message"] == "adder--v2 at <path> is bad"
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert await stack.queries() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_dying_engine_says_is_about_itself(stack: Stack, stream: bool):
    stack.fake.script(CHAT, Fault(status=500, message="something broke"))
    stack.fake.script("/health", Fault(status=503))
    status, code, headers = await ask(stack, stream=stream)
    assert (status, code) == (503, "engine_unavailable")
    assert "retry-after" in headers
    assert stack.deps.pool.engines[0].state == "away"


async def test_another_engine_answers_when_one_is_dying(tmp_path: Path):
    async with running(tmp_path, num_engines=2) as stack:
        dying, here = stack.deps.pool.engines
        here.in_flight = 100  # the other one is asked first
        stack.fakes[0].script(CHAT, Fault(status=500, message="something broke"))
        stack.fakes[0].script("/health", Fault(status=503))
        assert (await ask(stack))[0] == 200
        assert dying.state == "away"
        assert len(stack.fakes[1].received(CHAT)) == 1


def test_an_engine_whose_core_died_is_away():
    body = b'{"error":{"message":"EngineCore encountered an issue.","code":500}}'
    assert engine_error(500, body, hidden={}).status_code == 503


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"x"', b'{"error":"Unauthorized"}', b'{"error":{"param":7}}']
)
def test_any_refusal_can_be_told(body: bytes):
    error = engine_error(400, body, hidden={})
    assert (error.status_code, error.param) == (400, None)
    assert error.message


async def test_garbage_of_a_dying_engine(stack: Stack):
    stack.fake.script(CHAT, Fault(garbage=b"hello"))
    stack.fake.script("/health", Fault(status=503))
    assert (await ask(stack))[:2] == (503, "engine_unavailable")


async def test_what_is_no_http_is_no_engine(stack: Stack):
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        stack.deps.pool.engines[0].url = f"http://127.0.0.1:{port}"
        assert (await ask(stack))[:2] == (503, "engine_unavailable")


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"hello", b'{"choices":1}', b"\xff"])
async def test_an_answer_that_makes_no_sense(stack: Stack, garbage: bytes):
    stack.fake.script(CHAT, Fault(garbage=garbage))
    assert (await ask(stack))[:2] == (502, "engine_error")
    assert await stack.queries() == []


async def test_a_prompt_that_is_too_long_for_the_model(stack: Stack):
    assert (await ask(stack, content="x" * 5000))[:2] == (400, "context_length_exceeded")
    assert await stack.queries() == []


async def test_a_200_that_cannot_be_logged_is_a_503(tmp_path: Path):
    async with running(tmp_path, log_spool_bytes=0) as stack:
        async with stack.database.transaction() as session:
            await session.execute(text("DROP TABLE answers"))
        assert (await ask(stack))[:2] == (503, "log_unavailable")
        assert await stack.queries() == []


async def test_requests_are_served_and_stored_while_the_database_takes_nothing(stack: Stack):
    async with stack.database.transaction() as session:
        await session.execute(text("ALTER TABLE answers RENAME TO hidden"))
    assert [(await ask(stack, stream=stream))[0] for stream in (False, True, False)] == [200] * 3
    assert stack.recorder.status.state == "spooling"
    assert await stack.queries() == []
    async with stack.database.transaction() as session:
        await session.execute(text("ALTER TABLE hidden RENAME TO answers"))
    await stack.recorder.stop()  # which moves what it can
    rows = await stack.queries()
    assert [row.stream for row in rows] == [False, True, False]
    assert [len(await stack.answers(row.id)) for row in rows] == [1, 1, 1]


async def test_a_full_spool_is_told_before_an_engine_is_asked(tmp_path: Path):
    async with running(tmp_path, log_spool_bytes=PROMISED_BYTES + 10) as stack:
        async with stack.database.transaction() as session:
            await session.execute(text("DROP TABLE answers"))
        assert (await ask(stack))[0] == 200  # the first goes to the spool
        status, code, headers = await ask(stack)
        assert (status, code) == (503, "log_unavailable")
        assert int(headers["retry-after"]) >= 1
        assert stack.fake.num_generations == 1
        assert (await ask(stack, store=False))[0] == 200


async def test_a_full_spool_may_be_served_without(tmp_path: Path):
    async with running(tmp_path, log_spool_bytes=0, log_when_full="serve_unlogged") as stack:
        async with stack.database.transaction() as session:
            await session.execute(text("DROP TABLE answers"))
        assert [(await ask(stack))[0] for _ in range(3)] == [200] * 3
        assert stack.recorder.status.num_unlogged == 3


async def test_a_full_log_is_told_before_an_engine_is_asked(tmp_path: Path):
    async with running(tmp_path, log_queue_size=1) as stack:
        hold = asyncio.Event()
        stack.fake.script(CHAT, Fault(hold=hold))
        first = asyncio.create_task(ask(stack))
        await stack.fake.arrived(1)
        status, code, headers = await ask(stack)
        assert (status, code) == (503, "log_unavailable")
        assert "retry-after" in headers
        assert stack.fake.num_generations == 1
        assert (await ask(stack, store=False))[0] == 200
        hold.set()
        assert (await first)[0] == 200


async def test_a_full_server_says_when_to_try_again(tmp_path: Path):
    async with running(tmp_path, max_in_flight=1, queue_size=0) as stack:
        hold = asyncio.Event()
        stack.fake.script(CHAT, Fault(hold=hold))
        first = asyncio.create_task(ask(stack))
        await stack.fake.arrived(1)
        status, code, headers = await ask(stack)
        assert (status, code, headers["retry-after"]) == (503, "server_full", "1")
        hold.set()
        assert (await first)[0] == 200
        assert (await ask(stack))[0] == 200


async def test_an_engine_that_does_not_answer_in_time(tmp_path: Path):
    async with running(tmp_path, request_timeout_s=0.05) as stack:
        stack.fake.script(CHAT, Fault(hold=asyncio.Event()))
        assert (await ask(stack))[:2] == (502, "engine_error")
        await stack.fake.idle()
        assert stack.fake.num_aborted == 1


async def test_a_version_is_leased_while_it_answers(stack: Stack):
    hold = asyncio.Event()
    stack.fake.script(CHAT, Fault(hold=hold))
    asking = asyncio.create_task(ask(stack))
    await stack.fake.arrived(1)
    assert stack.deps.registry._leases == {"t1-adder--v2": 1}
    assert stack.deps.pool.engines[0].in_flight == 1
    hold.set()
    await asking
    assert stack.deps.registry._leases == {}
    assert stack.deps.pool.engines[0].in_flight == 0


async def test_an_engine_that_comes_back_at_the_same_place(stack: Stack):
    """The kept connection is dead then; the request finds out, and goes over a new one."""
    async with serve(stack.fake) as url:
        stack.deps.pool.engines[0].url = url
        assert (await ask(stack))[0] == 200
    async with serve(stack.fake, port=int(url.rpartition(":")[2])):
        assert (await ask(stack))[0] == 200
