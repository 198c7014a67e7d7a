from __future__ import annotations

import httpx
import pytest

from server.admin.route import MAX_BODY_BYTES
from tests.fakes.admin import AdminWorld


def operations(world: AdminWorld) -> list[tuple[str, str]]:
    return [
        (method.upper(), path.format(name="adder", key_id=1, cycle_id=1, number=0))
        for path, methods in world.app.openapi()["paths"].items()
        for method in methods
    ]


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer ", "Basic YTpi", "Bearer schlüssel", ""]
)
async def test_without_the_admin_key_every_route_is_a_401(
    lite_world: AdminWorld, authorization: str | None
):
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    async with httpx.AsyncClient(
        transport=lite_world.transport, base_url="http://server", headers=headers
    ) as client:
        for method, path in operations(lite_world):
            response = await client.request(method, path)

            assert response.status_code == 401, (method, path)
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_tenants_key_is_not_the_admin_key(
    lite_api: httpx.AsyncClient, lite_world: AdminWorld
):
    secret = (await lite_api.post("/tenants", json={"name": "adder"})).json()["key"]["secret"]

    response = await lite_api.get("/tenants", headers={"Authorization": f"Bearer {secret}"})

    assert response.status_code == 401


async def test_a_body_over_the_limit_is_refused(lite_api: httpx.AsyncClient):
    response = await lite_api.post(
        "/tenants",
        content=b" " * (MAX_BODY_BYTES + 1),
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_database_that_is_away_is_a_503(
    lite_api: httpx.AsyncClient, lite_world: AdminWorld
):
    async with lite_world.database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE tenants")

    response = await lite_api.get("/tenants")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "tenants" not in response.json()["error"]["message"]
