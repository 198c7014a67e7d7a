from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from starlette.exceptions import HTTPException

from server.errors import (
    BadRequest,
    Conflict,
    EngineUnavailable,
    NotFound,
    Overloaded,
    TTRLError,
    Unauthorized,
)
from server.http_errors import install_error_handlers


class Item(BaseModel):
    name: str
    sizes: list[int]


def of_postgres(kind: type[DBAPIError], sqlstate: str) -> DBAPIError:
    """An error as SQLAlchemy wraps it: by its kind alone nobody can tell most of them apart."""
    origin = Exception("secret")
    vars(origin)["sqlstate"] = sqlstate
    return kind("SELECT secret", {}, origin)


RAISED: dict[str, Exception] = {
    "starting": of_postgres(DBAPIError, "57P03"),
    "stopped": of_postgres(DBAPIError, "57P01"),
    "too many": of_postgres(DBAPIError, "53300"),
    "deadlock": of_postgres(DBAPIError, "40P01"),
    "cut": DBAPIError("SELECT secret", {}, Exception("gone"), connection_invalidated=True),
    "bad value": of_postgres(DBAPIError, "22003"),
    "bad statement": of_postgres(ProgrammingError, "42601"),
    "bad": BadRequest("no", param="x.y"),
    "missing": NotFound("gone"),
    "conflict": Conflict("busy"),
    "unauthorized": Unauthorized("who?"),
    "overloaded": Overloaded("later", retry_after_s=1),
    "away": EngineUnavailable("starting", retry_after_s=5),
    "broken": RuntimeError("the password is hunter2"),
    "operational": OperationalError("SELECT secret", {}, Exception("disk I/O")),
    "interface": InterfaceError("SELECT secret", {}, Exception("closed")),
    "refused": ConnectionRefusedError(111, "refused"),
    "too slow": TimeoutError(),
    "teapot": HTTPException(418, "short and stout", headers={"X-Kind": "tea"}),
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise RAISED[name]

    @app.post("/items")
    async def make(item: Item, limit: int = 1) -> None:
        return None

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("bad", 400, "invalid_request"),
        ("missing", 404, "not_found"),
        ("conflict", 409, "conflict"),
        ("unauthorized", 401, "invalid_api_key"),
        ("overloaded", 429, "rate_limit_exceeded"),
        ("away", 503, "engine_unavailable"),
        ("broken", 500, "internal_error"),
        ("operational", 503, "unavailable"),
        ("interface", 503, "unavailable"),
        ("starting", 503, "unavailable"),
        ("stopped", 503, "unavailable"),
        ("too many", 503, "unavailable"),
        ("deadlock", 503, "unavailable"),
        ("cut", 503, "unavailable"),
        ("bad value", 500, "internal_error"),
        ("bad statement", 500, "internal_error"),
        ("refused", 503, "unavailable"),
        ("too slow", 503, "unavailable"),
        ("teapot", 418, "invalid_request"),
    ],
)
async def test_every_error_has_openais_shape(
    client: httpx.AsyncClient, name: str, status: int, code: str
):
    response = await client.get(f"/raise/{name}")

    assert response.status_code == status
    [(key, error)] = response.json().items()
    assert key == "error"
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


async def test_our_own_errors_keep_their_words(client: httpx.AsyncClient):
    response = await client.get("/raise/bad")

    assert response.json()["error"]["message"] == "no"
    assert response.json()["error"]["param"] == "x.y"


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("away", "Retry-After", "5"),
        ("overloaded", "Retry-After", "1"),
        ("operational", "Retry-After", "2"),
        ("starting", "Retry-After", "2"),
        ("unauthorized", "WWW-Authenticate", "Bearer"),
        ("teapot", "X-Kind", "tea"),
    ],
)
async def test_errors_carry_their_headers(
    client: httpx.AsyncClient, name: str, header: str, value: str
):
    assert (await client.get(f"/raise/{name}")).headers[header] == value


@pytest.mark.parametrize("name", ["broken", "operational", "bad statement"])
async def test_an_unforeseen_error_is_logged_whole_and_shown_as_nothing(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, name: str
):
    with caplog.at_level(logging.ERROR, logger="server.http_errors"):
        response = await client.get(f"/raise/{name}")

    assert "hunter2" not in response.text
    assert "SELECT" not in response.text
    [record] = [record for record in caplog.records if record.name == "server.http_errors"]
    assert record.exc_info is not None
    assert record.exc_info[1] is RAISED[name]


@pytest.mark.parametrize(
    ("content", "param", "start"),
    [
        (b"{", None, "The body is not valid JSON"),
        (b"", None, "The body is not valid"),
        (b"[]", None, "The body is not valid"),
        (b"{}", "name", "name: Field required; sizes: Field required"),
        (b'{"name": 1, "sizes": []}', "name", "name: "),
        (b'{"name": "a", "sizes": [1, "x"]}', "sizes.1", "sizes.1: "),
        (b'"\xff"', None, "There was an error parsing the body"),
    ],
)
async def test_a_bad_body_names_the_field_to_blame(
    client: httpx.AsyncClient, content: bytes, param: str | None, start: str
):
    response = await client.post(
        "/items", content=content, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(start)


async def test_a_bad_query_parameter_is_named(client: httpx.AsyncClient):
    response = await client.post("/items?limit=x", json={"name": "a", "sizes": []})

    assert response.json()["error"]["param"] == "limit"


async def test_many_problems_are_counted_not_listed(client: httpx.AsyncClient):
    response = await client.post("/items", json={"name": "a", "sizes": ["x"] * 1000})

    message = response.json()["error"]["message"]
    assert message.endswith("; and 995 more")
    assert len(message) < 1000


async def test_an_unknown_route_is_named(client: httpx.AsyncClient):
    response = await client.get("/nothing/here")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
    assert "GET /nothing/here" in response.json()["error"]["message"]


async def test_a_wrong_method_says_which_are_right(client: httpx.AsyncClient):
    response = await client.put("/items")

    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_every_error_that_may_be_answered_has_a_type_and_a_code():
    kinds = [TTRLError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert kind.type
        assert kind.code
        assert 400 <= kind.status_code < 600
