from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.answers.canonical import canonical
from adapters.answers.numbers import canonical_number, parse_number
from adapters.answers.sequences import sequence, split

INTEGERS = st.integers(-(10**12), 10**12)
POSITIVE = st.integers(1, 10**6)
PIECES = st.sampled_from(
    tuple("0123456789,.+-/=xyC()[]{}^_$%! ")
    + (
        r"\frac",
        r"\sqrt",
        r"\text{",
        r"\pi",
        r"\{",
        r"\}",
        r"\left",
        r"\!",
        r"\,",
        r"\circ",
        "½",
        "√",
    )
    + (" and ", r"\in", "²", "percent", "cm", "\\", r"\boxed{", "π", "−")
)
DENSE = st.lists(PIECES, max_size=20).map("".join)


@pytest.mark.parametrize(
    ("key", "forms"),
    [
        (
            "66",
            ["66", "66.", "66.0", " 66 ", "$66$", r"\(66\)", "+66", "066", "(66)", r"66\text{ cm}"],
        ),
        ("66", ["66 apples", "$66", r"\$66.00", "66 cm", "66cm", r"66^\circ", "x = 66", "６６"]),
        ("25", ["025", "25.", "25.00"]),
        ("1296", ["1,296", "1296", "1{,}296", r"1,\!296", "1296.0"]),
        ("11111111100", [r"11,\! 111,\! 111,\! 100", "11111111100"]),
        (
            "3/4",
            [
                r"\frac{3}{4}",
                r"\dfrac{3}{4}",
                r"\tfrac34",
                r"\frac 34",
                "3/4",
                "0.75",
                ".75",
                "6/8",
            ],
        ),
        ("-3/8", [r"-\frac{3}{8}", r"\frac{-3}{8}", "-3/8", "-0.375", "−3/8", r"- \frac{6}{16}"]),
        ("9/5", [r"1\frac{4}{5}", "1 4/5", "1.8", r"1 \frac45"]),
        ("3/2", ["1½", "1.5", r"\frac{3}{2}"]),
        ("1/3", [r"0.\overline{3}", r"\frac13"]),
        ("300000", [r"3\times10^{5}", "3e5", "3×10^5", "300,000"]),
        ("25%", ["25%", r"25\%", "25 percent", r"25\text{ percent}", "25.0 %"]),
        ("0", ["0", "-0", "0.0", "0/5", ".0"]),
        ("even", ["even", "Even", r"\text{even}", "even.", r"\text{ Even }", r"\mathrm{even}"]),
        ("C", ["C", "(C)", r"\text{C}", r"\text{(C)}", "C."]),
        (r"11\sqrt{5}+11", [r"11 \sqrt{5} + 11", r"11\sqrt5+11", r"11 \sqrt {5} + 11", "11√5+11"]),
        (r"(3,\frac{\pi}{2})", [r"\left( 3, \frac{\pi}{2} \right)", r"(3.0,\dfrac{\pi}{2})"]),
        ("[-2,7]", [r"x \in [-2,7]", "[-2, 7]"]),
        ("-2,1", ["1,-2", "-2, 1", "-2 and 1", r"1 \text{ or } -2", "x = 1, -2"]),
        (r"\{1,2\}", [r"\{2, 1\}", r"\left\{1,2\right\}"]),
        ("x^2", ["x²", "x^{2}", "x^2"]),
        ("5!", ["5!"]),
    ],
)
def test_forms_of_one_answer_share_a_key(key: str, forms: list[str]) -> None:
    assert {canonical(form, "math") for form in forms} == {key}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.25", "25%"),
        ("25", "25%"),
        ("0.333333", "1/3"),
        ("204_5", "204"),
        ("5x", "5"),
        ("5!", "5"),
        ("3^2", "3"),
        ("12", "1 2"),
        ("(1,234)", "1,234"),
        ("x", "X"),
        ("5 am", "5 pm"),
        ("5 million", "5"),
        ("x=1, y=2", "x=2, y=1"),
        ("7 hours and 30 minutes", "30 hours and 7 minutes"),
        ("(1,2)", "(2,1)"),
        ("[1,2)", "[1,2]"),
        ("y=-2x", "-2x"),
        ("-5", "5"),
        ("10:30", "30:10"),
        ("2 pi", "2"),
    ],
)
def test_different_answers_have_different_keys(one: str, other: str) -> None:
    assert canonical(one, "math") != canonical(other, "math")


