"""Labels, JSON, matches, texts: how they are found, and when they are equal."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ttrl_client import types

from adapters.answers import AnswerKind, AnswerSpec, Equivalence, extract
from adapters.answers.canonical import canonical

FEELING = AnswerSpec("label", labels=("positive", "negative", "very positive", "out_of_scope"))
CAPITAL = AnswerSpec("json", field="result.items.0.name")
WHOLE = AnswerSpec("json")
ORDER = AnswerSpec("regex", pattern=r"order (?P<answer>\d+)")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_the_kinds_are_those_of_the_settings() -> None:
    assert get_args(AnswerKind) == get_args(types.AnswerKind)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "label"},
        {"kind": "regex"},
        {"kind": "python"},
        {"kind": "regex", "pattern": "(?=a)"},
    ],
)
def test_a_kind_without_what_it_needs_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"needs|supported"):
        AnswerSpec(**arguments)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("It is POSITIVE.", "positive"),
        (r"\boxed{\text{Negative}}", "negative"),
        ("Sentiment: **negative**", "negative"),
        ("The answer is very positive", "very positive"),
        ("It begins negative, but all in all it is positive.", "positive"),
        ("Not negative. Rather positive", "positive"),
        ("It is positive, not negative.", "positive"),
        ("It is positive rather than negative.", "positive"),
        ("It isn't negative; it is positive", "positive"),
        (
            "positive first.\n\nFinal answer: negative. I was unsure whether it is positive.",
            "negative",
        ),
        ("out of scope", "out_of_scope"),
        ("Out-of-scope!", "out_of_scope"),
        ("<think>negative</think> positive", "positive"),
        ("<answer>negative</answer>", "negative"),
        (r"\boxed{5} positive", "positive"),
        ("It is not positive.", None),
        ("positive or negative", None),
        ("positive/negative", None),
        ("Is it positive?", None),
        ("positively", None),
        ("nonpositive", None),
        ("", None),
    ],
)
def test_a_label_is_the_last_one_that_is_affirmed(text: str, label: str | None) -> None:
    assert extract(text, FEELING) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("POSİTİVE", "positive"),
        ("it is posıtıve", "positive"),
        (r"so \boxed{HAYIR}", "hayır"),
        ("Cevap HAYIR", "hayır"),
        ("hayir", "hayır"),
        ("SİK", "sik"),
        ("sık", "sık"),
    ],
)
def test_a_label_is_found_with_and_without_the_dot_of_its_i(text: str, label: str) -> None:
    spec = AnswerSpec("label", labels=("positive", "hayır", "sık", "sik"))
    assert extract(text, spec) == label
    assert canonical(text.split()[-1].removeprefix(r"\boxed"), spec) == label


def test_labels_that_hold_marks_are_whole_words() -> None:
    languages = AnswerSpec("label", labels=("C", "C++", "N/A"))
    assert extract("I would write it in c++.", languages) == "C++"
    assert extract("Use C here", languages) == "C"
    assert extract("n/a", languages) == "N/A"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"result": {"items": [{"name": "Oslo"}]}}', '"Oslo"'),
        ('Here:\n```json\n{"result": {"items": [{"name": 5.0}]}}\n```\nDone.', "5"),
        ('x {"result": {"items": [{"name": {"b": 1, "a": 2e0}}]}} y', '{"a":2,"b":1}'),
        (r'With \frac{1}{2} and {x}: {"result": {"items": [{"name": true}]}}', "true"),
        ('{"result": {"items": [{"name": 1}]}} then {"result": {"items": [{"name": 2}]}}', "2"),
        ('{"result": {"items": [{"name": 1}]}} then {"other": 3}', "1"),
        ('<think>{"result": 1}</think>{"result": {"items": [{"name": 2}]}}', "2"),
        ('{"result": {"items": []}}', None),
        ('{"result": {"items": [{"name": null}]}}', None),
        ('{"result": {"items": [{"name": NaN}]}}', None),
        ('{"result": {"items": [{"name": "Oslo"', None),
        ("no document", None),
    ],
)
def test_a_json_answer_is_a_field_of_the_last_document_that_has_it(
    text: str, value: str | None
) -> None:
    assert extract(text, CAPITAL) == value


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ('{"a": 1, "b": 2}', '{"b":2.0,"a":1e0}', True),
        ('{"a": 0.10}', '{"a": 0.1}', True),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": "X"}', '{"a": "x"}', False),
        ('{"a": 1e999999999}', '{"a": 1e999999998}', False),
        ('{"a": -0.0}', '{"a": 0}', True),
    ],
)
def test_documents_are_equal_in_their_canonical_form(one: str, other: str, equal: bool) -> None:
    assert (extract(one, WHOLE) == extract(other, WHOLE)) is equal


def test_a_truth_that_is_no_json_is_a_string() -> None:
    assert canonical("Oslo", WHOLE) == canonical('"Oslo"', WHOLE)


@given(VALUES.filter(lambda value: value is not None))
def test_the_canonical_form_is_the_same_document(value: object) -> None:
    key = canonical(json.dumps(value), WHOLE)
    assert key is not None
    assert json.loads(key) == value
    assert canonical(key, WHOLE) == key


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"order (?P<answer>\d+)", "order 1, then order 22.", "22"),
        (r"id=(\w+);(\w+)", "id=a;b id=c;d", "c"),
        (r"[A-Z]{3}-\d+", "ABC-1 or XYZ-20", "XYZ-20"),
        (r"(?P<x>a)(?P<answer>b)?", "ab a", "b"),
        (r"\d*", "12 x", "12"),
        (r"z+", "none", None),
    ],
)
def test_a_match_is_the_last_that_is_not_blank(pattern: str, text: str, answer: str | None) -> None:
    assert extract(text, AnswerSpec("regex", pattern=pattern)) == answer


def test_matches_are_equal_as_numbers_or_as_texts(equivalence: Equivalence) -> None:
    one, other, third = equivalence.classes(["007", "7.0", "8"], ORDER)
    assert one == other != third
    assert len(set(equivalence.classes(["Ab c", "ab  C"], ORDER))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "  paris. "),
        ("The answer is Paris.", "paris"),
        ("Final answer: **Paris**", "Paris"),
        (r"\boxed{Paris}", "PARIS!"),
        ("ﬁne  day", "Fine day"),
        ("<think>London</think>Paris", "Paris"),
    ],
)
def test_texts_are_equal_but_for_case_space_and_edges(one: str, other: str) -> None:
    keys = {canonical(extract(text, "text") or "", "text") for text in (one, other)}
    assert len(keys) == 1
    assert None not in keys


def test_different_texts_differ(equivalence: Equivalence) -> None:
    assert len(set(equivalence.classes(["Paris", "Par is", "Parish"], "text"))) == 3


@given(st.text(max_size=60))
def test_a_key_of_a_text_is_its_own_key(text: str) -> None:
    key = canonical(text, "text")
    assert key is None or canonical(key, "text") == key


def test_the_functions_of_entry_points_do_not_run_in_this_process() -> None:
    with pytest.raises(ValueError, match="Equivalence"):
        extract("x", AnswerSpec("python", entry_point="any"))
