"""Workers as they run: claiming, holding, losing and giving back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from ttrl_client.types import CycleStatus

from server.adaptation.sampler import Draw, Policy
from server.adaptation.tools import Tools
from server.db import cycles
from server.errors import AdapterDamaged
from server.tenants import version_ref
from server.worker import SWEEP_EVERY, Worker, _tools
from tests.fakes.serving import serve
from tests.fakes.vllm import FakeVLLM

from .conftest import add_queries, add_tenant
from .fake_trainer import FakeTrainer, write_adapter
from .scene import QUESTIONS, Scene, settings_of


def worker_of(
    scene: Scene, owner: str = "one", trainer: FakeTrainer | None = None, *, lease_s: float = 15
) -> Worker:
    settings = scene.tools.settings.model_copy(update={"lease_s": lease_s})
    tools = replace(scene.tools, settings=settings, trainer=trainer or FakeTrainer())
    return Worker(tools, owner=owner)


@asynccontextmanager
async def working(worker: Worker) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_without_work_says_so(scene: Scene) -> None:
    assert not await worker_of(scene).work_once()


async def test_a_worker_runs_what_it_claims(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    assert await worker_of(scene).work_once()
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.lease_owner) == (CycleStatus.PROMOTED, None)


async def test_two_workers_run_each_cycle_once(scene: Scene) -> None:
    ids: list[int] = []
    for name in ("a", "b", "c"):
        scene.tenant_id = await add_tenant(scene.database, name)
        await add_queries(scene.database, scene.tenant_id, QUESTIONS)
        ids.append(await scene.enqueue(settings_of(learning={"steps": 1})))
    one, two = worker_of(scene, "one"), worker_of(scene, "two")

    async def drain(worker: Worker) -> None:
        while await worker.work_once():
            pass

    await asyncio.gather(drain(one), drain(two))
    for cycle_id in ids:
        cycle = await scene.cycle(cycle_id)
        assert cycle.status in (CycleStatus.PROMOTED, CycleStatus.REJECTED)
        assert (cycle.attempts, cycle.fence) == (1, 1)
        assert [step.step for step in await scene.steps(cycle_id)] == [1]


async def test_a_stopped_worker_gives_its_cycle_back(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    trainer = FakeTrainer()
    trainer.hold_from = 4  # the second step's update
    async with working(worker_of(scene, "leaving", trainer)):
        await asyncio.wait_for(trainer.held.wait(), 60)
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.attempts, cycle.lease_owner) == (CycleStatus.RUNNING, 0, None)
    assert await worker_of(scene, "next").work_once()  # at once, with the clock standing still
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.fence) == (CycleStatus.PROMOTED, 2)
    assert [step.step for step in await scene.steps(cycle_id)] == [1, 2, 3]


async def test_a_heartbeat_that_finds_the_lease_lost_stops_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    stuck = FakeTrainer()
    stuck.hold_from = 1
    slow = asyncio.create_task(worker_of(scene, "slow", stuck, lease_s=6).work_once())
    await asyncio.wait_for(stuck.held.wait(), 60)
    taken = await scene.take_over("fast")
    await asyncio.wait_for(slow, 60)
    assert await scene.conduct(taken) == CycleStatus.PROMOTED
    assert (await scene.cycle(cycle_id)).fence == 2


async def test_a_running_cycle_keeps_its_lease(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    trainer = FakeTrainer()
    trainer.hold_from = 1
    working = asyncio.create_task(worker_of(scene, "one", trainer, lease_s=6).work_once())
    await asyncio.wait_for(trainer.held.wait(), 60)
    wanted = scene.clock.turn(1) + timedelta(seconds=6)
    async with asyncio.timeout(60):
        while (await scene.cycle(cycle_id)).lease_expires_at != wanted:
            await asyncio.wait((working,), timeout=0.05)
    trainer.go_on.set()
    assert await working
    assert (await scene.cycle(cycle_id)).status == CycleStatus.PROMOTED


def broken() -> FakeTrainer:
    def fail(_request: object) -> None:
        raise ZeroDivisionError("a bug")

    trainer = FakeTrainer()
    trainer.on_ask = fail
    return trainer


async def test_a_cycle_that_crashes_is_taken_up_when_its_lease_ends(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    worker = worker_of(scene, "one", broken())
    assert await worker.work_once()
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.error) == (CycleStatus.RUNNING, "ZeroDivisionError: a bug")
    assert not await worker.work_once()  # not at once, again and again
    for _ in range(cycles.MAX_ATTEMPTS - 1):
        scene.clock.turn(16)
        assert await worker.work_once()
    scene.clock.turn(16)
    assert not await worker.work_once()
    cycle = await scene.cycle(cycle_id)
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error is not None
    assert cycle.error.endswith("the last time: ZeroDivisionError: a bug")


async def test_a_crash_leaves_no_error_behind(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    assert await worker_of(scene, "one", broken()).work_once()
    scene.clock.turn(16)
    assert await worker_of(scene).work_once()
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)


async def test_a_worker_sweeps_after_a_cycle_that_nobody_ended(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    worker = worker_of(scene)
    await worker.sweep()
    for number in range(cycles.MAX_ATTEMPTS):
        await scene.claim(f"dead-{number}")
        scene.clock.turn(16)
    left = scene.tools.store.step_dirs(scene.tenant_id, cycle_id, 1).adapter
    write_adapter(left, 0.5)
    scene.fake.adapters[f"t1-adder--c{cycle_id}-s1"] = str(left)
    assert not await worker.work_once()
    assert (await scene.cycle(cycle_id)).status == CycleStatus.FAILED
    await worker.sweep()
    assert left.exists()  # not at every tick
    scene.clock.turn(SWEEP_EVERY.total_seconds())
    await worker.sweep()
    assert not left.exists()
    assert set(scene.fake.adapters) == {"identity"}


async def test_waiting_for_an_engine_ends_with_its_first_look_or_in_time(scene: Scene) -> None:
    engine = scene.pool.engines[0]
    assert await scene.tools.sampler.wait_ready(60)
    scene.pool.set_state(engine, "away", "not looked at yet")
    assert not await scene.tools.sampler.wait_ready(0)
    waiting = asyncio.create_task(scene.tools.sampler.wait_ready(60))
    await scene.pool.check(engine)
    assert await waiting


async def test_an_engine_is_waited_for_before_the_first_sweep(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, sampler = scene.pool.engines[0], scene.tools.sampler
    scene.fake.adapters["t1-adder--c1-s1"] = "/left/behind"
    scene.pool.set_state(engine, "away", "not looked at yet")
    asked: list[str] = []
    wait_ready, unload = sampler.wait_ready, sampler.unload
    begun, swept = asyncio.Event(), asyncio.Event()

    async def waits(timeout_s: float) -> bool:
        asked.append("wait")
        begun.set()
        return await wait_ready(timeout_s)

    async def unloads(is_done_with: Callable[[str], bool]) -> None:
        asked.append("unload")
        begun.set()
        await unload(is_done_with)
        swept.set()

    monkeypatch.setattr(sampler, "wait_ready", waits)
    monkeypatch.setattr(sampler, "unload", unloads)
    async with asyncio.timeout(60), working(worker_of(scene)):
        await begun.wait()
        await scene.pool.check(engine)
        await swept.wait()
    assert asked == ["wait", "unload"]
    assert set(scene.fake.adapters) == {"identity"}


DRAW = Draw(n=1, max_tokens=8, temperature=1.0, seed=7, cache_salt="test")


@asynccontextmanager
async def real_tools(scene: Scene, *fakes: FakeVLLM) -> AsyncGenerator[Tools]:
    """The tools that a worker makes itself, with these engines."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serve(fake)) for fake in fakes]
        changes = {"engine_urls": tuple(urls), "engine_poll_s": 0.01}
        settings = scene.tools.settings.model_copy(update=changes)
        tools = _tools(settings, scene.database, scene.tools.identity_dir, scene.tools.base_digest)
        yield await stack.enter_async_context(tools)


