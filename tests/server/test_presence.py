from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from server import presence
from server.presence import Presence, age_s, show
from tests.waiting import until


def test_a_sign_that_was_never_shown_is_infinitely_old(tmp_path: Path) -> None:
    assert age_s(tmp_path / "serving") == float("inf")


def test_a_sign_is_as_old_as_its_last_showing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "serving"
    show(path)
    shown = path.stat().st_mtime
    assert age_s(path, lambda: shown + 3) == pytest.approx(3)
    assert age_s(path, lambda: shown - 3) == 0


async def test_it_is_shown_for_as_long_as_somebody_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0)
    shown, serving, arrived = [0], [False], asyncio.Event()
    monkeypatch.setattr(presence, "show", lambda _path: shown.__setitem__(0, shown[0] + 1))
    sign = Presence(tmp_path / "serving", arrived, lambda: serving[0])
    await sign.start()
    serving[0] = True
    arrived.set()
    await until(lambda: shown[0] >= 3)
    serving[0] = False
    await until(lambda: not arrived.is_set())
    await sign.stop()
    assert not arrived.is_set()


async def test_somebody_who_was_served_at_once_is_seen_too(tmp_path: Path) -> None:
    arrived, path = asyncio.Event(), tmp_path / "serving"
    sign = Presence(path, arrived, lambda: False)
    await sign.start()
    arrived.set()
    await until(path.exists)
    await sign.stop()


async def test_a_disk_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0)
    (tmp_path / "file").touch()
    tries = [0]

    def is_serving() -> bool:
        tries[0] += 1
        return True

    with caplog.at_level(logging.WARNING):
        sign = Presence(tmp_path / "file" / "serving", asyncio.Event(), is_serving)
        await sign.start()
        await until(lambda: tries[0] > 3)
        await sign.stop()
    assert len(caplog.records) == 1
