from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapters.pattern import MAX_PATTERN, Steps, UnsupportedPattern, compile_pattern

PLENTY = 10**6
LEAF = st.sampled_from(
    ("a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", r"\b", "^", "$", " ", "1")
)
QUANTIFIER = st.sampled_from(("*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "??", "{1,2}?"))


def _composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join).map("(?:{})".format),
        st.tuples(inner.map("(?:{})".format), QUANTIFIER).map("".join),
        inner.map("({})".format),
        inner.map("(?i:{})".format),
    )


PATTERN = st.recursive(LEAF, _composed, max_leaves=8).map("(?P<all>{})".format)
TEXT = st.text(alphabet="ab1 \nA", max_size=16)


def _search(pattern: str, text: str, steps: int = PLENTY) -> dict[str, str] | None:
    return compile_pattern(pattern).search(text, Steps(steps))


@settings(max_examples=500, deadline=None)
@given(PATTERN, TEXT)
def test_it_finds_what_re_finds(pattern: str, text: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except UnsupportedPattern:
        assume(False)
        return
    match = re.search(pattern, text)
    assert compiled.search(text, Steps(PLENTY)) == (None if match is None else match.groupdict(""))


@pytest.mark.parametrize(
    ("pattern", "text", "groups"),
    [
        (r"(?P<a>\d+) ?\+ ?(?P<b>\d+)", "What is 12 + 30?", {"a": "12", "b": "30"}),
        (r"^(?P<q>.+)\nOptions: (?P<o>.+)$", "Which?\nOptions: x, y", {"q": "Which?", "o": "x, y"}),
        (r"(?P<x>.*),(?P<y>.*)", "a,b,c", {"x": "a,b", "y": "c"}),
        (r"(?P<x>.*?),(?P<y>.*)", "a,b,c", {"x": "a", "y": "b,c"}),
        (r"(?P<n>\d+)(?P<unit> ?cm)?", "5 m", {"n": "5", "unit": ""}),
        (r"(?i)WHAT (?P<w>\w+)", "what now", {"w": "now"}),
        (r"(?s)(?P<w>a.b)", "a\nb", {"w": "a\nb"}),
        (r"(?m)^(?P<w>b)$", "a\nb", {"w": "b"}),
        (r"(?P<w>ä\w+)", "Größe ändern", {"w": "ändern"}),
        (r"(?P<w>cat|category)s", "categorys", {"w": "category"}),
        ("(?P<w>)", "x", {"w": ""}),
        (r"(?:(?P<w>a)|b)+", "ab", {"w": "a"}),
    ],
)
def test_groups_of_the_leftmost_match(pattern: str, text: str, groups: dict[str, str]) -> None:
    assert _search(pattern, text) == groups


def test_no_match_is_none() -> None:
    assert _search(r"(?P<a>\d)", "none here") is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "unterminated"),
        ("(?=a)", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        (r"(?P<a>x)(?P=a)", "back references"),
        (r"(a)?(?(1)b|c)", "conditions"),
        ("(?>a)", "atomic"),
        ("a++", "possessive"),
        ("(?:a?)*", "match nothing"),
        ("(?:^)+", "match nothing"),
        ("(?:a{1000}){1000}", "too large"),
        ("a{99999999999999999999}", "repetition"),
        ("a" * (MAX_PATTERN + 1), "longer"),
    ],
)
def test_what_is_not_linear_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(UnsupportedPattern, match=reason):
        compile_pattern(pattern)


def test_deep_nesting_works() -> None:
    assert _search("(" * 200 + "a" + ")" * 200, "a") == {}


@pytest.mark.parametrize(
    "pattern", ["(a|a)*b", "(a+)+b", "(?:a|aa)+b", "a*a*a*a*a*b", ".*.*.*.*b", "(?:(?:a+)+)+b"]
)
@pytest.mark.timeout(60)
def test_catastrophic_patterns_take_linear_time(pattern: str) -> None:
    text = "a" * 2000
    steps = Steps(PLENTY)
    assert compile_pattern(pattern).search(text, steps) is None
    size = len(compile_pattern(pattern).program)
    assert 0 < PLENTY - steps.left <= (size + 1) * (len(text) + 1)


def test_a_search_that_runs_out_of_steps_finds_nothing() -> None:
    steps = Steps(50)
    assert compile_pattern("(?P<w>.*)b").search("a" * 1000 + "b", steps) is None
    assert steps.left == 0


@settings(max_examples=500, deadline=None)
@given(PATTERN, TEXT)
def test_it_finds_all_that_re_finds(pattern: str, text: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except UnsupportedPattern:
        assume(False)
        return
    expected = [match.span() for match in re.finditer(pattern, text)]
    assume(all(start < end for start, end in expected))  # after an empty match the two differ
    found = [match[0] for match in compiled.finditer(text, Steps(PLENTY))]
    assert found == expected


def test_the_spans_of_groups() -> None:
    matches = list(compile_pattern(r"(a)(?:(b)|(c))").finditer("ab ac", Steps(PLENTY)))
    assert matches == [{0: (0, 2), 1: (0, 1), 2: (1, 2)}, {0: (3, 5), 1: (3, 4), 3: (4, 5)}]


@pytest.mark.timeout(60)
def test_many_matches_that_look_far_ahead_take_linear_time() -> None:
    compiled = compile_pattern("a[^b]*b|a")
    steps = Steps(PLENTY)
    assert len(list(compiled.finditer("a" * 2000, steps))) == 2000
    assert PLENTY - steps.left < 20 * len(compiled.program) * 2000
