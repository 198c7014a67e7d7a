r"""Whether two different keys are one answer, as far as values tell; and what is left to the judge.

Points, intervals, sets, lists and matrices are compared element by element: the judge reads `(2,1)`
as an empty interval. Two exact numbers, or words, or numbers in another base, are equal only if
their keys are: the judge rounds, and reads `204_5` as 204.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from adapters.answers.canonical import is_product
from adapters.answers.expressions import settle, values
from adapters.answers.numbers import canonical_number
from adapters.answers.sequences import sequence, split

MAX_ELEMENTS = 32

_BASED = re.compile(r"[0-9a-zA-Z]+_(?:\w|\{\w+\})")
_CLOCK = re.compile(r"\d:\d")  # or a ratio
_WORDS = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(?P<rows>.*)\\end\{pmatrix\}", re.DOTALL)

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a key is built. Keys of different form are different answers."""

    form: str  # "one", "matrix <columns>", "(]", or "any order"
    elements: tuple[str, ...]


def obligations(first: str, second: str) -> Pairs | None:
    """What the judge must find equal for two different keys to be equal; None: they are not."""
    one, other = _shape(first), _shape(second)
    if one.form != other.form or len(one.elements) != len(other.elements):
        return None
    if one.form == "one":
        return _of_elements(first, second)
    elements = other.elements
    if one.form == "any order":
        aligned = _aligned(one.elements, elements)
        if aligned is None:
            return [(first, second)]
        elements = aligned
    pairs: Pairs = []
    for a, b in zip(one.elements, elements, strict=True):
        needed = [] if a == b else obligations(a, b)
        if needed is None:
            return None
        pairs.extend(needed)
    return pairs


def _of_elements(first: str, second: str) -> Pairs | None:
    if _is_settled(first) or _is_settled(second):
        return None
    if _is_exact(first) and _is_exact(second):
        return None
    if first.endswith("%") != second.endswith("%") or ("=" in first) != ("=" in second):
        return None
    equal = settle(first, second)
    if equal is None:
        return [(first, second)]
    return [] if equal else None


@lru_cache(maxsize=16_384)
def _is_exact(key: str) -> bool:
    return canonical_number(key) is not None


def _is_settled(key: str) -> bool:
    words = _WORDS.fullmatch(key) is not None and not is_product(key)
    return (
        words or "'" in key or _CLOCK.search(key) is not None or _BASED.fullmatch(key) is not None
    )


@lru_cache(maxsize=16_384)
def _shape(key: str) -> _Shape:
    matrix = _MATRIX.fullmatch(key)
    if matrix is not None and r"\begin" not in matrix["rows"]:
        rows = [row.split("&") for row in matrix["rows"].split(r"\\")]
        widths = " ".join(str(len(row)) for row in rows)
        return _Shape(f"matrix {widths}", tuple(cell for row in rows for cell in row))
    if r"\cup" in key:
        return _Shape("union", tuple(key.split(r"\cup")))
    found = sequence(key)
    if found is not None and found.left != r"\{":
        return _Shape(found.left + found.right, found.elements)
    inner = key[2:-2] if key.startswith(r"\{") and key.endswith(r"\}") else key
    elements = split(inner)
    if elements is None or not 1 < len(elements) <= MAX_ELEMENTS:
        return _Shape("one", (key,))
    return _Shape("any order", elements)


def _aligned(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    """`other` in the order that pairs it with `one`: by equality, then by value; None where some
    element has no value, or two are too close to be ordered.
    """
    order: list[str | None] = [key if key in other else None for key in one]
    left = [key for key in other if key not in one]
    places = [place for place, key in enumerate(order) if key is None]
    if len(left) != len(places):
        return None
    ranked = [_ranks([one[place] for place in places]), _ranks(left)]
    if ranked[0] is None or ranked[1] is None:
        return None
    for place, key in zip(ranked[0], ranked[1], strict=True):
        order[places[place]] = left[key]
    return tuple(key for key in order if key is not None)


def _ranks(keys: Sequence[str]) -> list[int] | None:
    """The places of the keys, ordered by their values."""
    found = [values(key) for key in keys]
    points = [None if v is None or v.is_equation else (v.at[0].real, v.at[0].imag) for v in found]
    known = [point for point in points if point is not None]
    if len(known) < len(keys):
        return None
    order = sorted(range(len(keys)), key=lambda place: known[place])
    close = any(abs(complex(*known[a]) - complex(*known[b])) < 1e-9 for a, b in pairwise(order))
    return None if close else order
