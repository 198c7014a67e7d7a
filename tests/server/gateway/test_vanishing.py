"""Many clients that are slow or vanish, at every point of a request: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from .conftest import ADDER, Stack, chat, running
from .test_spooling import until

CLIENTS = 150
CHAT = "/v1/chat/completions"


def request(body: bytes, *, length: int | None = None) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADDER}\r\n"
    return (
        f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body
    )


WHOLE = request(msgspec.json.encode(chat()))
STREAM = request(msgspec.json.encode(chat("x" * 500, stream=True)))
POINTS = [  # what is sent, and whether the first byte of an answer is waited for
    (WHOLE[:60], False),
    (request(b"{", length=1000), False),
    (WHOLE, False),
    (STREAM, True),
    (STREAM * 3, False),
    (b"", False),
]


async def vanish(stack: Stack, number: int) -> asyncio.StreamWriter | None:
    """Come, get as far as the number says, and be gone; or stay, and do nothing more."""
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent, is_answered = POINTS[number % len(POINTS)]
    with suppress(ConnectionError):
        writer.write(sent)
        await writer.drain()
        if is_answered:
            await reader.read(1)
    if number % 3 == 0:
        return writer
    writer.transport.abort()
    return None


def sockets() -> int:
    """Open sockets of this process."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def is_still(stack: Stack) -> bool:
    """Whether nothing is held for anybody."""
    admission, fake = stack.deps.admission, stack.fake
    return (
        fake.in_flight == 0
        and admission.queue.in_use == admission.queue.waiting == 0
        and admission.bodies.in_flight == 0
        and not admission.queue._lanes
        and not stack.deps.registry._leases
        and stack.deps.pool.engines[0].in_flight == 0
    )


async def rush(stack: Stack, clients: int) -> None:
    """All at once; those that stay are closed when their time is over."""
    left = await asyncio.gather(*(vanish(stack, number) for number in range(clients)))
    now = stack.watch.now()
    stack.watch.now = lambda: now + 1000  # later than any bound
    try:
        async with asyncio.timeout(60):
            while not is_still(stack):
                stack.watch.look()
                await asyncio.sleep(0.02)
    finally:
        stack.watch.now = monotonic
        for writer in left:
            if writer is not None:
                writer.transport.abort()
    await until(lambda: not stack.watch.open)


async def test_nothing_stays_of_slow_and_vanishing_clients(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_in_flight": 8, "queue_size": 8, "queue_wait_s": 0.2}
    async with running(tmp_path, **settings) as stack:
        stack.fake.token_delay_s = 0.002
        await rush(stack, len(POINTS) * 4)  # opens what stays open: the engine's connections
        await asyncio.sleep(0)
        tasks, open_sockets = len(asyncio.all_tasks()), sockets()
        await rush(stack, CLIENTS)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        gc.collect()
        assert sockets() <= open_sockets + settings["max_in_flight"]
        assert stack.fake.num_aborted > 0
        async with stack.http() as http:
            assert (await http.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_with_a_large_body_is_seen_to_leave(stack: Stack, stream: bool) -> None:
    """Reading is paused while a large body is taken in; a paused connection would not end."""
    stack.fake.token_delay_s, stack.fake.max_model_len = 0.5, 10**6
    host, port = stack.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(request(msgspec.json.encode(chat("word " * 60_000, stream=stream))))
    await writer.drain()
    await until(lambda: stack.fake.in_flight == 1)
    writer.transport.abort()
    await until(lambda: stack.fake.num_aborted == 1)
    await until(lambda: is_still(stack))
