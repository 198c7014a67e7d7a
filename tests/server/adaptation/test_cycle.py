"""The whole cycle: promoted, rejected, skipped."""

from __future__ import annotations

from ttrl_client.types import CycleStatus

from .scene import Scene


async def test_a_better_candidate_goes_live(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert cycle.decision == "promoted"
    assert cycle.steps_done == 3
    assert cycle.candidate_version == 1
    assert await scene.live() == 1
