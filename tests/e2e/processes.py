"""Processes as /proc shows them: who descends from whom, who runs what, who is still alive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `started` (in clock ticks) tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: int
    command: str

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        state, _, started = _stat(self.pid)
        return started == self.started and state not in "ZX"

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def descendants(root: int) -> list[Process]:
    """All living processes below `root`."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return found


def process(pid: int) -> Process:
    """The process with this id.

    Raises:
        ProcessLookupError: there is none.
    """
    state, parent, started = _stat(pid)
    if state in "ZX":
        raise ProcessLookupError(pid)
    return Process(pid, parent, started, _command(pid))


def _all() -> Iterator[Process]:
    for folder in PROC.glob("[0-9]*"):
        with suppress(ProcessLookupError):
            yield process(int(folder.name))


def _stat(pid: int) -> tuple[str, int, int]:
    """State, parent and start time; state X when there is no such process."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0, -1
    return fields[0], int(fields[1]), int(fields[19])


def _command(pid: int) -> str:
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        raise ProcessLookupError(pid) from None
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()
