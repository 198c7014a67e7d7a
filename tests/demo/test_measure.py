"""Answers are judged by exact comparison of the boxed integer."""

from __future__ import annotations

import pytest

from demo.asking import Asker, Exchange
from demo.measure import Measured, boxed_integer, judge, measure
from demo.questions import Question, additions
from tests.demo.conftest import exchange_of


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1+2=3\n\\boxed{3}", "3"),
        ("\\boxed{3} no, \\boxed{4}", "4"),
        ("\\boxed{-12}", "-12"),
        ("\\boxed{3", None),
        ("3", None),
    ],
)
def test_boxed_integer(text: str, answer: str | None) -> None:
    assert boxed_integer(text) == answer


def _texts(*answers: str) -> tuple[str, ...]:
    return tuple(f"\\boxed{{{answer}}}" for answer in answers)


def test_pass_at_1_is_the_mean_over_samples_and_the_majority_may_be_better() -> None:
    judged = judge([("7", _texts("7", "7", "8", "9")), ("5", _texts("4", "4", "5", "6"))])
    assert judged == Measured(2, 4, pass_at_1=3 / 8, majority=0.5)


def test_texts_without_an_answer_are_wrong_and_do_not_vote() -> None:
    assert judge([("7", ("", "no", *_texts("7")))]) == Measured(1, 3, 1 / 3, 1.0)
    assert judge([("7", ("", ""))]) == Measured(1, 2, 0.0, 0.0)


def test_leading_zeros_are_another_answer() -> None:
    assert judge([("7", _texts("07"))]).pass_at_1 == 0.0


def test_without_questions_nothing_is_known() -> None:
    assert judge([]) == Measured(0, 0, 0.0, 0.0)


class _Asker(Asker):
    """Answers the first question wrongly, fails on the second, and is right about the rest."""

    def __init__(self, questions: list[Question]) -> None:
        self._questions = {question.text: question for question in questions}
        self._texts = list(self._questions)
        self.asked: list[tuple[str, int, bool]] = []

    async def ask(
        self, question: str, *, samples: int = 1, stream: bool = False, store: bool = True
    ) -> Exchange:
        self.asked.append((question, samples, store))
        answer = "0" if question == self._texts[0] else self._questions[question].answer
        problem = "an empty answer" if question == self._texts[1] else None
        return exchange_of(texts=_texts(answer) * samples, problem=problem)


async def test_measuring_never_feeds_learning_and_leaves_failures_out() -> None:
    questions = additions(5, 6, held_out=True)
    asker, seen = _Asker(questions), list[Exchange]()
    measured = await measure(asker, questions, samples=4, at_once=2, seen=seen.append)
    assert sorted(asker.asked) == sorted((question.text, 4, False) for question in questions)
    assert len(seen) == 6
    assert measured == Measured(5, 4, pass_at_1=0.8, majority=0.8)
