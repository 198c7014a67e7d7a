"""Engines, trainers, operators and other workers get in the way of a cycle."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from ttrl_client.types import CycleStatus

from adapters import batch
from adapters.batch import Average, Open, Save, Score, Step
from server.adaptation.conduct import conduct, sweep
from server.adaptation.sampler import Sampler
from server.db import cycles
from server.db.engine import Database
from server.db.models import Base, Cycle, Group, Query, Tenant
from server.db.tenants import delete_tenant
from tests.fakes.defects import break_on
from tests.fakes.vllm import Fault
from tests.fakes.vllm_plan import Ask

from .conftest import HandClock
from .fake_trainer import read_skill, write_adapter
from .scene import LENIENT, Scene, make_scene, settings_of

COMPLETIONS = "/v1/completions"


async def test_an_engine_that_is_away_for_a_while_is_waited_for(scene: Scene) -> None:
    await scene.tenant()
    scene.fake.script(COMPLETIONS, *[Fault(status=503)] * 3)
    assert (await scene.run()).status == CycleStatus.PROMOTED


async def test_an_engine_that_lost_its_adapters_gets_them_again(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.on_ask = lambda request: (
        scene.fake.restart() if isinstance(request, Step) else None
    )
    cycle = await scene.run()
    assert cycle.status == CycleStatus.PROMOTED
    loads = [r.body for r in scene.fake.received("/v1/load_lora_adapter")]
    assert all(body["lora_path"] == loads_of(loads, body["lora_name"])[0] for body in loads)


def loads_of(loads: list[dict[str, str]], name: str) -> list[str]:
    return [body["lora_path"] for body in loads if body["lora_name"] == name]


async def test_an_engine_restart_while_sampling_changes_no_weights(scene: Scene) -> None:
    await scene.tenant()
    restarted = False

    def forget_once(ask: Ask) -> str:
        nonlocal restarted
        if ask.model.endswith("-s1") and not restarted:
            restarted = True
            scene.fake.restart()
        return scene.model(ask)

    scene.fake.default_answer = forget_once
    cycle = await scene.run()
    assert cycle.status == CycleStatus.PROMOTED
    loads = [r.body for r in scene.fake.received("/v1/load_lora_adapter")]
    again = loads_of(loads, f"t1-adder--c{cycle.id}-s1")
    assert len(again) >= 2
    assert len(set(again)) == 1


async def test_a_defect_that_some_answers_meet_does_not_end_the_cycle(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_on(monkeypatch, "canonical", "36")
    await scene.tenant()
    cycle_id = await scene.enqueue(settings_of(learning={"wave": 4}, gate=LENIENT))
    status = await scene.conduct(await scene.claim())
    assert status in (CycleStatus.PROMOTED, CycleStatus.REJECTED)
    reasons = [group.reason for group in await scene.groups(cycle_id)]
    assert 0 < reasons.count("unjudged") < len(reasons)


async def test_earlier_labels_that_a_defect_meets_do_not_end_the_cycle(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.tenant()
    await scene.run()
    async with scene.database.transaction() as session:
        await session.execute(update(Group).values(label="36"))
    break_on(monkeypatch, "canonical", "36")
    cycle_id = await scene.enqueue(settings_of(learning={"steady": False}, gate=LENIENT), seed=8)
    status = await scene.conduct(await scene.claim())
    assert status in (CycleStatus.PROMOTED, CycleStatus.REJECTED)
    assert "unjudged" in {group.reason for group in await scene.groups(cycle_id)}


async def test_an_engine_that_stays_away_fails_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    sampler = Sampler(scene.pool, patience_s=0.05)
    scene.pool.set_state(scene.pool.engines[0], "away")
    cycle_id = await scene.enqueue()
    tools = replace(scene.tools, sampler=sampler)
    assert await conduct(tools, await scene.claim()) == CycleStatus.FAILED
    error = (await scene.cycle(cycle_id)).error
    assert error is not None
    assert error.startswith("engine_unavailable: ")
    assert await scene.live() == 0


@pytest.mark.parametrize("request_type", [Open, Step, Save, Average, Score])
async def test_a_trainer_that_dies_is_started_again(
    scene: Scene, request_type: type[batch.Request]
) -> None:
    await scene.tenant()
    scene.trainer.fail_next = [request_type]
    cycle = await scene.run()
    assert cycle.status == CycleStatus.PROMOTED
    (version,) = await scene.versions()
    assert version.report["verification"]["num_tokens"] > 0
    assert [step.step for step in await scene.steps(cycle.id)] == [1, 2, 3]


async def test_a_redone_update_is_applied_once(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.fail_next = [Save, Save]
    await scene.run()
    opened = [r.adapter_dir for r in scene.trainer.asked if isinstance(r, Open)]
    assert opened[:3] == [None, None, None]
    assert scene.trainer.count(Step) == 5


async def test_a_trainer_that_always_dies_fails_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.fail_next = [Step] * 4
    cycle = await scene.run()
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error == "trainer_failed: the trainer ended with status -9"
    assert await scene.live() == 0


async def cancel(scene: Scene, cycle_id: int) -> None:
    async with scene.database.transaction() as session:
        await cycles.request_cancel(session, cycle_id, now=scene.clock.now())


@pytest.mark.parametrize("model", ["identity", "-s1", "-s4"])
async def test_a_cancelled_cycle_stops_and_leaves_nothing(scene: Scene, model: str) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    sampling = asyncio.Event()

    def tell(ask: Ask) -> str:
        if ask.model.endswith(model):
            sampling.set()
        return scene.model(ask)

    scene.fake.default_answer = tell
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await sampling.wait()
    await cancel(scene, cycle_id)
    assert await running == CycleStatus.CANCELLED
    cycle = await scene.cycle(cycle_id)
    assert cycle.reasons == ["cancel_requested"]
    assert await scene.live() == 0
    assert not [name for name in scene.fake.adapters if "--c" in name]
    assert not scene.tools.store.step_dirs(scene.tenant_id, cycle_id, 1).adapter.exists()


async def test_a_deleted_tenant_gets_no_version(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    sampling = asyncio.Event()

    def tell(ask: Ask) -> str:
        if ask.model.endswith("-s4"):  # the mean of three steps
            sampling.set()
        return scene.model(ask)

    scene.fake.default_answer = tell
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await sampling.wait()
    async with scene.database.transaction() as session:
        assert await delete_tenant(session, scene.tenant_id, scene.clock.now())
    assert await running == CycleStatus.CANCELLED
    assert (await scene.cycle(cycle_id)).reasons == ["tenant_deleted"]
    assert await scene.versions() == []


async def test_a_worker_without_its_lease_writes_nothing(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    stale = await scene.claim("asleep")
    fresh = await scene.take_over("awake")
    assert await scene.conduct(stale) is None
    assert await scene.steps(cycle_id) == []
    assert scene.trainer.count(Step) == 0
    assert await scene.conduct(fresh) == CycleStatus.PROMOTED


async def test_a_worker_that_loses_its_lease_in_a_step_stores_nothing_of_it(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    stale = await scene.claim("slow")
    taken: list[cycles.Lease] = []

    def tell(ask: Ask) -> str:
        if ask.model.endswith("-s1"):
            sampling.set()
        return scene.model(ask)

    sampling = asyncio.Event()
    scene.fake.default_answer = tell
    running = asyncio.create_task(scene.conduct(stale))
    await sampling.wait()
    taken.append(await scene.take_over("fast"))
    assert await running is None
    assert [step.step for step in await scene.steps(cycle_id)] == [1]
    assert await scene.conduct(taken[0]) == CycleStatus.PROMOTED
    names = [step.engine_name for step in await scene.steps(cycle_id)]
    assert [name is not None and name.endswith("-f2") for name in names] == [False, True, True]


async def test_a_moved_pointer_rejects_the_candidate(scene: Scene) -> None:
    await scene.tenant()
    moved = False

    def move(request: batch.Request) -> None:
        nonlocal moved
        moved = moved or isinstance(request, Score)

    scene.trainer.on_ask = move
    cycle_id = await scene.enqueue()
    lease = await scene.claim()

    class Loader:
        async def load_everywhere(self, version: object) -> float:
            async with scene.database.transaction() as session:
                tenant = await session.get(Tenant, scene.tenant_id)
                assert tenant is not None
                tenant.live_version = 9  # an operator was quicker
            return 1.0

    assert await conduct(replace(scene.tools, loader=Loader()), lease) == CycleStatus.REJECTED
    cycle = await scene.cycle(cycle_id)
    assert cycle.reasons == ["incumbent_changed: version 9 is live, not 0"]
    assert (cycle.decision, await scene.live()) == ("rejected", 9)


async def test_an_engine_that_serves_other_weights_fails_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.base_shift = 0.0  # what the engine says is as near to the base model
    cycle = await scene.run(settings_of(gate={"enabled": False}))
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error == "cycle_failed: verification: distance_to_base: 0.0000 <= 0.0000"
    assert (await scene.live(), await scene.versions()) == (0, [])


async def test_a_number_whose_name_was_loaded_is_not_used_again(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.base_shift = 0.0
    await scene.run()
    scene.trainer.base_shift = 0.2
    cycle = await scene.run(seed=8)
    assert cycle.candidate_version == 2
    assert [version.number for version in await scene.versions()] == [2]


async def test_a_version_of_an_earlier_database_is_never_taken_for_the_own(
    scene: Scene, clock: HandClock, tmp_path: Path
) -> None:
    await scene.tenant("foo")
    await scene.run()
    (old,) = await scene.versions()
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'anew.db'}")  # all ids begin again
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with make_scene(database, clock, scene.tools.settings.data_dir) as again:
        assert await again.tenant("bar") == old.tenant_id
        again.trainer.gain = 0.05
        cycle = await again.run()
        (new,) = await again.versions()
    await database.close()
    assert (cycle.id, cycle.candidate_version) == (old.cycle_id, 2)
    assert (new.engine_name, new.number) == ("t1-bar--v2", 2)
    assert read_skill(Path(new.path)) == pytest.approx(0.125)
    assert read_skill(Path(old.path)) == pytest.approx(0.25)


async def test_nothing_is_learned_on_an_incumbent_of_another_base_model(scene: Scene) -> None:
    await scene.tenant()
    one, other = (f"files:{digit * 64}" for digit in "12")
    await replace(scene, tools=replace(scene.tools, base_digest=one)).run()
    scene.model.asked.clear()
    elsewhere = replace(scene, tools=replace(scene.tools, base_digest=other))
    cycle = await elsewhere.run(seed=8)
    assert (cycle.status, cycle.steps_done) == (CycleStatus.FAILED, 0)
    assert cycle.error is not None
    assert cycle.error.startswith("adapter_damaged: adder--v1 was made for another base model")
    assert scene.model.asked == []
    assert await scene.live() == 1


async def test_poisoned_weights_are_not_published(scene: Scene) -> None:
    await scene.tenant()

    def poison(request: batch.Request) -> None:
        if isinstance(request, Score) and request.policy == "base":
            folder = scene.tools.store.step_dirs(scene.tenant_id, 1, 4).adapter  # the mean
            write_adapter(folder, float("nan"))

    scene.trainer.on_ask = poison
    cycle = await scene.run()
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error is not None
    assert cycle.error.startswith("cycle_failed: publish: ")
    assert await scene.versions() == []


async def test_what_dead_workers_left_is_swept_away(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    left = scene.tools.store.step_dirs(scene.tenant_id, cycle.id, 1).adapter
    write_adapter(left, 0.5)
    scene.fake.adapters[f"t1-adder--c{cycle.id}-s1"] = str(left)
    running = await scene.enqueue(seed=8)
    await scene.claim()
    kept = scene.tools.store.step_dirs(scene.tenant_id, running, 1).adapter
    write_adapter(kept, 0.5)
    scene.fake.adapters[f"t1-adder--c{running}-s1"] = str(kept)
    await sweep(scene.tools)
    assert not left.exists()
    assert kept.exists()
    steps_loaded = {name for name in scene.fake.adapters if "--c" in name}
    assert steps_loaded == {f"t1-adder--c{running}-s1"}


async def test_texts_that_no_database_takes_are_stored(scene: Scene) -> None:
    await scene.tenant()
    scene.fake.default_answer = lambda ask: scene.model(ask) + "\x00"
    cycle = await scene.run()
    assert cycle.status == CycleStatus.PROMOTED


async def test_a_prompt_that_is_erased_meanwhile_is_left_out(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue(settings_of(gate={"enabled": False, "probe_fraction": 1e-9}))
    scene.trainer.hold_from = 1  # the first step has been sampled
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await asyncio.wait_for(scene.trainer.held.wait(), 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    chosen = ((await scene.cycle(cycle_id)).selection or {})["prompts"]
    erased = {entry[0] for entry in chosen[:6]}
    async with scene.database.transaction() as session:
        for query_id in erased:
            query = await session.get(Query, query_id)
            assert query is not None
            query.eligible = False
    scene.trainer.hold_from = None
    assert await scene.conduct(await scene.take_over()) == CycleStatus.PROMOTED
    assert not erased & {group.query_id for group in await scene.groups(cycle_id)}


async def test_a_cycle_with_settings_of_another_release_fails_at_once(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    async with scene.database.transaction() as session:
        row = await session.get_one(Cycle, cycle_id)
        row.settings = {"learning": {"steps": 0}}
    assert await scene.conduct(await scene.claim()) == CycleStatus.FAILED
    assert "learning.steps" in ((await scene.cycle(cycle_id)).error or "")
