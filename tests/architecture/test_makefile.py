"""The Makefile makes the environment that was asked for, and deletes nothing of a server's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "VENV", "LOCK", "PY")
TOOLS = ("python", "pip", "uv")  # of the environment; here they only note what they are asked for
CPU, GPU = "requirements-cpu.lock", "requirements-gpu.lock"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment of tools that note their arguments in a file `asked`."""
    place = tmp_path / "venv"
    (place / "bin").mkdir(parents=True)
    for name in TOOLS:
        tool = place / "bin" / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >> {place}/asked\n')
        tool.chmod(0o755)
    return place


def make(*arguments: str, at: Path = ROOT) -> None:
    """Run make there, with this repository's Makefile."""
    environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), *arguments, f"PY={sys.executable}"],
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def synced(venv: Path) -> list[str]:
    """The locks that the environment was made from, in order."""
    lines = (venv / "asked").read_text().splitlines()
    return [line.split()[-1] for line in lines if line.startswith("uv pip sync")]


def test_another_lock_makes_the_environment_anew(venv: Path) -> None:
    for lock in (CPU, GPU, CPU):
        make("setup", f"VENV={venv}", f"LOCK={lock}")
    assert synced(venv) == [CPU, GPU, CPU]


def test_the_same_lock_makes_it_once(venv: Path) -> None:
    for _ in range(2):
        make("setup", f"VENV={venv}", f"LOCK={GPU}")
    assert synced(venv) == [GPU]


@pytest.mark.parametrize("target", ["lock", "lock-gpu"])
def test_a_lock_is_compiled_in_an_environment_that_is_made_first(venv: Path, target: str) -> None:
    make(target, f"VENV={venv}")
    lines = (venv / "asked").read_text().splitlines()
    assert synced(venv) == [CPU]
    assert lines[-1].startswith("uv pip compile")


def test_cleaning_leaves_a_servers_data(tmp_path: Path) -> None:
    kept = ["var/ttrl.db", "var/admin.key", "var/pepper.key", "var/adapters/t1/v1/manifest.json"]
    gone = ["var/demo/report.json", "var/bench/gateway/latency.json", ".pytest_cache/x"]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    make("clean", at=tmp_path)
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in gone if (tmp_path / name).exists()] == []
