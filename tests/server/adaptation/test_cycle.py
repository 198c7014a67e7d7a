"""The whole cycle: promoted, rejected, skipped, and what is stored of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ttrl_client.types import CycleStatus

from adapters.batch import Average, Open, Score, Step
from server.db.engine import Database
from tests.fakes.vllm_plan import Ask

from .conftest import HandClock, add_queries
from .fake_trainer import read_skill
from .scene import Scene, make_scene, settings_of


async def test_a_better_candidate_goes_live(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert (cycle.status, cycle.decision, cycle.error) == (CycleStatus.PROMOTED, "promoted", None)
    assert (cycle.parent_version, cycle.candidate_version) == (0, 1)
    assert cycle.finished_at is not None
    assert cycle.phase is None
    assert await scene.live() == 1


async def test_the_published_weights_are_the_mean_of_the_good_steps(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    (version,) = await scene.versions()
    assert read_skill(Path(version.path)) == pytest.approx(0.25)  # of 0.2 and 0.3
    assert scene.tools.store.verify(Path(version.path)).cycle_id == cycle.id
    assert version.manifest_digest == scene.tools.store.verify(Path(version.path)).digest
    assert version.report["candidate"] == cycle.candidate_report
    assert version.report["verification"]["mismatch"] == 0.0


async def test_without_the_mean_they_are_those_of_the_last_step(scene: Scene) -> None:
    await scene.tenant()
    await scene.run(settings_of(learning={"average": False}))
    (version,) = await scene.versions()
    assert read_skill(Path(version.path)) == pytest.approx(0.3)
    assert scene.trainer.count(Average) == 0


async def test_each_step_samples_from_the_newest_weights(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    by_model = [ask.model for ask in scene.model.asked]
    in_order = list(dict.fromkeys(by_model))
    # The third step's weights are not sampled from: what comes after it is the mean.
    steps = [f"t1-adder--c{cycle.id}-s{step}" for step in (1, 2, 4)]
    assert in_order == ["identity", *steps, "t1-adder--v1"]


async def test_only_published_adapters_stay_loaded(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert set(scene.fake.adapters) == {"identity", "t1-adder--v1"}
    assert not scene.tools.store.step_dirs(scene.tenant_id, cycle.id, 1).adapter.exists()


async def test_the_next_cycle_starts_from_the_live_version(scene: Scene) -> None:
    await scene.tenant()
    await scene.run()
    (first,) = await scene.versions()
    scene.trainer.asked.clear()
    cycle = await scene.run(settings_of(gate={"enabled": False}), seed=8)
    opened = [request for request in scene.trainer.asked if isinstance(request, Open)]
    assert opened[0].adapter_dir == first.path
    assert (cycle.parent_version, cycle.candidate_version) == (1, 2)
    assert await scene.live() == 2


async def test_groups_votes_and_metrics_are_stored(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    stored = await scene.steps(cycle.id)
    groups = await scene.groups(cycle.id)
    assert [step.step for step in stored] == [1, 2, 3]
    assert len(groups) == 3 * 4
    assert cycle.num_rollouts == 3 * 4 * 12 == sum(group.num_samples for group in groups)
    assert {g.reason for g in groups if g.trained} == {None}
    assert stored[0].metrics["num_trained_groups"] == sum(g.trained for g in groups if g.step == 1)
    expected = {"majority_ratio", "view_agreement", "mean_reward", "answer_rate", "label_share"}
    expected |= {"abstain_share", "zero_variance_share", "mean_tokens", "num_groups", "loss"}
    expected |= {"num_rollouts", "grad_norm", "mismatch", "mismatch_kl", "entropy", "sample_s"}
    assert expected | {"update_s", "load_ms"} <= stored[0].metrics.keys()


async def test_the_trainer_gets_what_the_engine_sampled(scene: Scene) -> None:
    await scene.tenant()
    await scene.run()
    batch = next(request for request in scene.trainer.asked if isinstance(request, Step))
    assert all(len(s.completion_ids) == len(s.inference_logprobs) for s in batch.samples)
    prompts = {"".join(map(chr, sample.prompt_ids)) for sample in batch.samples}
    assert all(p.startswith("<|im_start|>user\n") and p.endswith("assistant\n") for p in prompts)
    assert abs(sum(sample.advantages[0] for sample in batch.samples)) < 1e-9


async def test_the_votes_of_a_prompt_are_split_over_its_views(scene: Scene) -> None:
    await scene.tenant(questions=[f"What is {n} + 1?" for n in range(20)])
    await scene.run()
    firsts = [ask for ask in scene.model.asked if ask.index == 0 and ask.model == "identity"]
    one = next(ask.prompt for ask in firsts if "What is" in ask.prompt)
    number = one.split("What is ")[1].split(" ")[0]
    texts = {ask.prompt for ask in firsts if f"{number} + 1" in ask.prompt.split("user\n")[1][:20]}
    assert len(texts) == 4  # as asked, and three templates


async def test_a_candidate_without_gain_is_rejected(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.gain = 0.0
    cycle = await scene.run()
    assert (cycle.status, cycle.decision) == (CycleStatus.REJECTED, "rejected")
    assert cycle.reasons is not None
    assert any(reason.startswith("label_agreement_gain: ") for reason in cycle.reasons)
    assert cycle.candidate_report is not None
    assert await scene.live() == 0
    assert await scene.versions() == []


async def test_labels_that_the_views_deny_are_not_learned(scene: Scene) -> None:
    await scene.tenant()

    def by_view(ask: Ask, right: int, dice: random.Random) -> int:
        return right + ord(ask.prompt.split("user\n")[1][0])  # each phrasing its own mistake

    scene.model.base_skill, scene.model.wrong = 0.0, by_view
    cycle = await scene.run(settings_of(gate={"enabled": False}))
    assert cycle.status == CycleStatus.REJECTED
    assert cycle.reasons is not None
    assert cycle.reasons[0] == "no_signal: 0 of 12 groups had a label the views agree on"
    assert scene.trainer.count(Step) == 0
    assert all(step.engine_name is None for step in await scene.steps(cycle.id))


async def test_that_a_trained_version_agrees_with_itself_proves_nothing(scene: Scene) -> None:
    def by_view(ask: Ask, right: int, dice: random.Random) -> int:
        return right + ord(ask.prompt.split("user\n")[1][0])  # each phrasing its own mistake

    await scene.tenant()
    scene.trainer.gain = 0.3
    first = await scene.run(settings_of(gate={"enabled": False}))
    assert first.candidate_version == 1
    scene.model.base_skill, scene.model.wrong = 0.0, by_view
    cycle = await scene.run(seed=8)
    assert cycle.decision == "rejected"
    assert cycle.reasons is not None
    assert any(reason.startswith("view_agreement: 0.0") for reason in cycle.reasons)
    assert cycle.incumbent_report is not None
    assert cycle.incumbent_report["label_agreement"] > 0.6  # sure of itself it is


async def test_what_the_gate_would_refuse_in_any_case_is_not_learned(scene: Scene) -> None:
    def by_view(ask: Ask, right: int, dice: random.Random) -> int:
        return right + ord(ask.prompt.split("user\n")[1][0])  # each phrasing its own mistake

    await scene.tenant()
    scene.model.base_skill, scene.model.wrong = 0.0, by_view
    cycle = await scene.run()
    assert (cycle.status, cycle.decision) == (CycleStatus.REJECTED, "rejected")
    assert cycle.reasons == [
        "not_trained: no candidate could pass the gate",
        "view_agreement: 0.0000 < 0.7000",
        "labels: 0 < 3",
    ]
    assert (cycle.steps_done, scene.trainer.asked) == (0, [])
    assert cycle.candidate_report is None
    assert cycle.incumbent_report is not None
    assert {ask.model for ask in scene.model.asked} == {"identity"}


async def test_where_nothing_is_left_to_gain_nothing_is_learned(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 1.0  # unanimous everywhere
    cycle = await scene.run()
    assert (cycle.status, cycle.steps_done) == (CycleStatus.REJECTED, 0)
    assert cycle.reasons is not None
    assert cycle.reasons[1:] == ["label_agreement_gain: 0.0000 < 0.0300"]


async def test_training_ends_when_nothing_more_can_be_learned(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill = 1.0  # unanimous everywhere
    cycle = await scene.run(settings_of(learning={"steps": 10}, gate={"min_gain": 0}))
    assert cycle.status == CycleStatus.REJECTED
    assert cycle.steps_done == 3
    assert {group.reason for group in await scene.groups(cycle.id)} == {"unanimous"}


async def test_too_few_prompts_skip_the_cycle(scene: Scene) -> None:
    await scene.tenant(questions=["What is 1 + 1?", "What is 1 + 2?"])
    cycle = await scene.run()
    assert cycle.status == CycleStatus.SKIPPED
    assert cycle.reasons is not None
    assert cycle.reasons[0].startswith("prompts: ")
    assert scene.model.asked == []


async def test_too_small_a_probe_skips_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(gate={"min_probe_prompts": 500}))
    assert cycle.status == CycleStatus.SKIPPED
    assert cycle.reasons is not None
    assert cycle.reasons[0].startswith("probe_prompts: ")


async def test_truncated_samples_neither_vote_nor_teach(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(learning={"max_tokens": 4}, gate={"enabled": False}))
    assert cycle.status == CycleStatus.REJECTED
    assert {group.reason for group in await scene.groups(cycle.id)} == {"no_answer"}
    assert (await scene.steps(cycle.id))[0].metrics["truncated_share"] == 1.0


async def test_a_prompt_that_the_engine_refuses_is_left_out_alone(scene: Scene) -> None:
    await scene.tenant()
    scene.fake.max_model_len = 300
    long = [f"{'Please think. ' * 40} What is 9 + 9?"]  # not held out
    await add_queries(scene.database, scene.tenant_id, long, prefix="long")
    cycle = await scene.run(settings_of(learning={"prompts_per_step": 12}))
    reasons = {group.reason for group in await scene.groups(cycle.id)}
    assert "refused" in reasons
    assert cycle.status == CycleStatus.PROMOTED


async def test_the_distance_to_the_base_model_is_measured(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert cycle.candidate_report is not None
    assert 0 < cycle.candidate_report["kl"] < 0.1
    assert scene.trainer.count(Score) == 4  # adapter and base, for the gate and for the probe


async def test_a_disabled_gate_needs_no_probe_promotes_and_says_so(scene: Scene) -> None:
    await scene.tenant()
    scene.trainer.gain = 0.0001
    cycle = await scene.run(settings_of(gate={"enabled": False, "probe_fraction": 1e-9}))
    assert cycle.status == CycleStatus.PROMOTED
    (version,) = await scene.versions()
    assert cycle.reasons == version.report["reasons"] == ["gate: disabled"]


async def test_a_tenants_own_pattern_says_what_the_answer_is(scene: Scene) -> None:
    await scene.tenant()
    options = {"pattern": r"boxed\{(?P<answer>\d+)"}
    cycle = await scene.run(settings_of(answer="regex", answer_options=options))
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert all((group.label or "0").isdecimal() for group in await scene.groups(cycle.id))


async def test_an_answer_function_that_is_not_installed_fails_the_cycle(scene: Scene) -> None:
    await scene.tenant()
    options = {"entry_point": "nobody_has_this"}
    cycle = await scene.run(settings_of(answer="python", answer_options=options))
    assert cycle.status == CycleStatus.FAILED
    assert cycle.error is not None
    assert cycle.error.startswith("cycle_failed: answer: ")
    assert await scene.live() == 0


async def test_a_cycle_on_either_database(
    database: Database, clock: HandClock, tmp_path: Path
) -> None:
    async with make_scene(database, clock, tmp_path / "data") as scene:
        await scene.tenant()
        cycle = await scene.run()
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
