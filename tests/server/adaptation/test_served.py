"""Answers to users that vote."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ttrl_client.types import Learning

from server.adaptation.served import is_like_sampling
from server.db import traffic
from server.db.engine import Database
from server.db.models import Answer, Cycle, Query
from server.db.traffic import ServedQuery

from .conftest import EPOCH, add_tenant
from .scene import QUESTIONS, Scene, settings_of

LEARNING = Learning(temperature=0.8, max_tokens=100)
ASKED = {"model": "adder", "temperature": 0.8, "n": 2, "stream": True, "max_tokens": 200}
QUERY = ServedQuery("q", [], ASKED, 120, [("a", "stop"), ("b", "stop")])


def query(**params: Any) -> ServedQuery:
    return replace(QUERY, params=ASKED | params)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"top_p": 1.0, "presence_penalty": 0.0, "logit_bias": {}},
        {"top_p": None, "seed": None, "stop": None},
        {"max_tokens": 100},
        {"max_tokens": None},
        {"max_completion_tokens": 100},
        {"response_format": {"type": "text"}},
        {"ttrl": {"votes": 16, "confidence": 0.95}},
    ],
)
def test_settings_that_change_nothing_are_those_of_sampling(params: dict[str, Any]) -> None:
    assert is_like_sampling(query(**params), LEARNING)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7},
        {"temperature": None},
        {"top_p": 0.95},
        {"top_k": 40},
        {"frequency_penalty": 0.1},
        {"seed": 3},
        {"stop": ["\n"]},
        {"logit_bias": {"5": 10}},
        {"max_tokens": 99},
        {"max_completion_tokens": 99},
        {"something_new": 1},
    ],
)
def test_other_settings_are_another_draw(params: dict[str, Any]) -> None:
    assert not is_like_sampling(query(**params), LEARNING)


def test_no_temperature_is_the_engines_own() -> None:
    assert is_like_sampling(query(temperature=None), Learning(temperature=1.0, max_tokens=100))


def test_answers_longer_than_a_sample_may_be_do_not_vote() -> None:
    assert not is_like_sampling(replace(QUERY, completion_tokens=201), LEARNING)
    assert not is_like_sampling(replace(QUERY, completion_tokens=None), LEARNING)


async def add_served(
    database: Database, tenant_id: int, name: str, texts: list[str], **columns: Any
) -> None:
    row: dict[str, Any] = {
        "id": name,
        "tenant_id": tenant_id,
        "route": "chat",
        "prompt": [{"role": "user", "content": "x"}],
        "fingerprint": "same",
        "eligible": True,
        "params": {},
        "adapter_version": 0,
        "stream": False,
        "status": "ok",
        "completion_tokens": 3,
        "latency_ms": 1.0,
        "created_at": EPOCH,
    }
    async with database.transaction() as session:
        session.add(Query(**row | columns))
        await session.flush()
        session.add_all(
            Answer(query_id=name, choice=choice, text=text, finish_reason="stop")
            for choice, text in enumerate(texts)
        )


async def add_cycle(database: Database, tenant_id: int) -> int:
    cycle = Cycle(
        tenant_id=tenant_id,
        trigger="manual",
        status="running",
        settings={},
        seed=0,
        steps_planned=1,
        created_at=EPOCH,
        started_at=EPOCH + timedelta(seconds=60),
    )
    async with database.transaction() as session:
        session.add(cycle)
    return cycle.id


async def served(database: Database, cycle_id: int, *, limit: int = 9) -> list[list[str]]:
    async with database.transaction(write=False) as session:
        found = await traffic.served_queries(session, cycle_id, ["asked"], version=0, limit=limit)
    assert {query.asked_as for query in found} <= {"asked"}
    return [[text for text, _ in query.answers] for query in found]


async def test_answers_to_the_same_prompt_are_found_newest_first(database: Database) -> None:
    tenant = await add_tenant(database, "a")
    cycle = await add_cycle(database, tenant)
    await add_served(database, tenant, "asked", ["1"])
    later = EPOCH + timedelta(seconds=5)
    await add_served(database, tenant, "again", ["2", "3"], created_at=later)
    assert await served(database, cycle) == [["2", "3"], ["1"]]
    assert await served(database, cycle, limit=1) == [["2", "3"]]


@pytest.mark.parametrize(
    "columns",
    [
        {"adapter_version": 1},
        {"fingerprint": "other"},
        {"eligible": False, "reason": "tool_calls"},
        {"status": "aborted"},
        {"created_at": EPOCH + timedelta(seconds=60)},
    ],
    ids=["version", "prompt", "ineligible", "aborted", "since the cycle began"],
)
async def test_other_answers_are_not_found(database: Database, columns: dict[str, Any]) -> None:
    tenant = await add_tenant(database, "a")
    cycle = await add_cycle(database, tenant)
    await add_served(database, tenant, "asked", ["1"])
    await add_served(database, tenant, "other", ["2"], **columns)
    assert await served(database, cycle) == [["1"]]


async def test_answers_to_another_tenant_are_not_found(database: Database) -> None:
    tenant, other = await add_tenant(database, "a"), await add_tenant(database, "b")
    cycle = await add_cycle(database, tenant)
    await add_served(database, tenant, "asked", ["1"])
    await add_served(database, other, "theirs", ["2"])
    assert await served(database, cycle) == [["1"]]


async def answer_all(scene: Scene, text: str) -> None:
    """Users got this answer to every question, three times each."""
    async with scene.database.transaction() as session:
        for index in range(len(QUESTIONS)):
            row = await session.get_one(Query, f"q-{scene.tenant_id}-{index}")
            row.completion_tokens = 9
            session.add_all(
                Answer(query_id=row.id, choice=choice, text=text, finish_reason="stop")
                for choice in range(3)
            )
    scene.clock.turn(3600)


async def test_served_answers_vote_until_the_first_update(scene: Scene) -> None:
    await scene.tenant()
    await answer_all(scene, r"\boxed{0}")
    cycle = await scene.run()
    steps = await scene.steps(cycle.id)
    assert [step.metrics["num_served_votes"] for step in steps] == [12.0, 0.0, 0.0]
    groups = await scene.groups(cycle.id)
    assert {group.num_samples for group in groups} == {12}
    assert all(group.num_answers <= group.num_samples for group in groups)
    with_votes = [g.majority_ratio for g in groups if g.step == 1 and g.majority_ratio is not None]
    assert max(with_votes) <= 12 / 15


async def test_a_tenant_may_do_without_served_votes(scene: Scene) -> None:
    await scene.tenant()
    await answer_all(scene, r"\boxed{0}")
    cycle = await scene.run(settings_of(learning={"served_votes": False}))
    assert all(step.metrics["num_served_votes"] == 0 for step in await scene.steps(cycle.id))
