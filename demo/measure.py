"""How good a tenant's answers are, measured through the endpoint on questions nobody asked before.

Every measuring request says `store=False`, so the server never learns from a measurement.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.asking import Asker, Exchange
from demo.questions import Question

BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracy over fresh questions: the mean over all samples, and of the majority's answers."""

    questions: int
    samples_per_question: int
    pass_at_1: float
    majority: float  # maj@`samples_per_question`


def boxed_integer(text: str) -> str | None:
    """The last boxed integer, as written."""
    found = BOXED.findall(text)
    return found[-1] if found else None


def judge(answers: Sequence[tuple[str, Sequence[str]]]) -> Measured:
    """Compare texts with the truth exactly. `answers`: the truth and the sampled texts of each
    question.

    A tie between answers is won by the one that came first, and a text without an answer is wrong.
    """
    if not answers:
        return Measured(questions=0, samples_per_question=0, pass_at_1=0.0, majority=0.0)
    right = 0
    majority_right = 0
    for truth, texts in answers:
        found = [boxed_integer(text) for text in texts]
        right += found.count(truth)
        votes = Counter(answer for answer in found if answer is not None)
        majority_right += bool(votes) and votes.most_common(1)[0][0] == truth
    samples = min(len(texts) for _, texts in answers)
    total = sum(len(texts) for _, texts in answers)
    return Measured(
        questions=len(answers),
        samples_per_question=samples,
        pass_at_1=right / total if total else 0.0,
        majority=majority_right / len(answers),
    )


async def measure(
    asker: Asker,
    questions: Sequence[Question],
    *,
    samples: int,
    at_once: int,
    seen: Callable[[Exchange], None],
) -> Measured:
    """Ask each question once with `samples` answers; `seen` gets each exchange as it ends.

    A question whose request failed is not counted: the failure itself breaks a promise.
    """
    places = asyncio.Semaphore(at_once)

    async def ask(question: Question) -> tuple[str, tuple[str, ...]] | None:
        async with places:
            exchange = await asker.ask(question.text, samples=samples, store=False)
        seen(exchange)
        return None if exchange.problem else (question.answer, exchange.texts)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(question)) for question in questions]
    return judge([pair for task in asked if (pair := task.result()) is not None])
