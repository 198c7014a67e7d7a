"""What an answer is to a tenant: its kind, and what that kind needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters.pattern import compile_pattern

AnswerKind = Literal["auto", "math", "number", "choice", "label", "json", "regex", "text", "python"]

MAX_ANSWER = 512  # characters; a longer formula, number or option is none
MAX_LONG_ANSWER = 4096  # the same for a JSON document, a text, a match, or what an entry point says


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """A kind of answer with its options; the fields beyond `kind` are for the kind they name.

    Raises:
        ValueError: the option that the kind needs is missing, or the pattern is not supported.
    """

    kind: AnswerKind
    labels: tuple[str, ...] = ()  # label: all that may be answered
    field: str | None = None  # json: dotted path; None: the whole document
    pattern: str | None = None  # regex: its last match is the answer
    entry_point: str | None = None  # python: a name in the group `ttrl.answers`

    def __post_init__(self) -> None:
        needed = {"label": "labels", "regex": "pattern", "python": "entry_point"}.get(self.kind)
        if needed is not None and not getattr(self, needed):
            raise ValueError(f"answer kind {self.kind!r} needs {needed}")
        if self.kind == "regex" and self.pattern is not None:
            compile_pattern(self.pattern)

    @property
    def longest(self) -> int:
        """Most characters of an answer of this kind."""
        return MAX_ANSWER if self.has_algebra or self.kind in _SHORT else MAX_LONG_ANSWER

    @property
    def has_algebra(self) -> bool:
        """Whether equal answers may look different in ways that only algebra finds."""
        return self.kind in ("auto", "math")


_SHORT = frozenset(("number", "choice", "label"))


def as_spec(kind: AnswerKind | AnswerSpec) -> AnswerSpec:
    """A kind without options as a spec. Raises ValueError if it needs some."""
    return kind if isinstance(kind, AnswerSpec) else AnswerSpec(kind)
