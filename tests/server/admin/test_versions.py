from __future__ import annotations

import httpx
import pytest

from server.db.feedback import Said, store
from tests.fakes.admin import AdminWorld


@pytest.fixture
async def tenant_id(api: httpx.AsyncClient, world: AdminWorld) -> int:
    """A tenant on version 0 with versions 1 and 2 published."""
    tenant_id = (await api.post("/tenants", json={"name": "adder"})).json()["id"]
    await world.publish(tenant_id, 1, parent=0)
    await world.publish(tenant_id, 2, parent=1)
    return tenant_id


async def test_versions_are_listed_newest_first_down_to_the_base_model(
    api: httpx.AsyncClient, tenant_id: int
):
    listed = (await api.get("/tenants/adder/versions")).json()

    assert [version["number"] for version in listed["items"]] == [2, 1, 0]
    assert [version["live"] for version in listed["items"]] == [False, False, True]
    assert listed["next"] is None


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_pages_of_versions_hold_each_version_once(
    api: httpx.AsyncClient, tenant_id: int, limit: int
):
    numbers: list[int] = []
    params: dict[str, str | int] = {"limit": limit}
    while True:
        page = (await api.get("/tenants/adder/versions", params=params)).json()
        assert len(page["items"]) <= limit
        numbers += [version["number"] for version in page["items"]]
        if page["next"] is None:
            break
        params["before"] = page["next"]

    assert numbers == [2, 1, 0]


@pytest.mark.parametrize("before", ["x", "-1", "\0", str(2**31), str(2**63)])
async def test_a_cursor_that_is_not_one_is_refused(
    api: httpx.AsyncClient, tenant_id: int, before: str
):
    response = await api.get("/tenants/adder/versions", params={"before": before})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "before")


async def test_a_version_shows_its_report(api: httpx.AsyncClient, tenant_id: int):
    read = (await api.get("/tenants/adder/versions/2")).json()

    assert (read["number"], read["parent"], read["live"]) == (2, 1, False)
    assert read["report"] == {"decision": {"promote": True}}


async def test_version_zero_is_there_without_a_row(api: httpx.AsyncClient, tenant_id: int):
    read = (await api.get("/tenants/adder/versions/0")).json()

    assert (read["number"], read["live"], read["parent"]) == (0, True, None)


async def test_another_tenants_version_is_a_404(api: httpx.AsyncClient, tenant_id: int):
    await api.post("/tenants", json={"name": "other"})

    assert (await api.get("/tenants/other/versions/1")).status_code == 404
    response = await api.post("/tenants/other/promote", json={"version": 1})
    assert response.status_code == 404


async def test_a_promotion_loads_the_version_and_moves_the_pointer(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    response = await api.post("/tenants/adder/promote", json={"version": 2})

    moved = response.json()
    assert response.status_code == 200
    assert (moved["from_version"], moved["to_version"]) == (0, 2)
    assert (moved["reason"], moved["load_ms"]) == ("promoted_by_hand", 12.5)
    assert [version.path for version in world.loader.loaded] == [f"/adapters/t{tenant_id}/v2"]
    tenant = (await api.get("/tenants/adder")).json()
    assert (tenant["live_version"], tenant["previous_version"]) == (2, 0)


async def test_a_promotion_is_seen_by_the_gateway_at_once(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    secret = (await api.post("/tenants/adder/keys")).json()["secret"]
    assert (await world.directory.caller(secret)).live.number == 0

    await api.post("/tenants/adder/promote", json={"version": 1})

    assert (await world.directory.caller(secret)).live.number == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": 0}, 409),
        ({"version": 9}, 404),
        ({"version": -1}, 400),
        ({"version": 2**31}, 400),
        ({}, 400),
        (None, 400),
    ],
)
async def test_a_promotion_that_makes_no_sense_is_refused(
    lite_api: httpx.AsyncClient, body: dict[str, int] | None, status: int
):
    await lite_api.post("/tenants", json={"name": "adder"})

    assert (await lite_api.post("/tenants/adder/promote", json=body)).status_code == status


async def test_a_rollback_goes_to_the_version_before_and_not_forward_again(
    api: httpx.AsyncClient, tenant_id: int
):
    await api.post("/tenants/adder/promote", json={"version": 1})
    await api.post("/tenants/adder/promote", json={"version": 2})

    targets = [(await api.post("/tenants/adder/rollback")).json()["to_version"] for _ in range(2)]
    third = await api.post("/tenants/adder/rollback")

    assert targets == [1, 0]
    assert third.status_code == 409


async def test_a_promotion_of_an_older_version_is_rolled_back_to_what_was_live(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    await world.publish(tenant_id, 3, parent=2)
    for number in (1, 2, 3, 1):  # the last by mistake
        await api.post("/tenants/adder/promote", json={"version": number})

    targets = [(await api.post("/tenants/adder/rollback")).json()["to_version"] for _ in range(2)]

    assert targets == [3, 2]


async def test_a_rollback_can_name_its_target(api: httpx.AsyncClient, tenant_id: int):
    await api.post("/tenants/adder/promote", json={"version": 2})

    moved = (await api.post("/tenants/adder/rollback", json={"version": 0})).json()

    assert (moved["to_version"], moved["reason"]) == (0, "rolled_back")


async def test_nothing_moves_while_no_engine_can_load(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    world.loader.is_away = True

    response = await api.post("/tenants/adder/promote", json={"version": 1})

    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert (await api.get("/tenants/adder")).json()["live_version"] == 0
    assert (await api.get("/tenants/adder/swaps")).json()["items"] == []


async def test_the_history_of_the_pointer_is_kept_newest_first(
    api: httpx.AsyncClient, tenant_id: int
):
    await api.post("/tenants/adder/promote", json={"version": 1})
    await api.post("/tenants/adder/rollback")

    first = (await api.get("/tenants/adder/swaps", params={"limit": 1})).json()
    second = (
        await api.get("/tenants/adder/swaps", params={"limit": 1, "before": first["next"]})
    ).json()

    assert [swap["reason"] for swap in first["items"]] == ["rolled_back"]
    assert [swap["reason"] for swap in second["items"]] == ["promoted_by_hand"]
    assert second["next"] is None


async def test_a_version_shows_what_was_said_about_its_answers(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    said = [("q1", 1, 1.0, None), ("q2", 1, 0.0, "4"), ("q3", 1, None, "4"), ("q4", 0, 0.25, None)]
    for query_id, version, _, _ in said:
        await world.log_query(tenant_id, query_id, adapter_version=version)
    given = [Said(query_id, 0, score, correct, None) for query_id, _, score, correct in said]
    await store(world.database, tenant_id, given, world.clock.now())

    listed = (await api.get("/tenants/adder/versions")).json()["items"]
    shown = {one["number"]: (one["num_feedback"], one["mean_score"]) for one in listed}
    assert shown == {2: (0, None), 1: (3, 0.5), 0: (1, 0.25)}
    for number in shown:
        read = (await api.get(f"/tenants/adder/versions/{number}")).json()
        assert (read["num_feedback"], read["mean_score"]) == shown[number]
