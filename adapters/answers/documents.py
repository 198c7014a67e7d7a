"""A value in the JSON document that a response holds.

Looked at, in this order: the whole text, its code fences from the last to the first, and the
documents that stand in the text itself. Reading is linear: failed attempts spend a budget that is
proportional to the text. Numbers keep their exact value; NaN and Infinity are no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, cast

MAX_DIGITS = 400  # a longer number, or one with a larger exponent, keeps its spelling

_FENCE = re.compile(r"```[ \t]*[\w+-]{0,20}[ \t]*\n(?P<body>.*?)```", re.DOTALL)
_START = re.compile(r"\{(?=\s{0,80}[\"}])|\[(?=\s{0,80}[\[\]{\"\d\-tfn])")
_MIN_COST = 256  # of an attempt, in characters
_MISSING = object()


class _Number(str):
    """A JSON number in its normal spelling."""

    __slots__ = ()


def document_answer(text: str, field: str | None) -> str | None:
    """The canonical JSON of the value at `field` in the last document that has it, else None.

    Args:
        text: a response.
        field: a dotted path such as `result.items.0.name`; None is the whole document. A value of
            null is no answer.
    """
    for document in _documents(text):
        value = _at(document, field)
        if value is not _MISSING and value is not None:
            return encode(value)
    return None


def canonical_document(answer: str) -> str:
    """JSON with sorted keys and normal numbers; what is no JSON is taken as a string."""
    value = _parse(answer)
    return encode(answer.strip() if value is _MISSING else value)


def encode(value: Any) -> str:
    """Compact JSON, keys sorted, `1.0` and `1e0` as `1`."""
    try:
        return _encoded(value)
    except RecursionError:  # as deep as the parser let it be
        return ""


def _encoded(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        names = sorted(items)
        pairs = (
            f"{json.dumps(name, ensure_ascii=False)}:{_encoded(items[name])}" for name in names
        )
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_encoded, cast("list[Any]", value))) + "]"
    return json.dumps(value, ensure_ascii=False)


def _documents(text: str) -> Iterator[Any]:
    whole = _parse(text)
    if whole is not _MISSING:
        yield whole
        return
    for fence in reversed(list(_FENCE.finditer(text))):
        inside = _parse(fence["body"])
        if inside is not _MISSING:
            yield inside
    yield from reversed(list(_scattered(text)))


def _scattered(text: str) -> Iterator[Any]:
    budget = max(4 * len(text), 1024 * _MIN_COST)
    position = 0
    while budget > 0 and (start := _START.search(text, position)):
        try:
            value, position = _DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            budget -= max(error.pos - start.start(), _MIN_COST)
            position = start.end()
        except (ValueError, RecursionError):
            budget -= max(len(text), _MIN_COST)
            position = start.end()
        else:
            yield value


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return _MISSING


def _at(document: Any, field: str | None) -> Any:
    found: Any = document
    for name in () if field is None else field.split("."):
        if isinstance(found, dict):
            found = cast("dict[str, Any]", found).get(name, _MISSING)
        elif isinstance(found, list) and re.fullmatch(r"-?\d{1,9}", name, re.ASCII):
            items, index = cast("list[Any]", found), int(name)
            found = items[index] if -len(items) <= index < len(items) else _MISSING
        else:
            return _MISSING
    return found


def _number(spelling: str) -> _Number:
    try:
        number = Decimal(spelling)
    except InvalidOperation:
        return _Number(spelling)
    if len(spelling) > MAX_DIGITS or abs(number.adjusted()) > MAX_DIGITS:
        return _Number(spelling)
    plain = format(number, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return _Number("0" if plain in ("-0", "") else plain)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    parse_float=_number, parse_int=_number, parse_constant=_no_number, strict=False
)
