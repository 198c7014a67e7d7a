"""Exit codes: promises broken, a server that fails, a signal."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from demo import run
from demo.report import Report
from demo.show import Show


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's directory, elsewhere."""
    path = tmp_path / "var" / "demo"
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "DATA_DIR", path)
    monkeypatch.setattr(run, "REPORT", path / "report.json")
    return path


def _show() -> tuple[Show, io.StringIO]:
    file = io.StringIO()
    return Show(Console(file=file, width=100), live=False), file


@pytest.mark.parametrize(("total_s", "exit_code"), [(330.0, 0), (601.0, 1)])
def test_a_broken_promise_is_said_and_exits_with_1(
    kept: Report, data_dir: Path, total_s: float, exit_code: int
) -> None:
    data_dir.mkdir(parents=True)
    show, written = _show()
    report = replace(kept, seconds=replace(kept.seconds, total=total_s))
    assert run.conclude(show, report) == exit_code
    assert ("Broken promise: total time" in written.getvalue()) == bool(exit_code)
    assert len(json.loads(run.REPORT.read_text("utf-8"))["broken_promises"]) == exit_code


def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    script = tmp_path / "bin" / "ttrl-server"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))


def _is_alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


async def _play(show: Show) -> int:
    return await asyncio.create_task(run.guarded(show, keep=False, setup_s=0))


async def test_a_server_that_does_not_start_exits_with_2(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(tmp_path, monkeypatch, 'echo "no model here" >&2; exit 3')
    show, written = _show()
    assert await _play(show) == 2
    assert "The demo failed: The server ended with 3." in written.getvalue()
    assert "no model here" in written.getvalue()


@pytest.mark.parametrize(("name", "exit_code"), [("TERM", 143), ("INT", 130)])
async def test_a_signal_ends_the_demo_and_its_server(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, exit_code: int
) -> None:
    program = f'echo $$ > "$TTRL_DATA_DIR/pid"; kill -{name} $PPID; exec sleep 600'
    _script(tmp_path, monkeypatch, program)
    show, written = _show()
    assert await _play(show) == exit_code
    assert written.getvalue().endswith("stopped\n")
    assert not _is_alive((data_dir / "pid").read_text(encoding="utf-8").strip())
