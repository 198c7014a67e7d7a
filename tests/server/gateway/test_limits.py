"""Tenants' limits and the server's seats, seen by clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from server.db.models import Tenant
from tests.fakes.vllm import Fault

from .conftest import ADDER, NOVICE, Stack, chat, running
from .test_spooling import until

CHAT = "/v1/chat/completions"


@asynccontextmanager
async def limited(
    directory: Path, limits: dict[str, Any] | None = None, **settings: Any
) -> AsyncGenerator[Stack]:
    """A gateway on which the tenant `adder` has limits."""
    async with running(directory, **settings) as stack:
        async with stack.database.transaction() as session:
            await session.execute(
                update(Tenant).where(Tenant.id == 1).values(settings={"limits": limits or {}})
            )
        yield stack


async def ask(stack: Stack, key: str = ADDER, **fields: Any) -> httpx.Response:
    async with stack.http(key) as http:
        return await http.post(CHAT, json=chat(**fields), timeout=30)


@asynccontextmanager
async def held(stack: Stack, key: str = ADDER, **fields: Any) -> AsyncGenerator[None]:
    """A request that an engine works on for as long as the block."""
    hold = asyncio.Event()
    stack.fake.script(CHAT, Fault(hold=hold))
    before = stack.fake.num_generations
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(stack, key, **fields))
        await stack.fake.arrived(before + 1)
        try:
            yield
        finally:
            hold.set()
            assert (await asking).status_code == 200


async def waiting(stack: Stack, number: int) -> None:
    """Until so many wait for a seat."""
    await until(lambda: stack.deps.admission.queue.waiting == number)


async def test_answers_say_what_is_left(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 10, "tokens_per_minute": 100_000}
    async with limited(tmp_path, limits) as stack:
        first, second = await ask(stack), await ask(stack, stream=True)
    assert first.headers["x-ratelimit-limit-requests"] == "10"
    assert first.headers["x-ratelimit-remaining-requests"] == "9"
    assert second.headers["x-ratelimit-remaining-requests"] == "8"
    assert first.headers["x-ratelimit-reset-requests"].endswith(("s", "ms"))
    left = int(first.headers["x-ratelimit-remaining-tokens"])
    assert 99_000 < left < 100_000


async def test_answers_without_a_limit_say_nothing_of_it(stack: Stack) -> None:
    assert "ratelimit" not in str((await ask(stack)).headers)


async def test_too_many_requests_a_minute(tmp_path: Path) -> None:
    async with limited(tmp_path, {"requests_per_minute": 2}) as stack:
        statuses = [(await ask(stack)).status_code for _ in range(2)]
        refused = await ask(stack)
        other = await ask(stack, NOVICE)
    assert statuses == [200, 200]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 31
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert other.status_code == 200


async def test_tokens_are_counted_as_the_engine_counts_them(tmp_path: Path) -> None:
    async with limited(tmp_path, {"tokens_per_minute": 5000}) as stack:
        stack.fake.default_answer = "x" * 2000
        (first,) = ((await ask(stack, max_tokens=4000)).json()["usage"]["total_tokens"],)
        left = int((await ask(stack, max_tokens=1)).headers["x-ratelimit-remaining-tokens"])
    assert 5000 - first - 100 < left < 5000 - first + 200


async def test_tokens_that_are_asked_for_are_reserved(tmp_path: Path) -> None:
    async with (
        limited(tmp_path, {"tokens_per_minute": 5000}) as stack,
        held(stack, max_tokens=4000),
    ):
        refused = await ask(stack, max_tokens=2000)
    assert (refused.status_code, "tokens" in refused.json()["error"]["message"]) == (429, True)


async def test_tokens_of_a_stream_that_was_left_are_counted(tmp_path: Path) -> None:
    async with limited(tmp_path, {"tokens_per_minute": 100_000}) as stack:
        stack.fake.default_answer = "x" * 40_000
        stack.fake.chunk_tokens = 1000
        stack.fake.token_delay_s = 0.02
        async with (
            stack.http() as http,
            http.stream("POST", CHAT, json=chat(stream=True)) as stream,
        ):
            async for _ in stream.aiter_bytes():
                if stream.num_bytes_downloaded > 20_000:
                    break
        await until(lambda: stack.deps.admission.queue.in_use == 0)
        stack.fake.token_delay_s = 0.0
        stack.fake.default_answer = "x"
        left = int((await ask(stack, max_tokens=1)).headers["x-ratelimit-remaining-tokens"])
    assert left < 97_500


async def test_a_request_that_failed_before_it_was_generated_costs_no_tokens(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path, {"tokens_per_minute": 5000}) as stack:
        stack.fake.script(CHAT, Fault(status=400))
        failed = await ask(stack, max_tokens=4000)
    assert failed.status_code == 400
    assert int(failed.headers["x-ratelimit-remaining-tokens"]) == 5000


async def test_a_tenants_concurrency_is_its_own(tmp_path: Path) -> None:
    settings = {"queue_wait_s": 0.05}
    async with limited(tmp_path, {"concurrency": 1}, **settings) as stack, held(stack):
        refused = await ask(stack)
        other = await ask(stack, NOVICE)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "at once" in refused.json()["error"]["message"]
    assert other.status_code == 200


async def test_who_waits_gets_the_seat_that_comes_free(tmp_path: Path) -> None:
    async with limited(tmp_path, max_in_flight=1, queue_size=1, queue_wait_s=30) as stack:
        async with held(stack):
            second = asyncio.create_task(ask(stack, NOVICE))
            await waiting(stack, 1)
            third = await ask(stack, NOVICE)
        assert (await second).status_code == 200
        assert stack.deps.admission.queue.in_use == 0
    assert (third.status_code, third.json()["error"]["code"]) == (503, "server_full")


async def test_a_wait_has_an_end(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_in_flight": 1, "queue_size": 4, "queue_wait_s": 0.05}
    async with limited(tmp_path, **settings) as stack, held(stack):
        refused = await ask(stack)
        assert stack.deps.admission.queue.waiting == 0
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_a_quiet_tenant_takes_the_place_of_one_that_floods(tmp_path: Path) -> None:
    async with limited(tmp_path, max_in_flight=1, queue_size=2, queue_wait_s=30) as stack:
        async with AsyncExitStack() as block:
            await block.enter_async_context(held(stack))
            flood = [asyncio.create_task(ask(stack)) for _ in range(2)]
            await waiting(stack, 2)
            quiet = asyncio.create_task(ask(stack, NOVICE))
            done, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status_code for one in done] == [503]
        assert (await quiet).status_code == 200
        assert sorted([(await one).status_code for one in flood]) == [200, 503]


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue(tmp_path: Path) -> None:
    async with limited(tmp_path, max_in_flight=1, queue_size=2, queue_wait_s=30) as stack:
        async with held(stack):
            impatient = asyncio.create_task(ask(stack))
            await waiting(stack, 1)
            impatient.cancel()
            await waiting(stack, 0)
        assert stack.fake.num_generations == 1


async def test_a_request_takes_a_seat_for_each_answer(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=16) as stack, held(stack, n=3):
        assert stack.deps.admission.queue.in_use == 3


async def test_a_slow_body_holds_no_seat(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=1, queue_size=0) as stack:
        host, port = stack.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADDER}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        await until(lambda: stack.deps.admission.bodies.in_flight == 1)
        assert (await ask(stack)).status_code == 200
        writer.close()
        await until(lambda: stack.deps.admission.bodies.in_flight == 0)


async def test_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, body_timeout_s=0.05) as stack:
        host, port = stack.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADDER}\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n".encode())
        assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_anthropics_routes_are_limited_too(tmp_path: Path, path: str) -> None:
    async with limited(tmp_path, {"requests_per_minute": 1}) as stack, stack.http() as http:
        body = {"model": "ttrl", "messages": [{"role": "user", "content": "2+2"}]}
        body |= {} if path.endswith("tokens") else {"max_tokens": 9}
        answers = [await http.post(path, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "1"
    assert answers[1].json()["error"]["type"] == "rate_limit_error"
