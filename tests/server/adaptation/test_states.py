"""The optimizer's states on disk: only the newest stays, and nobody misses the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ttrl_client.types import CycleStatus

from adapters import batch
from adapters.store import AdapterStore
from server.adaptation.conduct import conduct

from .fake_trainer import FakeTrainer, read_skill
from .scene import Scene, settings_of
from .test_crashes import Crash
from .test_early_stop import LENIENT, SETTINGS, DriftingTrainer, check_end


def states_of(scene: Scene) -> list[str]:
    """The steps that have one, as their directories are called."""
    return sorted(state.parent.name for state in scene.tools.store.root.glob("t*/c*/s*/state"))


class KeepingStore(AdapterStore):
    """Its worker dies before it deletes a state."""

    def remove_states(self, tenant_id: int, cycle_id: int, *, before: int) -> None:
        raise Crash


async def test_only_the_newest_state_stays(scene: Scene) -> None:
    await scene.tenant()
    seen: list[list[str]] = []

    def look(request: batch.Request) -> None:
        if isinstance(request, batch.Step | batch.Average):
            seen.append(states_of(scene))

    scene.trainer.on_ask = look
    assert (await scene.run()).status == CycleStatus.PROMOTED
    assert seen == [[], ["s1"], ["s2"], ["s3"]]
    assert states_of(scene) == []


async def test_the_adapters_of_all_steps_stay(scene: Scene) -> None:
    await scene.tenant()
    seen: list[list[str]] = []

    def look(request: batch.Request) -> None:
        if isinstance(request, batch.Average):
            folders = scene.tools.store.root.glob("t*/c*/s*/adapter/adapter_model.safetensors")
            seen.append(sorted(folder.parent.parent.name for folder in folders))

    scene.trainer.on_ask = look
    await scene.run()
    assert seen == [["s1", "s2", "s3"]]


async def test_what_a_crash_left_goes_with_the_next_step(scene: Scene) -> None:
    await scene.tenant()
    cycle_id = await scene.enqueue()
    keeping = replace(scene.tools, store=KeepingStore(scene.tools.store.root))
    for owner, left in (("first", ["s1"]), ("second", ["s1", "s2-f2"])):
        lease = await (scene.claim(owner) if owner == "first" else scene.take_over(owner))
        with pytest.raises(Crash):
            await conduct(replace(keeping, trainer=type(scene.trainer)()), lease)
        assert states_of(scene) == left
    seen: list[Any] = []
    scene.trainer.on_ask = lambda request: seen.append((type(request), states_of(scene)))
    await scene.conduct(await scene.claim("third", in_s=40))
    assert (batch.Average, ["s3-f3"]) in seen
    assert (await scene.cycle(cycle_id)).status == CycleStatus.PROMOTED


async def test_an_early_stop_scores_an_older_step_without_its_state(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.4  # so that there is something to learn in every step
    trainer = DriftingTrainer()
    scene = replace(scene, tools=replace(scene.tools, trainer=trainer))
    await check_end(scene, await scene.run(SETTINGS))
    opened = [request for request in trainer.asked if isinstance(request, batch.Open)]
    assert [request.state_dir for request in opened] == [None] * 3  # the start, step, version


class FallingTrainer(FakeTrainer):
    """Gets better in its first step, and worse in all others."""

    def _step(self, samples: Sequence[batch.TrainSample]) -> batch.Stepped:
        stepped = super()._step(samples)
        self.gain = -0.01
        return stepped


async def test_an_early_stop_without_harm_averages_older_steps(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.5
    trainer = FallingTrainer(gain=0.45)
    scene = replace(scene, tools=replace(scene.tools, trainer=trainer))
    learning = {"steps": 8, "stop": {"patience": 2}}
    cycle = await scene.run(settings_of(learning=learning, gate=LENIENT))
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert "no_progress" in (cycle.reasons or [""])[0]
    (averaged,) = (r for r in trainer.asked if isinstance(r, batch.Average))
    steps = [int(Path(folder).parent.name[1:]) for folder in averaged.adapter_dirs]
    assert 1 < len(steps) <= max(steps) < cycle.steps_done  # all of them lost their states
    (version,) = await scene.versions()
    skills = [0.45 - 0.01 * (step - 1) for step in steps]
    assert read_skill(Path(version.path)) == pytest.approx(sum(skills) / len(skills))
