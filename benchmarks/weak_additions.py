"""Additions whose right answer no wording prefers, on the bundled model.

Each wording of the model has one column sum that it mostly gets wrong (`demo.model_lessons`). Where
all three sums occur in one addition, each wording's majority is wrong, and each in its own way:
plain voting learns a mistake there, and votes over wordings may see that they disagree.
"""

from __future__ import annotations

from demo.model_lessons import WEAK_SUMS
from demo.questions import Question, additions, digits_of

WEAK_ADDITION = "weak addition"
DRAWN_PER_QUESTION = 4000  # one pair in 1,600 has all three sums


def weak_additions(seed: int, count: int, *, held_out: bool = False) -> list[Question]:
    """Distinct additions of two 4-digit numbers that no wording is good at."""
    drawn = additions(seed, DRAWN_PER_QUESTION * count, held_out=held_out)
    found = [question for question in drawn if column_sums(question) >= set(WEAK_SUMS)]
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} questions found")
    return found[:count]


def column_sums(question: Question) -> set[int]:
    """The sums of its columns, what is carried included."""
    width = len(str(max(question.a, question.b)))
    sums: set[int] = set()
    carry = 0
    for x, y in zip(digits_of(question.a, width), digits_of(question.b, width), strict=True):
        sums.add(x + y + carry)
        carry = (x + y + carry) // 10
    return sums
