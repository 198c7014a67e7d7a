"""The tenant's client; that it fits the server is in tests/server/gateway/test_feedback.py."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from ttrl_client import (
    AsyncTenantClient,
    ConfigurationError,
    NotFoundError,
    Retries,
    TenantClient,
    types,
)
from ttrl_client.cli import app
from typer.testing import CliRunner

STORED: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "feedback",
    "choice": 1,
    "score": 0.5,
    "correct_answer": "4",
    "comment": None,
    "adapter_version": 3,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-02T00:00:00Z",
    "of_a_newer_server": True,
}
NO_PAUSE = Retries(first_pause_s=0, max_pause_s=0)

Use = Callable[[Callable[[httpx.Request], httpx.Response], str, list[Any], dict[str, Any]], Any]


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Use:
    """Calls a method of either client in front of a function that answers."""

    def blocking(answer: Any, name: str, args: list[Any], fields: dict[str, Any]) -> Any:
        transport = httpx.MockTransport(answer)
        with TenantClient(
            "http://s", api_key="sk-1", transport=transport, retries=NO_PAUSE
        ) as client:
            return getattr(client, name)(*args, **fields)

    async def awaiting(answer: Any, name: str, args: list[Any], fields: dict[str, Any]) -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncTenantClient(
            "http://s", api_key="sk-1", transport=transport, retries=NO_PAUSE
        ) as client:
            return await getattr(client, name)(*args, **fields)

    if request.param == "sync":
        return blocking
    return lambda *given: asyncio.run(awaiting(*given))


def test_feedback_is_sent_with_the_tenants_key(use: Use) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=STORED)

    fields = {"score": 0.5, "correct_answer": "4", "choice": 1}
    stored = use(answer, "feedback", ["chatcmpl-1"], fields)
    assert (stored.score, stored.adapter_version) == (0.5, 3)
    assert str(seen[0].url) == "http://s/v1/feedback"
    assert seen[0].headers["Authorization"] == "Bearer sk-1"
    assert json.loads(seen[0].content) == {"id": "chatcmpl-1", "comment": None} | fields


def test_feedback_may_be_sent_twice_so_it_is(use: Use) -> None:
    answers = [httpx.Response(503), httpx.Response(200, json=STORED)]
    assert use(lambda _: answers.pop(0), "feedback", ["chatcmpl-1"], {"score": 1}).choice == 1
    assert answers == []


def test_a_batch_says_what_is_unknown(use: Use) -> None:
    items = [types.FeedbackCreate(id="chatcmpl-1", score=1)]
    batch = {"object": "list", "data": [STORED], "unknown": ["chatcmpl-2"]}
    found = use(lambda _: httpx.Response(200, json=batch), "feedback_batch", [items], {})
    assert (found.unknown, found.data[0].id) == (["chatcmpl-2"], "chatcmpl-1")


@pytest.mark.parametrize("fields", [{}, {"comment": "x"}, {"score": 2}, {"score": 1, "choice": -1}])
def test_what_the_server_would_refuse_is_not_sent(use: Use, fields: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request)

    with pytest.raises(ValueError, match="FeedbackCreate"):
        use(answer, "feedback", ["chatcmpl-1"], fields)


def test_an_unknown_completion_is_an_exception_of_its_own(use: Use) -> None:
    error = {"message": "no", "type": "invalid_request_error", "param": "id", "code": "not_found"}
    with pytest.raises(NotFoundError, match="no"):
        use(
            lambda _: httpx.Response(404, json={"error": error}),
            "feedback",
            ["chatcmpl-1"],
            {"score": 1},
        )


def test_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTRL_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="TTRL_API_KEY"):
        TenantClient("http://s")
    monkeypatch.setenv("TTRL_API_KEY", "sk-1")
    TenantClient("http://s").close()


def test_both_clients_have_the_same_methods_with_the_same_documentation() -> None:
    names = {name for name in vars(TenantClient) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncTenantClient) if not name.startswith("_")}
    for name in names:
        documented = inspect.getdoc(getattr(TenantClient, name))
        assert documented
        assert documented == inspect.getdoc(getattr(AsyncTenantClient, name)), name


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_gives_feedback(as_json: bool) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=STORED))
    args = ["feedback", "chatcmpl-1", "--score", "0.5", "--correct-answer", "4", "--choice", "1"]
    done = CliRunner().invoke(
        app,
        [*args, *(["--json"] if as_json else [])],
        obj=transport,
        env={"TTRL_API_KEY": "sk-1", "TTRL_URL": "http://s"},
    )
    assert done.exit_code == 0, done.output
    if as_json:
        assert json.loads(done.stdout)["adapter_version"] == 3
    else:
        assert "0.500" in done.stdout
        assert "v3" in done.stdout


def test_the_command_refuses_feedback_that_says_nothing() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=STORED))
    env = {"TTRL_API_KEY": "sk-1", "TTRL_URL": "http://s"}
    done = CliRunner().invoke(app, ["feedback", "chatcmpl-1"], obj=transport, env=env)
    assert done.exit_code == 2
    assert "score" in done.output
