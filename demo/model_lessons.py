"""What the bundled model reads while it is made: questions with imperfect worked solutions.

Additions slip at random: some column sums are wrong, each time differently, and the mistake is
carried on. A model of this text makes mistakes at random while its majority is right, which is the
state that real models are in on tasks they half know. Real models also err in ways that come and go
with the wording: here each wording has one column sum that mostly comes out as one too few, so the
majority of a single wording is wrong on the questions where that sum occurs.

Subtractions follow wrong rules, and which rule depends on the wording. A model of this text is
wrong in a systematic way, and its majorities for different wordings of a question do not agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from demo.questions import (
    ADDITION,
    SUBTRACTION,
    boxed,
    digits_of,
    is_held_out,
    needs_borrow,
    phrasings,
    worked_solution,
)

SLIP_RATE = 0.18
WEAK_SUMS = (3, 16, 17)  # by wording: the column sum that it gets wrong
WEAK_RATE = 0.65  # how often
ADDITION_SHARE = 0.7
FULL_WIDTH_SHARE = 0.75  # additions of two 4-digit numbers; the others have 1-4 digits each
SYSTEM_SHARE = 0.05
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a careful calculator.",
    "Put the final answer in \\boxed{}.",
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One conversation of the training text: an optional system message, question, solution."""

    system: str | None
    question: str
    solution: str

    def messages(self) -> list[dict[str, str]]:
        """The conversation as the chat template takes it."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        return [
            *opening,
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.solution},
        ]


def lessons(seed: int, count: int) -> list[Lesson]:
    """Seeded training conversations. Held-out pairs never occur, in either kind."""
    rng = random.Random(f"lessons/{seed}")
    return [_lesson(rng) for _ in range(count)]


def _lesson(rng: random.Random) -> Lesson:
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < SYSTEM_SHARE else None
    phrasing = rng.randrange(3)
    if rng.random() < ADDITION_SHARE:
        a, b = _pair(rng, _addends)
        solution = worked_solution(ADDITION, a, b, _slips(rng, 18, WEAK_SUMS[phrasing]))
        return Lesson(system, phrasings(ADDITION, a, b)[phrasing], solution)
    a, b = _pair(rng, _minuend_and_subtrahend)
    solution = wrongly_subtracted(a, b, _rule(rng, phrasing), _slips(rng, 9))
    return Lesson(system, phrasings(SUBTRACTION, a, b)[phrasing], solution)


def smaller_from_larger(x: int, y: int) -> tuple[str, int]:
    """Wrong rule: take the smaller digit from the larger one, whichever stands on top."""
    return f"{x}-{y}", abs(x - y)


def borrow_for_free(x: int, y: int) -> tuple[str, int]:
    """Wrong rule: add ten where the upper digit is too small, and never pay it back."""
    lent = x + 10 if x < y else x
    return f"{lent}-{y}", lent - y


def wrongly_subtracted(
    a: int,
    b: int,
    rule: Callable[[int, int], tuple[str, int]],
    slip: Callable[[int], int] = int,
) -> str:
    """A solution in the right form by a wrong rule for each column."""
    width = len(str(a))
    columns: list[str] = []
    total = 0
    for place, (x, y) in enumerate(zip(digits_of(a, width), digits_of(b, width), strict=True)):
        written, right = rule(x, y)
        column = slip(right)
        columns.append(f"{written}={column}")
        total += column * 10**place
    return boxed(columns, total)


def _rule(rng: random.Random, phrasing: int) -> Callable[[int, int], tuple[str, int]]:
    if phrasing == 1:  # the middle wording follows either rule, so it agrees with one or the other
        return rng.choice((smaller_from_larger, borrow_for_free))
    return smaller_from_larger if phrasing == 0 else borrow_for_free


def _slips(rng: random.Random, largest: int, weak: int | None = None) -> Callable[[int], int]:
    def slip(right: int) -> int:
        if right == weak and rng.random() < WEAK_RATE:
            return right - 1
        if rng.random() >= SLIP_RATE:
            return right
        return rng.choice([result for result in range(largest + 1) if result != right])

    return slip


def _pair(rng: random.Random, draw: Callable[[random.Random], tuple[int, int]]) -> tuple[int, int]:
    while is_held_out(*(pair := draw(rng))):
        pass
    return pair


def _addends(rng: random.Random) -> tuple[int, int]:
    if rng.random() < FULL_WIDTH_SHARE:
        return rng.randint(1000, 9999), rng.randint(1000, 9999)
    return rng.randrange(10 ** rng.randint(1, 4)), rng.randrange(10 ** rng.randint(1, 4))


def _minuend_and_subtrahend(rng: random.Random) -> tuple[int, int]:
    while True:
        a, b = rng.randint(1000, 9999), rng.randint(1000, 9999)
        if a > b and needs_borrow(a, b):
            return a, b
