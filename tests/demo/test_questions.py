"""The demo's questions: seeded, disjoint, and recognised by the pattern of their kind."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from demo.model_lessons import borrow_for_free, lessons, smaller_from_larger, wrongly_subtracted
from demo.questions import (
    ADDITION,
    SUBTRACTION,
    VIEWS,
    Question,
    additions,
    is_held_out,
    needs_borrow,
    subtractions,
    worked_solution,
)

MAKERS = {ADDITION: additions, SUBTRACTION: subtractions}
KINDS = pytest.mark.parametrize(("kind", "make"), MAKERS.items())
Make = Callable[..., list[Question]]


def _boxed(solution: str) -> int:
    found = re.fullmatch(r"[-+=;\d]+\n\\boxed\{(\d+)\}", solution)
    assert found
    return int(found[1])


@KINDS
def test_the_same_seed_makes_the_same_questions(kind: str, make: Make) -> None:
    assert make(7, 50) == make(7, 50)
    assert make(7, 50) != make(8, 50)
    assert {question.kind for question in make(7, 50)} == {kind}


@KINDS
def test_questions_are_distinct_and_answered_rightly(kind: str, make: Make) -> None:
    questions = make(1, 500)
    assert len({frozenset((each.a, each.b)) for each in questions}) == 500
    for each in questions:
        assert each.text in each.views
        assert int(each.answer) == (each.a + each.b if kind == ADDITION else each.a - each.b)
        assert len(str(each.a)) == len(str(each.b)) == 4
    assert {each.views.index(each.text) for each in questions} == {0, 1, 2}


@KINDS
def test_traffic_and_held_out_questions_are_disjoint(kind: str, make: Make) -> None:
    traffic = {view for each in make(1, 400) for view in each.views}
    measured = {view for each in make(1, 400, held_out=True) for view in each.views}
    assert not traffic & measured
    assert all(is_held_out(each.a, each.b) for each in make(3, 50, held_out=True))
    assert not any(is_held_out(each.a, each.b) for each in make(3, 50))


def test_the_split_does_not_depend_on_the_order_of_the_numbers() -> None:
    assert all(is_held_out(a, b) == is_held_out(b, a) for a in range(40) for b in range(40))


@KINDS
def test_one_pattern_recognises_every_wording_of_a_kind_and_no_other(kind: str, make: Make) -> None:
    for each in make(2, 50):
        for view in each.views:
            for other in VIEWS:
                found = re.search(VIEWS[other].pattern, view)
                assert bool(found) == (other == kind)
            found = re.search(VIEWS[kind].pattern, view)
            assert found
            assert found.groupdict() == {"a": str(each.a), "b": str(each.b)}
            rendered = tuple(t.format(**found.groupdict()) for t in VIEWS[kind].templates)
            assert rendered == each.views


@KINDS
def test_a_phrasing_can_be_asked_for(kind: str, make: Make) -> None:
    for phrasing in range(3):
        assert all(each.text == each.views[phrasing] for each in make(1, 20, phrasing=phrasing))


def test_more_questions_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="no 500 distinct"):
        additions(1, 500, digits=1)


@KINDS
def test_worked_solutions_end_in_the_answer(kind: str, make: Make) -> None:
    for each in make(5, 300):
        assert _boxed(worked_solution(kind, each.a, each.b)) == int(each.answer)


def test_a_worked_addition_carries() -> None:
    assert worked_solution(ADDITION, 343, 706) == "3+6=9;4+0=4;3+7=10\n\\boxed{1049}"
    assert worked_solution(ADDITION, 85, 7) == "5+7=12;8+0+1=9\n\\boxed{92}"
    assert worked_solution(SUBTRACTION, 1042, 957).endswith("\\boxed{85}")


def test_a_slip_is_carried_into_the_answer() -> None:
    slipped = worked_solution(ADDITION, 11, 22, slip=lambda right: right + 10)
    assert slipped == "1+2=13;1+2+1=14\n\\boxed{143}"


def test_the_wrong_rules_are_always_wrong_where_a_borrow_is_needed() -> None:
    for each in subtractions(9, 300):
        assert needs_borrow(each.a, each.b)
        for rule in (smaller_from_larger, borrow_for_free):
            assert _boxed(wrongly_subtracted(each.a, each.b, rule)) != int(each.answer)
    assert _boxed(wrongly_subtracted(5241, 1163, smaller_from_larger)) == 4122
    assert _boxed(wrongly_subtracted(5241, 1163, borrow_for_free)) == 4188


def test_training_conversations_hold_no_held_out_pair() -> None:
    made = lessons(1, 300)
    assert made == lessons(1, 300)
    for lesson in made:
        matches = [re.search(view.pattern, lesson.question) for view in VIEWS.values()]
        (found,) = [match for match in matches if match]
        assert not is_held_out(int(found["a"]), int(found["b"]))
        _boxed(lesson.solution)
