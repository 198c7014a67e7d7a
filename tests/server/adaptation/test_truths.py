"""Feedback in the cycle: what counts as a truth, what it labels, and what the gate makes of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from ttrl_client.types import CycleStatus

from adapters.answers import AnswerSpec, Equivalence
from server.adaptation.truths import truths_of
from server.db import feedback
from server.db.engine import Database
from server.db.feedback import Said, Told
from server.db.models import Answer
from tests.fakes.defects import break_on
from tests.fakes.vllm_plan import Ask

from .conftest import HandClock, add_queries, add_tenant
from .scene import ADDITION, QUESTIONS, Scene, make_scene, settings_of

ENOUGH = {"min_truths": 5, "samples_per_prompt": 24}


@pytest.fixture
def judge() -> Iterator[Equivalence]:
    with Equivalence() as judge:
        yield judge


def right(question: str) -> int:
    match = ADDITION.findall(question)[-1]
    return int(match[0]) + int(match[1])


async def tell(scene: Scene, answers: dict[int, str], *, prefix: str = "q") -> None:
    """Correct answers, by the place of their question."""
    said = [
        Said(f"{prefix}-{scene.tenant_id}-{index}", 0, None, answer, None)
        for index, answer in answers.items()
    ]
    stored = await feedback.store(scene.database, scene.tenant_id, said, scene.clock.now())
    assert not stored.unknown


async def tell_all(scene: Scene) -> None:
    await tell(scene, {i: f"The answer is {right(q)}." for i, q in enumerate(QUESTIONS)})


def by_view(ask: Ask, right: int, dice: random.Random) -> int:
    """Each phrasing has its own mistake."""
    return right + ord(ask.prompt.split("user\n")[1][0])


def shared_mistake(ask: Ask, right: int, dice: random.Random) -> int:
    return right + 1


@pytest.mark.parametrize(
    ("is_told", "status"), [(False, CycleStatus.REJECTED), (True, CycleStatus.PROMOTED)]
)
async def test_truths_let_a_good_candidate_pass_where_views_disagree(
    scene: Scene, is_told: bool, status: CycleStatus
) -> None:
    await scene.tenant()
    scene.model.base_skill, scene.model.wrong = 0.4, by_view
    if is_told:
        await tell_all(scene)
    cycle = await scene.run(settings_of(gate=ENOUGH))
    assert (cycle.status, cycle.error) == (status, None)


@pytest.mark.parametrize(
    ("is_told", "status"), [(False, CycleStatus.PROMOTED), (True, CycleStatus.REJECTED)]
)
async def test_truths_stop_a_harmful_candidate_that_votes_would_let_pass(
    scene: Scene, is_told: bool, status: CycleStatus
) -> None:
    await scene.tenant()
    scene.model.base_skill, scene.model.wrong = 0.25, shared_mistake
    scene.trainer.gain = -0.08
    if is_told:
        await tell_all(scene)
    cycle = await scene.run(settings_of(gate=ENOUGH, learning={"use_feedback": False}))
    assert (cycle.status, cycle.error) == (status, None)
    if is_told:
        assert any(reason.startswith("accuracy_gain: -0.") for reason in cycle.reasons or [])


async def test_truths_label_the_groups_and_say_so(scene: Scene) -> None:
    await scene.tenant()
    scene.model.base_skill, scene.model.wrong = 0.3, shared_mistake
    await tell_all(scene)
    cycle = await scene.run(settings_of(gate=ENOUGH))
    groups = await scene.groups(cycle.id)
    answers = {f"q-{scene.tenant_id}-{i}": str(right(q)) for i, q in enumerate(QUESTIONS)}
    assert [group.label for group in groups] == [answers[group.query_id] for group in groups]
    assert {group.label_source for group in groups} == {"feedback"}
    metrics = (await scene.steps(cycle.id))[0].metrics
    assert metrics["num_feedback_labels"] == 4
    assert metrics["label_accuracy"] < 0.5  # the votes were wrong
    assert metrics["ground_truth_ratio"] == pytest.approx(metrics["majority_ratio"])
    assert cycle.selection is not None
    counts = cycle.selection["counts"]
    assert counts["truths"] == counts["selected"] + counts["probe"]
    assert counts["probe_truths"] == counts["probe"]


async def test_a_tenant_may_learn_from_votes_alone(scene: Scene) -> None:
    await scene.tenant()
    await tell_all(scene)
    cycle = await scene.run(settings_of(learning={"use_feedback": False}))
    groups = await scene.groups(cycle.id)
    assert {group.label_source for group in groups if group.label is not None} == {"vote"}
    metrics = (await scene.steps(cycle.id))[0].metrics
    assert metrics["num_feedback_labels"] == 0
    assert metrics["label_accuracy"] > 0.5


@pytest.mark.parametrize(("use_feedback", "num_votes"), [(True, 0), (False, 16)])
async def test_where_a_truth_is_the_label_the_incumbent_is_not_asked_to_back_it(
    scene: Scene, use_feedback: bool, num_votes: int
) -> None:
    await scene.tenant()
    await tell_all(scene)
    learning = {"steps": 2, "incumbent_votes": 4, "use_feedback": use_feedback}
    cycle = await scene.run(settings_of(learning=learning))
    second = (await scene.steps(cycle.id))[1].metrics
    assert second["num_incumbent_votes"] == num_votes


async def test_without_feedback_nothing_speaks_of_truths(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run()
    assert cycle.selection is not None
    assert not {"truths", "probe_truths"} & cycle.selection["counts"].keys()
    metrics = (await scene.steps(cycle.id))[0].metrics
    assert not {"label_accuracy", "ground_truth_ratio"} & metrics.keys()
    assert cycle.candidate_report is not None
    assert cycle.candidate_report["accuracy"] is None


async def test_feedback_that_comes_during_a_cycle_waits_for_the_next(scene: Scene) -> None:
    await scene.tenant()
    half = {i: str(right(q)) for i, q in enumerate(QUESTIONS) if i % 2}
    await tell(scene, half)
    scene.trainer.hold_from = 1
    cycle_id = await scene.enqueue()
    running = asyncio.create_task(scene.conduct(await scene.claim()))
    await scene.trainer.held.wait()
    await tell_all(scene)
    scene.trainer.go_on.set()
    await running
    cycle = await scene.cycle(cycle_id)
    assert cycle.incumbent_report is not None
    assert cycle.candidate_report is not None
    assert cycle.selection is not None
    before, after = cycle.incumbent_report["accuracies"], cycle.candidate_report["accuracies"]
    assert before.keys() == after.keys()
    assert len(before) == cycle.selection["counts"]["probe_truths"] < 8


class Crash(BaseException):
    """The end of a worker."""


async def test_whoever_takes_a_cycle_up_has_the_truths_that_it_began_with(scene: Scene) -> None:
    def crash(_: object) -> None:
        raise Crash

    await scene.tenant()
    await tell_all(scene)
    cycle_id = await scene.enqueue(settings_of(gate=ENOUGH))
    scene.trainer.on_ask = crash
    with pytest.raises(Crash):
        await scene.conduct(await scene.claim())
    scene.trainer.on_ask = lambda _: None
    await tell(scene, dict.fromkeys(range(len(QUESTIONS)), "999"))
    await scene.conduct(await scene.take_over())
    cycle = await scene.cycle(cycle_id)
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert cycle.candidate_report is not None
    assert cycle.candidate_report["accuracy"] > 0.5
    labels = {group.label for group in await scene.groups(cycle_id)}
    assert labels
    assert "999" not in labels


async def test_feedback_to_another_phrasing_tells_the_same_prompt(scene: Scene) -> None:
    await scene.tenant()
    others = [f"Add {b} to {a}: {a} + {b}" for a in range(10, 18) for b in range(20, 25)]
    await add_queries(scene.database, scene.tenant_id, others, prefix="other")
    await tell(scene, {i: str(right(q)) for i, q in enumerate(others)}, prefix="other")
    cycle = await scene.run()
    assert cycle.selection is not None
    counts = cycle.selection["counts"]
    assert counts["truths"] == counts["selected"] + counts["probe"]


async def test_feedback_that_differs_tells_nothing_and_is_counted(scene: Scene) -> None:
    await scene.tenant()
    await add_queries(scene.database, scene.tenant_id, QUESTIONS, prefix="again")
    await tell(scene, {i: str(right(q)) for i, q in enumerate(QUESTIONS)})
    await tell(scene, {0: "999", 1: "999"}, prefix="again")
    await tell(scene, {2: "I do not know"})
    cycle = await scene.run(settings_of(gate={"probe_prompts": len(QUESTIONS)}))
    assert cycle.selection is not None
    counts = cycle.selection["counts"]
    assert (counts["conflicting_truths"], counts["unreadable_truths"]) == (2, 1)
    assert counts["truths"] == counts["selected"] + counts["probe"] - 3


async def test_another_tenants_feedback_tells_nothing(scene: Scene) -> None:
    other = await scene.tenant("other")
    await tell_all(scene)
    await scene.tenant()
    assert scene.tenant_id != other
    cycle = await scene.run()
    assert cycle.selection is not None
    assert "truths" not in cycle.selection["counts"]


async def score(scene: Scene, index: int, score: float, text: str, **more: Any) -> None:
    query_id = f"q-{scene.tenant_id}-{index}"
    async with scene.database.transaction() as session:
        reason = more.pop("finish_reason", "stop")
        session.add(Answer(query_id=query_id, choice=0, text=text, finish_reason=reason))
    said = [Said(query_id, 0, score, None, None)]
    await feedback.store(scene.database, scene.tenant_id, said, scene.clock.now())


@pytest.mark.parametrize(("is_trusted", "number"), [(False, 0), (True, 1)])
async def test_a_perfect_score_is_a_truth_only_where_the_tenant_trusts_it(
    scene: Scene, is_trusted: bool, number: int
) -> None:
    await scene.tenant()
    await score(scene, 0, 1.0, r"so \boxed{30}")
    await score(scene, 1, 0.9, r"so \boxed{31}")
    await score(scene, 2, 1.0, "I am not sure")
    await score(scene, 3, 1.0, r"so \boxed{33}", finish_reason="length")
    cycle = await scene.run(settings_of(learning={"trust_scores": is_trusted}))
    assert cycle.selection is not None
    assert cycle.selection["counts"].get("truths", 0) == number
    assert list(cycle.selection["truths"].values()) == ["30"] * number


async def test_a_cycle_with_truths_on_either_database(
    database: Database, clock: HandClock, tmp_path: Path
) -> None:
    async with make_scene(database, clock, tmp_path / "data") as scene:
        await scene.tenant()
        scene.model.base_skill, scene.model.wrong = 0.4, by_view
        await tell_all(scene)
        cycle = await scene.run(settings_of(gate=ENOUGH))
        groups = await scene.groups(cycle.id)
    assert (cycle.status, cycle.error) == (CycleStatus.PROMOTED, None)
    assert {group.label_source for group in groups} == {"feedback"}


async def test_the_newest_feedback_comes_first_and_scores_only_on_request(
    database: Database, clock: HandClock
) -> None:
    tenant_id = await add_tenant(database, "adder")
    await add_queries(database, tenant_id, ["a", "b", "c"])
    ids = [f"q-{tenant_id}-{index}" for index in range(3)]
    for query_id, value, answer in zip(ids, (0.0, 1.0, None), ("1", None, "3"), strict=True):
        said = [Said(query_id, 0, value, answer, None)]
        await feedback.store(database, tenant_id, said, clock.turn(1))
    async with database.transaction(write=False) as session:
        told = await feedback.newest_ids(session, tenant_id, scores=False, limit=10)
        scored = await feedback.newest_ids(session, tenant_id, scores=True, limit=2)
    assert told == [(ids[2], 0), (ids[0], 0)]
    assert scored == [(ids[2], 0), (ids[1], 0)]


def told(*texts: str, is_answer: bool = True) -> dict[str, Sequence[Told]]:
    return {"f": [Told([], "raw", text, is_answer) for text in texts]}


@pytest.mark.parametrize(
    "texts",
    [
        ("1/2",),
        (r"The answer is \boxed{\frac{1}{2}}.",),
        (r"\frac{2}{4}", "0.5"),
        ("1/2", " 1/2\n"),
    ],
)
def test_spellings_of_one_answer_are_one_truth(judge: Equivalence, texts: tuple[str, ...]) -> None:
    truths = truths_of(told(*texts), judge, AnswerSpec("math"))
    assert judge.classes([truths.answers["f"]], "math") == judge.classes(["1/2"], "math")
    assert not truths.counts


@pytest.mark.parametrize("name", ["canonical", "extract"])
def test_feedback_that_a_defect_keeps_from_being_read_is_counted(
    judge: Equivalence, monkeypatch: pytest.MonkeyPatch, name: Literal["canonical", "extract"]
) -> None:
    break_on(monkeypatch, name, "1/2")
    truths = truths_of(told("1/2"), judge, AnswerSpec("math"))
    assert (truths.answers, truths.counts) == ({}, {"unreadable_truths": 1})


def test_an_answer_that_is_no_response_is_taken_for_itself(judge: Equivalence) -> None:
    truths = truths_of(told("no"), judge, AnswerSpec("label", labels=("yes", "no")))
    assert truths.answers == {"f": "no"}


def test_a_scored_response_without_an_answer_tells_nothing(judge: Equivalence) -> None:
    truths = truths_of(told("I wonder", is_answer=False), judge, AnswerSpec("math"))
    assert (truths.answers, truths.counts) == ({}, {"unreadable_truths": 1})
