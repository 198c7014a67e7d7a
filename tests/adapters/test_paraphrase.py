from __future__ import annotations

import pytest

from adapters.paraphrase import accept

LATEX = r"Solve $x^2 = 4$ for \(x\), where \frac{1}{2} is given."
CHOICE = "Which is a fruit?\nA) apple\nB) stone"


@pytest.mark.parametrize(
    ("question", "written"),
    [
        ("What is 3 + 4?", " Add 4 and 3. "),
        ("How far is it at 1,5 km/h in 3.25 hours?", "In 3.25 hours at 1,5 km/h, how far is it?"),
        (LATEX, r"Given \frac{1}{2}, find \(x\) such that $x^2 = 4$."),
        ('Who said "to be"?', 'Whose words are "to be"?'),
        ("Was gibt `f(x)` aus?", "Nenne die Ausgabe von `f(x)`."),
        (CHOICE, "Pick the fruit:\nA) apple\nB) stone"),
        (r"Is \[x < y\] or \(x > y\)?", r"Which of \[x < y\] and \(x > y\) is it?"),
        ("Wer sagte «sein» und “nicht sein”?", "Von wem sind «sein» und “nicht sein”?"),
    ],
)
def test_another_wording_with_the_same_things_in_it_is_a_view(question: str, written: str) -> None:
    assert accept(question, written) == written.strip()


@pytest.mark.parametrize(
    "mark",
    [
        r"\(",
        r"\[",
        r"\( \[ ",
        r"\a{",
        "$",
        "$$ ",
        "$$$\n",
        "`",
        "```",
        "``` ",
        '"',
        "“",
        "«",
        "'",
        " '",
    ],
)
@pytest.mark.timeout(20)
def test_marks_without_their_other_half_cost_little(mark: str) -> None:
    question = mark * (400_000 // len(mark))
    written = f"Please: {question} ?"
    assert accept(question, written) == written


@pytest.mark.parametrize(
    ("question", "written"),
    [
        ("What is 3 + 4?", ""),
        ("What is 3 + 4?", " What is 3 + 4? "),
        ("What is 3 + 4?", "What is 3 + 5?"),
        ("What is 3 + 4?", "Add 3 and 4 and 4."),
        ("What is 3 + 4?", "3 + 4 is 7."),
        ("What is 3.5 + 4?", "What is 35 + 4?"),
        ("What is it?", "What is it, " + "please, " * 20),
        (LATEX, "Solve for x."),
        ('Who said "to be"?', "Who said to be?"),
        ("Was gibt `f(x)` aus?", "Was gibt `g(x)` aus?"),
        (CHOICE, "Pick the fruit:\nA) stone\nB) apple"),
        (CHOICE, "Which is a fruit?"),
        (r"Is \[x < y\] or \(x > y\)?", r"Which of \[x < y\] and \(y < x\) is it?"),
        ("Wer sagte «sein» und “nicht sein”?", "Von wem sind «Sein» und “nicht sein”?"),
    ],
)
def test_what_may_ask_for_something_else_is_dropped(question: str, written: str) -> None:
    assert accept(question, written) is None
