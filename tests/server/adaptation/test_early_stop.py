"""A cycle that stops early, and goes back to its best step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from ttrl_client.types import CycleStatus

from adapters import batch
from server.adaptation.conduct import conduct
from server.db.models import Cycle

from .fake_trainer import FakeTrainer, read_skill
from .scene import LENIENT, Scene, settings_of
from .test_crashes import Crash, CrashingDatabase, closing

SETTINGS = settings_of(learning={"steps": 8}, gate=LENIENT)
STOPPED_AFTER = 5


class DriftingTrainer(FakeTrainer):
    """Finds samples too far from the base model from the fifth step on; the skill says which."""

    def __init__(self, *, from_skill: float = 0.35) -> None:
        super().__init__()
        self.from_skill = from_skill

    def _step(self, samples: Sequence[batch.TrainSample]) -> batch.Stepped:
        assert self.skill is not None
        kl_base = 2.0 if self.skill > self.from_skill else 0.1
        return msgspec.structs.replace(super()._step(samples), kl_base=kl_base)


async def check_end(scene: Scene, cycle: Cycle) -> None:
    """It stopped after the fifth step, and the best of the third and fourth is live."""
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert cycle.steps_done == STOPPED_AFTER
    steps = await scene.steps(cycle.id)
    agreement = [step.metrics["view_agreement"] for step in steps]
    third, fourth = sum(agreement[:3]) / 3, sum(agreement[1:4]) / 3
    best = 2 if third >= fourth else 3  # what they sampled from
    assert cycle.reasons == [
        f"stopped: kl_base: 2 > 1 after step {STOPPED_AFTER}; step {best} was the best"
    ]
    (version,) = await scene.versions()
    assert version.report["reasons"] == cycle.reasons
    assert await scene.live() == version.number == 1
    assert read_skill(Path(version.path)) == pytest.approx(best / 10)
    assert set(scene.fake.adapters) == {"identity", version.engine_name}


async def test_the_best_step_goes_live(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.4  # so that there is something to learn in every step
    scene = replace(scene, tools=replace(scene.tools, trainer=DriftingTrainer()))
    await check_end(scene, await scene.run(SETTINGS))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [8, 10])  # the fifth step, the verdict
async def test_a_resumed_cycle_comes_to_the_same_decision(
    scene: Scene, at: int, after: bool
) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.4  # so that there is something to learn in every step
    cycle_id = await scene.enqueue(SETTINGS)
    tools = replace(scene.tools, trainer=DriftingTrainer())
    async with closing(CrashingDatabase(scene.database, at=at, after=after)) as database:
        with pytest.raises(Crash):
            await conduct(replace(tools, database=database), await scene.claim("first"))
    if (await scene.cycle(cycle_id)).status == CycleStatus.RUNNING:
        trainer = DriftingTrainer()
        await conduct(replace(tools, trainer=trainer), await scene.take_over("second"))
        await check_end(scene, await scene.cycle(cycle_id))


async def test_a_cycle_without_a_good_step_is_rejected_and_says_why(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.4  # so that there is something to learn in every step
    tools = replace(scene.tools, trainer=DriftingTrainer(from_skill=-1))
    cycle = await replace(scene, tools=tools).run(SETTINGS)
    assert cycle.status == CycleStatus.REJECTED
    assert cycle.reasons == ["stopped: kl_base: 2 > 1 after step 1; no step goes on"]
    assert await scene.live() == 0


async def test_stopping_can_be_switched_off(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.4  # so that there is something to learn in every step
    tools = replace(scene.tools, trainer=DriftingTrainer())
    learning = {"steps": 6, "stop": {"enabled": False}}
    cycle = await replace(scene, tools=tools).run(settings_of(learning=learning, gate=LENIENT))
    assert (cycle.status, cycle.steps_done) == (CycleStatus.PROMOTED, 6)
