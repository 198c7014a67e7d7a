from __future__ import annotations

import asyncio

import httpx
import pytest

from server.errors import Unauthorized
from tests.fakes.admin import AdminWorld


@pytest.fixture
async def tenant_id(api: httpx.AsyncClient) -> int:
    return (await api.post("/tenants", json={"name": "adder"})).json()["id"]


async def test_a_key_shows_its_secret_once(api: httpx.AsyncClient, tenant_id: int):
    made = (await api.post("/tenants/adder/keys", json={"name": "ci"})).json()

    listed = (await api.get("/tenants/adder/keys")).json()["items"]

    assert made["secret"].startswith(made["prefix"])
    assert len(made["secret"]) > 40
    assert listed[0] == {name: value for name, value in made.items() if name != "secret"}
    assert made["secret"] not in str(listed)


async def test_a_key_needs_no_body(api: httpx.AsyncClient, tenant_id: int):
    response = await api.post("/tenants/adder/keys")

    assert (response.status_code, response.json()["name"]) == (201, "default")


async def test_only_a_digest_of_the_key_is_stored(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    secret = (await api.post("/tenants/adder/keys")).json()["secret"]

    async with world.database.transaction(write=False) as session:
        from sqlalchemy import text

        dump = str((await session.execute(text("SELECT * FROM api_keys"))).all())

    assert secret not in dump
    assert world.keys.digest(secret) in dump


async def test_a_revoked_key_is_refused_at_once_and_its_siblings_are_not(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    kept = (await api.post("/tenants/adder/keys")).json()
    revoked = (await api.post("/tenants/adder/keys")).json()
    await world.directory.caller(revoked["secret"])

    response = await api.delete(f"/tenants/adder/keys/{revoked['id']}")

    assert response.json()["revoked_at"] is not None
    assert (await world.directory.caller(kept["secret"])).tenant_id == tenant_id
    with pytest.raises(Unauthorized):
        await world.directory.caller(revoked["secret"])


async def test_revoking_twice_keeps_the_first_time(api: httpx.AsyncClient, tenant_id: int):
    key = (await api.post("/tenants/adder/keys")).json()

    first = (await api.delete(f"/tenants/adder/keys/{key['id']}")).json()
    second = (await api.delete(f"/tenants/adder/keys/{key['id']}")).json()

    assert first["revoked_at"] == second["revoked_at"]


async def test_another_tenants_key_is_a_404(api: httpx.AsyncClient, tenant_id: int):
    other = (await api.post("/tenants", json={"name": "other"})).json()["key"]["id"]

    response = await api.delete(f"/tenants/adder/keys/{other}")

    assert response.status_code == 404
    listed = (await api.get("/tenants/other/keys")).json()["items"]
    assert listed[0]["revoked_at"] is None


@pytest.mark.parametrize("name", ["", "x" * 81, "a\x00b", "a\nb"])
async def test_a_bad_key_name_is_refused(lite_api: httpx.AsyncClient, name: str):
    await lite_api.post("/tenants", json={"name": "adder"})

    response = await lite_api.post("/tenants/adder/keys", json={"name": name})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "name"


async def test_keys_made_at_once_are_all_valid(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    made = await asyncio.gather(*(api.post("/tenants/adder/keys") for _ in range(8)))

    secrets = {response.json()["secret"] for response in made}
    callers = [await world.directory.caller(secret) for secret in secrets]

    assert [caller.tenant_id for caller in callers] == [tenant_id] * 8
