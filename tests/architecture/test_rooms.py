"""What is expensive to get wrong: whose packages are imported, and what is written where."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import adapters
import server
from server.config import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_rooms_are_ours() -> None:
    """A package called `adapters` exists on the index: it must not win."""
    assert Path(adapters.__file__).is_relative_to(ROOT)
    assert Path(server.__file__).is_relative_to(ROOT)


def test_every_setting_is_described() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    missing = [name for name in Settings.model_fields if f"`TTRL_{name.upper()}`" not in text]
    assert missing == []


def test_no_setting_is_described_that_is_not_there() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    known = {f"TTRL_{name.upper()}" for name in Settings.model_fields}
    # Of the client, the tests and compose.
    outside = {"TTRL_URL", "TTRL_API_KEY", "TTRL_SHARED_DATA", "TTRL_TAG", "TTRL_PORT"}
    assert set(re.findall(r"TTRL_[A-Z_]+[A-Z]", text)) - known - outside == set()


def test_the_map_has_every_room_and_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [inside] = [c for c in contracts["contracts"] if c["name"] == "inside server"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(["```", *inside["layers"], "```"]) in text
    rooms = [room for layer in inside["layers"] for room in layer.split(" | ")]
    places = [
        f"`server/{room}{'/' if (ROOT / 'server' / room).is_dir() else '.py'}`" for room in rooms
    ]
    assert [place for place in places if place not in text] == []


def test_the_web_process_never_loads_the_learning_stack() -> None:
    code = (
        "import sys, server.app, server.cli, server.worker\n"
        "heavy = {'torch', 'transformers', 'peft', 'vllm'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_file_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    words = re.compile(
        "|".join(["/wo" + "rk/", "/ro" + "ot/", "files.pytho" + "nhosted", "pypi.or" + "g"])
    )
    found = [
        name
        for name in tracked
        if (ROOT / name).suffix in {".py", ".md", ".toml", ".lock", ".yaml", ".txt", ""}
        and (ROOT / name).is_file()
        and words.search((ROOT / name).read_text(errors="replace"))
    ]
    assert found == []
