"""Servers of a benchmark, each in a process of its own, on a free loopback port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from socket import socket

import uvicorn
from starlette.types import ASGIApp

from benchmarks.result import ROOT


def serve_forever(app: ASGIApp) -> None:
    """Serve the app as the product is served; its URL is the first line printed."""
    listener = socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
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
    command = [sys.executable, "-m", module, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{module} did not start")
            yield url
        finally:
            process.terminate()
