"""An engine that costs next to nothing: vLLM's routes with a ready answer, so that what is measured
is the way to it. It parses just enough HTTP/1.1 for well-behaved clients.

`python -m benchmarks.stub_engine` serves until it is terminated; its URL is the first line printed.
A stream whose request has a `seed` of n milliseconds (there is nothing to sample here) writes its
events that far apart, each by itself, as an engine does; any other comes at once.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import Any, Final, cast

import uvloop

NUM_EVENTS: Final = 32
CREATED: Final = 1_700_000_000
DONE: Final = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\r\nx-request-id: *([^\r]+)", re.IGNORECASE)


class StubEngine:
    """What the engine knows: its adapters, which anything may be."""

    def __init__(self) -> None:
        self._adapters: set[str] = set()

    def control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to everything but a chat: the list of models, and what a pool tries before it
        trusts an engine.
        """
        if path == "/tokenize":
            return {"tokens": [1, 2, 3]}
        if path == "/v1/completions":
            return {"choices": [_PROBED]}
        if path == "/v1/load_lora_adapter":
            self._adapters.add(body["lora_name"])
        elif path == "/v1/unload_lora_adapter":
            self._adapters.discard(body["lora_name"])
        cards = [_card("base"), *map(_card, sorted(self._adapters))]
        return {"object": "list", "data": cards}


class Connection(asyncio.Protocol):
    """One client, whose requests come one after the other."""

    def __init__(self, engine: StubEngine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only looks like one

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's. A client that leaves stops its stream."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = _LENGTH.search(head)
            body_end = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < body_end:
                return
            body, self._received = self._received[end + 4 : body_end], self._received[body_end:]
            self._answer(head, body)

    def _answer(self, head: bytes, raw: bytes) -> None:
        path = head.split(b" ", 2)[1].decode()
        body: dict[str, Any] = json.loads(raw) if raw else {}
        if path != "/v1/chat/completions":
            self._send(_whole(_json(self._engine.control(path, body))))
            return
        request_id = _REQUEST_ID.search(head)
        answer_id = f"chatcmpl-{request_id[1].decode() if request_id else '0'}"
        if not body.get("stream"):
            self._send(_whole(_json(_answer(answer_id, body["model"]))))
            return
        event, usage = _events(answer_id, body["model"])
        pause_ms = body.get("seed") or 0
        if pause_ms:
            self._send(_STREAM_HEAD)
            self._stream(event, usage + DONE, NUM_EVENTS, pause_ms / 1e3)
        else:
            self._send(b"".join((_STREAM_HEAD, event * NUM_EVENTS, usage, DONE)))

    def _stream(self, event: bytes, end: bytes, left: int, pause_s: float) -> None:
        if not left:
            self._send(end)
            return
        self._send(event)
        again = partial(self._stream, event, end, left - 1, pause_s)
        self._timer = self._loop.call_later(pause_s, again)

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


_PROBED: Final = {
    "index": 0,
    "text": "four",
    "token_ids": [4],
    "logprobs": {"token_logprobs": [0.0]},
    "finish_reason": "stop",
}
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _card(name: str) -> dict[str, Any]:
    parent = None if name == "base" else "base"
    return {"id": name, "object": "model", "root": f"/{name}", "parent": parent}


def _answer(answer_id: str, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "four " * NUM_EVENTS}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    head = {"id": answer_id, "object": "chat.completion", "created": CREATED, "model": model}
    return head | {"choices": [choice], "usage": _usage()}


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 20, "total_tokens": 20 + NUM_EVENTS, "completion_tokens": NUM_EVENTS}


def _events(answer_id: str, model: str) -> tuple[bytes, bytes]:
    """A token's event, and the last one with the counts, each as a chunk."""
    head = (
        f'"id":"{answer_id}","object":"chat.completion.chunk","created":{CREATED},"model":"{model}"'
    )
    delta = '{"index":0,"delta":{"content":"four "},"logprobs":null,"finish_reason":null}'
    return (
        _chunk(f'data: {{{head},"choices":[{delta}]}}\n\n'),
        _chunk(f'data: {{{head},"choices":[],"usage":{json.dumps(_usage())}}}\n\n'),
    )


def _chunk(data: str) -> bytes:
    return f"{len(data):x}\r\n{data}\r\n".encode()


async def serve() -> None:
    """Serve until terminated."""
    loop, engine = asyncio.get_running_loop(), StubEngine()
    server = await loop.create_server(
        lambda: Connection(engine, loop), "127.0.0.1", 0, backlog=4096
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
