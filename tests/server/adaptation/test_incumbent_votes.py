"""Samples of the weights that a cycle began with, which back a prompt's first label."""

from __future__ import annotations

import random

import pytest
from ttrl_client.types import CycleStatus

from tests.fakes.vllm_plan import Ask

from .scene import ADDITION, Scene, settings_of

LEARNING = {"steps": 2, "prompts_per_step": 12, "incumbent_votes": 4}


async def test_before_the_first_update_the_samples_are_the_incumbents(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(learning=LEARNING))
    first, *_ = await scene.steps(cycle.id)
    assert first.metrics["num_incumbent_votes"] == 0


async def test_a_prompt_without_a_label_is_asked_of_both(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(learning=LEARNING | {"prompts_per_step": 4}))
    second = (await scene.steps(cycle.id))[1]
    assert second.metrics["num_incumbent_votes"] == 4 * 4
    assert second.metrics["num_rollouts"] == 4 * 12
    assert {group.num_samples for group in await scene.groups(cycle.id)} == {12}


async def test_a_prompt_with_a_label_is_not(scene: Scene) -> None:
    await scene.tenant(questions=[f"What is {n} + 21?" for n in range(10, 19)])
    learning = LEARNING | {"min_prompts": 2, "prompts_per_step": 40}
    cycle = await scene.run(settings_of(learning=learning))
    groups = await scene.groups(cycle.id)
    labelled = {group.fingerprint for group in groups if group.step == 1 and group.label}
    second = [group for group in groups if group.step == 2]
    assert labelled == {group.fingerprint for group in second}
    assert (await scene.steps(cycle.id))[1].metrics["num_incumbent_votes"] == 0


async def test_they_are_at_most_half_of_a_group(scene: Scene) -> None:
    await scene.tenant()
    learning = {"steps": 2, "incumbent_votes": 100, "train_samples": 6}
    cycle = await scene.run(settings_of(learning=learning))
    second = (await scene.steps(cycle.id))[1]
    assert second.metrics["num_incumbent_votes"] == 4 * 6


async def test_a_tenant_may_do_without_them(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(learning={"incumbent_votes": 0}))
    assert all(s.metrics["num_incumbent_votes"] == 0 for s in await scene.steps(cycle.id))


@pytest.mark.parametrize("votes", [0, 4])
async def test_what_the_first_updates_broke_is_not_driven_home(scene: Scene, votes: int) -> None:
    """A model that loses a whole kind of sum with its first update, and is sure of it."""

    def overwritten(ask: Ask) -> str:
        if "-s" not in ask.model:
            return scene.model(ask)
        a, b = ADDITION.findall(ask.prompt)[-1]
        wrong = random.Random(f"{ask.seed}:{ask.index}").random() < 0.9
        return rf"\boxed{{{int(a) + int(b) + 100 * wrong}}}"

    await scene.tenant()
    settings = settings_of(
        views=[],
        learning=LEARNING | {"incumbent_votes": votes, "prompts_per_step": 4},
        gate={"enabled": False},
    )
    scene.fake.default_answer = overwritten
    cycle = await scene.run(settings)
    assert cycle.status in (CycleStatus.PROMOTED, CycleStatus.REJECTED)
    second = [group for group in await scene.groups(cycle.id) if group.step == 2]
    assert {group.reason for group in second} == ({"unbacked"} if votes else {None})
    assert {group.label is None for group in second} == {bool(votes)}
