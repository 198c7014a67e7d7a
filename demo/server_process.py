"""The server under demonstration: a child on a fresh data directory, ended on every way out."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO

import httpx

POLL_S = 0.5
TAIL_LINES = 40
PR_SET_PDEATHSIG = 1


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


class DataDirectory:
    """A fresh directory of its own: what an older demo left is removed, unless a server still runs
    there.

    The lock beside it is inherited by the server, so it is held for as long as either lives.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def open(self) -> int:
        """Lock and empty the directory; the lock's descriptor.

        Raises:
            DemoFailed: a demo or its server still runs there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock_path = self.path.with_suffix(".lock")
        self._lock = lock_path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise DemoFailed(f"A demo still runs in {self.path}: stop it first.") from None
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir()
        return self._lock.fileno()

    def close(self) -> None:
        """Let go of the lock; a server that still runs keeps it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class ServerProcess:
    """`ttrl-server serve` as a child. Use as an async context manager: leaving it stops the child
    and all of its own children.
    """

    def __init__(self, data_dir: Path, *, model: Path, port: int, stop_timeout_s: float) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = data_dir / "server.log"
        self._environment = server_environment(
            os.environ, data_dir=data_dir, model=model, port=port
        )
        self._stop_timeout_s = stop_timeout_s
        self._directory = DataDirectory(data_dir)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> ServerProcess:
        try:
            self._process = await self._spawn(self._directory.open())
        except BaseException:
            self._directory.close()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            await self._stop()
        finally:
            self._directory.close()

    @property
    def admin_key_path(self) -> Path:
        """Where the server wrote its admin key."""
        return self.data_dir / "admin.key"

    async def ready(self, timeout_s: float) -> None:
        """Wait until the server takes requests.

        Raises:
            DemoFailed: it ended, or took too long.
        """
        deadline = monotonic() + timeout_s
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            while not await _answers(client):
                self.check()
                if monotonic() > deadline:
                    raise DemoFailed(
                        f"The server was not ready in {timeout_s:.0f} s.\n{self.tail()}"
                    )
                await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Notice a server that has ended.

        Raises:
            DemoFailed: it has, with the last lines of its log.
        """
        if self._process is not None and self._process.returncode is not None:
            raise DemoFailed(f"The server ended with {self._process.returncode}.\n{self.tail()}")

    async def ended(self) -> None:
        """Wait until the server ends by itself."""
        assert self._process is not None
        await self._process.wait()

    def tail(self) -> str:
        """The last lines of the server's log."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join([f"The end of {self.log_path}:", *lines[-TAIL_LINES:]])

    async def _spawn(self, lock: int) -> asyncio.subprocess.Process:
        with self.log_path.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("ttrl-server")), "serve"),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is ours to handle, and the group is ours to end
                preexec_fn=_die_with_parent,
            )

    async def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._stop_timeout_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it left in its own group
        await process.wait()


def server_environment(
    inherited: Mapping[str, str], *, data_dir: Path, model: Path, port: int
) -> dict[str, str]:
    """This process's environment with the demo's settings, and no others of the server's."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("TTRL_")}
    return kept | {
        "TTRL_DATA_DIR": str(data_dir),
        "TTRL_HOST": "127.0.0.1",
        "TTRL_PORT": str(port),
        "TTRL_MODEL": str(model),
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def _die_with_parent() -> None:
    """In the child: end in good order even if the demo is killed and cannot end it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
