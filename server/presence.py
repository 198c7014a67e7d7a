"""The sign that users are being served: a file whose time of change says when it was last so.

Web processes set it while there is traffic; background work in other processes looks at it, and
yields. It costs a system call on both sides and needs no connection between them, only the data
directory that they share. A process that dies leaves a sign that is soon too old to mean anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Final

logger = logging.getLogger(__name__)

BEAT_S: Final = 0.2


def show(path: Path) -> None:
    """Say that users are being served now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def age_s(path: Path, now: Callable[[], float] = time) -> float:
    """Seconds since users were last served; infinite: never, or nobody knows."""
    try:
        return max(0.0, now() - path.stat().st_mtime)
    except OSError:
        return float("inf")


class Presence:
    """Shows the sign while `is_serving` says so. `arrived` is set whenever somebody came."""

    def __init__(self, path: Path, arrived: asyncio.Event, is_serving: Callable[[], bool]) -> None:
        self._path = path
        self._arrived = arrived
        self._is_serving = is_serving
        self._task: asyncio.Task[None] | None = None
        self._is_broken = False

    async def start(self) -> None:
        """Begin to show it."""
        self._task = asyncio.create_task(self._run(), name="presence")

    async def stop(self) -> None:
        """Show it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            if not self._is_serving():
                await self._arrived.wait()
            self._arrived.clear()
            try:
                await asyncio.to_thread(show, self._path)  # a disk may hang
                self._is_broken = False
            except OSError as error:
                if not self._is_broken:
                    logger.warning("background work does not see the traffic: %s", error)
                self._is_broken = True
            await asyncio.sleep(BEAT_S)
