"""Runs one command, and takes it and all its descendants down when its owner is gone.

    python -m server.engine.guard [--fd N] [--grace-s S] -- command...

The owner holds the other end of a pipe: the guard's standard input, or file descriptor N (then the
command inherits standard input). End of file on it means that the owner has stopped or died, by
`kill -9` too: the command's whole tree gets SIGTERM, and after the grace period SIGKILL. What a
command that ends by itself leaves behind is ended too, with less grace. The guard's exit status is
the command's (128 + signal when a signal ended it). On Linux the guard adopts orphaned descendants,
so one that left the process group is found as well, and the kernel sends SIGTERM to the command
should the guard itself be killed. The guard leads a session, so its owner can also end what a
killed guard left behind: `end_session(pid of the guard)`.

Standard library only: it starts in milliseconds and runs before anything else is imported.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0
ORPHAN_GRACE_S = 2.0  # of what a command that has ended leaves: it has nothing to finish any more
RESCAN_S = 0.05
EXEC_FAILED = 127


def guarded(argv: Sequence[str], *, fd: int | None = None, grace_s: float = GRACE_S) -> list[str]:
    """The command line that runs `argv` under a guard."""
    lifeline = [] if fd is None else ["--fd", str(fd)]
    own = [sys.executable, "-I", "-S", __file__, *lifeline, "--grace-s", str(grace_s)]
    return [*own, "--", *argv]


def end_session(session: int) -> None:
    """Kill every process of a session: what a killed guard, its leader, has left. Linux only."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(_stat(stat)[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)


def main() -> int:
    """Run the command until it ends or the owner goes; returns its exit status."""
    parser = argparse.ArgumentParser(prog="guard")
    parser.add_argument("--fd", type=int, default=0)
    parser.add_argument("--grace-s", type=float, default=GRACE_S)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup = _wake_on_signals()
    child = _spawn(options.command, keep_stdin=options.fd != 0, close=options.fd)
    status = _wait(child, options.fd, wakeup)
    orphan_grace_s = min(options.grace_s, ORPHAN_GRACE_S)
    left = _end_tree(child, options.grace_s if status is None else orphan_grace_s)
    return _exit_code(left if status is None else status)


def _exit_code(status: int | None) -> int:
    if status is None:
        return 1
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wake_on_signals() -> int:
    """A descriptor that becomes readable at SIGCHLD, SIGTERM, SIGINT and SIGHUP."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return readable


def _spawn(command: Sequence[str], *, keep_stdin: bool, close: int) -> int:
    """Start the command as the leader of its own process group; its pid."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        # SIGTERM, so that the command can still end its own children: nobody else would.
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:  # it died before the line above
            os._exit(EXEC_FAILED)
        if keep_stdin:
            os.close(close)
        else:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"guard: {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(EXEC_FAILED)


def _wait(child: int, lifeline: int, wakeup: int) -> int | None:
    """Until the command ends (its wait status), or the owner goes or a signal asks (None)."""
    while True:
        readable, _, _ = select.select([lifeline, wakeup], [], [])
        if lifeline in readable and not os.read(lifeline, 4096):
            return None
        if wakeup in readable:
            numbers = os.read(wakeup, 4096)
            if (status := _reap(child)) is not None:
                return status
            if set(numbers) - {signal.SIGCHLD}:
                return None


def _reap(child: int) -> int | None:
    """Collect all dead children, adopted ones too; the command's wait status if it is there."""
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def _end_tree(child: int, grace_s: float) -> int | None:
    """End everything that is left; the command's wait status if it ended here."""
    found = None
    _signal_all(child, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _has_children():
        if time.monotonic() >= deadline:
            _signal_all(child, signal.SIGKILL)
        time.sleep(RESCAN_S)
        status = _reap(child)
        found = status if status is not None else found
    return found


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _signal_all(child: int, number: int) -> None:
    targets = _descendants(os.getpid())
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)
    for pid in targets:
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != child:
                os.kill(pid, number)


def _stat(path: Path) -> list[str]:
    """Fields of a /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    return path.read_text().rpartition(")")[2].split()


def _descendants(root: int) -> list[int]:
    """All processes below `root`; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat(stat)[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


if __name__ == "__main__":
    sys.exit(main())
