"""An engine that costs nothing: vLLM's routes with a ready answer, so that what is measured is the
way to it.

`python -m benchmarks.stub_engine` serves until it is terminated; its URL is the first line printed.
"""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from benchmarks.serving import serve_forever

NUM_EVENTS: Final = 32
CREATED: Final = 1_700_000_000


class StubEngine:
    """An ASGI application. Answers are made once and then only get their id and model."""

    def __init__(self) -> None:
        self._adapters: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        body: dict[str, Any] = json.loads(raw) if raw else {}
        if scope["path"] != "/v1/chat/completions":
            await _send_json(send, self._control(scope["path"], body))
            return
        headers = dict(scope["headers"])
        answer_id = f"chatcmpl-{headers.get(b'x-request-id', b'0').decode()}"
        if body.get("stream"):
            await _send_events(send, answer_id, body["model"])
        else:
            await _send_json(send, _answer(answer_id, body["model"]))

    def _control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/load_lora_adapter":
            self._adapters.add(body["lora_name"])
        return {"object": "list", "data": [_card("base"), *map(_card, sorted(self._adapters))]}


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


async def _send_json(send: Send, data: dict[str, Any]) -> None:
    body = json.dumps(data, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_events(send: Send, answer_id: str, model: str) -> None:
    head = (
        f'"id":"{answer_id}","object":"chat.completion.chunk","created":{CREATED},"model":"{model}"'
    )
    delta = '{"index":0,"delta":{"content":"four "},"logprobs":null,"finish_reason":null}'
    event = f'data: {{{head},"choices":[{delta}]}}\n\n'.encode()
    usage = f'data: {{{head},"choices":[],"usage":{json.dumps(_usage())}}}\n\n'.encode()
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for data in (*[event] * NUM_EVENTS, usage):
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


if __name__ == "__main__":
    serve_forever(StubEngine())
