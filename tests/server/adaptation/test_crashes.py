"""A worker that dies at any point: whoever takes the cycle up ends it as if nothing had happened.

Every write transaction and every request to the trainer is a point; a crash comes before it, or
after it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from ttrl_client.types import CycleStatus

from adapters.batch import Request
from server.adaptation.conduct import conduct, sweep
from server.db.engine import Database

from .fake_trainer import FakeTrainer, read_skill
from .scene import Scene, settings_of

SETTINGS = settings_of(learning={"steps": 2})
NUM_WRITES = 9  # resume, selection, baseline, 2 steps, evaluate, verdict, version, swap
# open, 2 x (step, save), average, twice open and 2 scores (the mean, the published), close
NUM_REQUESTS = 13


class Crash(BaseException):
    """The end of a worker."""


class CrashingDatabase(Database):
    """Crashes at its `at`-th write transaction: before the commit, or after it."""

    def __init__(self, inner: Database, *, at: int = 0, after: bool = False) -> None:
        super().__init__(str(inner.url))
        self.writes = 0
        self.at, self.after = at, after

    @asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncGenerator[AsyncSession]:
        self.writes += write
        crash = write and self.writes == self.at
        async with super().transaction(write=write) as session:
            yield session
            if crash and not self.after:
                raise Crash
        if crash:
            raise Crash


@asynccontextmanager
async def closing(database: CrashingDatabase) -> AsyncGenerator[CrashingDatabase]:
    try:
        yield database
    finally:
        await database.close()


class CrashingTrainer(FakeTrainer):
    """Takes the worker with it at the `at`-th request: before it is done, or after it."""

    def __init__(self, *, at: int = 0) -> None:
        super().__init__()
        self.at = at
        self.on_ask = self._crash

    def _crash(self, _request: Request) -> None:
        if len(self.asked) == self.at:
            raise Crash


async def check_end(scene: Scene, cycle_id: int) -> None:
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert [step.step for step in await scene.steps(cycle_id)] == [1, 2]
    groups = await scene.groups(cycle_id)
    assert len(groups) == len({(g.step, g.fingerprint) for g in groups}) == 8
    assert cycle.num_rollouts == 8 * 12
    (version,) = await scene.versions()
    assert await scene.live() == version.number == 1
    # Each update raises the skill by 0.1, none is lost or applied twice: the mean of 0.1 and 0.2.
    assert read_skill(Path(version.path)) == pytest.approx(0.15)
    assert not [name for name in scene.fake.adapters if "--c" in name]
    assert not scene.tools.store.step_dirs(scene.tenant_id, cycle_id, 1).adapter.exists()


async def crash_and_go_on(scene: Scene, database: Database, trainer: FakeTrainer) -> bool:
    """Whether the first worker crashed; the second one always gets to the end."""
    await scene.tenant()
    cycle_id = await scene.enqueue(SETTINGS)
    lease = await scene.claim("first")
    crashed = False
    try:
        await conduct(replace(scene.tools, database=database, trainer=trainer), lease)
    except Crash:
        crashed = True
    if (await scene.cycle(cycle_id)).status == CycleStatus.RUNNING:
        await scene.conduct(await scene.take_over("second"))
    else:
        await sweep(scene.tools)
    await check_end(scene, cycle_id)
    return crashed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, NUM_WRITES + 1))
async def test_a_crash_at_a_write(scene: Scene, at: int, after: bool) -> None:
    async with closing(CrashingDatabase(scene.database, at=at, after=after)) as database:
        assert await crash_and_go_on(scene, database, FakeTrainer())


@pytest.mark.parametrize("at", range(1, NUM_REQUESTS + 1))
async def test_a_crash_at_a_request_to_the_trainer(scene: Scene, at: int) -> None:
    assert await crash_and_go_on(scene, scene.database, CrashingTrainer(at=at))


async def test_these_are_all_the_points(scene: Scene) -> None:
    trainer = CrashingTrainer()
    async with closing(CrashingDatabase(scene.database)) as database:
        assert not await crash_and_go_on(scene, database, trainer)
    assert (database.writes, len(trainer.asked)) == (NUM_WRITES, NUM_REQUESTS)


async def test_a_redone_step_asks_for_the_same_samples(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue(SETTINGS)
    trainer = CrashingTrainer(at=4)  # the second step's update, after it was sampled
    with pytest.raises(Crash):
        await conduct(replace(scene.tools, trainer=trainer), await scene.claim("first"))
    before = [(a.seed, a.index, a.prompt) for a in scene.model.asked if a.model.endswith("-s1")]
    scene.model.asked.clear()
    await scene.conduct(await scene.take_over("second"))
    again = [(a.seed, a.index, a.prompt) for a in scene.model.asked if a.model.endswith("-s1")]
    assert sorted(map(str, again)) == sorted(map(str, before))
    assert (await scene.cycle(cycle_id)).status == CycleStatus.PROMOTED


async def test_later_claims_write_elsewhere(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue(SETTINGS)
    database = CrashingDatabase(scene.database, at=4)  # the first step's row
    with pytest.raises(Crash):
        await conduct(replace(scene.tools, database=database), await scene.claim("first"))
    await database.close()
    assert f"t1-adder--c{cycle_id}-s1" in scene.fake.adapters  # loaded, and named by no row
    await scene.conduct(await scene.take_over("second"))
    names = [step.engine_name for step in await scene.steps(cycle_id)]
    assert names == [f"t1-adder--c{cycle_id}-s1-f2", f"t1-adder--c{cycle_id}-s2-f2"]
