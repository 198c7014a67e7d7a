"""The label that a text gives, out of a fixed set.

A box or a marked statement decides where it names one label. Otherwise the last label that the text
mentions counts, as whole words in any case, with and without the dot of an i; not one that is
denied ("not positive"), nor one of a question or of alternatives that were left open ("positive or
negative").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from adapters.answers.latex import clean
from adapters.answers.marks import boxed, statements

_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|without|than|instead\s+of|isn['’]t|wasn['’]t|aren['’]t|n['’]t"
    r"|cannot\s+be|no\s+longer)\s+(?:\w+\s+){0,1}|\bnon[- ])[\"'“*_]*$",
    re.IGNORECASE,
)
_OPEN = re.compile(r"[\s\"'”*_,]*(?:or|/|and/or)[\s\"'“*_]*", re.IGNORECASE)
_QUESTION = re.compile(r"[^.!\n]*\?")
_BEFORE = 40  # characters in front of a label that are looked at for a denial


def label_answer(text: str, labels: Sequence[str]) -> str | None:
    """The label, spelt as in the set, or None."""
    names = tuple(labels)
    for marked in (boxed(text), *statements(text)):
        if marked is None or marked.endswith("?"):
            continue
        plain = clean(marked)
        whole = canonical_label(plain, names)
        found = whole or _last_mentioned(plain, names, alone=True)
        if found is not None:
            return found
    return _last_mentioned(text, names, alone=False)


def canonical_label(answer: str, labels: Sequence[str]) -> str | None:
    """The label of the set that the answer is, in any case; None if it is none."""
    return _named(answer.strip(" \t\r\n.,;:!*_`\"'“”()[]{}$"), tuple(labels))


def _last_mentioned(text: str, labels: tuple[str, ...], *, alone: bool) -> str | None:
    """The last label that is affirmed; `alone`: only if no other one is."""
    affirmed: list[tuple[str, int, int]] = []
    for match in _pattern(labels).finditer(text):
        label = _named(match[0], labels)
        denied = _DENIED.search(text, max(0, match.start() - _BEFORE), match.start())
        if label is not None and not denied:
            affirmed.append((label, match.start(), match.end()))
    if not affirmed or (alone and len({name for name, _, _ in affirmed}) > 1):
        return None
    name, start, end = affirmed[-1]
    if _QUESTION.match(text, end):
        return None
    if len(affirmed) > 1:
        other, _, before = affirmed[-2]
        if other != name and _OPEN.fullmatch(text, before, start):
            return None
    return name


@lru_cache(maxsize=256)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Any label as whole words, the longest first; a space may be an underscore or a hyphen."""
    ordered = sorted(labels, key=len, reverse=True)
    names = (r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", label))) for label in ordered)
    return re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)", re.IGNORECASE)


def _named(mention: str, labels: tuple[str, ...]) -> str | None:
    names, folded = _by_name(labels), _folded(mention)
    return names.get(folded) or names.get(_undotted(folded))


@lru_cache(maxsize=256)
def _by_name(labels: tuple[str, ...]) -> dict[str, str]:
    """The labels by what they are folded to; those that differ by a dot alone stay apart."""
    folded = {_folded(label): label for label in reversed(labels)}
    return {_undotted(name): label for name, label in folded.items()} | folded


def _folded(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).casefold()


def _undotted(folded: str) -> str:
    """With one i for all four: `re.IGNORECASE` takes them for each other, `casefold` does not."""
    return folded.replace("i\u0307", "i").replace("ı", "i")
