"""Real loopback sockets for fakes: in the test's event loop, in a thread, in a process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import uvicorn

from tests.fakes.vllm import FakeVLLM


class _Server(uvicorn.Server):
    """Leaves signals to the test run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    return listener


def _server(app: Any) -> _Server:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )
    return _Server(config)


@contextlib.asynccontextmanager
async def serve(
    app: Any, *, port: int = 0, config: uvicorn.Config | None = None
) -> AsyncGenerator[str]:
    """Serve an ASGI app in this event loop; yields its URL. Leaving closes its connections."""
    listener = _listen(port)
    server = _server(app) if config is None else _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        for connection in list(server.server_state.connections):
            connection.shutdown()
        await task
        listener.close()


@contextlib.contextmanager
def serve_in_thread(app: Any, *, port: int = 0) -> Generator[str]:
    """Serve an ASGI app in a thread with an event loop of its own; yields its URL."""
    listener = _listen(port)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def serve_process(*args: str) -> Generator[str]:
    """Serve a `FakeVLLM` from a process of its own; yields its URL. `args`: see `main`."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.fakes.serving", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    """Serve one fake until terminated; its URL is the first line of the output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token-delay-s", type=float, default=0.0)
    parser.add_argument("--chunk-tokens", type=int, default=1)
    parser.add_argument("--answer", default=None, help="fixed answer of every model")
    parser.add_argument("--any-adapter", action="store_true", help="load paths without looking")
    options = parser.parse_args()
    fake = FakeVLLM(
        token_delay_s=options.token_delay_s,
        chunk_tokens=options.chunk_tokens,
        check_files=not options.any_adapter,
    )
    if options.answer is not None:
        fake.default_answer = options.answer
    listener = _listen(options.port)
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server = _server(fake)
    uvicorn.Server(server.config).run(sockets=[listener])


if __name__ == "__main__":
    main()
