"""Servers of a benchmark, each in a process of its own, on a free loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import SO_REUSEPORT, SOL_SOCKET, socket

import uvicorn
from starlette.types import ASGIApp

from benchmarks.result import ROOT

STOP_S = 20


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves."""

    url: str
    pid: int

    @property
    def rss_mib(self) -> float:
        """What it holds in memory. Linux only."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"process {self.pid} has ended")

    @property
    def cpu_s(self) -> float:
        """The processor time that it has used. Linux only."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def listen(port: int) -> socket:
    """A loopback port (0: a free one) whose URL is printed. A given one may be shared with other
    processes that give it.
    """
    listener = socket()
    if port:
        listener.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return listener


def serve_forever(app: ASGIApp) -> None:
    """Serve an app with as little around it as there can be; its URL is the first line printed."""
    listener = listen(0)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def serving(module: str, *args: str) -> Generator[str]:
    """Run `python -m module` for the block; yields the URL that it prints."""
    with running(module, *args) as server:
        yield server.url


@contextmanager
def running(module: str, *args: str) -> Generator[Server]:
    """As `serving`, with the process."""
    command = [sys.executable, "-m", module, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{module} did not start")
            yield Server(url, process.pid)
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Stop a server; what does not want to is killed."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
