r"""Values out of what is said about a variable: `x = 5`, `x \in [0, 1]`, `1 < x \le 2`, `\pm 2`."""

from __future__ import annotations

import re

from adapters.answers.numbers import canonical_number, parse_number
from adapters.answers.sequences import split

_NAME = (
    r"(?:\\text\s*\{[^{}]*\}|\\?[a-zA-Z]++|\|[A-Z]{1,3}\||_\{?\w{1,9}\}?|\s++|'"
    r"|\([\w\\,\s+-]{0,20}\))"
)
_ASSIGNED = re.compile(r"(?P<name>[a-zA-Z])\s*(?P<by>=|\\in(?![a-zA-Z]))(?P<value>[^=<>]*)")
_NAMED = re.compile(rf"(?=[a-zA-Z\\|]){_NAME}{{1,12}}+=(?P<value>[^=<>]*)")
_DEFINED = re.compile(r"[a-zA-Z]\([a-z]\)\s*=(?P<value>[^=<>]*)")
_POINT = re.compile(r"\(\s*[a-zA-Z](?:_\w)?(?:\s*,\s*[a-zA-Z](?:_\w)?)+\s*\)\s*=(?P<value>[^=]*)")
_COMPARE = r"(?P<{}><|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))"
_INEQUALITY = re.compile(
    rf"(?:(?P<low>[^<>=,]{{1,60}}?){_COMPARE.format('first')}\s*)?(?P<name>[a-zA-Z])\s*"
    rf"(?:{_COMPARE.format('second')}(?P<high>[^<>=,]{{1,60}}))?"
)
_RAY = re.compile(r"\(-\\infty,(?P<high>[^,]+)[)\]]|[(\[](?P<low>[^,]+),\\infty\)")
_CLOSED = frozenset((r"\le", r"\ge"))
_INFINITY = r"\infty"


def unassigned(text: str) -> str:
    r"""The value of `x = 5`, `f(x) = 2x`, `2 + 3 = 5`, `x \in [0, 1]`; `y = 2x` stays as it is."""
    match = _ASSIGNED.fullmatch(text)
    if match is not None:
        value = match["value"].strip()
        parts = split(value) or ()
        if match["by"] != "=" or (value and all(_is_plain(part) for part in parts)):
            return value
    point = _POINT.fullmatch(text)
    if point is not None:
        return point["value"].strip()
    named = _NAMED.fullmatch(text)
    if named is not None and canonical_number(named["value"]) is not None:
        return named["value"].strip()
    defined = _DEFINED.fullmatch(text)
    if defined is not None:
        return defined["value"].strip()
    left, equals, right = text.partition("=")
    if equals and _is_plain(left) and canonical_number(right) is not None:
        return right.strip()
    return text


def _is_plain(text: str) -> bool:
    r"""A number, or a formula without variables, such as `2\sqrt{3}` or `\pm 2`."""
    if canonical_number(text) is not None:
        return True
    bare = re.sub(r"\\(?:text\s*\{[^{}]*\}|[a-zA-Z]+)", "", text)
    return bool(re.search(r"\d", text)) and not re.search(r"[a-zA-Z]", bare)


def as_interval(text: str) -> str | None:
    r"""`x \ge 3`, `3 < x` or `1 < x \le 2` as an interval."""
    match = _INEQUALITY.fullmatch(text)
    if match is None or not (match["first"] or match["second"]):
        return None
    first, second = match["first"], match["second"]
    rising = {"<": True, r"\le": True, ">": False, r"\ge": False}
    up = rising[first] if first else rising[second]
    if first and second and rising[first] != rising[second]:
        return None
    low, high = (match["low"], match["high"]) if up else (match["high"], match["low"])
    below, above = (first, second) if up else (second, first)
    left = "[" if below in _CLOSED else "("
    right = "]" if above in _CLOSED else ")"
    return rf"{left}{low or '-' + _INFINITY},{high or _INFINITY}{right}"


def are_rays_apart(keys: list[str]) -> bool:
    """Whether they are two intervals without end that do not meet, as of `x < 2 or x > 3`."""
    found = [_RAY.fullmatch(key) for key in keys]
    ends = {"high" if match["high"] else "low": match for match in found if match is not None}
    if len(keys) != 2 or len(ends) != 2:
        return False
    high, low = parse_number(ends["high"]["high"]), parse_number(ends["low"]["low"])
    return high is not None and low is not None and high <= low


def both_signs(element: str) -> tuple[str, ...]:
    r"""`a \pm b` as `a + b` and `a - b`."""
    if element.count(r"\pm") != 1 or r"\mp" in element:
        return (element,)
    before, _, after = element.partition(r"\pm")
    first = not before.strip() or before.rstrip().endswith(("=", "{", "("))
    return (f"{before}{'' if first else '+'}{after}", f"{before}-{after}")


def values_of_one(elements: tuple[str, ...]) -> tuple[str, ...]:
    """Values of one variable, as in `x = 1` and `x = 2`; other elements as they are."""
    found = [_ASSIGNED.fullmatch(element.strip()) for element in elements]
    names = {match["name"] for match in found if match is not None and match["by"] == "="}
    if len(names) != 1 or found[0] is None or len(elements) < 2:
        return elements
    return tuple(
        element if match is None else match["value"]
        for element, match in zip(elements, found, strict=True)
    )
