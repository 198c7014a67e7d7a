"""Hostile texts cost at most the deadline, for every kind, and never a process for good."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.answers import AnswerSpec, Equivalence
from adapters.answers.canonical import canonical
from adapters.answers.strict import READ_STRICTLY, strict_answer

SPECS = (
    AnswerSpec("auto"),
    AnswerSpec("math"),
    AnswerSpec("number"),
    AnswerSpec("choice"),
    AnswerSpec("label", labels=("yes", "no", "not sure")),
    AnswerSpec("json", field="a.0.b"),
    AnswerSpec("json"),
    AnswerSpec("regex", pattern=r"(?:a|aa)+(\w+)b|(.*)x(.*)y"),
    AnswerSpec("text"),
)
LONG = 100_000
HOSTILE = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{(10^{9})!}",
    "9" * LONG,
    "a" * LONG,
    "(" * LONG,
    "[" * LONG,
    '{"a":' * (LONG // 5),
    "[{" * (LONG // 2),
    '{"a": 1e' + "9" * 1000 + "}",
    "{" * LONG + "}" * LONG,
    "\\" * LONG,
    r"\boxed{" * (LONG // 7),
    r"\boxed{" + r"\frac{" * 200 + "1" + "}{2}" * 200 + "}",
    r"\boxed{" + "(" * 200 + "1" + ")" * 200 + "}",
    r"\boxed{" + "x^" * 200 + "}",
    r"\boxed{" + "|x" * 200 + "}",
    r"\boxed{" + "1,2;" * 120 + "}",
    r"\boxed{" + r"\pm " * 120 + "}",
    "The answer is " + "not " * (LONG // 4),
    "answer is answer: " * (LONG // 18),
    "yes or no " * (LONG // 10),
    "```json\n" * (LONG // 8),
    "<think>" * (LONG // 7),
    "<answer>" * (LONG // 8),
    "A: " * (LONG // 3),
    "#### " * (LONG // 5),
    "####\n" * (LONG // 5),
    "** " * (LONG // 3),
    "$ " * (LONG // 2),
    " " * LONG,
    "\n" * LONG,
    "\t\n " * (LONG // 3),
    "\x00\ud800\x1b[31m\x07\x08",
    "\u202e\u2066\u200f\boxed{5}\u2069\u202c",
    "\\boxed{\u202e5\u202c\x00}",
    "\\boxed{\ud800}",
    '__import__("os").abort()',
    "％ｓ" * 100,
    "e" + "\u0301" * LONG,
)


@pytest.fixture(scope="module")
def quick() -> Iterator[Equivalence]:
    with Equivalence(deadline_s=0.5) as judge:
        yield judge


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:16]))
@pytest.mark.timeout(20)
def test_a_hostile_text_has_a_bounded_answer_or_none(
    quick: Equivalence, spec: AnswerSpec, text: str
) -> None:
    (answer,) = quick.extract([text], spec)
    assert answer is None or 0 < len(answer) <= spec.longest
    first, second = quick.classes([answer, answer], spec)
    assert first == second
    assert first is None or "\x00" not in first


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:16]))
@pytest.mark.timeout(20)
def test_the_strict_extraction_is_bounded_too(text: str) -> None:
    for spec in SPECS:
        if spec.kind in READ_STRICTLY:
            answer = strict_answer(text, spec)
            assert answer is None or "\x00" not in answer


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
@pytest.mark.timeout(60)
def test_hostile_answers_compared_with_each_other(quick: Equivalence, spec: AnswerSpec) -> None:
    classes = quick.classes([text[:500] for text in HOSTILE], spec)
    assert len(classes) == len(HOSTILE)


@given(st.text(max_size=300), st.sampled_from(SPECS))
def test_any_text_has_an_answer_or_none_of_every_kind(text: str, spec: AnswerSpec) -> None:
    with Equivalence() as judge:
        (answer,) = judge.extract([text], spec)
    assert answer is None or 0 < len(answer) <= spec.longest
    assert answer is None or canonical(answer, spec) != ""
