"""Environments of clients: one each, made from pinned requirements, under `var/envs`.

An environment is made anew when its pins have changed. What cannot be made is no error here: the
clients in it are skipped, with the reason.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = Path(__file__).with_name("environments")
MADE = ROOT / "var" / "envs"
NODE = "node"
MAIN = "main"
"""The server's own environment, whose lock has vLLM's load generator."""
INSTALL_TIMEOUT_S = 420.0
TAIL_CHARS = 600


class NotMade(Exception):
    """An environment could not be made; the message says why."""


def make(name: str) -> Path:
    """The program that runs the scripts of this environment.

    Raises:
        NotMade: it cannot be installed here.
    """
    if name == MAIN:
        return Path(sys.executable)
    if name == NODE:
        return _make_node()
    pins, folder = PINNED / name / "requirements.txt", MADE / name
    python = folder / "bin" / "python"
    if not _is_made(folder, pins):
        _tool("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        _tool("uv", "pip", "sync", "--quiet", "--python", str(python), str(pins))
        _mark(folder, pins)
    return python


def _make_node() -> Path:
    """Node looks for packages beside the script and above: so the scripts are copied to them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotMade("node is not installed: it needs node 20 or newer, and npm")
    folder, pins = MADE / NODE, PINNED / NODE / "package-lock.json"
    if not _is_made(folder, pins):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in (pins, pins.with_name("package.json")):
            shutil.copy(source, folder)
        install = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _run([npm, *install], folder)
        _mark(folder, pins)
    for script in Path(__file__).with_name("clients").glob("*.mjs"):
        shutil.copy(script, folder)
    return Path(node)


def _tool(name: str, *args: str) -> None:
    _run([str(Path(sys.executable).with_name(name)), *args], ROOT)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise NotMade(f"not installed within {INSTALL_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise NotMade(f"{Path(command[0]).name}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-TAIL_CHARS:]
        raise NotMade(f"{Path(command[0]).name} failed: {said}")


def _is_made(folder: Path, pins: Path) -> bool:
    mark = folder / ".pins"
    return mark.is_file() and mark.read_text() == _digest(pins)


def _mark(folder: Path, pins: Path) -> None:
    (folder / ".pins").write_text(_digest(pins))


def _digest(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()
