from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.answers import AnswerKind, Defect, Equivalence
from adapters.answers.comparison import obligations
from adapters.answers.equivalence import MAX_COMPARISONS
from adapters.answers.worker import Worker
from tests.fakes.defects import break_on

SAME = r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"
HOSTILE = (
    r"9^{9^{9^{9}}}",
    r"10^{10^{10}}",
    r"(x+1)^{10000}",
    r"\sum_{n=1}^{10000000000} n^n",
    "(" * 240 + "1" + ")" * 240,
    r"\frac{" * 100 + "1" + "}{2}" * 100,
    "(10^{9})!",
    '__import__("os").abort()',
    '"\n"\n',
    "\x00\ud800",
)
# Answers whose keys settle every comparison: no judge is needed.
PLAIN = st.sampled_from(
    ("1", "1.0", "2", "4/2", "50%", "1/2", "0.5", "yes", "Yes.", "C", "(C)", None)
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        SAME,
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        (
            r"\begin{pmatrix}1/5\\-18/5\end{pmatrix}",
            r"\begin{pmatrix}\frac15\\-\frac{18}{5}\end{pmatrix}",
        ),
        (r"(3, \frac{\pi}{2})", r"(3, \frac{2\pi}{4})"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"\sqrt{16}", "4"),
        (r"\{\sqrt{4}, 3\}", r"\{2, 3\}"),
        ("2(x+1)", "2x+2"),
    ],
)
def test_algebra_finds_equal_answers(equivalence: Equivalence, one: str, other: str) -> None:
    first, second = equivalence.classes([one, other], "math")
    assert first is not None
    assert first == second
    assert equivalence.classes([other, one], "math") == [first, second]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{2}", r"\sqrt{3}"),
        ("(2,1)", "(3,1)"),  # empty intervals to sympy
        ("[1,2)", "[1,2]"),
        ("204_5", "204"),
        ("0.333333", "1/3"),
        ("25%", r"\frac{\sqrt{1}}{4}"),
        (r"(1, \sqrt{2})", r"(\sqrt{2}, 1)"),
        ("(1,2)", "(1,2,3)"),
        ("even", "odd"),
        ("x+1", "x+2"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    ],
)
def test_different_answers_stay_apart(equivalence: Equivalence, one: str, other: str) -> None:
    first, second = equivalence.classes([one, other], "math")
    assert first is not None
    assert second is not None
    assert first != second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("17*10^{307}(1+i)", "2"),
        (r"\{x,17*10^{307}(1+i),3\}", r"\{4,17*10^{307}(1-i),x\}"),
        ("x+y=17*10^{307}(1+i)", "x+y=2"),
    ],
)
def test_values_at_the_edge_of_floats_are_compared_too(
    equivalence: Equivalence, one: str, other: str
) -> None:
    first, second = equivalence.classes([one, other], "auto")
    assert first != second


def test_the_representative_is_the_most_frequent_form(equivalence: Equivalence) -> None:
    often, seldom = SAME
    assert equivalence.classes([seldom, often, often], "math") == [often] * 3
    assert equivalence.classes([often, seldom, seldom], "math") == [seldom] * 3


def test_a_known_representative_keeps_its_name(equivalence: Equivalence) -> None:
    known, other = SAME
    assert equivalence.classes([other, other], "math", known=[known]) == [known, known]


@pytest.mark.parametrize("known", [SAME, SAME[::-1]])
def test_the_first_of_equal_known_representatives_names_their_class(
    equivalence: Equivalence, known: tuple[str, str]
) -> None:
    assert equivalence.classes([*SAME, "7"], "math", known=known) == [known[0], known[0], "7"]


def test_what_is_no_answer_of_the_kind_is_none(equivalence: Equivalence) -> None:
    assert equivalence.classes([None, "...", "x", "3"], "number") == [None, None, None, "3"]
    assert equivalence.classes([], "math") == []


def test_choices_and_numbers_never_need_the_judge() -> None:
    with _without_judge() as equivalence:
        assert equivalence.classes(["C", "(c)", r"\text{C}"], "choice") == ["C", "C", "C"]
        assert equivalence.classes(["1/2", "0.5", "2"], "number") == ["1/2", "1/2", "2"]


@given(
    st.lists(PLAIN, max_size=20),
    st.randoms(use_true_random=False),
    st.sampled_from(("auto", "math")),
)
def test_classes_do_not_depend_on_the_order(
    answers: list[str | None], shuffler: random.Random, kind: AnswerKind
) -> None:
    with _without_judge() as equivalence:
        classes = equivalence.classes(answers, kind)
        order = list(range(len(answers)))
        shuffler.shuffle(order)
        shuffled = equivalence.classes([answers[i] for i in order], kind)
    assert shuffled == [classes[i] for i in order]


