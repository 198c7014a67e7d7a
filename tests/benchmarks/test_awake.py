from __future__ import annotations

import os
from pathlib import Path

from benchmarks.awake import awake


def _spinning() -> int:
    """Processes of this one that spin."""
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended meanwhile
            continue
        found += b"benchmarks.awake" in command and int(parent) == os.getpid()
    return found


def test_every_core_has_something_to_do_until_the_block_ends() -> None:
    with awake():
        assert _spinning() == len(os.sched_getaffinity(0))
    assert _spinning() == 0
