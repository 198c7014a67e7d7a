"""Batches that are sampled while the one before is learned from (`learning.ahead`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from ttrl_client.types import CycleStatus, TenantSettings

from adapters.batch import Step
from server.adaptation.conduct import conduct
from server.adaptation.run import progress_of
from server.db.models import CycleStep
from server.tenants import VersionRef
from tests.waiting import until

from .fake_trainer import FakeTrainer, read_skill
from .scene import Scene, settings_of
from .test_crashes import Crash, CrashingDatabase, closing


def ahead(gate: Mapping[str, object] | None = None, **learning: object) -> TenantSettings:
    plain = {"ahead": True, "average": False, "incumbent_votes": 0}
    return settings_of(learning=plain | learning, gate=gate or {})


def sampled_from(scene: Scene, steps: Sequence[int]) -> list[str]:
    """The weights that were sampled from, one after the other, `s1` for the first step's."""
    names = [ask.model.rsplit("--", 1)[-1] for ask in scene.model.asked]
    found = [name.rsplit("-", 1)[-1] for name, _ in groupby(names)]
    return [name for name in found if name in {"identity", *(f"s{step}" for step in steps)}]


async def test_a_batch_comes_from_weights_one_update_old(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(ahead(steps=4))
    assert (cycle.status, cycle.steps_done) == (CycleStatus.PROMOTED, 4)
    # Baseline and the first two steps; the last step's weights are measured by the gate.
    assert sampled_from(scene, range(1, 5)) == ["identity", "s1", "s2", "s4"]
    staleness = [step.metrics["staleness"] for step in await scene.steps(cycle.id)]
    assert staleness == [0, 1, 1, 1]


async def test_no_update_is_lost(scene: Scene) -> None:
    await scene.tenant()
    await scene.run(ahead(steps=4))
    (version,) = await scene.versions()
    assert read_skill(Path(version.path)) == pytest.approx(0.4)
    assert set(scene.fake.adapters) == {"identity", version.engine_name}


async def test_the_next_batch_is_sampled_while_the_trainer_works(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue(ahead())
    scene.trainer.hold_from = 2  # the first update
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await asyncio.wait_for(scene.trainer.held.wait(), 20)
    selection = (await scene.cycle(cycle_id)).selection
    assert selection is not None
    two_batches = 12 * (len(selection["probe"]) + 2 * 4)
    await until(lambda: len(scene.model.asked) == two_batches)
    assert isinstance(scene.trainer.asked[-1], Step)
    scene.trainer.go_on.set()
    assert await asyncio.wait_for(running, 20) == CycleStatus.PROMOTED


async def test_by_default_nothing_is_sampled_meanwhile(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert [step.metrics["staleness"] for step in await scene.steps(cycle.id)] == [0, 0, 0]


async def test_where_nothing_was_learned_nothing_is_stale(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 1.0  # unanimous everywhere
    cycle = await scene.run(ahead(steps=10, gate={"min_gain": 0}))
    assert cycle.steps_done == 3
    assert [step.metrics["staleness"] for step in await scene.steps(cycle.id)] == [0, 0, 0]


async def test_sampling_ends_with_a_cycle_that_fails(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.fail_next = [Step] * 4
    cycle = await scene.run(ahead())
    assert cycle.status == CycleStatus.FAILED
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step ")]


async def test_a_cancelled_cycle_ends_with_its_batch_ahead(scene: Scene) -> None:
    await scene.tenant()
    await scene.enqueue(ahead())
    scene.trainer.hold_from = 2
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await asyncio.wait_for(scene.trainer.held.wait(), 20)
    running.cancel()
    await asyncio.wait([running], timeout=20)
    assert running.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step ")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(4, 7))  # the steps
async def test_a_crash_loses_no_update_and_applies_none_twice(
    scene: Scene, at: int, after: bool
) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue(ahead())
    async with closing(CrashingDatabase(scene.database, at=at, after=after)) as database:
        with pytest.raises(Crash):
            await conduct(replace(scene.tools, database=database), await scene.claim("first"))
    trainer = FakeTrainer()
    await conduct(replace(scene.tools, trainer=trainer), await scene.take_over("second"))
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.num_rollouts) == (CycleStatus.PROMOTED, 3 * 4 * 12)
    (version,) = await scene.versions()
    assert read_skill(Path(version.path)) == pytest.approx(0.3)
    first_again = (await scene.steps(cycle_id))[at - 4 if not after else min(at - 3, 2)]
    assert not after or at == 6 or first_again.metrics["staleness"] == 0  # from the newest weights


async def test_what_a_step_measured_are_the_weights_that_it_came_from() -> None:
    rows = [
        CycleStep(step=n, engine_name=f"s{n}", adapter_dir="d", metrics={"staleness": float(n > 1)})
        for n in (1, 2, 3, 4)
    ]
    start = VersionRef(0, "identity", "identity", "t")
    progress = progress_of(rows, start, ahead().learning.stop)
    assert [checkpoint.step for checkpoint in progress.path] == [0, 0, 1, 2]
    assert [measured.sampled_from for measured in progress.measured] == [0, 0, 1, 2]
    assert (progress.before.step, progress.checkpoint.step) == (3, 4)
