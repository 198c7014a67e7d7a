"""Clients that note what they have received in full: of these answers none may be lost.

An answer is received when its body is, or the event that ends its stream. Every request carries a
marker of its own, so that the log tells which of them are in it, how often, and in what order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import Any, Final

import aiohttp

from benchmarks.durable_web import API_KEY

NUM_CLIENTS: Final = 8
REFUSED_PAUSE_S: Final = 0.05
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask; `end` is in the last event of a stream, and nowhere before."""

    path: str
    end: bytes | None

    def body(self, marker: str) -> dict[str, Any]:
        """The request."""
        content = f"marker {marker} what is 2+2?"
        name = "input" if self.path.endswith("responses") else "messages"
        asked: Any = content if name == "input" else [{"role": "user", "content": content}]
        body: dict[str, Any] = {"model": "ttrl", name: asked, "stream": self.end is not None}
        return body | ({"max_tokens": 64} if self.path.endswith("messages") else {})


KINDS: Final = (
    Kind("/v1/chat/completions", None),
    Kind("/v1/chat/completions", b"data: [DONE]"),
    Kind("/v1/responses", None),
    Kind("/v1/responses", b"event: response.completed"),
    Kind("/v1/messages", None),
    Kind("/v1/messages", b"event: message_stop"),
)


@dataclass(slots=True)
class Heard:
    """What the clients have heard so far. `received` maps the markers to the answers' ids."""

    received: dict[str, str] = field(default_factory=dict[str, str])
    refused: Counter[str] = field(default_factory=Counter[str])  # by what was said
    num_cut: int = 0  # the connection ended before the answer did
    slowest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What the log has of what was heard."""

    num_received: int
    num_rows: int
    num_missing: int
    num_twice: int
    num_out_of_order: int


class Load:
    """`NUM_CLIENTS` clients, each asking one thing after the other, `rate` a second together."""

    def __init__(self, url: str, *, rate: float) -> None:
        self.heard = Heard()
        self._url = url
        self._name = token_hex(4)  # in its markers: a log may have seen several loads
        self._pause_s = NUM_CLIENTS / rate

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Heard]:
        """Ask during the block, and finish what was begun."""
        stopping = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with aiohttp.ClientSession(self._url, headers=headers, timeout=timeout) as session:
            clients = [
                asyncio.create_task(self._client(number, session, stopping))
                for number in range(NUM_CLIENTS)
            ]
            try:
                yield self.heard
            finally:
                stopping.set()
                await asyncio.gather(*clients)

    async def _client(
        self, number: int, session: aiohttp.ClientSession, stopping: asyncio.Event
    ) -> None:
        for turn in count():
            if stopping.is_set():
                return
            began = perf_counter()
            marker = f"{self._name}.{number}-{turn:07d}"
            try:
                is_refused = await self._ask(session, KINDS[(number + turn) % len(KINDS)], marker)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self.heard.num_cut += 1
                is_refused = True
            took = perf_counter() - began
            self.heard.slowest_s = max(self.heard.slowest_s, took)
            pause_s = max(REFUSED_PAUSE_S if is_refused else 0.0, self._pause_s - took)
            await asyncio.sleep(pause_s)

    async def _ask(self, session: aiohttp.ClientSession, kind: Kind, marker: str) -> bool:
        """Ask once; whether it was refused."""
        async with session.post(kind.path, json=kind.body(marker)) as response:
            body = await response.read()
            if response.status != 200:
                said = body.decode(errors="replace")[:120]
                has_wait = "Retry-After" in response.headers
                self.heard.refused[f"{response.status} {has_wait} {said}"] += 1
                return True
            if kind.end is not None and kind.end not in body:
                self.heard.refused[f"stream without its end: {body[-120:]!r}"] += 1
                return True
            self.heard.received[marker] = response.headers["X-Request-Id"]
        return False


def compare(heard: Heard, rows: Sequence[tuple[str, str]]) -> Kept:
    """Hold what was heard against the log. Out of order: behind a later one of the same client."""
    ids, times = {row_id for row_id, _ in rows}, Counter(marker for _, marker in rows)
    newest: dict[str, int] = {}
    num_out_of_order = 0
    for _, marker in rows:
        client, _, turn = marker.partition("-")
        num_out_of_order += int(turn) < newest.get(client, -1)
        newest[client] = max(int(turn), newest.get(client, -1))
    return Kept(
        num_received=len(heard.received),
        num_rows=len(rows),
        num_missing=sum(answer_id not in ids for answer_id in heard.received.values()),
        num_twice=sum(number - 1 for number in times.values()),
        num_out_of_order=num_out_of_order,
    )
