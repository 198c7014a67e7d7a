"""What the web process starts beside itself ends and fails without ending it."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest

from server import embedded
from server.config import Settings
from server.embedded import Embedded


async def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, third, ended = list[str](), asyncio.Event(), list[int]()
    start, kill = asyncio.create_subprocess_exec, os.kill

    async def starts(*_: str, **_options: object) -> asyncio.subprocess.Process:
        started.append("worker")
        if len(started) == 2:
            raise OSError(errno.EAGAIN, "no more processes")
        if len(started) == 3:
            third.set()
        return await start(sys.executable, "-c", "", stdin=asyncio.subprocess.PIPE)

    def kills(pid: int, number: int) -> None:
        if pid == os.getpid():
            ended.append(number)
            third.set()  # nothing else would come
        else:
            kill(pid, number)

    async def no_identity(_settings: Settings) -> None:
        pass

    monkeypatch.setattr(embedded.asyncio, "create_subprocess_exec", starts)
    monkeypatch.setattr(embedded, "ensure_identity", no_identity)
    monkeypatch.setattr(embedded, "FIRST_BACKOFF_S", 0.0)
    monkeypatch.setattr(embedded.os, "kill", kills)
    settings = Settings(data_dir=tmp_path, engine_urls=("http://engine",), worker=True)
    async with asyncio.timeout(60), Embedded(settings).running():
        await third.wait()
    assert not ended
    assert len(started) >= 3
