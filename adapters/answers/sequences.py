r"""Lists taken apart: points, intervals, sets, and elements between commas."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BRACKETED = re.compile(r"(?P<left>\\\{|[(\[])(?P<inner>.*)(?P<right>\\\}|[)\]])", re.DOTALL)
_LEVELS = re.compile(r"\\begin|\\end|\\\{|\\\}|\\.|[(){}\[\],;]", re.DOTALL)
_OPENS = frozenset(("(", "[", "{", r"\{", r"\begin"))
_CLOSES = frozenset((")", "]", "}", r"\}", r"\end"))


@dataclass(frozen=True, slots=True)
class Sequence:
    """A bracketed list of at least two elements, such as a point or an interval."""

    left: str
    right: str
    elements: tuple[str, ...]


def sequence(text: str) -> Sequence | None:
    """`(a, b)` taken apart; None for anything else, such as a union of two intervals."""
    match = _BRACKETED.fullmatch(text)
    if match is None:
        return None
    elements = split(match["inner"])
    if elements is None or len(elements) < 2:
        return None
    return Sequence(match["left"], match["right"], elements)


def split(text: str, by: str = ",;") -> tuple[str, ...] | None:
    """The parts between the outermost commas; None where brackets do not match up."""
    parts: list[str] = []
    depth = start = 0
    for match in _LEVELS.finditer(text):
        if match[0] in _OPENS:
            depth += 1
        elif match[0] in _CLOSES:
            depth -= 1
            if depth < 0:
                return None
        elif match[0] in by and depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return (*parts, text[start:]) if depth == 0 else None


def singleton(text: str) -> Sequence | None:
    r"""A set of one element, `\{a\}`."""
    if not (text.startswith(r"\{") and text.endswith(r"\}")):
        return None
    parts = split(text[2:-2])
    return None if parts is None or len(parts) != 1 else Sequence(r"\{", r"\}", parts)