@pytest.mark.parametrize("nothing", ["", " ", "...", "$$", "$", r"\boxed{}", r"\text{}"])
def test_decoration_alone_has_no_key(nothing: str) -> None:
    assert canonical(nothing, "math") is None


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("18 apples", "18"),
        ("x = 5", "5"),
        ("1/2", "1/2"),
        ("25%", "25%"),
        ("x", None),
        ("1,-2", None),
    ],
)
def test_a_number_question_takes_numbers_only(answer: str, key: str | None) -> None:
    assert canonical(answer, "number") == key


@pytest.mark.parametrize(
    ("answer", "key"),
    [("c", "C"), ("(c)", "C"), ("C) 12", "C"), ("C. twelve", "C"), ("12", None), ("cat", None)],
)
def test_a_choice_question_takes_options_only(answer: str, key: str | None) -> None:
    assert canonical(answer, "choice") == key


def test_huge_numbers_stay_cheap() -> None:
    assert canonical("1e999999999", "math") == "1e999999999"
    assert canonical("9" * 5000, "math") is not None


@given(INTEGERS, POSITIVE)
def test_every_spelling_of_a_fraction_has_one_key(top: int, bottom: int) -> None:
    key = str(Fraction(top, bottom))
    sign = "-" if top < 0 else ""
    forms = (rf"\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"{top * 3}/{bottom * 3}")
    forms += (rf"{sign}\dfrac{{{abs(top)}}}{{{bottom}}}", f"${top} / {bottom}$.")
    assert {canonical(form, "math") for form in forms} == {key}


@given(INTEGERS)
def test_every_spelling_of_an_integer_has_one_key(value: int) -> None:
    forms = (
        f"{value}",
        f"{value}.",
        f"{value}.00",
        f"{value:,}",
        f"${value}$",
        rf"\boxed{{{value}}}",
    )
    assert {canonical(form, "math") for form in forms} == {str(value)}


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9
    )
)
def test_decimals_are_exact(value: object) -> None:
    assert canonical_number(str(value)) == str(Fraction(str(value)))


@given(st.fractions())
def test_a_number_is_read_back(value: Fraction) -> None:
    assert parse_number(str(value)) == value


@given(st.one_of(DENSE, st.text(max_size=100)))
def test_a_key_is_its_own_key(answer: str) -> None:
    key = canonical(answer, "math")
    assert key is None or canonical(key, "math") == key


@given(
    st.one_of(DENSE, st.text(max_size=100)), st.sampled_from(("auto", "math", "number", "choice"))
)
def test_any_text_has_a_nonempty_key_or_none(answer: str, kind: str) -> None:
    key = canonical(answer, kind)  # pyright: ignore[reportArgumentType]
    assert key is None or key.strip()


@pytest.mark.parametrize(
    "unit", ["a", "1,", "(", "{", r"\text{", r"\frac", "a ", " and ", "1.", "\\"]
)
@pytest.mark.timeout(20)
def test_repetition_does_not_make_it_slow(unit: str) -> None:
    key = canonical(unit * 10_000, "math")
    assert key is None or len(key) < 5000


def test_a_union_is_no_sequence() -> None:
    assert sequence("(1,2)(3,4)") is None
    found = sequence(r"(1,\{2,3\})")
    assert found is not None
    assert found.elements == ("1", r"\{2,3\}")


def test_commas_in_brackets_do_not_split() -> None:
    assert split(r"1,(2,3),\begin{x}4,5\end{x}") == ("1", "(2,3)", r"\begin{x}4,5\end{x}")
    assert split("1),(2") is None
