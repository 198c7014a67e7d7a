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
    """Processor seconds of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descendants_mib(pid: int) -> float:
    """What all processes below this one have resident now, shared pages counted once."""
    return sum(_proportional_kib(child) for child in _descendants(pid)) / MIB


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


def _proportional_kib(pid: int) -> int:
    try:
        return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
    except OSError:
        return 0


def _field(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
