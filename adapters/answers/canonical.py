r"""The canonical key of an answer: most equal answers get equal keys without any algebra.

Numbers become exact fractions, words lose their case, lists are taken apart, `\pm` becomes two
elements, inequalities become intervals, and LaTeX loses what only changes its looks. A key is
readable, and is its own key. What is left to algebra (`\frac{\sqrt{3}}{3}` and
`\frac{1}{\sqrt{3}}`) is for `adapters.answers.equivalence`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from adapters.answers.choices import choice_letter
from adapters.answers.documents import canonical_document
from adapters.answers.expressions import values
from adapters.answers.labels import canonical_label
from adapters.answers.latex import clean
from adapters.answers.numbers import canonical_number, parse_number
from adapters.answers.spec import AnswerKind, AnswerSpec, as_spec

PASSES = 4  # garbage may need more than one to become its own key; answers do not
DEPTH = 3  # lists in lists that are taken apart
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'’.-]+[^\W\d_]+)*")
_NAME = (
    r"(?:\\text\s*\{[^{}]*\}|\\?[a-zA-Z]++|\|[A-Z]{1,3}\||_\{?\w{1,9}\}?|\s++|'"
    r"|\([\w\\,\s+-]{0,20}\))"
)
_ASSIGNED = re.compile(r"(?P<name>[a-zA-Z])\s*(?P<by>=|\\in(?![a-zA-Z]))(?P<value>[^=<>]*)")
_NAMED = re.compile(rf"(?=[a-zA-Z\\|]){_NAME}{{1,12}}+=(?P<value>[^=<>]*)")
_DEFINED = re.compile(r"[a-zA-Z]\([a-z]\)\s*=(?P<value>[^=<>]*)")
_BUILT = re.compile(
    r"\\\{\s*(?P<name>[a-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]\s*(?P<what>[^{}|]*)\\\}"
)
_POINT = re.compile(r"\(\s*[a-zA-Z](?:_\w)?(?:\s*,\s*[a-zA-Z](?:_\w)?)+\s*\)\s*=(?P<value>[^=]*)")
_PRODUCT = re.compile("[a-d]{2,3}|[u-z]{2,3}|mn|pq|qr|rs|st")  # of variables; no words
_LETTER_THEN_TEXT = re.compile(
    r"(?:\\text\s*\{\s*)?(?:\((?P<round>[A-J])\)|(?P<bare>[A-J])[).:])\s*\}?(?:\\?\s)[\s~]*\S"
)
_NAMED_OPTION = re.compile(r"(?:option|choice)\s*:?\s*\(?(?P<letter>[A-Ja-j])\)?", re.IGNORECASE)
_ANY_LETTER = re.compile(r"(?<![\w(])\(?[A-J][).](?=\s)")
_KEPT_SPACE = re.compile(r"(?<=[a-zA-Z])\s+(?=[a-zA-Z0-9])|(?<=[0-9])\s+(?=[0-9])")
_SPACE = re.compile(r"\s+")
_BRACKETED = re.compile(r"(?P<left>\\\{|[(\[])(?P<inner>.*)(?P<right>\\\}|[)\]])", re.DOTALL)
_LEVELS = re.compile(r"\\begin|\\end|\\\{|\\\}|\\.|[(){}\[\],;]", re.DOTALL)
_OPENS = frozenset(("(", "[", "{", r"\{", r"\begin"))
_CLOSES = frozenset((")", "]", "}", r"\}", r"\end"))
_MATRIX = re.compile(r"\\begin\{pmatrix\}(?P<rows>.*)\\end\{pmatrix\}", re.DOTALL)
_COMPARE = r"(?P<{}><|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))"
_INEQUALITY = re.compile(
    rf"(?:(?P<low>[^<>=,]{{1,60}}?){_COMPARE.format('first')}\s*)?(?P<name>[a-zA-Z])\s*"
    rf"(?:{_COMPARE.format('second')}(?P<high>[^<>=,]{{1,60}}))?"
)
_CLOSED = frozenset((r"\le", r"\ge"))
_INFINITY = r"\infty"
_SAME_WORDS = {
    "no solutions": "no solution", "no real solution": "no solution",
    "no real solutions": "no solution", "infinity": r"\infty", "all real numbers": r"\mathbb{R}",
    "all reals": r"\mathbb{R}", "all real": r"\mathbb{R}", "the empty set": r"\emptyset",
    "empty set": r"\emptyset",
}  # fmt: skip
_SAME_KEYS = {
    r"+\infty": r"\infty", r"(-\infty,\infty)": r"\mathbb{R}", r"\{\}": r"\emptyset",
    r"\mathbbR": r"\mathbb{R}",
}  # fmt: skip
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


@dataclass(frozen=True, slots=True)
class Sequence:
    """A bracketed list of at least two elements, such as a point or an interval."""

    left: str
    right: str
    elements: tuple[str, ...]


def canonical(answer: str, spec: AnswerSpec | AnswerKind) -> str | None:
    """The key of an answer, or None if it is no answer of that kind. Never raises for a string."""
    spec = as_spec(spec)
    match spec.kind:
        case "auto" | "math":
            return _of_formula(answer, with_options=spec.kind == "auto")
        case "number":
            return _of_number(_unassigned(clean(answer)))
        case "choice":
            return choice_letter(clean(answer))
        case "label":
            return canonical_label(clean(answer), spec.labels)
        case "json":
            return canonical_document(answer) or None
        case "text":
            return folded(answer)
        case "regex":
            number = parse_number(answer[:64])
            return folded(answer) if number is None else str(number)
        case "python":
            return unicodedata.normalize("NFC", answer).strip() or None


def folded(text: str) -> str | None:
    """A text without case, doubled spaces, and punctuation at its ends; None if none is left."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", plain)).strip()
    return _EDGES.sub("", plain) or plain or None


