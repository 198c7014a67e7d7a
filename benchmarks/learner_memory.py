"""What processes have had in memory, by Linux's own books."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MIB = 1024  # KiB


def reset_peak(pid: int) -> None:
    """Let the peak of a process's resident memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak_mib(pid: int) -> float:
    """The most that a process has had resident since then."""
    return _field(Path(f"/proc/{pid}/status"), "VmHWM:") / MIB


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, all threads, and of its helpers that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def helpers_mib(pid: int) -> float:
    """What the processes below this one have resident now that it does not share with them."""
    return sum(_rollup_kib(child, "Private_") for child in _descendants(pid)) / MIB


def descendants_mib(pid: int) -> float:
    """What all processes below this one have resident now, shared pages counted once."""
    return sum(_rollup_kib(child, "Pss:") for child in _descendants(pid)) / MIB


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: list[int] = []
    rest = [pid]
    while rest:
        below = children.get(rest.pop(), [])
        found.extend(below)
        rest.extend(below)
    return found


def _rollup_kib(pid: int, name: str) -> int:
    """The sum of the lines that begin so; 0 when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def _field(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
