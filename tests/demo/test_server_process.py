"""The child: its settings, its directory, its end."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from demo.server_process import (
    DataDirectory,
    DemoFailed,
    ServerProcess,
    free_port,
    server_environment,
)


def test_the_server_gets_the_demos_settings_and_no_others(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "TTRL_DATABASE_URL": "postgresql://production", "TTRL_PORT": "1"}
    environment = server_environment(inherited, data_dir=tmp_path, model=Path("/model"), port=8123)
    assert environment == {
        "PATH": "/bin",
        "TTRL_DATA_DIR": str(tmp_path),
        "TTRL_HOST": "127.0.0.1",
        "TTRL_PORT": "8123",
        "TTRL_MODEL": "/model",
    }


def test_what_an_older_demo_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "demo"
    path.mkdir()
    (path / "ttrl.db").touch()
    directory = DataDirectory(path)
    directory.open()
    assert list(path.iterdir()) == []
    directory.close()


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "demo"
    first, second = DataDirectory(path), DataDirectory(path)
    first.open()
    (path / "ttrl.db").touch()
    with pytest.raises(DemoFailed, match="still runs"):
        second.open()
    assert (path / "ttrl.db").exists()
    first.close()
    second.open()
    second.close()


def _server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    *,
    port: int = 1,
    stop_timeout_s: float = 60,
) -> ServerProcess:
    """A server whose console script is this shell program."""
    script = tmp_path / "bin" / "ttrl-server"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    return ServerProcess(
        tmp_path / "demo", model=Path("/model"), port=port, stop_timeout_s=stop_timeout_s
    )


async def test_a_server_that_ends_early_fails_the_demo_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _server(tmp_path, monkeypatch, 'echo "no model here" >&2; exit 2') as server:
        await server.ended()
        with pytest.raises(DemoFailed, match=r"(?s)ended with 2\..*no model here"):
            await server.ready(60)


async def test_a_server_that_is_never_ready_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _server(tmp_path, monkeypatch, "exec sleep 600") as server:
        with pytest.raises(DemoFailed, match="not ready in 0 s"):
            await server.ready(0)


READY = """
import http.server, os, signal, sys

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

def end(*_):
    print("ended in order")
    sys.exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("DEAF") else end)
http.server.HTTPServer(("127.0.0.1", int(os.environ["TTRL_PORT"])), Ready).serve_forever()
"""


def _ready_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stop_timeout_s: float = 60
) -> ServerProcess:
    (tmp_path / "ready.py").write_text(READY, encoding="utf-8")
    program = f'echo $$ > "$TTRL_DATA_DIR/pid"; exec {sys.executable} {tmp_path / "ready.py"}'
    return _server(tmp_path, monkeypatch, program, port=free_port(), stop_timeout_s=stop_timeout_s)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_ready_server_is_ended_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _ready_server(tmp_path, monkeypatch) as server:
        await server.ready(60)
        pid = int((server.data_dir / "pid").read_text(encoding="utf-8"))
        assert _is_alive(pid)
    assert not _is_alive(pid)
    assert server.tail().endswith("ended in order")


async def test_a_server_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEAF", "1")
    async with _ready_server(tmp_path, monkeypatch, stop_timeout_s=0.2) as server:
        await server.ready(60)
        pid = int((server.data_dir / "pid").read_text(encoding="utf-8"))
    assert not _is_alive(pid)
