"""Answers in every habit: each text gives the case's answer, or surely does not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from adapters.answers import AnswerKind, Equivalence
from tests.adapters.answers.cases import Case
from tests.adapters.answers.cases.formulas import FORMULAS
from tests.adapters.answers.cases.numbers import NUMBERS
from tests.adapters.answers.cases.options import OPTIONS, SMALL_LETTERS

NUMBER_KINDS: tuple[AnswerKind, ...] = ("auto", "math", "number")
OPTION_KINDS: tuple[AnswerKind, ...] = ("auto", "choice")
FORMULA_KINDS: tuple[AnswerKind, ...] = ("auto", "math")
TEXTS = (r"so \boxed{%s}.", "The answer is $%s$.")


def _parameters() -> Iterator[tuple[Case, AnswerKind]]:
    yield from product(NUMBERS, NUMBER_KINDS)
    yield from product(OPTIONS, OPTION_KINDS)
    yield SMALL_LETTERS, "choice"
    written = [_in_a_text(case, text) for case in FORMULAS for text in TEXTS]
    yield from product(written, FORMULA_KINDS)


def _in_a_text(case: Case, text: str) -> Case:
    plain = [form for form in case.same if "$" not in form or "boxed" in text]
    return Case(
        case.name,
        tuple(text.replace("%s", form) for form in plain),
        tuple(text.replace("%s", form) for form in case.other),
    )


@pytest.mark.parametrize(
    ("case", "kind"),
    [pytest.param(*found, id=f"{found[0].name}-{found[1]}") for found in _parameters()],
)
def test_habits(equivalence: Equivalence, case: Case, kind: AnswerKind) -> None:
    texts = (*case.same, *case.other)
    classes = equivalence.classes(equivalence.extract(texts, kind), kind)
    expected = classes[0]
    assert expected is not None
    told = dict(zip(texts, classes, strict=True))
    assert {text: told[text] for text in case.same} == dict.fromkeys(case.same, expected)
    assert {text for text in case.other if told[text] == expected} == set()