def _of_number(text: str) -> str | None:
    r"""An exact number; also of `2^{10}` or `(\frac{1}{2})`, which are worth one."""
    number = canonical_number(text)
    if number is not None or re.search("[a-zA-Z%]", text.replace(r"\frac", "")):
        return number
    found = values(text)
    if found is None or found.is_equation or abs(found.at[0].imag) > 0:
        return None
    rational = Fraction(found.at[0].real).limit_denominator(10**6)
    near = abs(float(rational) - found.at[0].real) <= 1e-12 * abs(found.at[0].real)
    return str(rational) if near else None


@lru_cache(maxsize=8192)
def _of_formula(answer: str, *, with_options: bool) -> str | None:
    text = clean(answer)
    if not text:
        return None
    if with_options and (letter := _option(text)):
        return letter
    key = _key(_unassigned(text), DEPTH)
    for _ in range(PASSES):
        previous, key = key, _key(_unassigned(clean(key or "")), DEPTH)
        if key == previous:
            break
    return key


def _option(text: str) -> str | None:
    """The option of `c`, `(C)`, `C) 12 eV`; not of a list of several."""
    if re.fullmatch(r"\(?[a-jA-J]\)?", text):
        return text.strip("()").upper()
    named = _NAMED_OPTION.fullmatch(text)
    if named is not None:
        return named["letter"].upper()
    match = _LETTER_THEN_TEXT.match(text)
    if match is None or len(_ANY_LETTER.findall(text)) > 1:
        return None
    return match["round"] or match["bare"]


def sequence(text: str) -> Sequence | None:
    """`(a, b)` taken apart; None for anything else, such as a union of two intervals."""
    match = _BRACKETED.fullmatch(text)
    if match is None:
        return None
    elements = split(match["inner"])
    if elements is None or len(elements) < 2:
        return None
    return Sequence(match["left"], match["right"], elements)


def is_product(text: str) -> bool:
    """Whether letters are a product of variables rather than a word: `xy`, `a b`."""
    return _PRODUCT.fullmatch(text.replace(" ", "")) is not None


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


def _unassigned(text: str) -> str:
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


