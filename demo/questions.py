"""The two kinds of question that the demo asks, each in three phrasings with the same answer.

The bundled model half knows `ADDITION` and answers `SUBTRACTION` wrongly, in a way that depends on
the wording. Pairs of numbers are split by a hash into traffic and held-out ones, so no question
that measures the model was ever asked as traffic, in any phrasing and in either order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

ADDITION = "addition"
SUBTRACTION = "subtraction"
HELD_OUT_SHARE = 4  # one pair in this many is held out


class View(NamedTuple):
    """How to recognise a question of a kind, and the wordings that keep its answer."""

    pattern: str
    templates: tuple[str, str, str]


VIEWS: dict[str, View] = {
    ADDITION: View(
        pattern=(
            r"^(?:What is |Add |Find the sum of )(?P<a>\d{1,4})(?:\+| and )(?P<b>\d{1,4})[?.]$"
        ),
        templates=("What is {a}+{b}?", "Add {a} and {b}.", "Find the sum of {a} and {b}."),
    ),
    SUBTRACTION: View(
        pattern=(
            r"^(?:What is |Compute |From )(?P<a>\d{1,4})(?:-| minus | take away )"
            r"(?P<b>\d{1,4})[?.]$"
        ),
        templates=("What is {a}-{b}?", "Compute {a} minus {b}.", "From {a} take away {b}."),
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the wording to ask, the right answer, and all wordings (`text` is one)."""

    text: str
    answer: str
    kind: str
    views: tuple[str, str, str]
    a: int
    b: int


def phrasings(kind: str, a: int, b: int) -> tuple[str, str, str]:
    """All wordings of one question, in the order of the kind's templates."""
    first, second, third = VIEWS[kind].templates
    return first.format(a=a, b=b), second.format(a=a, b=b), third.format(a=a, b=b)


def is_held_out(a: int, b: int) -> bool:
    """Whether a pair is kept for measuring. Stable over runs, and the same for (b, a)."""
    pair = f"{min(a, b)},{max(a, b)}".encode()
    return hashlib.blake2b(pair, digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


def needs_borrow(a: int, b: int) -> bool:
    """Whether written subtraction borrows somewhere: where it does not, no wrong rule shows."""
    width = len(str(max(a, b)))
    return any(x < y for x, y in zip(digits_of(a, width), digits_of(b, width), strict=True))


def digits_of(number: int, width: int) -> list[int]:
    """Decimal digits, the units first, filled up with zeros to `width`."""
    return [int(digit) for digit in reversed(str(number).zfill(width))]


def additions(
    seed: int,
    count: int,
    digits: int = 4,
    *,
    held_out: bool = False,
    phrasing: int | None = None,
) -> list[Question]:
    """Distinct additions of two numbers of `digits` digits.

    `phrasing` fixes which view is the question's text; without it each question draws one.
    """
    return _questions(ADDITION, seed, count, digits, held_out, phrasing, lambda a, b: True)


def subtractions(
    seed: int,
    count: int,
    digits: int = 4,
    *,
    held_out: bool = False,
    phrasing: int | None = None,
) -> list[Question]:
    """Distinct subtractions with a > b that need at least one borrow."""
    return _questions(
        SUBTRACTION,
        seed,
        count,
        digits,
        held_out,
        phrasing,
        lambda a, b: a > b and needs_borrow(a, b),
    )


def worked_solution(kind: str, a: int, b: int, slip: Callable[[int], int] = int) -> str:
    """The right solution, column by column from the units, ending in the boxed answer.

    `slip` may turn the result of a column into another one. A slip is carried on, so that a wrong
    column leads to a wrong answer: this is how the training text of the bundled model errs.
    """
    return _added(a, b, slip) if kind == ADDITION else _subtracted(a, b, slip)


def boxed(columns: list[str], answer: int) -> str:
    """The common layout of all solutions."""
    return f"{';'.join(columns)}\n\\boxed{{{answer}}}"


def _added(a: int, b: int, slip: Callable[[int], int]) -> str:
    width = len(str(max(a, b)))
    columns: list[str] = []
    total, carry = 0, 0
    for place, (x, y) in enumerate(zip(digits_of(a, width), digits_of(b, width), strict=True)):
        column = slip(x + y + carry)
        columns.append(f"{x}+{y}{'+1' if carry else ''}={column}")
        carry = column // 10
        total += column % 10 * 10**place
    return boxed(columns, total + carry * 10**width)


def _subtracted(a: int, b: int, slip: Callable[[int], int]) -> str:
    width = len(str(max(a, b)))
    columns: list[str] = []
    total, borrow = 0, 0
    for place, (x, y) in enumerate(zip(digits_of(a, width), digits_of(b, width), strict=True)):
        lent = 10 if x - borrow < y else 0
        column = slip(x + lent - borrow - y)
        columns.append(f"{x + lent}-{y}{'-1' if borrow else ''}={column}")
        borrow = lent // 10
        total += column * 10**place
    return boxed(columns, total)


def _questions(
    kind: str,
    seed: int,
    count: int,
    digits: int,
    held_out: bool,
    phrasing: int | None,
    accept: Callable[[int, int], bool],
) -> list[Question]:
    # The kind and the side are part of the seed: the same seed for traffic and for measuring must
    # not give the same stream of numbers.
    numbers = random.Random(f"{kind}/{seed}/{digits}/{held_out}")
    low, high = (10 ** (digits - 1), 10**digits - 1) if digits > 1 else (0, 9)
    made: list[Question] = []
    seen: set[tuple[int, int]] = set()
    for _ in range(1000 * (count + 1)):
        if len(made) == count:
            return made
        a, b = numbers.randint(low, high), numbers.randint(low, high)
        pair = (min(a, b), max(a, b))
        if pair in seen or is_held_out(a, b) != held_out or not accept(a, b):
            continue
        seen.add(pair)
        views = phrasings(kind, a, b)
        text = views[numbers.randrange(3) if phrasing is None else phrasing]
        answer = a + b if kind == ADDITION else a - b
        made.append(Question(text=text, answer=str(answer), kind=kind, views=views, a=a, b=b))
    raise ValueError(f"there are no {count} distinct questions of kind {kind} with {digits} digits")
