from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from tests.fakes.admin import AdminWorld


async def new_tenant(api: httpx.AsyncClient, name: str = "adder") -> int:
    return (await api.post("/tenants", json={"name": name})).json()["id"]


async def test_a_query_is_shown_with_all_its_answers(api: httpx.AsyncClient, world: AdminWorld):
    tenant_id = await new_tenant(api)
    await world.log_query(
        tenant_id, "chatcmpl-1", adapter_version=3, eligible=False, reason="tool_calls"
    )

    [query] = (await api.get("/tenants/adder/queries")).json()["items"]

    assert (query["id"], query["adapter_version"]) == ("chatcmpl-1", 3)
    assert query["prompt"] == [{"role": "user", "content": "question chatcmpl-1"}]
    assert [answer["text"] for answer in query["answers"]] == ["\\boxed{4}", "\\boxed{5}"]
    assert (query["prompt_tokens"], query["completion_tokens"], query["latency_ms"]) == (5, 7, 31.5)
    assert (query["eligible"], query["reason"]) == (False, "tool_calls")


async def test_the_pages_of_the_log_hold_each_query_once_even_at_the_same_time(
    api: httpx.AsyncClient, world: AdminWorld
):
    tenant_id = await new_tenant(api)
    moment = datetime(2031, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    await world.log_query(tenant_id, "earlier", at=moment.replace(year=2030))
    for name in "abc":
        await world.log_query(tenant_id, name, at=moment)

    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await api.get("/tenants/adder/queries", params=params)).json()
        seen += [query["id"] for query in page["items"]]
        if page["next"] is None:
            break
        params["before"] = page["next"]

    assert seen == ["c", "b", "a", "earlier"]


async def test_another_tenants_queries_are_not_shown(api: httpx.AsyncClient, world: AdminWorld):
    await new_tenant(api)
    await world.log_query(await new_tenant(api, "other"), "theirs")

    assert (await api.get("/tenants/adder/queries")).json()["items"] == []


@pytest.mark.parametrize("before", ["x", "9" * 40 + ".id", ".id", ""])
async def test_a_cursor_that_is_not_one_is_refused(lite_api: httpx.AsyncClient, before: str):
    await new_tenant(lite_api)

    response = await lite_api.get("/tenants/adder/queries", params={"before": before})

    assert response.status_code == 400


@pytest.mark.parametrize("limit", ["0", "201", "x"])
async def test_a_page_has_bounds(lite_api: httpx.AsyncClient, limit: str):
    await new_tenant(lite_api)

    response = await lite_api.get("/tenants/adder/queries", params={"limit": limit})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"
