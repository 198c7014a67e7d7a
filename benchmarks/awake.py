"""Keeps the machine's cores awake while something is measured.

A core with nothing to do goes to sleep, a virtual one gives itself back to its host, and whoever
wakes it pays: caches are cold and the first microseconds are the hypervisor's. At 100 requests a
second that is a good part of what any server seems to take. Here each core always has something to
run, of the kernel's idle class, which is put aside at once when anything else wants the core.

`python -m benchmarks.awake CORE` spins on a core until it is terminated.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from benchmarks.result import ROOT
from benchmarks.serving import end


@contextmanager
def awake() -> Generator[None]:
    """No core sleeps during the block. Linux only."""
    with ExitStack() as stack:
        for core in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-m", "benchmarks.awake", str(core)]
            stack.callback(end, subprocess.Popen(command, cwd=ROOT, text=True))
        yield


def spin(core: int) -> None:
    """Never stop."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


if __name__ == "__main__":
    spin(int(sys.argv[1]))
