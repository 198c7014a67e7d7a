"""Answers as models write them: texts that must give one answer, and texts that must not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """`same`: texts with one and the same answer; `other`: with another one, or none."""

    name: str
    same: tuple[str, ...]
    other: tuple[str, ...] = ()
