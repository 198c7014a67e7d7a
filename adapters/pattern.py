"""Regular expressions from people we do not trust, in linear time.

Python's `re` backtracks: `(a|a)*b` takes exponential time, and nothing interrupts it. This runs the
part of its language that has linear-time semantics: everything but look-around, back references,
conditions, atomic groups and possessive repeats. A pattern is parsed by `re` itself and compiled to
a small program; the search is backtracking in the order of `re`, so it finds the same match and
the same groups, but it never visits a (program counter, position) pair twice, because what failed
there once fails again. That bounds it by program size times text length; a budget of steps bounds
it further.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

MAX_PATTERN = 500  # characters
MAX_PROGRAM = 2000  # instructions, after counted repeats are written out

# `re` has no public parser. These two modules are its own, under these names from Python 3.11 on.
_parser: Any = import_module("re._parser")
_compiler: Any = import_module("re._compiler")
_LEAVES = frozenset(("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"))
_REPEATS = frozenset(("MAX_REPEAT", "MIN_REPEAT"))
_REFUSED = {
    "ASSERT": "look-ahead and look-behind",
    "ASSERT_NOT": "look-ahead and look-behind",
    "GROUPREF": "back references",
    "GROUPREF_EXISTS": "conditions on groups",
    "ATOMIC_GROUP": "atomic groups",
    "POSSESSIVE_REPEAT": "possessive repeats",
}


class UnsupportedPattern(ValueError):
    """Not a regular expression, or not one that runs in linear time; safe to show."""


class _Chunk(NamedTuple):
    """Characters and anchors in a row: a fixed width, so `re` cannot backtrack in it."""

    pattern: re.Pattern[str]


class _Split(NamedTuple):
    """Go on at `first`; if that fails, at `second`."""

    first: int
    second: int


class _Save(NamedTuple):
    """The position is an end of a group."""

    slot: int


class _Jump(NamedTuple):
    target: int


class _Accept(NamedTuple):
    pass


_Instruction = _Chunk | _Split | _Save | _Jump | _Accept
_Captures = tuple[int, int, Any] | None  # slot, position, what was captured before


@dataclass(slots=True)
class Steps:
    """How many steps searches may still take. A search that runs out finds nothing."""

    left: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern."""

    program: tuple[_Instruction, ...]
    groups: Mapping[str, int]
    num_groups: int

    def search(self, text: str, steps: Steps) -> dict[str, str] | None:
        """The named groups of the leftmost match, "" for those that took no part; None if there is
        no match.
        """
        visited: set[int] = set()
        for start in self._starts(text, steps):
            captures = self._run(text, start, visited, steps)
            if captures is not None:
                return _group_texts(text, captures, self.groups)
        return None

    def finditer(self, text: str, steps: Steps) -> Iterator[dict[int, tuple[int, int]]]:
        """Matches from left to right that do not overlap, as the spans of their groups by number,
        0 being all of it. As `re.finditer`, but that after an empty match it goes on one character
        further. Linear as a whole: what failed for one match is not tried again for the next.
        """
        visited: set[int] = set()
        position = 0
        while position <= len(text):
            for start in self._starts(text, steps, position):
                captures = self._run(text, start, visited, steps)
                if captures is not None:
                    break
            else:
                return
            spans = _group_spans(captures)
            yield spans
            start, end = spans[0]
            position = end if end > start else end + 1
            # What led to this match did not fail, so it may lead to the next one. Only states at
            # its end matter: no later match looks at an earlier position.
            steps.left -= len(self.program)
            width = len(text) + 1
            visited.difference_update(
                counter * width + position for counter in range(len(self.program))
            )

    def _starts(self, text: str, steps: Steps, position: int = 0) -> Iterator[int]:
        """Where a match may begin; found fast where the pattern begins with a chunk."""
        first = next((part for part in self.program if not isinstance(part, _Save)), None)
        while position <= len(text) and steps.left > 0:
            steps.left -= 1
            if isinstance(first, _Chunk):
                match = first.pattern.search(text, position)
                if match is None:
                    return
                position = match.start()
            yield position
            position += 1

    def _run(self, text: str, start: int, visited: set[int], steps: Steps) -> _Captures:
        """The captures of the match at `start`; never empty, because the match itself is one."""
        program, width = self.program, len(text) + 1
        stack: list[tuple[int, int, _Captures]] = [(0, start, None)]
        while stack and steps.left > 0:
            counter, position, captures = stack.pop()
            while (steps.left > 0) and (state := counter * width + position) not in visited:
                visited.add(state)
                steps.left -= 1
                part = program[counter]
                counter += 1
                if isinstance(part, _Chunk):
                    match = part.pattern.match(text, position)
                    if match is None:
                        break
                    position = match.end()
                elif isinstance(part, _Save):
                    captures = (part.slot, position, captures)
                elif isinstance(part, _Split):
                    stack.append((part.second, position, captures))
                    counter = part.first
                elif isinstance(part, _Jump):
                    counter = part.target
                else:
                    return captures
        return None


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Pattern:
    """Compile, or refuse.

    Raises:
        UnsupportedPattern: with the reason.
    """
    if len(pattern) > MAX_PATTERN:
        raise UnsupportedPattern(f"longer than {MAX_PATTERN} characters")
    try:
        parsed = _parser.parse(pattern, 0)
        program = _Program(parsed.state.flags)
        program.emit_group(0, parsed, parsed.state.flags)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise UnsupportedPattern(str(error) or "nested too deeply") from None
    program.add(_Accept())
    return Pattern(tuple(program.parts), dict(parsed.state.groupdict), parsed.state.groups - 1)


