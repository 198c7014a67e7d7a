r"""The canonical key of an answer: most equal answers get equal keys without any algebra.

Numbers become exact fractions, words lose their case, lists are taken apart, `\pm` becomes two
elements, inequalities become intervals, and LaTeX loses what only changes its looks. A key is
readable, and is its own key. What is left to algebra (`\frac{\sqrt{3}}{3}` and
`\frac{1}{\sqrt{3}}`) is for `adapters.answers.equivalence`.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from adapters.answers.choices import choice_letter
from adapters.answers.documents import canonical_document
from adapters.answers.equations import (
    are_rays_apart,
    as_interval,
    both_signs,
    unassigned,
    values_of_one,
)
from adapters.answers.expressions import values
from adapters.answers.labels import canonical_label
from adapters.answers.latex import clean
from adapters.answers.numbers import canonical_number, parse_number
from adapters.answers.sequences import sequence, singleton, split
from adapters.answers.spec import AnswerKind, AnswerSpec, as_spec

PASSES = 4  # garbage may need more than one to become its own key; answers do not
DEPTH = 3  # lists in lists that are taken apart
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'’.-]+[^\W\d_]+)*")
_BUILT = re.compile(
    r"\\\{\s*(?P<name>[a-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]\s*(?P<what>[^{}|]*)\\\}"
)
_PRODUCT = re.compile("[a-d]{2,3}|[u-z]{2,3}|mn|pq|qr|rs|st")  # of variables; no words
_LETTER_THEN_TEXT = re.compile(
    r"(?:\\text\s*\{\s*)?(?:\((?P<round>[A-J])\)|(?P<bare>[A-J])[).:])\s*\}?(?:\\?\s)[\s~]*\S"
)
_NAMED_OPTION = re.compile(r"(?:option|choice)\s*:?\s*\(?(?P<letter>[A-Ja-j])\)?", re.IGNORECASE)
_ANY_LETTER = re.compile(r"(?<![\w(])\(?[A-J][).](?=\s)")
_KEPT_SPACE = re.compile(r"(?<=[a-zA-Z])\s+(?=[a-zA-Z0-9])|(?<=[0-9])\s+(?=[0-9])")
_SPACE = re.compile(r"\s+")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(?P<rows>.*)\\end\{pmatrix\}", re.DOTALL)
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


def canonical(answer: str, spec: AnswerSpec | AnswerKind) -> str | None:
    """The key of an answer, or None if it is no answer of that kind. Never raises for a string."""
    spec = as_spec(spec)
    match spec.kind:
        case "auto" | "math":
            return _of_formula(answer, with_options=spec.kind == "auto")
        case "number":
            return _of_number(unassigned(clean(answer)))
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
    key = _key(unassigned(text), DEPTH)
    for _ in range(PASSES):
        previous, key = key, _key(unassigned(clean(key or "")), DEPTH)
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


def is_product(text: str) -> bool:
    """Whether letters are a product of variables rather than a word: `xy`, `a b`."""
    return _PRODUCT.fullmatch(text.replace(" ", "")) is not None


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
        interval = as_interval(text)
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


def _list_key(text: str, depth: int) -> str | None:
    """The key of a point, an interval, a set, a bare list, or one thing in needless brackets."""
    inner = _in_needless_brackets(text, depth)
    if inner is not None:
        return inner
    found = sequence(text) or singleton(text)
    elements = found.elements if found else split(text)
    if elements is None:
        return None
    loose = found is None or found.left == r"\{"
    if loose:
        elements = values_of_one(
            tuple(part for element in elements for part in both_signs(element))
        )
    if len(elements) < 2 and found is None:
        return None
    keys = [_key(element, depth) for element in elements]
    if any(key is None for key in keys):
        return None
    named = [key for key in keys if key is not None]
    if found is None:
        by = r"\cup" if are_rays_apart(named) else ","
        return by.join(sorted(named)) if len(set(named)) > 1 else named[0]  # 3/4 or 0.75
    if loose:
        named = sorted(set(named))
    return f"{found.left}{','.join(named)}{found.right}"


def _in_needless_brackets(text: str, depth: int) -> str | None:
    if not (text.startswith("(") and text.endswith(")")):
        return None
    inner = _key(text[1:-1], depth) if len(split(text[1:-1]) or ()) == 1 else None
    plain = inner is not None and (len(inner) == 1 or canonical_number(inner) is not None)
    return inner if plain else None


def _compact(text: str) -> str:
    """Without spaces, but for those that keep two words or two numbers apart."""
    return _SPACE.sub("", _KEPT_SPACE.sub("\0", text)).replace("\0", " ")
