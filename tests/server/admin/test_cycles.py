from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from ttrl_client import types

from tests.fakes.admin import AdminWorld

REPORT = {
    "version": "v0",
    "num_prompts": 10,
    "num_samples": 240,
    "label_agreement": 0.5,
    "view_agreement": 0.9,
    "majority_ratio": 0.6,
    "answer_rate": 1.0,
    "mean_tokens": 40.5,
    "flip_rate": 0.0,
    "kl": None,
}


@pytest.fixture
async def tenant_id(api: httpx.AsyncClient) -> int:
    return (await api.post("/tenants", json={"name": "adder"})).json()["id"]


async def trigger(api: httpx.AsyncClient, name: str = "adder", **body: Any) -> types.Cycle:
    response = await api.post(f"/tenants/{name}/cycles", json=body)
    assert response.status_code == 202, response.text
    return types.Cycle.model_validate_json(response.content)


async def test_a_triggered_cycle_is_pending_with_the_tenants_settings(
    api: httpx.AsyncClient, tenant_id: int
):
    settings = {"learning": {"steps": 3}}
    await api.put("/tenants/adder/settings", json={"settings": settings})

    cycle = await trigger(api, seed=7)

    assert (cycle.status, cycle.trigger, cycle.seed) == ("pending", "manual", 7)
    assert (cycle.steps_planned, cycle.steps_done, cycle.attempts) == (3, 0, 0)


async def test_a_cycle_without_a_seed_gets_one(api: httpx.AsyncClient, tenant_id: int):
    response = await api.post("/tenants/adder/cycles")

    assert response.status_code == 202
    assert 0 <= response.json()["seed"] < 2**31


@pytest.mark.parametrize("body", [{"seed": -1}, {"seed": 2**31}, {"seed": "x"}, {"sed": 1}, []])
async def test_a_bad_trigger_is_refused(lite_api: httpx.AsyncClient, body: object):
    await lite_api.post("/tenants", json={"name": "adder"})

    assert (await lite_api.post("/tenants/adder/cycles", json=body)).status_code == 400


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_a_second_active_cycle_is_a_conflict(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int, status: str
):
    first = await trigger(api)
    await world.set_cycle(first.id, status=status)

    response = await api.post("/tenants/adder/cycles")

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "conflict"


async def test_of_many_triggers_at_once_one_wins(api: httpx.AsyncClient, tenant_id: int):
    responses = await asyncio.gather(*(api.post("/tenants/adder/cycles") for _ in range(6)))

    statuses = sorted(response.status_code for response in responses)

    assert statuses == [202] + [409] * 5


async def test_a_cycle_shows_its_steps_and_the_gates_decision(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    cycle = await trigger(api)
    await world.add_step(cycle.id, 1, majority_ratio=0.5, loss=None)
    await world.add_step(cycle.id, 2, majority_ratio=0.75, loss=0.1)
    await world.set_cycle(
        cycle.id,
        status="rejected",
        decision="rejected",
        reasons=["view_agreement: 0.21 < 0.70"],
        incumbent_report=REPORT,
        candidate_report=REPORT | {"version": "candidate", "kl": 0.2},
        selection={"counts": {"train": 12, "duplicate": 3}, "prompts": [["q1", "f1", 4]]},
    )

    read = types.Cycle.model_validate_json(
        (await api.get(f"/tenants/adder/cycles/{cycle.id}")).content
    )

    assert [step.step for step in read.steps] == [1, 2]
    assert read.steps[1].metrics == {"majority_ratio": 0.75, "loss": 0.1}
    assert (read.decision, read.reasons) == ("rejected", ["view_agreement: 0.21 < 0.70"])
    assert read.incumbent is not None
    assert read.candidate is not None
    assert (read.incumbent.label_agreement, read.candidate.kl) == (0.5, 0.2)
    assert read.selection == {"train": 12, "duplicate": 3}


async def test_a_pending_cycle_is_cancelled_at_once(api: httpx.AsyncClient, tenant_id: int):
    cycle = await trigger(api)

    response = await api.post(f"/tenants/adder/cycles/{cycle.id}/cancel")

    cancelled = types.Cycle.model_validate_json(response.content)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert (await api.get("/tenants/adder")).json()["active_cycle"] is None


async def test_a_running_cycle_is_asked_to_stop(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    cycle = await trigger(api)
    await world.set_cycle(cycle.id, status="running", phase="train")

    for _ in range(2):
        response = await api.post(f"/tenants/adder/cycles/{cycle.id}/cancel")
        asked = types.Cycle.model_validate_json(response.content)
        assert (asked.status, asked.phase, asked.cancel_requested) == ("running", "train", True)


@pytest.mark.parametrize("status", ["promoted", "rejected", "skipped", "failed", "cancelled"])
async def test_a_cycle_that_has_ended_cannot_be_cancelled(
    lite_api: httpx.AsyncClient, lite_world: AdminWorld, status: str
):
    await lite_api.post("/tenants", json={"name": "adder"})
    cycle = await trigger(lite_api)
    await lite_world.set_cycle(cycle.id, status=status)

    response = await lite_api.post(f"/tenants/adder/cycles/{cycle.id}/cancel")

    assert response.status_code == 409
    after = (await lite_api.get(f"/tenants/adder/cycles/{cycle.id}")).json()
    assert (after["status"], after["cancel_requested"]) == (status, False)


async def test_another_tenants_cycle_is_a_404_and_stays_as_it_is(
    api: httpx.AsyncClient, tenant_id: int
):
    await api.post("/tenants", json={"name": "other"})
    cycle = await trigger(api)

    read = await api.get(f"/tenants/other/cycles/{cycle.id}")
    cancel = await api.post(f"/tenants/other/cycles/{cycle.id}/cancel")

    assert (read.status_code, cancel.status_code) == (404, 404)
    assert (await api.get(f"/tenants/adder/cycles/{cycle.id}")).json()["status"] == "pending"


async def test_cycles_are_listed_per_tenant_and_over_all_newest_first(
    api: httpx.AsyncClient, world: AdminWorld, tenant_id: int
):
    await api.post("/tenants", json={"name": "other"})
    ids: list[int] = []
    for name in ("adder", "other", "adder"):
        cycle = await trigger(api, name)
        await world.add_step(cycle.id, 1)
        await world.set_cycle(cycle.id, status="skipped")
        ids.append(cycle.id)

    mine = (await api.get("/tenants/adder/cycles")).json()
    first = (await api.get("/cycles", params={"limit": 2})).json()
    second = (await api.get("/cycles", params={"limit": 2, "before": first["next"]})).json()

    assert [cycle["id"] for cycle in mine["items"]] == [ids[2], ids[0]]
    assert [(cycle["tenant"], cycle["id"]) for cycle in first["items"]] == [
        ("adder", ids[2]),
        ("other", ids[1]),
    ]
    assert [cycle["id"] for cycle in second["items"]] == [ids[0]]
    assert second["next"] is None
    assert all(cycle["steps"] == [] for cycle in first["items"])


async def test_the_cycles_of_a_deleted_tenant_are_not_listed(
    api: httpx.AsyncClient, tenant_id: int
):
    await trigger(api)
    await api.delete("/tenants/adder")

    assert (await api.get("/cycles")).json()["items"] == []


@pytest.mark.parametrize("cycle_id", ["0", "x", "9223372036854775808", "1.5"])
async def test_an_id_that_cannot_be_one_is_refused(lite_api: httpx.AsyncClient, cycle_id: str):
    await lite_api.post("/tenants", json={"name": "adder"})

    response = await lite_api.get(f"/tenants/adder/cycles/{cycle_id}")

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "cycle_id"
