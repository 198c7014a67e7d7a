from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.answers import AnswerKind, extract
from adapters.answers.final_part import TAIL
from adapters.answers.spec import MAX_ANSWER

KINDS: tuple[AnswerKind, ...] = ("auto", "math", "number", "choice")
# Text that is dense in what the extraction looks for.
PIECES = st.sampled_from(
    (
        r"\boxed{",
        r"\boxed ",
        r"\fbox {",
        "{",
        "}",
        r"\{",
        "\\",
        "$",
        "answer",
        "final answer is",
        ":",
    )
    + ("is", "A", "(C)", "####", "\n", " ", ".", "?", "18", "1,234", r"\frac{1}{2}", "%", "*", "=")
)
DENSE = st.lists(PIECES, max_size=60).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{7}.", "7"),
        (r"first \boxed{1}, checking again \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}} done", r"\{1, 2\}"),
        (r"\boxed{x is \boxed{5}}", "5"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"\boxed{3}, put it in \boxed{}", "3"),
        (r"{ \boxed{3}", "3"),
        (r"} \boxed{3}", "3"),
        (r"\boxed {3}", "3"),
        (r"\boxed 3.", "3"),
        (r"$\fbox{3}$", "3"),
        (r"\boxed{ 3 }", "3"),
        (r"\boxed{3} because the answer is 4", "3"),
    ],
)
def test_the_last_balanced_box_is_the_answer(text: str, answer: str) -> None:
    assert extract(text, "math") == answer
    assert extract(text, "auto") == answer


@pytest.mark.parametrize("text", ["", r"\boxed{}", r"\boxed{ }", r"\boxed{1", r"\boxed", "so {5}"])
def test_without_a_closed_box_there_is_no_answer(text: str) -> None:
    assert extract(text, "math") is None


def test_an_endless_box_is_no_answer() -> None:
    assert extract(r"\boxed{" + "1" * (MAX_ANSWER + 1) + "}", "math") is None


@pytest.mark.parametrize("character", ["\x00", "\ud800"])
def test_what_no_database_can_store_is_no_answer(character: str) -> None:
    assert extract(rf"\boxed{{5{character}}}", "math") is None


def test_only_the_end_of_a_text_is_read() -> None:
    assert extract(r"\boxed{5}" + " " * TAIL, "math") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is 18.", "18"),
        ("The final answer is **18**.", "18"),
        ("**Final Answer:** 18", "18"),
        ("Answer:\n18", "18"),
        ("Q: how many?\nA: 18", "18"),
        ("work\n#### 18", "18"),
        ("#### 1,234\n", "1,234"),
        ("The answer is -3.5.", "-3.5"),
        ("The answer is 1/2", "1/2"),
        (r"The answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The answer is $18.50 in all", "18.50"),
        ("The answer is 25%.", "25%"),
        ("The answer is 3 * 6 = 18 apples", "18"),
        ("The answer is 12 square feet", "12"),
        ("The answer is 4. Wait, the answer is 5. Done.", "5"),
        (r"so \boxed{18 \text{ apples}}", r"18 \text{ apples}"),
    ],
)
def test_a_marked_number_is_an_answer(text: str, answer: str) -> None:
    assert extract(text, "number") == answer
    assert extract(text, "auto") == answer


@pytest.mark.parametrize(
    "text",
    [
        "first 12, then 18",
        "12 + 6 = 18",
        "The answer is not 18",
        "The answer is 18? Let me check.",
        "The answer is 3 times 6",
        "The answer is 2 pi",
        "The answer is between 5 and 6",
        "The answer is",
        "A: 18\nB: 20",
        "the answering machine is 18",
    ],
)
def test_a_number_without_a_mark_of_its_own_is_no_answer(text: str) -> None:
    assert extract(text, "number") is None


def test_what_a_number_box_holds_must_be_a_number() -> None:
    assert extract(r"The answer is 18: \boxed{x}", "number") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is $x^2+1$.", "x^2+1"),
        (r"The answer is \(x^2\).", "x^2"),
        ("Answer: x+1", "x+1"),
        ("Answer: yes", "yes"),
        ("The answer is that we have to think again", None),
    ],
)
def test_a_marked_formula_is_an_answer_to_a_maths_question(text: str, answer: str | None) -> None:
    assert extract(text, "math") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(c)}}", "C"),
        (r"\boxed{C) 12}", "C"),
        (r"\boxed{\textbf{(C)}\ 12}", "C"),
        ("Answer: C", "C"),
        ("**Answer: C**", "C"),
        ("Answer: **C**", "C"),
        ("The correct answer is (C), since", "C"),
        ("The answer is C because of that", "C"),
        ("The answer is A.", "A"),
        ("Answer: B, no. Answer: C\n\nI hope this helps!", "C"),
        ("So we choose (C).", "C"),
    ],
)
def test_a_marked_option_is_a_choice(text: str, answer: str) -> None:
    assert extract(text, "choice") == answer


@pytest.mark.parametrize(
    "text",
    [
        "It takes a dog to know a dog",
        "Answer: a dog",
        "The answer is A dog",
        "The answer is a",
        "Answer: Although it may be",
        "The answer is I think unclear",
        r"\boxed{12}",
        r"\boxed{Cat}",
        "Vitamin C",
        "(A) 3 (B) 4 (C)",
        "as shown in (C) above, it goes on",
    ],
)
def test_an_article_or_a_bare_letter_is_no_choice(text: str) -> None:
    assert extract(text, "choice") is None


def test_auto_prefers_the_box_to_the_option_and_the_option_to_the_number() -> None:
    assert extract(r"Answer: C. \boxed{7}", "auto") == "7"
    assert extract("The answer is 3.\nAnswer: C", "auto") == "C"


@given(st.one_of(st.text(max_size=300), DENSE), st.sampled_from(KINDS))
def test_any_text_gives_a_bounded_answer_or_none(text: str, kind: AnswerKind) -> None:
    answer = extract(text, kind)
    assert answer is None or (0 < len(answer) <= MAX_ANSWER and answer == answer.strip())


STORABLE = st.characters(exclude_characters="{}\\\x00", exclude_categories=["Cs"])


@given(st.text(alphabet=STORABLE, min_size=1, max_size=40))
def test_what_is_boxed_last_comes_back_stripped(content: str) -> None:
    expected = content.strip() or None
    assert extract(rf"thinking \boxed{{{content}}} and so on", "math") == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "unit",
    [r"\boxed{", r"\boxed ", "{", "}", "answer is ", "final ", "####\n", "(A)", "$", " ", "1,"],
)
@pytest.mark.timeout(20)
def test_repetition_does_not_make_it_slow(kind: AnswerKind, unit: str) -> None:
    answer = extract(unit * 100_000, kind)
    assert answer is None or len(answer) <= MAX_ANSWER
