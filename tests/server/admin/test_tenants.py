from __future__ import annotations

from typing import get_args

import httpx
import pytest
from ttrl_client import types

from server.db.models import Cycle
from server.db.tenants import update_settings
from server.errors import Unauthorized
from tests.fakes.admin import AdminWorld


async def create(api: httpx.AsyncClient, name: str) -> types.NewTenant:
    response = await api.post("/tenants", json={"name": name})
    assert response.status_code == 201, response.text
    return types.NewTenant.model_validate_json(response.content)


async def test_a_new_tenant_is_on_version_zero_with_default_settings(api: httpx.AsyncClient):
    made = await create(api, "adder")

    assert (made.live_version, made.previous_version, made.num_queries) == (0, None, 0)
    assert made.settings == types.TenantSettings()


async def test_the_key_of_a_new_tenant_is_valid_at_once(api: httpx.AsyncClient, world: AdminWorld):
    made = await create(api, "adder")

    caller = await world.directory.caller(made.key.secret)

    assert (caller.tenant_id, caller.tenant, caller.live.number) == (made.id, "adder", 0)


async def test_a_name_that_is_taken_is_a_conflict(api: httpx.AsyncClient):
    await create(api, "adder")

    response = await api.post("/tenants", json={"name": "adder"})

    assert response.status_code == 409
    assert response.json()["error"]["param"] == "name"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "Upper"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "-dash"}, "name"),
        ({"name": "x" * 41}, "name"),
        ({"name": "a", "unknown": 1}, "unknown"),
        ({"name": "a", "settings": {"learning": {"steps": 0}}}, "settings.learning.steps"),
        ({"name": "a", "settings": {"schedule": {"cron": "* *"}}}, "settings.schedule.cron"),
        (
            {"name": "a", "settings": {"schedule": {"cron": "61 * * * *"}}},
            "settings.schedule.cron",
        ),
        (
            {"name": "a", "settings": {"schedule": {"cron": "0 0 31 4,6,9,11 *"}}},
            "settings.schedule.cron",
        ),
        (
            {"name": "a", "settings": {"schedule": {"interval_s": 10**12}}},
            "settings.schedule.interval_s",
        ),
        (
            {"name": "a", "settings": {"schedule": {"min_new_queries": 10**24}}},
            "settings.schedule.min_new_queries",
        ),
        (
            {"name": "a", "settings": {"views": [{"pattern": "(", "templates": ["x"]}]}},
            "settings.views.0",
        ),
        (
            {"name": "a", "settings": {"views": [{"pattern": "x", "templates": ["{a}"]}]}},
            "settings.views.0",
        ),
        (
            {
                "name": "a",
                "settings": {"answer": "regex", "answer_options": {"pattern": "(?=a)b"}},
            },
            "settings.answer_options.pattern",
        ),
    ],
)
async def test_a_bad_tenant_is_refused_with_the_field_to_blame(
    lite_api: httpx.AsyncClient, body: dict[str, object], param: str
):
    response = await lite_api.post("/tenants", json=body)

    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ('{"learning": {"max_grad_norm": 1e999}}', "settings.learning.max_grad_norm"),
        ('{"learning": {"dual_clip": 1e999}}', "settings.learning.dual_clip"),
        ('{"gate": {"max_length_ratio": 1e999}}', "settings.gate.max_length_ratio"),
        ('{"learning": {"stop": {"max_kl": 1e999}}}', "settings.learning.stop.max_kl"),
        ('{"learning": {"max_visits": 1000000000000}}', "settings.learning.max_visits"),
    ],
)
async def test_a_number_without_bound_is_refused(
    lite_api: httpx.AsyncClient, settings: str, param: str
):
    body = f'{{"name": "a", "settings": {settings}}}'
    headers = {"Content-Type": "application/json"}
    response = await lite_api.post("/tenants", content=body, headers=headers)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_every_count_that_a_client_sends_is_bounded():
    bounds = [
        (f"{kind.__name__}.{name}", field.metadata)
        for kind in vars(types).values()
        if isinstance(kind, type) and issubclass(kind, types.WireInput)
        for name, field in kind.model_fields.items()
        if int in (field.annotation, *get_args(field.annotation))
    ]
    without = [
        name
        for name, said in bounds
        if not any(hasattr(one, "le") or hasattr(one, "lt") for one in said)
    ]

    assert len(bounds) > 10
    assert without == []


async def test_tenants_are_listed_newest_first_page_by_page(api: httpx.AsyncClient):
    for name in ("one", "two", "three"):
        await create(api, name)

    first = (await api.get("/tenants", params={"limit": 2})).json()
    second = (await api.get("/tenants", params={"limit": 2, "before": first["next"]})).json()

    assert [tenant["name"] for tenant in first["items"]] == ["three", "two"]
    assert [tenant["name"] for tenant in second["items"]] == ["one"]
    assert second["next"] is None


@pytest.mark.parametrize("before", ["x", "-1", "99999999999999999999", "٣"])
async def test_a_cursor_that_is_not_one_is_refused(lite_api: httpx.AsyncClient, before: str):
    response = await lite_api.get("/tenants", params={"before": before})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "before"