def _key(text: str, depth: int) -> str | None:
    text = text.strip()
    number = canonical_number(text, drop_unit=depth == DEPTH)
    if number is not None:
        return number
    words = _WORDS.fullmatch(text) or _WORDS.fullmatch(text.rstrip("!"))  # "No!", but not "n!"
    if words and (len(words[0]) > 1 or words[0] == text) and not is_product(text):
        plain = words[0] if len(words[0]) == 1 else _SPACE.sub(" ", words[0]).casefold()
        return _SAME_WORDS.get(plain, plain)
    if depth > 0:
        structured = _structured(text, depth - 1)
        if structured is not None:
            return _SAME_KEYS.get(structured, structured)
    compact = _compact(text)
    return _SAME_KEYS.get(compact, compact) or None


def _structured(text: str, depth: int) -> str | None:
    """The key of a matrix, a union, an inequality or a list."""
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None:
        return _matrix_key(matrix["rows"], depth)
    if r"\cup" in text:
        parts = [_key(part, depth) for part in text.split(r"\cup")]
        return r"\cup".join(sorted(part or "" for part in parts))
    built = _BUILT.fullmatch(text)
    if built is not None:
        return _key(built["what"], depth)
    if "<" in text or ">" in text or r"\le" in text or r"\ge" in text:
        interval = _interval(text)
        if interval is not None:
            return _key(interval, depth)
    return _list_key(text, depth)


def _matrix_key(rows: str, depth: int) -> str | None:
    if r"\begin" in rows:
        return None
    rows = rows.strip()
    cells = [
        [_key(cell, depth) or "" for cell in row.split("&")] for row in re.split(r"\\\\", rows)
    ]
    inner = r"\\".join("&".join(row) for row in cells)
    return rf"\begin{{pmatrix}}{inner}\end{{pmatrix}}"


def _interval(text: str) -> str | None:
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


def _list_key(text: str, depth: int) -> str | None:
    """The key of a point, an interval, a set, a bare list, or one thing in needless brackets."""
    inner = _in_needless_brackets(text, depth)
    if inner is not None:
        return inner
    found = sequence(text) or _singleton(text)
    elements = found.elements if found else split(text)
    if elements is None:
        return None
    loose = found is None or found.left == r"\{"
    if loose:
        elements = _values(tuple(part for element in elements for part in _both_signs(element)))
    if len(elements) < 2 and found is None:
        return None
    keys = [_key(element, depth) for element in elements]
    if any(key is None for key in keys):
        return None
    named = [key for key in keys if key is not None]
    if found is None:
        return ",".join(sorted(named)) if len(set(named)) > 1 else named[0]  # 3/4 or 0.75
    if loose:
        named = sorted(set(named))
    return f"{found.left}{','.join(named)}{found.right}"


def _in_needless_brackets(text: str, depth: int) -> str | None:
    if not (text.startswith("(") and text.endswith(")")):
        return None
    inner = _key(text[1:-1], depth) if len(split(text[1:-1]) or ()) == 1 else None
    plain = inner is not None and (len(inner) == 1 or canonical_number(inner) is not None)
    return inner if plain else None


def _singleton(text: str) -> Sequence | None:
    if not (text.startswith(r"\{") and text.endswith(r"\}")):
        return None
    parts = split(text[2:-2])
    return None if parts is None or len(parts) != 1 else Sequence(r"\{", r"\}", parts)


def _both_signs(element: str) -> tuple[str, ...]:
    r"""`a \pm b` as `a + b` and `a - b`."""
    if element.count(r"\pm") != 1 or r"\mp" in element:
        return (element,)
    before, _, after = element.partition(r"\pm")
    first = not before.strip() or before.rstrip().endswith(("=", "{", "("))
    return (f"{before}{'' if first else '+'}{after}", f"{before}-{after}")


def _values(elements: tuple[str, ...]) -> tuple[str, ...]:
    """Values of one variable, as in `x = 1` and `x = 2`; other elements as they are."""
    found = [_ASSIGNED.fullmatch(element.strip()) for element in elements]
    names = {match["name"] for match in found if match is not None and match["by"] == "="}
    if len(names) != 1 or found[0] is None or len(elements) < 2:
        return elements
    return tuple(
        element if match is None else match["value"]
        for element, match in zip(elements, found, strict=True)
    )


def _compact(text: str) -> str:
    """Without spaces, but for those that keep two words or two numbers apart."""
    return _SPACE.sub("", _KEPT_SPACE.sub("\0", text)).replace("\0", " ")