async def test_a_worker_has_no_engine_load_what_was_damaged(scene: Scene) -> None:
    await scene.tenant()
    assert (await scene.run()).status == CycleStatus.PROMOTED
    (row,) = await scene.versions()
    version = version_ref("adder", row)
    weights = Path(version.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    fake = FakeVLLM()
    async with real_tools(scene, fake) as tools:
        assert await tools.sampler.wait_ready(60)
        policy = Policy(version.engine_name, version.path)
        for load in (
            lambda: tools.sampler.sample(policy, [1, 2, 3], DRAW),
            lambda: tools.sampler.load(policy),
            lambda: tools.loader.load_everywhere(version),
        ):
            with pytest.raises(AdapterDamaged, match="SHA-256"):
                await load()
    loads = [request.body["lora_name"] for request in fake.received("/v1/load_lora_adapter")]
    assert version.engine_name not in loads


async def test_a_cycle_whose_incumbent_was_damaged_says_so(scene: Scene) -> None:
    await scene.tenant()
    await scene.run()
    (row,) = await scene.versions()
    (Path(row.path) / "adapter_model.safetensors").unlink()
    scene.fake.restart()
    cycle = await scene.run(seed=8)
    assert cycle.status == CycleStatus.FAILED
    assert (cycle.error or "").startswith("adapter_damaged: ")
    assert row.engine_name not in scene.fake.adapters


async def test_a_worker_draws_samples_from_one_model(scene: Scene) -> None:
    fakes = [FakeVLLM(default_answer=answer) for answer in ("one model", "another model")]
    policy = Policy("identity", str(scene.tools.identity_dir))
    async with real_tools(scene, *fakes) as tools, asyncio.timeout(60):
        await asyncio.gather(*(fake.called("/v1/models", 3) for fake in fakes))
        texts = {(await tools.sampler.sample(policy, [1, 2], DRAW))[0].text for _ in range(4)}
    assert len(texts) == 1


async def test_a_worker_unloads_no_version(scene: Scene) -> None:
    fake = FakeVLLM()
    fake.adapters = {f"t1-a--v{number}": "/adapters/a" for number in range(100)}
    async with real_tools(scene, fake) as tools, asyncio.timeout(60):
        assert await tools.sampler.wait_ready(60)
        await fake.called("/v1/models", 4)
    assert len(fake.adapters) == 101  # with the identity adapter