@settings(max_examples=25, deadline=None)
@given(
    answers=st.lists(
        st.sampled_from((*SAME, r"\sqrt{3}", r"3^{1/2}", "1", "x+1", "1+x")), max_size=12
    ),
    shuffler=st.randoms(use_true_random=False),
)
def test_classes_by_algebra_do_not_depend_on_the_order(
    equivalence: Equivalence, answers: list[str], shuffler: random.Random
) -> None:
    before = Counter(equivalence.classes(answers, "math"))
    shuffler.shuffle(answers)
    assert Counter(equivalence.classes(answers, "math")) == before


@given(st.lists(PLAIN, max_size=20))
def test_a_representative_represents_itself(answers: list[str | None]) -> None:
    with _without_judge() as equivalence:
        classes = equivalence.classes(answers, "math")
        assert equivalence.classes(classes, "math") == classes
        assert [c is None for c in classes] == [a is None for a in answers]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.timeout(60)
def test_a_hostile_answer_costs_its_deadline_and_never_the_judge(hostile: str) -> None:
    with Equivalence(deadline_s=0.5) as equivalence:
        first, second, _ = equivalence.classes([hostile, hostile, r"\sqrt{2}+y"], "math")
        assert first == second
        equivalence._deadline_s = 30.0  # the next answers may take what a busy machine needs
        one, other = equivalence.classes(SAME, "math")
        assert one == other


def test_the_number_of_comparisons_is_bounded() -> None:
    with _counting() as (equivalence, asked):
        equivalence.classes([f"f(x)^{i}+y" for i in range(60)], "math")
        assert len(asked) == MAX_COMPARISONS


def test_a_verdict_is_remembered() -> None:
    with _counting() as (equivalence, asked):
        unclear = (r"\log 8", r"3\log 2")
        equivalence.classes(unclear, "math")
        equivalence.classes(tuple(reversed(unclear)), "math")
        assert len(asked) == 1


def test_threads_may_share_it(equivalence: Equivalence) -> None:
    groups = [
        [rf"\frac{{{n}\sqrt{{7}}}}{{7}}", rf"\frac{{{n}}}{{\sqrt{{7}}}}"] for n in range(2, 10)
    ]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda group: equivalence.classes(group, "math"), groups))
    assert all(one is not None and one == other for one, other in results)
    assert len({one for one, _ in results}) == len(groups)


def test_closing_twice_is_closing_once() -> None:
    equivalence = Equivalence()
    equivalence.close()
    equivalence.close()
    with pytest.raises(RuntimeError, match="closed"):
        equivalence.classes(["1"], "math")


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"deadline_s": 0.0}])
def test_senseless_limits_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="="):
        Equivalence(**arguments)  # pyright: ignore[reportArgumentType]


def test_points_are_compared_element_by_element() -> None:
    assert obligations("(1,f(x)+b)", "(1,b+f(x))") == [("f(x)+b", "b+f(x)")]
    assert obligations("(1,a+b)", "(1,b+a)") == []
    assert obligations("(1,f(x)+b)", "(2,b+f(x))") is None
    assert obligations("1", "2") is None
    assert obligations("1", "x+1") is None


class _CountingWorker(Worker):
    """Finds everything different, and keeps what it was asked."""

    def __init__(self, asked: list[tuple[str, str]]) -> None:
        super().__init__((sys.executable, "-c", "print('\"ready\"', flush=True); input()"))
        self._asked = asked

    def equal(self, first: str, second: str, seconds: float) -> bool | None:
        self._asked.append((first, second))
        return False


@contextmanager
def _counting() -> Generator[tuple[Equivalence, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []
    with Equivalence() as equivalence:
        equivalence._judges._idle.get()
        equivalence._judges._idle.put(_CountingWorker(asked))
        yield equivalence, asked


def _without_judge() -> Equivalence:
    """One that fails if it asks: there is no judge to start."""
    equivalence = Equivalence()
    equivalence._judges._idle.get()
    equivalence._judges._idle.put(Worker((sys.executable, "-c", "")))
    return equivalence


@pytest.mark.parametrize("name", ["canonical", "extract"])
def test_a_defect_has_one_name_whatever_it_raised(
    monkeypatch: pytest.MonkeyPatch, name: Literal["canonical", "extract"]
) -> None:
    break_on(monkeypatch, name, "666")
    with Equivalence() as judge:
        with pytest.raises(Defect, match="OverflowError: absolute value too large"):
            judge.classes(judge.extract(["666"], "text"), "text")
        with pytest.raises(ValueError, match="label"):  # a mistake of the caller's is none
            judge.extract(["yes"], "label")
