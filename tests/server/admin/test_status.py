from __future__ import annotations

import httpx

from tests.fakes.admin import AdminWorld, FakeEngine


async def test_the_status_counts_what_is_there(api: httpx.AsyncClient, world: AdminWorld):
    first = (await api.post("/tenants", json={"name": "one"})).json()
    await api.post("/tenants", json={"name": "two"})
    await world.log_query(first["id"], "q1")
    running = (await api.post("/tenants/one/cycles")).json()
    await world.set_cycle(running["id"], status="running")
    await api.post("/tenants/two/cycles")

    status = (await api.get("/status")).json()

    assert (status["num_tenants"], status["num_queries"]) == (2, 1)
    assert (status["pending_cycles"], status["running_cycles"]) == (1, 1)
    assert (status["database"], status["model"]) == ("ok", "ttrl")


async def test_the_status_shows_each_engine(lite_api: httpx.AsyncClient, lite_world: AdminWorld):
    lite_world.pool.engines = [
        FakeEngine("http://a", "ready", 3, {"t1-adder--v1", "identity"}),
        FakeEngine("http://b", "away", 0, set(), reason="It cannot be reached."),
    ]

    engines = (await lite_api.get("/status")).json()["engines"]

    assert engines == [
        {
            "url": "http://a",
            "state": "ready",
            "reason": None,
            "adapters": ["identity", "t1-adder--v1"],
            "in_flight": 3,
        },
        {
            "url": "http://b",
            "state": "away",
            "reason": "It cannot be reached.",
            "adapters": [],
            "in_flight": 0,
        },
    ]


async def test_the_status_says_that_the_database_is_away(
    lite_api: httpx.AsyncClient, lite_world: AdminWorld
):
    async with lite_world.database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE tenants")

    response = await lite_api.get("/status")

    assert response.status_code == 200
    assert (response.json()["database"], response.json()["num_tenants"]) == ("away", None)
