"""`POST /v1/feedback` over the whole gateway, on both databases."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from ttrl_client import AsyncTenantClient, TenantClient, types

from server.db.engine import Database
from server.db.models import Feedback
from server.errors import LogUnavailable, Overloaded, ServerFull
from server.gateway import line as line_module
from server.gateway import recorder as recorder_module
from server.gateway.routes import gateway_router
from server.gateway.turns import Turns
from server.http_errors import install_error_handlers
from tests.server.gateway.conftest import ADDER, NOVICE, Stack, chat, running
from tests.server.gateway.test_spooling import until


@pytest.fixture
async def both(database: Database, tmp_path: Path) -> AsyncGenerator[Stack]:
    async with running(tmp_path / "data", database=database) as stack:
        yield stack


async def ask(stack: Stack, key: str = ADDER, **fields: Any) -> str:
    """The id of an answer that was just given."""
    async with stack.http(key) as http:
        response = await http.post("/v1/chat/completions", json=chat(**fields))
    assert response.status_code == 200
    return response.json()["id"]


async def say(stack: Stack, body: Any, key: str = ADDER, path: str = "") -> httpx.Response:
    async with stack.http(key) as http:
        return await http.post(f"/v1/feedback{path}", content=json.dumps(body))


async def rows(stack: Stack) -> list[Feedback]:
    async with stack.database.transaction(write=False) as session:
        ordered = select(Feedback).order_by(Feedback.query_id, Feedback.choice)
        return list((await session.scalars(ordered)).all())


async def test_feedback_to_an_answer_is_stored_and_shown(both: Stack) -> None:
    completion = await ask(both)
    response = await say(both, {"id": completion, "score": 0.25, "correct_answer": "4"})
    assert response.status_code == 200
    shown = response.json()
    assert (shown["object"], shown["id"], shown["choice"]) == ("feedback", completion, 0)
    assert (shown["score"], shown["correct_answer"], shown["comment"]) == (0.25, "4", None)
    assert shown["adapter_version"] == 2
    (row,) = await rows(both)
    assert (row.query_id, row.tenant_id, row.score) == (completion, 1, 0.25)


async def test_later_feedback_replaces_earlier_whole(both: Stack) -> None:
    completion = await ask(both)
    first = (await say(both, {"id": completion, "score": 0, "comment": "no"})).json()
    second = (await say(both, {"id": completion, "correct_answer": "4"})).json()
    assert second["created_at"] == first["created_at"]
    assert second["updated_at"] > first["updated_at"]
    (row,) = await rows(both)
    assert (row.score, row.correct_answer, row.comment) == (None, "4", None)


async def test_each_choice_has_feedback_of_its_own(both: Stack) -> None:
    completion = await ask(both, n=2)
    for choice, score in ((0, 1), (1, 0)):
        body = {"id": completion, "choice": choice, "score": score}
        assert (await say(both, body)).status_code == 200
    assert [(row.choice, row.score) for row in await rows(both)] == [(0, 1.0), (1, 0.0)]


async def test_a_choice_that_was_not_given_is_refused(both: Stack) -> None:
    completion = await ask(both, n=2)
    response = await say(both, {"id": completion, "choice": 2, "score": 1})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "choice"
    assert await rows(both) == []


async def test_another_tenants_answer_looks_like_none(both: Stack) -> None:
    completion = await ask(both)
    foreign = await say(both, {"id": completion, "score": 1}, NOVICE)
    missing = await say(both, {"id": "chatcmpl-0", "score": 1}, NOVICE)
    assert foreign.status_code == missing.status_code == 404
    one, other = foreign.json()["error"], missing.json()["error"]
    assert one["message"].replace(completion, "ID") == other["message"].replace("chatcmpl-0", "ID")
    assert (one["code"], one["param"]) == (other["code"], other["param"]) == ("not_found", "id")
    assert await rows(both) == []


async def test_an_answer_that_was_not_stored_is_explained(both: Stack) -> None:
    completion = await ask(both, store=False)
    response = await say(both, {"id": completion, "score": 1})
    assert response.status_code == 404
    assert "`store: false`" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"score": 1}, "id"),
        ({"id": "x"}, None),
        ({"id": "x", "comment": "only this"}, None),
        ({"id": "x", "score": 1.5}, "score"),
        ({"id": "x", "score": -0.1}, "score"),
        ({"id": "x", "score": True}, "score"),
        ({"id": "x", "score": "1"}, "score"),
        ({"id": "x", "score": float("nan")}, "score"),
        ({"id": "x", "correct_answer": ""}, "correct_answer"),
        ({"id": "x", "correct_answer": " \n"}, None),
        ({"id": "x", "correct_answer": "4" * 4097}, "correct_answer"),
        ({"id": "x", "correct_answer": 4}, "correct_answer"),
        ({"id": "x", "score": 1, "comment": "4" * 4097}, "comment"),
        ({"id": "x", "score": 1, "choice": -1}, "choice"),
        ({"id": "x", "score": 1, "choice": 2**31}, "choice"),
        ({"id": "x", "score": 1, "choice": "0"}, "choice"),
        ({"id": "x", "score": 1, "rating": 5}, "rating"),
        ({"id": "../x", "score": 1}, "id"),
        ({"id": "x\x00", "score": 1}, "id"),
        ({"id": "x" * 65, "score": 1}, "id"),
        ([], None),
        (None, None),
    ],
)
async def test_bad_input_is_refused_in_openais_shape(
    stack: Stack, body: Any, param: str | None
) -> None:
    response = await say(stack, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"id": "x", "comment": "\\ud800"}'])
async def test_what_is_no_json_is_refused(stack: Stack, content: bytes) -> None:
    async with stack.http() as http:
        response = await http.post("/v1/feedback", content=content)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"


async def test_a_body_over_the_limit_is_refused(stack: Stack) -> None:
    async with stack.http() as http:
        response = await http.post("/v1/feedback", content=b" " * (2**20 + 1))
    assert response.status_code == 413


async def test_without_a_valid_key_nothing_is_read(stack: Stack) -> None:
    assert (await say(stack, {}, "sk-nobody")).status_code == 401


async def test_a_nul_is_stored_as_its_picture(both: Stack) -> None:
    completion = await ask(both)
    body = {"id": completion, "correct_answer": "4\0", "comment": "\0"}
    assert (await say(both, body)).status_code == 200
    (row,) = await rows(both)
    assert (row.correct_answer, row.comment) == ("4\u2400", "\u2400")


async def test_a_batch_stores_what_it_can_and_names_the_rest(both: Stack) -> None:
    mine, foreign = await ask(both), await ask(both, NOVICE)
    items = [
        {"id": mine, "score": 0},
        {"id": foreign, "score": 1},
        {"id": "chatcmpl-0", "score": 1},
        {"id": mine, "score": 1},  # the last one counts
    ]
    response = await say(both, {"items": items}, path="/batch")
    assert response.status_code == 200
    assert response.json()["unknown"] == sorted([foreign, "chatcmpl-0"])
    assert {one["score"] for one in response.json()["data"]} == {1.0}
    assert [(row.query_id, row.score) for row in await rows(both)] == [(mine, 1.0)]


@pytest.mark.parametrize("size", [0, 101])
async def test_a_batch_is_bounded(stack: Stack, size: int) -> None:
    items = [{"id": f"chatcmpl-{n}", "score": 1} for n in range(size)]
    response = await say(stack, {"items": items}, path="/batch")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "items"


async def test_a_mistake_in_a_batch_is_named_and_nothing_is_stored(both: Stack) -> None:
    items = [{"id": await ask(both), "score": 1}, {"id": "x", "score": 2}]
    response = await say(both, {"items": items}, path="/batch")
    assert response.json()["error"]["param"] == "items.1.score"
    assert await rows(both) == []


async def test_feedback_is_in_no_log_even_where_it_cannot_be_stored(
    both: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    completion = await ask(both)
    async with both.database.engine.begin() as connection:
        await connection.execute(text("DROP TABLE feedback"))
    with caplog.at_level(logging.DEBUG, logger="server"):
        response = await say(both, {"id": completion, "correct_answer": "the secret"})
    assert response.status_code >= 500
    assert "secret" not in response.text + caplog.text
    assert caplog.records


async def test_the_tenants_clients_fit_the_server(stack: Stack) -> None:
    completion = await ask(stack, n=2)

    def blocking() -> types.Feedback:
        transport = httpx.HTTPTransport()
        with TenantClient(stack.url, api_key=ADDER, transport=transport) as client:
            return client.feedback(completion, score=1, choice=1)

    async with AsyncTenantClient(
        stack.url, api_key=ADDER, transport=httpx.AsyncHTTPTransport()
    ) as client:
        first = await client.feedback(completion, correct_answer="4", comment="by hand")
        items = [types.FeedbackCreate(id=one, score=0) for one in (completion, "cmpl-0")]
        batch = await client.feedback_batch(items)
    second = await asyncio.to_thread(blocking)
    assert (first.correct_answer, first.comment, first.adapter_version) == ("4", "by hand", 2)
    assert (batch.unknown, [one.score for one in batch.data]) == (["cmpl-0"], [0.0])
    assert (second.choice, second.score) == (1, 1.0)


async def test_feedback_reaches_an_answer_of_a_text_completion(stack: Stack) -> None:
    async with stack.http() as http:
        body = {"model": "ttrl", "prompt": "2+2="}
        completion = (await http.post("/v1/completions", json=body)).json()["id"]
    assert (await say(stack, {"id": completion, "score": 1})).status_code == 200


def test_one_tenant_cannot_take_all_turns() -> None:
    turns = Turns(3, 2)
    with turns.take(1), turns.take(1):
        with pytest.raises(Overloaded), turns.take(1):
            raise AssertionError
        with turns.take(2), pytest.raises(ServerFull), turns.take(2):
            raise AssertionError
    with turns.take(1):
        pass


async def test_too_much_at_once_is_told_to_wait(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.gateway.feedback.MAX_PER_TENANT", 0)
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(gateway_router(stack.deps))
    headers = {"Authorization": f"Bearer {ADDER}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://s", headers=headers
    ) as http:
        refused = await http.post("/v1/feedback", json={"id": "x", "score": 1})
    assert refused.status_code == 429
    assert refused.headers["retry-after"]


async def test_feedback_to_an_answer_that_waits_in_the_spool_comes_too_early(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise LogUnavailable("away")

    monkeypatch.setattr(recorder_module, "LONGEST_PAUSE_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(recorder_module, "store_entries", away)
        patch.setattr(recorder_module, "replay_entries", away)
        completion = await ask(stack)
        early = [
            await say(stack, {"id": completion, "score": 1}),
            await say(stack, {"items": [{"id": completion, "score": 1}]}, path="/batch"),
        ]
    for response in early:
        assert response.status_code == 503
        assert response.headers["retry-after"]
    await until(lambda: stack.recorder.status.state == "ok")
    assert (await say(stack, {"id": completion, "score": 1})).status_code == 200
    assert (await say(stack, {"id": "chatcmpl-0", "score": 1})).status_code == 404


async def test_feedback_finds_an_answer_that_only_the_journal_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "LEISURE_S", 3600)
    async with running(tmp_path, log_journal="on") as stack:
        completion = await ask(stack)
        assert await stack.queries() == []
        assert (await say(stack, {"id": completion, "score": 1})).status_code == 200
        assert (await say(stack, {"id": "chatcmpl-0", "score": 1})).status_code == 404
