"""The supervisor with a stand-in for vLLM; tests/e2e/test_engine.py has the real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from server.config import SECRETS, Settings
from server.engine import supervisor as supervisor_module
from server.engine.launch import EngineCommand
from server.engine.supervisor import EngineSupervisor
from server.errors import EngineUnavailable
from tests.server.engine.processes import all_gone, environment_of, is_alive, pids_in, until

STANDIN = Path(__file__).with_name("standin.py")
OWNER = Path(__file__).with_name("owner.py")


def supervisor(tmp_path: Path, *flags: str, timeout_s: float = 30) -> EngineSupervisor:
    settings = Settings(
        data_dir=tmp_path, engine_restart_backoff_s=0.01, engine_start_timeout_s=timeout_s
    )

    def command(port: int) -> EngineCommand:
        pids = str(tmp_path / "pids")
        return EngineCommand((sys.executable, str(STANDIN), str(port), pids, *flags), {})

    (tmp_path / "pids").touch()
    return EngineSupervisor(settings, make_command=command)


async def test_it_starts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = supervisor(tmp_path)
    await engine.start()
    assert engine.state == "running"
    async with httpx.AsyncClient() as client:
        assert (await client.get(engine.url + "/health")).status_code == 200
    guard = engine.pid
    assert guard is not None
    await engine.stop()
    await engine.stop()
    assert engine.state == "stopped"
    assert all_gone([guard, *pids_in(tmp_path / "pids")])


async def test_it_never_sees_the_servers_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "x")
    engine = supervisor(tmp_path)
    await engine.start()
    seen = [environment_of(pid) for pid in pids_in(tmp_path / "pids")]
    await engine.stop()
    assert seen
    assert not any(names & set(SECRETS) for names in seen)


async def test_a_killed_engine_comes_back_at_the_same_url(tmp_path: Path) -> None:
    engine = supervisor(tmp_path)
    await engine.start()
    try:
        first = pids_in(tmp_path / "pids")
        os.kill(first[-1], signal.SIGKILL)
        came_back = await asyncio.to_thread(until, lambda: len(pids_in(tmp_path / "pids")) == 8)
        assert came_back
        assert await asyncio.to_thread(until, lambda: engine.state == "running")
        assert engine.restarts == 1
        assert all_gone(first)
        async with httpx.AsyncClient() as client:
            assert (await client.get(engine.url + "/health")).status_code == 200
    finally:
        await engine.stop()
    assert all_gone(pids_in(tmp_path / "pids"))


async def test_an_engine_that_stops_listening_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "WATCH_POLL_S", 0.05)
    engine = supervisor(tmp_path)
    await engine.start()
    try:
        first = pids_in(tmp_path / "pids")
        os.kill(first[-1], signal.SIGUSR1)
        assert await asyncio.to_thread(until, lambda: len(pids_in(tmp_path / "pids")) == 8)
        assert await asyncio.to_thread(until, lambda: engine.state == "running")
        assert all_gone(first)
    finally:
        await engine.stop()
    assert all_gone(pids_in(tmp_path / "pids"))


async def test_a_killed_guard_leaves_nothing_of_its_session(tmp_path: Path) -> None:
    engine = supervisor(tmp_path)
    await engine.start()
    guard = engine.pid
    assert guard is not None
    family = pids_in(tmp_path / "pids")
    members = [pid for pid in family if os.getsid(pid) == guard]
    try:
        os.kill(guard, signal.SIGKILL)
        assert len(members) == 2
        assert await asyncio.to_thread(all_gone, members)
    finally:
        await engine.stop()
        for pid in filter(is_alive, family):  # a session of its own is beyond reach
            os.kill(pid, signal.SIGKILL)


async def test_an_engine_that_ends_while_starting_says_why(tmp_path: Path) -> None:
    engine = supervisor(tmp_path, "--refuse")
    with pytest.raises(EngineUnavailable, match="no such device"):
        await engine.start()
    assert engine.state == "stopped"
    assert engine.pid is None


async def test_an_engine_that_never_answers_is_ended(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine_start_timeout_s=0.2)
    command = EngineCommand((sys.executable, "-c", "import time; time.sleep(600)"), {})
    engine = EngineSupervisor(settings, make_command=lambda _port: command)
    with pytest.raises(EngineUnavailable, match="in time"):
        await engine.start()
    assert engine.pid is None


async def test_logs_of_earlier_starts_are_kept_and_bounded(tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(EngineUnavailable):
            await supervisor(tmp_path, "--refuse").start()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["engine.log", "engine.log.1", "engine.log.2", "engine.log.3"]


def test_a_server_killed_with_sigkill_leaves_no_engine(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    command = [sys.executable, str(OWNER), str(tmp_path), str(pids)]
    root = Path(__file__).resolve().parents[3]
    env = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as owner:
        assert owner.stdout is not None
        guard = int(owner.stdout.readline())
        owner.kill()
    assert all_gone([guard, *pids_in(pids)])
