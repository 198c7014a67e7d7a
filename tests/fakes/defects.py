"""Defects of the code that reads answers, where a real one would be."""

from __future__ import annotations

from typing import Literal

import pytest

from adapters.answers import AnswerKind, AnswerSpec, equivalence


def break_on(
    monkeypatch: pytest.MonkeyPatch, name: Literal["canonical", "extract"], text: str
) -> None:
    """From now on this function fails where it meets this very text."""
    whole = getattr(equivalence, name)

    def broken(given: str, spec: AnswerSpec | AnswerKind) -> str | None:
        if given == text:
            raise OverflowError("absolute value too large")
        return whole(given, spec)

    monkeypatch.setattr(equivalence, name, broken)
