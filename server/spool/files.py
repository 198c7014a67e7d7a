"""Files of the spool: what is written is on the disk when a call returns."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendedFile:
    """A file that only grows, opened under its name, made if it is not there; private to us.

    Raises:
        OSError: from every method, as the system says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self.size = os.fstat(self._descriptor).st_size
        self._is_named = False

    def append(self, data: bytes) -> None:
        """Add the data, all or nothing as far as the disk still obeys: half of it is cut off."""
        try:
            self._write(data)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        os.fdatasync(self._descriptor)  # the file's new size too
        if not self._is_named:
            sync_directory(self.path.parent)
            self._is_named = True

    def close(self) -> None:
        """Close it; everything was synced before."""
        os.close(self._descriptor)


def append_once(path: Path, data: bytes) -> None:
    """Add data to the end of a file."""
    file = AppendedFile(path)
    try:
        file.append(data)
    finally:
        file.close()
