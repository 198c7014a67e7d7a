"""Ways to ask for votes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from server.db.models import Tenant
from tests.server.gateway.conftest import Stack, chat

LIVE = "t1-adder--v2"
CHAT = "/v1/chat/completions"


def boxed(*answers: str) -> list[str]:
    """Responses with these answers."""
    return [rf"I think \boxed{{{answer}}}" for answer in answers]


async def vote(stack: Stack, **fields: Any) -> dict[str, Any]:
    """The body of a chat that is answered."""
    async with stack.http() as http:
        response = await http.post(CHAT, json=chat(**fields))
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(stack: Stack, path: str = CHAT, **body: Any) -> list[str]:
    """The events and comments of a stream."""
    async with stack.http() as http:
        response = await http.post(path, json=(body or chat()) | {"stream": True})
    assert response.status_code == 200, response.text
    return response.text.removesuffix("\n\n").split("\n\n")


async def refused(stack: Stack, path: str = CHAT, **body: Any) -> tuple[int, str, str | None]:
    """Status, code and param of an error."""
    async with stack.http() as http:
        response = await http.post(path, json=body)
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def set_tenant(stack: Stack, **settings: Any) -> None:
    """Give the tenant `adder` these settings."""
    async with stack.database.transaction() as session:
        await session.execute(update(Tenant).where(Tenant.id == 1).values(settings=settings))
    stack.deps.tenants.invalidate()
