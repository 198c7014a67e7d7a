"""The parent's side of the processes that read hostile text: long-lived, killed when late.

Whatever an answer does to sympy, or a text to a tenant's function, costs the caller at most the
deadline, and never the worker for good: the next question starts a new process.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

import adapters
from adapters.answers.judge import EQUAL, LATE, READY

JUDGE = (sys.executable, "-P", "-m", "adapters.answers.judge")
START_S = 60.0  # importing math-verify takes two seconds on an idle core
GRACE_S = 0.25  # what the worker's own alarm may be late before it is killed
MAX_REPLY = 65_536

Reply = TypeVar("Reply")


class JudgeFailed(Exception):
    """The worker process does not start; the message is safe to show."""


def entry_point_command(name: str) -> tuple[str, ...]:
    """What runs the function of that entry point."""
    return (sys.executable, "-P", "-m", "adapters.answers.entry_point", name)


class Worker:
    """One process, started when it is first needed. For one thread at a time.

    Args:
        command: what to run. It says "ready", then answers JSON lines with JSON lines: see
            `adapters.answers.judge` and `adapters.answers.entry_point`.
        needs: what is missing if it does not start.
    """

    def __init__(self, command: Sequence[str] = JUDGE, needs: str = "math-verify") -> None:
        self._command = command
        self._needs = needs
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """The running process, which is started if there is none; takes seconds then.

        Raises:
            JudgeFailed: it does not start.
        """
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = process = _spawn(self._command)
        if _read_line(process, START_S, str) != READY:
            self.close()
            raise JudgeFailed(f"a process for answers does not start: is {self._needs} installed?")
        return process

    def equal(self, first: str, second: str, seconds: float) -> bool | None:
        """Whether two answers are equal; None if that could not be told within `seconds`.

        Raises:
            JudgeFailed: the process does not start.
        """
        word = self.ask((first, second, seconds), seconds, str)
        return None if word is None or word == LATE else word == EQUAL

    def ask(self, question: object, seconds: float, expect: type[Reply]) -> Reply | None:
        """The reply to a question; None if none comes within `seconds`, and the process is ended.

        Raises:
            JudgeFailed: the process does not start.
        """
        process = self.start()
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            reply = None
        else:
            reply = _read_line(process, seconds + GRACE_S, expect)
        if reply is None:
            self.close()
        return reply

    def close(self) -> None:
        """Kill the process, if there is one. It holds no state worth an orderly end."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @property
    def process_id(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    root = str(Path(adapters.__file__).resolve().parent.parent)
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Nothing of ours: a process that reads hostile text needs no secrets.
        env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _read_line(
    process: subprocess.Popen[bytes], wait_s: float, expect: type[Reply]
) -> Reply | None:
    """One reply; None at the deadline, at the end of the stream, or for what is no reply."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + wait_s
    line = b""
    while not line.endswith(b"\n"):
        left_ms = (until - time.monotonic()) * 1000
        if left_ms <= 0 or len(line) > MAX_REPLY or not poll.poll(left_ms):
            return None
        chunk = os.read(descriptor, MAX_REPLY)
        if not chunk:
            return None
        line += chunk
    try:
        return msgspec.json.decode(line, type=expect)
    except msgspec.DecodeError:
        return None
