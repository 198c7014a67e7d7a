"""What is remembered of a prompt's earlier groups."""

from __future__ import annotations

from server.db import steps
from server.db.engine import Database
from server.db.models import Cycle, Group

from .conftest import EPOCH, add_tenant


async def add_groups(
    database: Database,
    tenant_id: int,
    fingerprint: str,
    votes: list[tuple[str | None, float | None]],
) -> None:
    async with database.transaction() as session:
        cycle = Cycle(
            tenant_id=tenant_id,
            trigger="manual",
            status="rejected",
            settings={},
            seed=0,
            steps_planned=1,
            created_at=EPOCH,
        )
        session.add(cycle)
        await session.flush()
        for step, (label, ratio) in enumerate(votes, start=1):
            session.add(
                Group(
                    cycle_id=cycle.id,
                    tenant_id=tenant_id,
                    step=step,
                    query_id="q",
                    fingerprint=fingerprint,
                    label=label,
                    majority_ratio=ratio,
                    num_samples=4,
                    num_answers=4,
                    trained=label is not None,
                    reason=None if label is not None else "no_consensus",
                )
            )
            await session.flush()


async def test_labels_come_oldest_first_over_all_cycles(database: Database) -> None:
    tenant = await add_tenant(database, "a")
    await add_groups(database, tenant, "f", [("4", 0.5), (None, 0.25)])
    await add_groups(database, tenant, "f", [("5", 0.75)])
    async with database.transaction(write=False) as session:
        found = await steps.label_history(session, tenant, ["f", "unseen"])
    assert found == {"f": [("4", 0.5), (None, 0.25), ("5", 0.75)]}


async def test_only_the_last_visits_are_remembered(database: Database) -> None:
    tenant = await add_tenant(database, "a")
    votes: list[tuple[str | None, float | None]] = [(str(n), 0.5) for n in range(25)]
    await add_groups(database, tenant, "f", votes)
    async with database.transaction(write=False) as session:
        found = await steps.label_history(session, tenant, ["f"])
    assert found["f"] == votes[-20:]


async def test_the_first_label_of_a_cycle_is_known_as_such(database: Database) -> None:
    tenant = await add_tenant(database, "a")
    await add_groups(database, tenant, "f", [("4", 0.5)])
    await add_groups(database, tenant, "f", [(None, 0.25), ("5", 0.5), ("6", 0.5)])
    await add_groups(database, tenant, "g", [(None, 0.25)])
    async with database.transaction(write=False) as session:
        found = [await steps.first_labels(session, cycle, ["f", "g"]) for cycle in (1, 2, 3)]
    assert found == [{"f": "4"}, {"f": "5"}, {}]


async def test_a_refused_prompt_was_not_visited(database: Database) -> None:
    tenant = await add_tenant(database, "a")
    await add_groups(database, tenant, "f", [("4", 0.5), (None, None)])
    async with database.transaction(write=False) as session:
        assert await steps.label_history(session, tenant, ["f"]) == {"f": [("4", 0.5)]}


async def test_another_tenants_labels_are_not_seen(database: Database) -> None:
    mine, other = await add_tenant(database, "a"), await add_tenant(database, "b")
    await add_groups(database, other, "f", [("4", 0.5)])
    async with database.transaction(write=False) as session:
        assert await steps.label_history(session, mine, ["f"]) == {}
