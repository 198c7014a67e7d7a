"""The real `openai` client against a scripted endpoint: what counts as a problem."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from demo.asking import Answered, Asker, problem_of

HEADERS = {"X-TTRL-Adapter": "adder--v1"}
Handler = Callable[[httpx2.Request], httpx2.Response]


@asynccontextmanager
async def _asker(handler: Handler) -> AsyncGenerator[Asker]:
    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    client = AsyncOpenAI(
        base_url="http://server/v1", api_key="sk", max_retries=0, http_client=http_client
    )
    asker = Asker("adder", client)
    yield asker
    await asker.close()


def _completion(request: httpx2.Request) -> httpx2.Response:
    count = json.loads(request.content)["n"]
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": f"answer {index}"},
            "finish_reason": "stop",
        }
        for index in range(count)
    ]
    body = {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 0,
        "model": "ttrl",
        "system_fingerprint": "adder--v1",
        "choices": choices,
    }
    return httpx2.Response(200, json=body, headers=HEADERS)


def _chunk(**delta: Any) -> str:
    finish_reason = delta.pop("finish_reason", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {
        "id": "chatcmpl-8",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "ttrl",
        "system_fingerprint": "adder--v1",
        "choices": [choice],
    }
    return f"data: {json.dumps(body)}\n\n"


def _streaming(*events: str) -> Handler:
    content = "".join(events).encode()
    headers = HEADERS | {"Content-Type": "text/event-stream"}
    return lambda request: httpx2.Response(200, content=content, headers=headers)


async def test_an_answer_with_several_samples() -> None:
    async with _asker(_completion) as asker:
        exchange = await asker.ask("What is 1+2?", samples=2)
    assert exchange.problem is None
    assert exchange.texts == ("answer 0", "answer 1")
    assert (exchange.request_id, exchange.adapter) == ("chatcmpl-7", "adder--v1")
    assert (exchange.tenant, exchange.streamed, exchange.stored) == ("adder", False, True)
    assert exchange.started_at <= exchange.ended_at


async def test_a_streamed_answer() -> None:
    events = (_chunk(content="an"), _chunk(content="swer", finish_reason="stop"))
    async with _asker(_streaming(*events, "data: [DONE]\n\n")) as asker:
        exchange = await asker.ask("What is 1+2?", stream=True)
    assert (exchange.problem, exchange.texts, exchange.streamed) == (None, ("answer",), True)
    assert (exchange.request_id, exchange.adapter) == ("chatcmpl-8", "adder--v1")


async def test_a_stream_that_just_ends_is_a_problem() -> None:
    async with _asker(_streaming(_chunk(content="an"))) as asker:
        exchange = await asker.ask("What is 1+2?", stream=True)
    assert exchange.problem == "an answer without a finish_reason"


async def test_an_error_event_in_a_stream_is_a_problem() -> None:
    error = 'data: {"error": {"message": "gone", "code": 503}}\n\n'
    async with _asker(_streaming(_chunk(content="an"), error, "data: [DONE]\n\n")) as asker:
        exchange = await asker.ask("What is 1+2?", stream=True)
    assert exchange.problem == "APIError: gone"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_status_is_a_problem_and_is_not_tried_again(stream: bool) -> None:
    requests: list[httpx2.Request] = []

    def unavailable(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(503, json={"error": {"message": "starting"}})

    async with _asker(unavailable) as asker:
        exchange = await asker.ask("What is 1+2?", stream=stream)
    assert exchange.problem is not None
    assert exchange.problem.startswith("InternalServerError: ")
    assert len(requests) == 1


async def test_no_connection_is_a_problem() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    async with _asker(refuse) as asker:
        exchange = await asker.ask("What is 1+2?")
    assert exchange.problem == "APIConnectionError: Connection error."


@pytest.mark.parametrize("store", [False, True])
async def test_only_opting_out_is_said(store: bool) -> None:
    bodies: list[dict[str, Any]] = []

    def remember(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        return _completion(request)

    async with _asker(remember) as asker:
        await asker.ask("What is 1+2?", store=store)
    assert bodies[0].get("store", "unsaid") == ("unsaid" if store else False)
    assert (bodies[0]["model"], bodies[0]["temperature"]) == ("ttrl", 1.0)


def _answered(**changes: Any) -> Answered:
    fields: dict[str, Any] = {
        "request_id": "chatcmpl-1",
        "adapter": "adder--v0",
        "texts": ("a", "b"),
        "fingerprints": frozenset({"adder--v0"}),
        "finish_reasons": ("stop", "length"),
    }
    return Answered(**(fields | changes))


def test_nothing_is_wrong_with_a_full_answer() -> None:
    assert problem_of(_answered(), 2) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"texts": ("a",)}, "1 answers instead of 2"),
        ({"texts": ("a", "")}, "an empty answer"),
        ({"finish_reasons": ("stop", None)}, "an answer without a finish_reason"),
        ({"request_id": None}, "no id"),
        ({"adapter": None}, "no X-TTRL-Adapter header"),
        (
            {"fingerprints": frozenset({"adder--v0", None})},
            "header adder--v0, but system_fingerprint None, adder--v0",
        ),
    ],
)
def test_what_a_full_answer_must_not_lack(changes: dict[str, Any], problem: str) -> None:
    assert problem_of(_answered(**changes), 2) == problem
