"""Groups that are drawn in waves."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client.types import CycleStatus

from server.adaptation.conduct import conduct
from server.adaptation.groups import Sample
from server.adaptation.sampling import in_turn, stop_rule, waves
from server.db import cycles
from server.engine.client import Completion
from tests.fakes.vllm_plan import Ask

from .scene import Scene, settings_of
from .test_crashes import Crash, CrashingTrainer

WAVES = {"wave": 4, "steps": 1}
NO_PROBE = {"enabled": False, "probe_fraction": 1e-9}


@given(st.integers(1, 100), st.integers(1, 9), st.none() | st.integers(2, 40))
def test_waves_draw_every_sample_once_and_keep_the_views_balanced(
    total: int, num_views: int, size: int | None
) -> None:
    drawn = [list[int]() for _ in range(num_views)]
    for wave in waves(total, num_views, size):
        assert sum(map(len, wave)) <= (size or total)
        for have, more in zip(drawn, wave, strict=True):
            have.extend(more)
        lengths = [len(have) for have in drawn]
        assert max(lengths) - min(lengths) <= 1
    assert all(have == list(range(len(have))) for have in drawn)
    assert sum(map(len, drawn)) == total


def test_samples_of_a_wave_come_from_each_view_in_turn() -> None:
    completion = Completion([1], [-1.0], "", "stop")
    views = [
        [Sample(view, [rank], completion) for rank in range(n)] for view, n in enumerate([3, 2])
    ]
    assert [(s.view, s.prompt_ids[0]) for s in in_turn(views)] == [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
    ]


def test_training_wants_all_samples_unless_it_is_told_how_many() -> None:
    assert stop_rule(settings_of().learning).min_samples == 12
    assert stop_rule(settings_of(learning={"train_samples": 6}).learning).min_samples == 6


async def test_a_unanimous_group_ends_with_its_first_wave(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 1.0
    cycle = await scene.run(settings_of(learning=WAVES, gate={"min_gain": 0}))
    groups = await scene.groups(cycle.id)
    assert {(group.reason, group.num_samples) for group in groups} == {("unanimous", 4)}
    (step,) = await scene.steps(cycle.id)
    assert (step.metrics["stopped_share"], step.metrics["num_rollouts"]) == (1.0, 16.0)


async def test_a_group_that_is_trained_on_gets_all_its_samples(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.7
    cycle = await scene.run(settings_of(learning=WAVES))
    sizes = {group.num_samples for group in await scene.groups(cycle.id) if group.trained}
    assert sizes == {12}


async def test_a_decided_group_gets_the_samples_that_training_wants(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 0.85
    learning = {"wave": 4, "steps": 1, "samples_per_prompt": 40, "train_samples": 8}
    cycle = await scene.run(settings_of(learning=learning | {"prompts_per_step": 12}))
    trained = [group for group in await scene.groups(cycle.id) if group.trained]
    assert min(group.num_samples for group in trained) >= 8
    assert max(group.num_samples for group in trained) < 40


async def test_waves_draw_what_would_have_been_drawn_at_once(scene: Scene) -> None:
    await scene.tenant()

    def by_seed(ask: Ask) -> str:  # sample i of a request is drawn with seed + i, as in vLLM
        assert ask.seed is not None
        return scene.model(replace(ask, seed=ask.seed + ask.index, index=0))

    scene.fake.default_answer = by_seed
    texts: list[Counter[str]] = []
    for wave in (None, 5):
        scene.model.asked.clear()
        learning = {"wave": wave, "steps": 1, "min_answers": 12}
        cycle = await scene.run(settings_of(learning=learning, gate=NO_PROBE))
        assert cycle.num_rollouts == 48
        texts.append(Counter(f"{ask.seed} {ask.prompt}" for ask in scene.model.asked))
    assert texts[0] == texts[1]


async def test_a_step_in_waves_that_is_redone_asks_for_the_same_samples(scene: Scene) -> None:
    await scene.tenant()
    settings = settings_of(learning={"wave": 4, "steps": 2, "train_samples": 4})
    cycle_id = await scene.enqueue(settings)
    trainer = CrashingTrainer(at=4)  # the second step's update, after it was sampled
    with pytest.raises(Crash):
        await conduct(replace(scene.tools, trainer=trainer), await scene.claim("first"))
    asked = [(a.seed, a.index, a.prompt) for a in scene.model.asked if a.model.endswith("-s1")]
    scene.model.asked.clear()
    await scene.conduct(await scene.take_over("second"))
    again = [(a.seed, a.index, a.prompt) for a in scene.model.asked if a.model.endswith("-s1")]
    assert sorted(asked) == sorted(again)
    assert (await scene.cycle(cycle_id)).status == CycleStatus.PROMOTED


async def test_a_cancellation_is_noticed_between_waves(scene: Scene) -> None:
    await scene.tenant()
    learning = {"wave": 2, "steps": 1, "samples_per_prompt": 200}
    cycle_id = await scene.enqueue(settings_of(learning=learning, gate=NO_PROBE))
    settings = scene.tools.settings.model_copy(update={"background_requests": 1})
    begun = asyncio.Event()

    def answer(ask: Ask) -> str:
        begun.set()
        return scene.model(ask)

    scene.fake.default_answer = answer
    lease = await scene.claim()
    running = asyncio.create_task(conduct(replace(scene.tools, settings=settings), lease))
    await begun.wait()
    async with scene.database.transaction() as session:
        await cycles.request_cancel(session, cycle_id, now=scene.clock.now())
    assert await running == CycleStatus.CANCELLED
    assert len(scene.model.asked) < 4 * 200
