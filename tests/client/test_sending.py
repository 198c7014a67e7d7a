"""What the clients do when the other side misbehaves; both are driven by one table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from ttrl_client import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncTTRLClient,
    Retries,
    ServerError,
    TTRLClient,
    TTRLError,
    UnavailableError,
    types,
)
from ttrl_client._calls import Call, read_status, read_tenant, trigger_cycle
from ttrl_client._errors import BY_STATUS

STATUS = types.Status(
    version="1",
    model="m",
    database="ok",
    engines=[],
    num_tenants=0,
    num_queries=0,
    pending_cycles=0,
    running_cycles=0,
).model_dump()
ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": "x"}}
NO_PAUSE = Retries(first_pause_s=0, max_pause_s=0)

Answer = httpx.Response | Exception


class Answers:
    """Gives the answers in turn, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        # a copy: a response belongs to the client that received it
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


Send = Callable[[Answers, Call[Any]], Any]


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    def blocking(answers: Answers, call: Call[Any]) -> Any:
        transport = httpx.MockTransport(answers)
        with TTRLClient("http://s", admin_key="k", transport=transport, retries=NO_PAUSE) as client:
            return client.send(call)

    async def awaiting(answers: Answers, call: Call[Any]) -> Any:
        transport = httpx.MockTransport(answers)
        async with AsyncTTRLClient(
            "http://s", admin_key="k", transport=transport, retries=NO_PAUSE
        ) as client:
            return await client.send(call)

    if request.param == "sync":
        return blocking
    return lambda answers, call: asyncio.run(awaiting(answers, call))


@pytest.mark.parametrize(
    "first",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(503, json=ERROR, headers={"Retry-After": "1"}),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(504),
        httpx.Response(429, json=ERROR),
    ],
)
def test_a_read_is_tried_again(send: Send, first: Answer):
    answers = Answers(first, httpx.Response(200, json=STATUS))

    assert send(answers, read_status()).model == "m"
    assert len(answers.requests) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.ConnectError("refused"), APIConnectionError),
        (httpx.ReadTimeout("slow"), APITimeoutError),
        (httpx.Response(503, json=ERROR), UnavailableError),
    ],
)
def test_a_write_is_never_tried_again(send: Send, answer: Answer, kind: type[TTRLError]):
    answers = Answers(answer)

    with pytest.raises(kind):
        send(answers, trigger_cycle("adder"))

    assert len(answers.requests) == 1


def test_trying_again_has_an_end(send: Send):
    answers = Answers(httpx.ConnectError("refused"))

    with pytest.raises(APIConnectionError, match="http://s does not answer: refused"):
        send(answers, read_status())

    assert len(answers.requests) == 1 + NO_PAUSE.num_retries


@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 501])
def test_a_decided_answer_is_not_asked_for_again(send: Send, status: int):
    answers = Answers(httpx.Response(status, json=ERROR))

    with pytest.raises(APIStatusError):
        send(answers, read_status())

    assert len(answers.requests) == 1


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"hello": "world"}),
        httpx.Response(200, content=b"\xff"),
        httpx.Response(200, content=b""),
    ],
)
def test_an_answer_of_something_else_is_told_apart(send: Send, response: httpx.Response):
    with pytest.raises(APIResponseError, match="TTRL server"):
        send(Answers(response), read_status())


def test_a_redirect_is_an_error_and_not_followed_with_the_key(send: Send):
    answers = Answers(httpx.Response(307, headers={"Location": "http://evil/"}))

    with pytest.raises(APIStatusError):
        send(answers, read_status())

    assert len(answers.requests) == 1


@pytest.mark.parametrize(("status", "kind"), [*BY_STATUS.items(), (500, ServerError), (418, None)])
def test_every_status_has_its_exception(send: Send, status: int, kind: type[APIStatusError] | None):
    with pytest.raises(APIStatusError) as raised:
        send(Answers(httpx.Response(status, json=ERROR)), trigger_cycle("adder"))

    assert type(raised.value) is (kind or APIStatusError)
    assert (raised.value.message, raised.value.code) == ("no", "x")


def test_a_proxys_error_page_is_readable(send: Send):
    with pytest.raises(ServerError, match="HTTP 500 Internal Server Error"):
        send(Answers(httpx.Response(500, text="<html>")), read_status())


def test_what_a_newer_server_adds_is_ignored(send: Send):
    tenant = {
        "id": 1,
        "name": "adder",
        "settings": {"answer": "auto", "brand_new": True, "learning": {"newer": 1}},
        "live_version": 0,
        "previous_version": None,
        "num_queries": 0,
        "active_cycle": None,
        "created_at": "2030-01-01T00:00:00Z",
        "mood": "good",
    }
    read = send(Answers(httpx.Response(200, json=tenant)), read_tenant("adder"))

    assert read.settings.learning == types.Learning()


@pytest.mark.parametrize(
    ("num_tries", "response", "pause_s"),
    [
        (1, httpx.Response(503), 0.5),
        (2, httpx.Response(503), 1.0),
        (1, httpx.Response(503, headers={"Retry-After": "3"}), 3.0),
        (1, httpx.Response(503, headers={"Retry-After": "9999"}), 8.0),
        (1, httpx.Response(503, headers={"Retry-After": "Wed, 21 Oct 2030 07:28:00 GMT"}), 0.5),
        (3, httpx.Response(503), None),
    ],
)
def test_pauses_grow_and_listen_to_the_server_within_bounds(
    num_tries: int, response: httpx.Response, pause_s: float | None
):
    retries = Retries(num_retries=2, first_pause_s=0.5, max_pause_s=8)

    assert read_status().pause_s(response, num_tries, retries) == pause_s


def test_requests_carry_the_key_and_nothing_that_was_left_out():
    answers = Answers(httpx.Response(404, json=ERROR))
    with (
        TTRLClient("http://s/", admin_key="k", transport=httpx.MockTransport(answers)) as client,
        pytest.raises(APIStatusError),
    ):
        client.create_tenant("adder")

    [request] = answers.requests
    assert str(request.url) == "http://s/admin/v1/tenants"
    assert request.headers["Authorization"] == "Bearer k"
    assert request.content == b'{"name":"adder"}'
