"""The published extraction in kind, against what the published code made of the same groups."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from adapters.answers import AnswerSpec
from adapters.answers.strict import strict_answer

MATHS, OPTIONS = AnswerSpec("math"), AnswerSpec("choice")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{3.0}.", "3"),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\frac12}", r"\frac{1}{2}"),
        (r"\boxed{1/2}", r"\frac{1}{2}"),
        (r"\boxed{0.5}", "0.5"),
        (r"\boxed{\left( 1, 2 \right)}", "(1,2)"),
        (r"\boxed{30^\circ}", "30"),
        (r"\boxed{5 \text{ apples}}", "5"),
        (r"\boxed{\text{even}}", "even"),
        (r"\boxed{025}", "25"),
        (r"\boxed{025.0}", "025"),
        (r"\boxed{x = 7}", "7"),
        (r"\boxed{4", "4"),
        ("The answer is 18.", "18"),
        ("first 12, then 1,018 and so on", "1018"),
        ("nothing", None),
    ],
)
def test_what_the_published_code_counts(text: str, answer: str | None) -> None:
    assert strict_answer(text, MATHS) == answer


@pytest.mark.parametrize(
    ("text", "option"),
    [("Answer: D.\n\nNote that this is a tie.", "A"), ("So it is C", "C"), ("none", "none")],
)
def test_the_article_votes_for_the_first_option(text: str, option: str) -> None:
    assert strict_answer(text, OPTIONS) == option


def test_other_kinds_have_no_published_form() -> None:
    with pytest.raises(ValueError, match="text"):
        strict_answer("x", AnswerSpec("text"))


def test_it_gives_the_published_label(shared_data: Path) -> None:
    lines = (shared_data / "answer_groups.jsonl").read_text(encoding="utf-8").splitlines()
    groups = [json.loads(line) for line in lines]
    same = 0
    for group in groups:
        counted = [strict_answer(response, MATHS) for response in group["responses"]]
        label, _ = Counter(answer for answer in counted if answer).most_common(1)[0]
        same += label == group["reference"]["label"]
    assert same / len(groups) >= 0.9
