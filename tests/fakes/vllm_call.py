"""One request to the fake engine on its connection: what came, what goes wrong, what goes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from tests.fakes import vllm_wire as wire
from tests.fakes.vllm_wire import Problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Dropped(Exception):
    """The fake breaks a connection, on purpose."""


class ClientLeft(Exception):
    """The client went away; the generation is aborted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request; see the module's docstring."""

    hold: asyncio.Event | None = None
    status: int | None = None
    message: str = "scripted"
    drop_after: int | None = None
    error_after: int | None = None
    stall_after: int | None = None
    garbage: bytes | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    raw: bytes
    body: Any = None  # parsed JSON; None when there is none


@dataclass
class Call:
    """One request's connection: answers it, and notices when the client leaves."""

    received: Received
    send: Send
    left: asyncio.Task[None]

    async def wait(self, awaitable: Awaitable[object]) -> None:
        """Wait for something, unless the client leaves first."""
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task, self.left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
        if self.left.done():
            raise ClientLeft

    async def answer(
        self,
        status: int,
        body: bytes,
        *,
        kind: str | None = "application/json",
        is_cut: bool = False,
    ) -> None:
        """A whole body, or half of it and a broken connection."""
        headers = [(b"content-length", b"%d" % len(body))]
        if kind is not None:
            headers.append((b"content-type", kind.encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        if is_cut:
            half = body[: len(body) // 2]
            await self.send({"type": "http.response.body", "body": half, "more_body": True})
            raise Dropped
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, status: int, data: object) -> None:
        """A JSON body."""
        await self.answer(status, wire.dumps(data))

    async def problem(self, problem: Problem) -> None:
        """An error in vLLM's shape."""
        await self.json(problem.status, problem.body())

    async def text_or_problem(self, result: str | Problem) -> None:
        """What the adapter routes answer: text without a content type, or an error."""
        if isinstance(result, Problem):
            await self.problem(result)
        else:
            await self.answer(200, result.encode(), kind=None)

    async def stream(self, events: list[bytes], fault: Fault, delay_s: float) -> None:
        """Server-sent events, paced; vLLM answers 200 before it knows whether it can."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._paced(events, fault, delay_s):
            await self.send({"type": "http.response.body", "body": event, "more_body": True})
        await self.send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _paced(
        self, events: list[bytes], fault: Fault, delay_s: float
    ) -> AsyncIterator[bytes]:
        for at, event in enumerate(events):
            if at == fault.drop_after:
                raise Dropped
            if at == fault.error_after:
                yield wire.event(Problem(500, fault.message, "InternalServerError").body())
                return
            if at == fault.stall_after:
                await self.wait(asyncio.Event().wait())
            await self.wait(asyncio.sleep(delay_s))
            yield event


async def read(scope: Message, receive: Receive, send: Send) -> Call:
    """Read the request's body, and begin to watch for the client leaving."""
    raw, more = b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    received = Received(scope["method"], scope["path"], headers, raw, body)
    return Call(received, send, asyncio.ensure_future(left()))
