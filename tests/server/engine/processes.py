"""Looking at processes from tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE_S = 30.0


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition of the outside world; False when it did not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def all_gone(pids: Iterable[int]) -> bool:
    """Wait until none of the processes runs."""
    left = list(pids)
    return until(lambda: not any(map(is_alive, left)))


def pids_in(path: Path) -> list[int]:
    """The pids that stand-ins wrote down."""
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def environment_of(pid: int) -> set[str]:
    """The names of the variables that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry.partition(b"=")[0].decode() for entry in entries if entry}
