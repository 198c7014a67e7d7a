"""Stands in for vLLM in process tests: answers /health, and has a family that is hard to kill.

    python standin.py PORT PIDS_FILE [--refuse] [--stubborn]

At SIGUSR1 it closes its port, and hangs.

Below it are a child in its process group, one in a session of its own, and a grandchild whose
parent has exited. Each appends its pid to PIDS_FILE. `--refuse` exits with status 3 instead of
serving, `--stubborn` lets everyone ignore SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Health(BaseHTTPRequestHandler):
    """200 to everything."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Closing(BaseException):
    """SIGUSR1 came; not an Exception, which the server would swallow in mid-request."""


def close(_number: int, _frame: object) -> None:
    """The handler of SIGUSR1."""
    raise Closing


def note(pids: Path) -> None:
    """Append this process's id."""
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")


def fork(life: Callable[[], None]) -> int:
    """Run `life` in a child; its pid."""
    pid = os.fork()
    if pid == 0:
        life()
        os._exit(0)
    return pid


def main() -> int:
    """Be the engine."""
    port, pids = int(sys.argv[1]), Path(sys.argv[2])
    if "--refuse" in sys.argv:
        sys.stderr.write("no such device\n")
        return 3
    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def wait() -> None:
        note(pids)
        while True:
            signal.pause()

    def leave_group() -> None:
        os.setsid()
        wait()

    def leave_orphan() -> None:
        fork(leave_group)

    fork(wait)
    fork(leave_group)
    os.waitpid(fork(leave_orphan), 0)
    server = HTTPServer(("127.0.0.1", port), Health)
    while len(pids.read_text().split()) % 4 != 3:  # the three are there
        signal.sigtimedwait([], 0.01)
    signal.signal(signal.SIGUSR1, close)
    note(pids)
    try:
        server.serve_forever()
    except Closing:
        server.server_close()
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
