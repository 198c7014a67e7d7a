"""Views that need no template."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from ttrl_client.types import CycleStatus

from server.adaptation import phrasing
from tests.fakes.vllm_plan import Ask

from .scene import QUESTIONS, Scene, settings_of

INSTRUCTIONS = ["Be brief.", "Think step by step."]
REWRITE = "Rewrite the message below"


def rewording(scene: Scene, reword: Callable[[str, int], str]) -> None:
    """The fake model rewrites by `reword(question, choice)`; everything else it answers."""

    def answer(ask: Ask) -> str:
        if REWRITE not in ask.prompt:
            return scene.model(ask)
        question = next(q for q in QUESTIONS if q in ask.prompt)
        return reword(question, ask.index)

    scene.fake.default_answer = answer


def phrasings(scene: Scene, question: str = QUESTIONS[0]) -> set[str]:
    numbers = question.removeprefix("What is ").removesuffix("?")
    return {ask.prompt for ask in scene.model.asked if numbers in ask.prompt}


async def test_instructions_are_views(scene: Scene) -> None:
    await scene.tenant()
    cycle = await scene.run(settings_of(views=[], instructions=INSTRUCTIONS))
    assert cycle.status == CycleStatus.PROMOTED
    asked = next(prompts for q in QUESTIONS if (prompts := phrasings(scene, q)))
    assert len(asked) == 3
    assert sum("system" in prompt for prompt in asked) == 2
    (first, *_) = await scene.steps(cycle.id)
    assert "view_agreement" in first.metrics


async def test_a_prompt_that_a_pattern_matches_has_no_generic_views(scene: Scene) -> None:
    await scene.tenant()
    await scene.run(settings_of(instructions=INSTRUCTIONS, paraphrases=2))
    assert not any("system" in ask.prompt for ask in scene.model.asked)
    assert not any(REWRITE in ask.prompt for ask in scene.model.asked)


async def test_the_model_rewords_each_prompt_once_and_keeps_what_counts(scene: Scene) -> None:
    await scene.tenant()

    def reword(question: str, choice: int) -> str:
        sum_of = question.removeprefix("What is ").removesuffix("?")
        return f"How much is {sum_of}?" if choice == 0 else "How much is 1 + 2?"

    rewording(scene, reword)
    cycle = await scene.run(settings_of(views=[], paraphrases=2))
    assert cycle.status == CycleStatus.PROMOTED
    requests = [r.body for r in scene.fake.received("/v1/completions")]
    texts = ["".join(map(chr, body["prompt"])) for body in requests]
    asked = [text for text in texts if REWRITE in text]
    assert len(asked) == len(set(asked)) > 0
    assert any("How much is 1" in text for text in texts)
    assert not any("How much is 1 + 2?" in text for text in texts)
    assert {body["model"] for body, text in zip(requests, texts, strict=True) if text in asked} == {
        "identity"
    }


async def test_rewordings_are_checked_beside_the_event_loop(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def accept(question: str, written: str) -> str | None:
        threads.append(threading.current_thread())
        return None

    monkeypatch.setattr(phrasing, "accept", accept)
    await scene.tenant()
    rewording(scene, lambda question, _choice: question)
    await scene.run(settings_of(views=[], paraphrases=2))
    assert threads
    assert threading.main_thread() not in threads


async def test_a_prompt_that_cannot_be_reworded_is_asked_as_it_is(scene: Scene) -> None:
    await scene.tenant()
    rewording(scene, lambda question, _choice: question)
    settings = settings_of(views=[], paraphrases=2, gate={"min_view_agreement": 0})
    cycle = await scene.run(settings)
    assert {group.reason for group in await scene.groups(cycle.id)} <= {None, "unanimous"}
    (first, *_) = await scene.steps(cycle.id)
    assert "view_agreement" not in first.metrics
