"""An engine that has so many seats and no more: vLLM's routes over a queue, first come, first
served, each answer taking its time. It counts the sequences that it holds, so that a leak is seen.

`python -m benchmarks.busy_engine SEATS ANSWER_S` serves until terminated; its URL is the first line
printed. `GET /counts` says what it holds.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from benchmarks.serving import serve_forever
from benchmarks.stub_engine import StubEngine

EVENTS: Final = 16  # of a stream
SPREAD: Final = 0.2  # of an answer's time, up and down
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": EVENTS, "total_tokens": 20 + EVENTS}
JSON: Final = (b"content-type", b"application/json")
PIECE: Final = "four " * 64  # so that a reader who stops is soon noticed


class BusyEngine:
    """An ASGI application."""

    def __init__(self, seats: int, answer_s: float) -> None:
        self._answer_s = answer_s
        self._seats = asyncio.Semaphore(seats)
        self._dice = random.Random(0)
        self._stub = StubEngine()
        self._held = 0
        self._peak = 0
        self._aborted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        body: dict[str, Any] = json.loads(raw) if raw else {}
        if scope["path"] == "/v1/chat/completions":
            await self._generate(body, receive, send)
        else:
            await _answer(send, self._control(scope["path"], body))

    def _control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/counts":
            return {"held": self._held, "peak": self._peak, "aborted": self._aborted}
        return self._stub.control(path, body)

    async def _generate(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._work(body, send))
        leaving = asyncio.ensure_future(_left(receive))
        self._held += 1
        self._peak = max(self._peak, self._held)
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self._aborted += 1
        finally:
            self._held -= 1
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _work(self, body: dict[str, Any], send: Send) -> None:
        takes_s = self._answer_s * self._dice.uniform(1 - SPREAD, 1 + SPREAD)
        async with self._seats:
            if body.get("stream"):
                await _stream(send, body["model"], takes_s)
                return
            await asyncio.sleep(takes_s)
        message = {"role": "assistant", "content": "four " * EVENTS}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await _answer(send, _head(body["model"], "") | {"choices": [choice], "usage": USAGE})


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "x", "object": f"chat.completion{kind}", "created": 1, "model": model}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stream(send: Send, model: str, takes_s: float) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    head = _head(model, ".chunk")
    piece = {"index": 0, "delta": {"content": PIECE}, "finish_reason": None}
    for _ in range(EVENTS):
        await asyncio.sleep(takes_s / EVENTS)
        await send(_event(head | {"choices": [piece]}))
    await send(_event(head | {"choices": [], "usage": USAGE}))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _event(data: dict[str, Any]) -> Message:
    body = f"data: {json.dumps(data)}\n\n".encode()
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _answer(send: Send, data: dict[str, Any]) -> None:
    body = json.dumps(data).encode()
    headers = [JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    serve_forever(BusyEngine(int(sys.argv[1]), float(sys.argv[2])))
