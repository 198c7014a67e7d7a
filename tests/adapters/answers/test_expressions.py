"""Values of formulas, against Python's own arithmetic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.answers.expressions import settle, values

NUMBER = st.integers(0, 20).map(str)
LETTER = st.sampled_from(("x", "y", "n"))


def _composed(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    """A formula in LaTeX, and the same in another spelling."""
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda p: (rf"({p[0][0]})+({p[1][0]})", rf"({p[1][1]})+({p[0][1]})")),
        pair.map(lambda p: (rf"({p[0][0]})({p[1][0]})", rf"({p[1][1]})\cdot({p[0][1]})")),
        pair.map(lambda p: (rf"({p[0][0]})-({p[1][0]})", rf"-(({p[1][1]})-({p[0][1]}))")),
        inner.map(lambda f: (rf"({f[0]})^2", rf"({f[1]})({f[1]})")),
        inner.map(lambda f: (rf"\frac{{{f[0]}}}{{3}}", rf"\frac{{1}}{{3}}({f[1]})")),
    )


FORMULAS = st.recursive((NUMBER | LETTER).map(lambda leaf: (leaf, leaf)), _composed, max_leaves=5)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2+3\\cdot 4", 14),
        ("2^3", 8),
        ("-2^2", -4),
        ("2^{-1}", 0.5),
        (r"\frac{1}{2}\pi", math.pi / 2),
        (r"2\sqrt{5}", 2 * math.sqrt(5)),
        (r"\sqrt[3]{-8}", -2),
        (r"\frac{1+\sqrt{5}}{2}", (1 + math.sqrt(5)) / 2),
        (r"5!", 120),
        (r"\binom{5}{2}", 10),
        ("|-3|", 3),
        (r"\log_2 8", 3),
        (r"\sin\frac{\pi}{2}", 1),
        (r"3(4+5)", 27),
        ("6/2/3", 1),
        ("i^2", -1),
    ],
)
def test_constants(formula: str, value: float) -> None:
    found = values(formula)
    assert found is not None
    assert all(abs(at - value) < 1e-12 for at in found.at)


@pytest.mark.parametrize(
    "formula",
    [
        "",
        "1/2x",
        r"2\frac{1}{3}",
        r"\log 8",
        "f(x)",
        "204_5",
        r"\infty",
        "1,2",
        r"\text{even}",
        "9^{9^{9^9}}",
        "1/0",
        r"\frac{1}{0}",
        "10000!",
        "(" * 100 + "1" + ")" * 100,
        "x" * 1000,
        "2=3=4",
        r"\sin^{-1} x",
        "(1",
        "1)",
        r"\frac{1}",
        "2 3",
        "17*10^{307}(1+i)",  # its parts are finite, its absolute value is not
        "10^{300}",
        r"\sin" * 240 + "x",
    ],
)
def test_what_is_unclear_has_no_value(formula: str) -> None:
    assert values(formula) is None


@given(FORMULAS)
def test_two_spellings_of_one_formula_are_never_told_apart(formula: tuple[str, str]) -> None:
    assert settle(*formula) is not False


@given(FORMULAS, st.integers(1, 9))
def test_formulas_that_differ_are_never_equal(formula: tuple[str, str], more: int) -> None:
    assert settle(formula[0], f"({formula[1]})+{more}") is not True


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("y=2x", "2x-y=0", True),
        ("y=2x", "y=3x", False),
        ("x+1", "1+x", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}", True),
        (r"\pi", "3.14", False),
        (r"\pi", "3.1415926", None),
        ("x=1", "1", None),
        ("f(x)", "1", None),
    ],
)
def test_verdicts(one: str, other: str, verdict: bool | None) -> None:
    assert settle(one, other) is verdict
    assert settle(other, one) is verdict
