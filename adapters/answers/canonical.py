r"""The canonical key of an answer: most equal answers get equal keys without any algebra.

Numbers become exact fractions, words lose their case, lists are taken apart, and LaTeX loses what
only changes its looks. A key is readable, and is its own key. What is left to algebra
(`\frac{\sqrt{3}}{3}` and `\frac{1}{\sqrt{3}}`) is the judge's, see `adapters.answers.equivalence`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from adapters.answers.extraction import MAX_ANSWER, AnswerKind, choice_letter
from adapters.answers.numbers import canonical_number

_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "±": r"\pm ", "°": r"^\circ ", "θ": r"\theta ",
    "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7",
    "⁸": "^8", "⁹": "^9", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
}  # fmt: skip
_TRANSLATE = str.maketrans(_SYMBOLS)

_COMMANDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mbox|hbox|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname\*?)(?=\s*\{)",
         r"\\text"),
        (r"\\(?:left|right|[bB]ig{1,2}[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])\s*\.?", ""),
        (r",\s*\\!\s*", ","),
        (r"\\\\\s*$", ""),
        (r"√\s*([0-9]+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt "),
        (r"(?<!\\)\\(?:!|,|;|:|>| )|\\q?quad(?![a-zA-Z])|~", " "),
        (r"\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<=\s)(?:and|or)(?=\s))\s*", ","),
        (r"\{,\}", ","),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\sqrt\s*(?!\[)([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
        (r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2"),
    )
)  # fmt: skip
PASSES = 4  # garbage may need more than one to become its own key; answers do not
DEPTH = 3  # lists in lists that are taken apart
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WRAPPERS = ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$"), ("**", "**"))
_TEXT_ONLY = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'’.-]+[^\W\d_]+)*")
_ASSIGNED = re.compile(r"[a-zA-Z]\s*(?P<by>=|\\in(?![a-zA-Z]))(?P<value>[^=<>]*)")
_KEPT_SPACE = re.compile(r"(?<=[a-zA-Z])\s+(?=[a-zA-Z0-9])|(?<=[0-9])\s+(?=[0-9])")
_SPACE = re.compile(r"\s+")
_BRACKETED = re.compile(r"(?P<left>\\\{|[(\[])(?P<inner>.*)(?P<right>\\\}|[)\]])", re.DOTALL)
_LEVELS = re.compile(r"\\begin|\\end|\\\{|\\\}|\\.|[(){}\[\],]", re.DOTALL)
_OPENS = frozenset(("(", "[", "{", r"\{", r"\begin"))
_CLOSES = frozenset((")", "]", "}", r"\}", r"\end"))


@dataclass(frozen=True, slots=True)
class Sequence:
    """A bracketed list of at least two elements, such as a point or an interval."""

    left: str
    right: str
    elements: tuple[str, ...]


def canonical(answer: str, kind: AnswerKind) -> str | None:
    """The key of an answer, or None if it is no answer of that kind. Never raises."""
    text = clean(answer)
    if not text:
        return None
    if kind == "choice":
        return choice_letter(text)
    if kind == "number":
        return canonical_number(_unassigned(text))
    key = _key(_unassigned(text), DEPTH)
    for _ in range(PASSES):
        previous, key = key, _key(_unassigned(clean(key or "")), DEPTH)
        if key == previous:
            break
    return key


def sequence(text: str) -> Sequence | None:
    """`(a, b)` taken apart; None for anything else, such as a union of two intervals."""
    match = _BRACKETED.fullmatch(text)
    if match is None:
        return None
    elements = split(match["inner"])
    if elements is None or len(elements) < 2:
        return None
    return Sequence(match["left"], match["right"], elements)


def split(text: str) -> tuple[str, ...] | None:
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
        elif match[0] == "," and depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return (*parts, text[start:]) if depth == 0 else None


def clean(answer: str) -> str:
    """The answer as plain LaTeX: no wrapping, no decoration, one spelling of each command."""
    text = _CONTROLS.sub("", answer[:MAX_ANSWER]).translate(_TRANSLATE)
    text = unicodedata.normalize("NFKC", text)[: 2 * MAX_ANSWER]
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    previous = None
    while previous != text:
        previous = text
        text = _unwrap(text.strip().rstrip(".,;: "))
    return text


def _unwrap(text: str) -> str:
    for left, right in _WRAPPERS:
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and left not in inner:
            return inner
    match = _TEXT_ONLY.fullmatch(text)
    if match:
        return match[1]
    if text.startswith(r"\boxed{") and text.endswith("}"):
        return text[len(r"\boxed{") : -1]
    return text


def _unassigned(text: str) -> str:
    r"""The value of `x = 5` or `x \in [0, 1]`; an equation such as `y = 2x` stays as it is."""
    match = _ASSIGNED.fullmatch(text)
    if match is None:
        return text
    value = match["value"].strip()
    parts = split(value) or ()
    if match["by"] != "=" or all(canonical_number(part) is not None for part in parts):
        return value
    return text


def _key(text: str, depth: int) -> str | None:
    text = text.strip()
    number = canonical_number(text, drop_unit=depth == DEPTH)
    if number is not None:
        return number
    words = _WORDS.fullmatch(text) or _WORDS.fullmatch(text.rstrip("!"))  # "No!", but not "n!"
    if words and (len(words[0]) > 1 or words[0] == text):
        return words[0] if len(words[0]) == 1 else _SPACE.sub(" ", words[0]).casefold()
    if depth > 0:
        listed = _list_key(text, depth - 1)
        if listed is not None:
            return listed
    return _compact(text) or None


def _list_key(text: str, depth: int) -> str | None:
    """The key of a point, an interval, a set, a bare list, or one thing in needless brackets."""
    if text.startswith("(") and text.endswith(")"):
        alone = len(split(text[1:-1]) or ()) == 1
        inner = _key(text[1:-1], depth) if alone else None
        if inner is not None and (len(inner) == 1 or canonical_number(inner) is not None):
            return inner
    found = sequence(text)
    elements = found.elements if found else split(text)
    if elements is None or len(elements) < 2:
        return None
    keys = [_key(element, depth) for element in elements]
    if any(key is None for key in keys):
        return None
    named = [key for key in keys if key is not None]
    if found is None:
        return ",".join(sorted(named))
    if found.left == r"\{":
        named = sorted(set(named))
    return f"{found.left}{','.join(named)}{found.right}"


def _compact(text: str) -> str:
    """Without spaces, but for those that keep two words or two numbers apart."""
    return _SPACE.sub("", _KEPT_SPACE.sub("\0", text)).replace("\0", " ")
