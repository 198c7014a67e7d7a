from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from server.db import admin as sql
from tests.fakes.admin import AdminWorld


async def new_tenant(api: httpx.AsyncClient, name: str = "adder") -> int:
    return (await api.post("/tenants", json={"name": name})).json()["id"]


async def pages(api: httpx.AsyncClient, *, limit: int) -> list[tuple[list[str], int]]:
    """The whole log: the ids of each page, and its bytes."""
    found: list[tuple[list[str], int]] = []
    params: dict[str, str | int] = {"limit": limit}
    while True:
        response = await api.get("/tenants/adder/queries", params=params)
        page = response.json()
        found.append(([query["id"] for query in page["items"]], len(response.content)))
        if page["next"] is None:
            return found
        params["before"] = page["next"]


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

    assert [ids for ids, _ in await pages(api, limit=2)] == [["c", "b"], ["a", "earlier"]]


@pytest.mark.parametrize("num", [1, 7, 8, 9, 24, 25])
async def test_a_page_holds_as_many_queries_as_were_asked_for(
    api: httpx.AsyncClient, world: AdminWorld, num: int
):
    tenant_id = await new_tenant(api)
    for number in range(25):
        await world.log_query(tenant_id, f"{number:02}")
    newest_first = [f"{number:02}" for number in reversed(range(25))]

    found = [ids for ids, _ in await pages(api, limit=num)]

    assert found == [newest_first[at : at + num] for at in range(0, 25, num)]


async def test_a_page_of_long_queries_ends_early(api: httpx.AsyncClient, world: AdminWorld):
    tenant_id = await new_tenant(api)
    long_prompt = [{"role": "user", "content": "x" * 2**21}]
    for number in range(5):
        await world.log_query(tenant_id, f"short-{number}")
        await world.log_query(tenant_id, f"long-{number}", prompt=long_prompt)
        await world.log_query(tenant_id, f"wide-{number}", params={"response_format": "x" * 2**21})

    found = await pages(api, limit=200)

    assert len(found) > 1
    assert all(size < 16 * 2**20 for _, size in found)
    assert [query_id for ids, _ in found for query_id in ids] == [
        f"{kind}-{number}" for number in reversed(range(5)) for kind in ("wide", "long", "short")
    ]


async def test_a_query_that_is_longer_than_a_page_is_one(
    api: httpx.AsyncClient, world: AdminWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sql, "PAGE_CHARACTERS", 10)
    tenant_id = await new_tenant(api)
    for name in "abc":
        await world.log_query(tenant_id, name)

    assert [ids for ids, _ in await pages(api, limit=200)] == [["c"], ["b"], ["a"]]


async def test_another_tenants_queries_are_not_shown(api: httpx.AsyncClient, world: AdminWorld):
    await new_tenant(api)
    await world.log_query(await new_tenant(api, "other"), "theirs")

    assert (await api.get("/tenants/adder/queries")).json()["items"] == []


@pytest.mark.parametrize(
    "before", ["x", "9" * 40 + ".id", ".id", "", "1.", "1.\0", "1.a b", "1." + "x" * 65]
)
async def test_a_cursor_that_is_not_one_is_refused(api: httpx.AsyncClient, before: str):
    await new_tenant(api)

    response = await api.get("/tenants/adder/queries", params={"before": before})

    assert response.status_code == 400


@pytest.mark.parametrize("limit", ["0", "201", "x"])
async def test_a_page_has_bounds(lite_api: httpx.AsyncClient, limit: str):
    await new_tenant(lite_api)

    response = await lite_api.get("/tenants/adder/queries", params={"limit": limit})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"


async def test_the_log_is_waited_for_before_it_is_read_or_learned_from(
    api: httpx.AsyncClient, world: AdminWorld
):
    await new_tenant(api)
    await api.get("/tenants/adder/queries")
    assert world.num_flushed == 1
    await api.post("/tenants/adder/cycles")
    assert world.num_flushed == 2