async def test_a_tenant_shows_its_queries_and_its_active_cycle(
    api: httpx.AsyncClient, world: AdminWorld
):
    made = await create(api, "adder")
    await world.log_query(made.id, "q1")
    cycle = (await api.post("/tenants/adder/cycles")).json()

    shown = (await api.get("/tenants/adder")).json()
    listed = (await api.get("/tenants")).json()["items"][0]

    assert (shown["num_queries"], shown["active_cycle"]) == (1, cycle["id"])
    assert listed == shown


async def test_settings_are_replaced_whole(api: httpx.AsyncClient):
    await create(api, "adder")
    await api.put(
        "/tenants/adder/settings",
        json={"settings": {"answer": "math", "schedule": {"cron": "0 3 * * *"}}},
    )

    response = await api.put("/tenants/adder/settings", json={"settings": {"answer": "number"}})

    assert response.status_code == 200
    settings = types.Tenant.model_validate_json(response.content).settings
    assert settings == types.TenantSettings(answer="number")
    assert (await api.get("/tenants/adder")).json() == response.json()


async def test_settings_of_another_release_are_shown_as_far_as_they_can_be_read(
    lite_api: httpx.AsyncClient, lite_world: AdminWorld
):
    made = await create(lite_api, "old")
    await create(lite_api, "new")
    stored = {"schedule": {"interval_s": 10**12}, "limits": {"concurrency": 3}}
    async with lite_world.database.transaction() as session:
        await update_settings(session, made.id, stored)

    listed = (await lite_api.get("/tenants")).json()["items"]
    asked = await lite_api.post("/tenants/old/cycles")

    assert [tenant["name"] for tenant in listed] == ["new", "old"]
    shown = types.TenantSettings.model_validate(listed[1]["settings"])
    assert shown == types.TenantSettings(limits=types.Limits(concurrency=3))
    assert (asked.status_code, asked.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/tenants/nobody", None),
        ("PUT", "/tenants/nobody/settings", {"settings": {}}),
        ("DELETE", "/tenants/nobody", None),
        ("POST", "/tenants/nobody/keys", {}),
        ("GET", "/tenants/nobody/keys", None),
        ("DELETE", "/tenants/nobody/keys/1", None),
        ("POST", "/tenants/nobody/cycles", {}),
        ("GET", "/tenants/nobody/cycles", None),
        ("GET", "/tenants/nobody/cycles/1", None),
        ("POST", "/tenants/nobody/cycles/1/cancel", None),
        ("GET", "/tenants/nobody/versions", None),
        ("GET", "/tenants/nobody/versions/0", None),
        ("POST", "/tenants/nobody/promote", {"version": 0}),
        ("POST", "/tenants/nobody/rollback", {}),
        ("GET", "/tenants/nobody/swaps", None),
        ("GET", "/tenants/nobody/queries", None),
    ],
)
async def test_an_unknown_tenant_is_a_404_everywhere(
    lite_api: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None
):
    response = await lite_api.request(method, path, json=body)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_a_deleted_tenant_is_gone_with_its_keys(api: httpx.AsyncClient, world: AdminWorld):
    made = await create(api, "adder")
    await world.directory.caller(made.key.secret)

    response = await api.delete("/tenants/adder")

    assert (response.status_code, response.content) == (204, b"")
    assert (await api.get("/tenants/adder")).status_code == 404
    assert (await api.get("/tenants")).json()["items"] == []
    with pytest.raises(Unauthorized):
        await world.directory.caller(made.key.secret)


async def test_a_tenant_named_like_a_deleted_one_starts_with_nothing(
    api: httpx.AsyncClient, world: AdminWorld
):
    old = await create(api, "adder")
    await world.publish(old.id, 1)
    await world.log_query(old.id, "q1")
    await api.post("/tenants/adder/promote", json={"version": 1})
    cycle = (await api.post("/tenants/adder/cycles")).json()
    await api.delete("/tenants/adder")

    new = await create(api, "adder")

    assert new.id != old.id
    assert (new.live_version, new.num_queries, new.active_cycle) == (0, 0, None)
    assert (await api.get(f"/tenants/adder/cycles/{cycle['id']}")).status_code == 404
    assert (await api.get("/tenants/adder/cycles")).json()["items"] == []
    assert (await api.get("/tenants/adder/versions/1")).status_code == 404
    assert (await api.get("/tenants/adder/queries")).json()["items"] == []
    assert (await api.get("/tenants/adder/swaps")).json()["items"] == []
    keys = (await api.get("/tenants/adder/keys")).json()["items"]
    assert [key["id"] for key in keys] == [new.key.id]


async def test_deleting_a_tenant_stops_its_running_cycle(api: httpx.AsyncClient, world: AdminWorld):
    await create(api, "adder")
    cycle = (await api.post("/tenants/adder/cycles")).json()
    await world.set_cycle(cycle["id"], status="running")

    await api.delete("/tenants/adder")

    async with world.database.transaction(write=False) as session:
        row = await session.get_one(Cycle, cycle["id"])
    assert (row.status, row.cancel_requested) == ("running", True)


async def test_deleting_a_tenant_cancels_its_pending_cycle(
    api: httpx.AsyncClient, world: AdminWorld
):
    await create(api, "adder")
    cycle = (await api.post("/tenants/adder/cycles")).json()

    await api.delete("/tenants/adder")

    async with world.database.transaction(write=False) as session:
        row = await session.get_one(Cycle, cycle["id"])
    assert (row.status, row.error) == ("cancelled", "tenant_deleted")
    assert row.finished_at is not None