class _Program:
    """Instructions while they are written."""

    def __init__(self, flags: int) -> None:
        self.parts: list[_Instruction] = []
        self._flags = flags

    def add(self, part: _Instruction) -> int:
        if len(self.parts) >= MAX_PROGRAM:
            raise UnsupportedPattern("too large: its counted repeats add up to too much")
        self.parts.append(part)
        return len(self.parts) - 1

    def emit_group(self, group: int | None, items: Any, flags: int) -> None:
        if group is not None:
            self.add(_Save(2 * group))
        self.emit(items, flags)
        if group is not None:
            self.add(_Save(2 * group + 1))

    def emit(self, items: Any, flags: int) -> None:
        leaves: list[Any] = []
        for item in items:
            name = str(item[0])
            if name in _LEAVES:
                leaves.append(item)
                continue
            self._emit_leaves(leaves, flags)
            leaves = []
            self._emit_node(name, item[1], flags)
        self._emit_leaves(leaves, flags)

    def _emit_leaves(self, leaves: list[Any], flags: int) -> None:
        if leaves:
            state = _parser.State()
            state.flags = flags
            self.add(_Chunk(_compiler.compile(_parser.SubPattern(state, leaves), flags)))

    def _emit_node(self, name: str, argument: Any, flags: int) -> None:
        if name == "SUBPATTERN":
            group, added, removed, items = argument
            self.emit_group(group, items, (flags | added) & ~removed)
        elif name == "BRANCH":
            self._emit_branches(argument[1], flags)
        elif name in _REPEATS:
            low, high, items = argument
            self._emit_repeat(low, high, items, flags, greedy=name == "MAX_REPEAT")
        else:
            raise UnsupportedPattern(f"{_REFUSED.get(name, name.lower())} are not supported")

    def _emit_branches(self, branches: list[Any], flags: int) -> None:
        jumps: list[int] = []
        for branch in branches[:-1]:
            split = self.add(_Jump(0))
            self.emit(branch, flags)
            jumps.append(self.add(_Jump(0)))
            self.parts[split] = _Split(split + 1, len(self.parts))
        self.emit(branches[-1], flags)
        for jump in jumps:
            self.parts[jump] = _Jump(len(self.parts))

    def _emit_repeat(self, low: int, high: int, items: Any, flags: int, *, greedy: bool) -> None:
        unbounded = high == _parser.MAXREPEAT
        if high > 1 and items.getwidth()[0] == 0:
            raise UnsupportedPattern("what is repeated must not be able to match nothing")
        for _ in range(low):
            self.emit(items, flags)
        if unbounded:
            loop = self.add(_Jump(0))
            self.emit(items, flags)
            self.add(_Jump(loop))
            self._set_split(loop, len(self.parts), greedy=greedy)
            return
        splits: list[int] = []
        for _ in range(high - low):
            splits.append(self.add(_Jump(0)))
            self.emit(items, flags)
        for split in splits:
            self._set_split(split, len(self.parts), greedy=greedy)

    def _set_split(self, at: int, end: int, *, greedy: bool) -> None:
        self.parts[at] = _Split(at + 1, end) if greedy else _Split(end, at + 1)


def _group_texts(text: str, captures: _Captures, groups: Mapping[str, int]) -> dict[str, str]:
    """The text of each named group."""
    spans = _group_spans(captures)
    return {name: text[slice(*spans.get(number, (0, 0)))] for name, number in groups.items()}


def _group_spans(captures: _Captures) -> dict[int, tuple[int, int]]:
    """Where each group that took part lies; of captures of one slot the newest counts."""
    ends: dict[int, int] = {}
    while captures is not None:
        slot, position, captures = captures
        ends.setdefault(slot, position)
    return {slot // 2: (ends[slot - 1], position) for slot, position in ends.items() if slot % 2}
