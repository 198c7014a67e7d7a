from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ttrl_client import types

from adapters.views import (
    MAX_PHRASING,
    MAX_PROMPT,
    InvalidView,
    View,
    canonical,
    check,
    has_view,
    instruct,
    rephrase,
)

SUM = View(
    r"^(?:What is|Add|Compute) (?P<a>\d+) ?(?:\+|and|plus) ?(?P<b>\d+)\W?$",
    ("What is {a} + {b}?", "Add {a} and {b}.", "Compute {a} plus {b}."),
)
TEMPLATE = st.lists(
    st.sampled_from(
        ("{", "}", "{{", "}}", "{a}", "{b}", "{a!r}", "{a.b}", "{a:>9}", "{0}", "{}", "x")
    ),
    min_size=1,
    max_size=6,
).map("".join)


def test_a_prompt_is_asked_as_it_is_and_in_the_other_phrasings() -> None:
    assert rephrase("Add 3 and 4.", [SUM]) == (
        "Add 3 and 4.",
        "What is 3 + 4?",
        "Compute 3 plus 4.",
    )


def test_a_prompt_that_no_view_matches_is_asked_as_it_is() -> None:
    assert rephrase("Why?", [SUM]) == ("Why?",)
    assert rephrase("Why?", []) == ("Why?",)
    assert canonical("Why?", [SUM]) == "Why?"


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_phrasings_of_one_question_share_their_canonical_text(a: int, b: int) -> None:
    phrasings = rephrase(f"Add {a} and {b}", [SUM])
    assert len(phrasings) == 4
    assert {canonical(phrasing, [SUM]) for phrasing in phrasings} == {f"What is {a} + {b}?"}


def test_the_first_view_that_matches_counts() -> None:
    views = [
        View(r"(?P<w>z)", ("1 {w}",)),
        View(r"(?P<w>\w)", ("2 {w}",)),
        View(r"(?P<w>\w)", ("3",)),
    ]
    assert rephrase("a", views) == ("a", "2 a")


def test_braces_are_escaped_by_doubling() -> None:
    assert canonical("a", [View(r"(?P<w>\w)", ("{{{w}}} {{w}}",))]) == "{a} {w}"


def test_what_a_group_holds_is_not_filled_again() -> None:
    assert canonical("{b} x", [View(r"(?P<a>\S+) (?P<b>\w)", ("{a}{b}",))]) == "{b}x"


@pytest.mark.parametrize(
    "template",
    [
        "{a.__class__}",
        "{a!r:>9999999}",
        "{a:>9999999999}",
        "{a[0]}",
        "{0}",
        "{}",
        "{c}",
        "{a:}",
        "{",
        "}",
    ],
)
def test_format_strings_are_refused_everywhere(template: str) -> None:
    view = View(r"(?P<a>\w)", (template,))
    with pytest.raises(InvalidView):
        check(view)
    with pytest.raises(ValidationError):
        types.View(pattern=view.pattern, templates=[template])
    assert rephrase("a", [view]) == ("a",)
    assert canonical("a", [view]) == "a"


@given(TEMPLATE)
def test_the_client_and_the_server_agree_on_templates(template: str) -> None:
    view = View(r"(?P<a>\w)(?P<b>\w)?", (template,))
    try:
        types.View(pattern=view.pattern, templates=[template])
        accepted = True
    except ValidationError:
        accepted = False
    if accepted:
        check(view)
    else:
        with pytest.raises(InvalidView):
            check(view)


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(?P<a>x)(?P=a)", "(?:a?)*"])
def test_patterns_that_cannot_run_in_linear_time_match_nothing(pattern: str) -> None:
    view = View(pattern, ("x",))
    with pytest.raises(InvalidView, match="pattern"):
        check(view)
    assert rephrase("aaaa", [view, View("(?P<w>a+)", ("{w}!",))]) == ("aaaa", "aaaa!")


@pytest.mark.parametrize("pattern", ["(a|a)*b", "(a+)+b", "a*a*a*a*a*a*a*b"])
@pytest.mark.timeout(60)
def test_catastrophic_patterns_do_not_hang(pattern: str) -> None:
    prompt = "a" * MAX_PROMPT
    assert rephrase(prompt, [View(pattern, ("x",))] * 32) == (prompt,)


def test_a_very_long_prompt_is_asked_as_it_is() -> None:
    prompt = "a" * (MAX_PROMPT + 1)
    assert rephrase(prompt, [View("a", ("x",))]) == (prompt,)


def test_a_phrasing_that_becomes_too_long_is_left_out() -> None:
    prompt = "a" * MAX_PROMPT
    copies = "{w}" * (MAX_PHRASING // MAX_PROMPT + 1)
    assert rephrase(prompt, [View("(?P<w>a+)", (copies, "short"))]) == (prompt, "short")
    assert canonical(prompt, [View("(?P<w>a+)", (copies, "short"))]) == prompt


@given(st.text(max_size=60), st.lists(TEMPLATE, min_size=1, max_size=3))
def test_any_prompt_comes_first_and_nothing_comes_twice(prompt: str, templates: list[str]) -> None:
    phrasings = rephrase(prompt, [View(r"(?P<a>\w)(?P<b>\w)?", tuple(templates))])
    assert phrasings[0] == prompt
    assert len(set(phrasings)) == len(phrasings)


def test_instructions_stand_in_front_of_a_chat_that_has_none() -> None:
    chat = [{"role": "user", "content": "x"}]
    assert instruct(chat, ["a", "b"]) == (
        [{"role": "system", "content": "a"}, *chat],
        [{"role": "system", "content": "b"}, *chat],
    )


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_chats_own_system_message_is_not_replaced(role: str) -> None:
    chat = [{"role": role, "content": "Be kind."}, {"role": "user", "content": "x"}]
    assert instruct(chat, ["a"]) == ()


def test_whether_a_prompt_has_a_view() -> None:
    view = View(r"(?P<a>\d+)", ("{a}",))
    assert has_view("what is 3?", [view])
    assert not has_view("what is it?", [view])
