"""The app as it is put together: health, the whole OpenAPI document, and errors without a route."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import text

from adapters.store import AdapterStore
from server import parts as parts_module
from server.app import create_app, prepare
from server.auth import Keys
from server.config import Settings
from server.db.engine import Database
from server.engine.identity import model_digest
from server.engine.integrity import Verify, verifier
from server.parts import Parts
from tests.fakes.serving import serve
from tests.fakes.vllm import FakeVLLM

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "an-admin-key"
LOG_OK = {"state": "ok", "entries": 0, "bytes": 0, "oldest_s": 0, "refused": 0, "unlogged": 0}
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """A server on the bundled model, its SQLite database migrated."""
    settings = Settings(data_dir=tmp_path, model=str(ROOT / "demo" / "model"), engine_poll_s=0.05)
    await prepare(settings)
    return settings


def parts_on(settings: Settings, url: str) -> Parts:
    return Parts.assemble(
        settings,
        keys=Keys(ADMIN_KEY, b"pepper"),
        engine_urls=(url,),
        identity_dir=settings.data_dir / "identity",
    )


def client_of(parts: Parts) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(parts), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.fixture
async def parts(settings: Settings) -> AsyncIterator[Parts]:
    """A running server whose engine is away."""
    parts = parts_on(settings, NOBODY)
    async with parts.running():
        yield parts


@pytest.fixture
async def http(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(parts) as http:
        yield http


async def test_versions_are_held_against_the_base_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def spy(store: AdapterStore, base_digest: str | None = None) -> Verify:
        seen.append(base_digest)
        return verifier(store, base_digest)

    monkeypatch.setattr(parts_module, "verifier", spy)
    parts = Parts.assemble(
        settings,
        keys=Keys(ADMIN_KEY, b"pepper"),
        engine_urls=(NOBODY,),
        identity_dir=settings.data_dir / "identity",
        base_digest=model_digest(settings.model),
    )
    async with parts.running():
        assert seen == [model_digest(settings.model)]


async def test_it_is_alive_without_an_engine(http: httpx.AsyncClient) -> None:
    response = await http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_it_is_not_ready_without_an_engine(http: httpx.AsyncClient) -> None:
    response = await http.get("/readyz")
    assert response.status_code == 503
    body = response.json()
    (why,) = body.pop("aside")
    assert why.startswith("engine 1: It ")
    assert body == {"engines": "away", "database": "ok", "keys": "ok", "log": LOG_OK}


async def test_it_is_ready_with_an_engine(settings: Settings) -> None:
    async with AsyncExitStack() as held:
        url = await held.enter_async_context(serve(FakeVLLM(check_files=False)))
        parts = parts_on(settings, url)
        await held.enter_async_context(parts.running())
        await parts.pool.wait_ready()
        http = await held.enter_async_context(client_of(parts))
        response = await http.get("/readyz")
    assert response.status_code == 200
    body = {"engines": "ok", "aside": [], "database": "ok", "keys": "ok", "log": LOG_OK}
    assert response.json() == body


@pytest.mark.parametrize(("knows_a_key", "status"), [(True, 200), (False, 503)])
async def test_it_is_ready_while_its_database_is_away_if_it_knows_a_key(
    settings: Settings, knows_a_key: bool, status: int
) -> None:
    async with AsyncExitStack() as held:
        url = await held.enter_async_context(serve(FakeVLLM(check_files=False)))
        parts = parts_on(settings, url)
        await held.enter_async_context(parts.running())
        await parts.pool.wait_ready()
        nowhere = Database(f"sqlite+aiosqlite:///{settings.data_dir / 'nowhere' / 'ttrl.db'}")
        http = await held.enter_async_context(client_of(replace(parts, database=nowhere)))
        if knows_a_key:
            admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
            here = await held.enter_async_context(client_of(parts))
            made = await here.post("/admin/v1/tenants", json={"name": "acme"}, headers=admin)
            await parts.tenants.caller(made.json()["key"]["secret"])
        response = await http.get("/readyz")
        await nowhere.close()
    assert response.status_code == status
    keys = "ok" if knows_a_key else "away"
    body = {"engines": "ok", "aside": [], "database": "away", "keys": keys, "log": LOG_OK}
    assert response.json() == body


async def test_it_is_not_ready_on_a_database_behind(parts: Parts, http: httpx.AsyncClient) -> None:
    async with parts.database.engine.begin() as connection:
        await connection.execute(text("DELETE FROM alembic_version"))
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["database"] == "behind"


async def test_it_is_not_ready_without_its_database(settings: Settings) -> None:
    nowhere = settings.data_dir / "nowhere" / "ttrl.db"
    there = Settings(data_dir=settings.data_dir, database_url=f"sqlite+aiosqlite:///{nowhere}")
    parts = parts_on(there, NOBODY)
    async with client_of(parts) as http:
        response = await http.get("/readyz")
    await parts.database.close()
    assert response.status_code == 503
    assert response.json()["database"] == "away"


async def test_the_openapi_document_has_every_route(http: httpx.AsyncClient, parts: Parts) -> None:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    app = create_app(parts)
    served = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert described == served
    assert {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("POST", "/admin/v1/tenants"),
        ("POST", "/admin/v1/tenants/{name}/promote"),
        ("POST", "/admin/v1/tenants/{name}/rollback"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    } <= described


async def test_every_operation_says_what_it_does_and_has_a_name_of_its_own(
    http: httpx.AsyncClient,
) -> None:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert all(one["summary"] and one["description"] for one in operations)
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))


async def test_every_reference_of_the_document_leads_somewhere(http: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def references(value: Any) -> set[str]:
    """All `$ref` in a JSON value."""
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set[str]()
    return own.union(*(references(item) for item in value.values()))


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_document_can_be_read_in_a_browser(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 200
    assert "/openapi.json" in response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_served"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/load_lora_adapter", 404, "not_found"),
        ("POST", "/tokenize", 404, "not_found"),
        ("GET", "/admin/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions/../../admin.key", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
async def test_a_request_that_leads_nowhere_gets_openais_error(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await http.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert path in error["message"] or ".." in path
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/v1/models", "/admin/v1/status", "/admin/v1/tenants", "/metrics"]
)
async def test_a_request_without_a_key_is_refused(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
