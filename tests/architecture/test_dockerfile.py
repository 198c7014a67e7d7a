"""The image's build stage, run here: what is copied into it is enough to make it work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from server.cli import cli
from server.config import Settings

ROOT = Path(__file__).resolve().parents[2]
SETUP_TIMEOUT_S = 900
PYTHON = Path(sys.base_prefix) / "bin" / "python3.11"
OUTSIDE = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "VENV")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the Dockerfile: its instructions, each with its arguments on one line."""

    instructions: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """The arguments of the instructions of this name."""
        return [arguments for found, arguments in self.instructions if found == name]

    def copies(self) -> dict[str, str]:
        """Source to target of what comes from the repository."""
        pairs: dict[str, str] = {}
        for arguments in self.all("COPY"):
            *sources, target = arguments.split()
            if not sources[0].startswith("--from"):
                pairs |= {s: f"{target}{s}" if target == "./" else target for s in sources}
        return pairs

    def variables(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in line.split())


def stages() -> list[Stage]:
    """The stages, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines()]
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, lines):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return [Stage(tuple(instructions)) for instructions in found[1:]]


BUILD, FINAL = stages()


def environment(place: Path | None = None) -> dict[str, str]:
    """This process's, without what would lead back to this checkout; the image's where named."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in OUTSIDE and not name.startswith("TTRL_")
    }
    return outside if place is None else outside | {"PYTHONPATH": str(place)}


def run(place: Path, *command: str) -> str:
    """The output of a command in the image's working directory, with the image's PYTHONPATH."""
    done = subprocess.run(
        [str(place / ".venv" / "bin" / command[0]), *command[1:]],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's working directory: what is copied into it, and the environment made there."""
    if shutil.which("make") is None:
        pytest.skip("make is missing")
    place = tmp_path_factory.mktemp("image") / "app"
    place.mkdir()
    copy(BUILD, place)
    (setup,) = [step for step in BUILD.all("RUN") if step.startswith("make ")]
    (lock,) = [arg for arg in BUILD.all("ARG") if arg.startswith("LOCK=")]
    done = subprocess.run(
        ["sh", "-c", setup.replace("PY=python3", f"PY={PYTHON}")],
        cwd=place,
        env=environment() | dict([lock.split("=", 1)]),
        capture_output=True,
        text=True,
        check=False,
        timeout=SETUP_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    copy(FINAL, place)
    yield place
    shutil.rmtree(place / ".venv")  # gigabytes, and pytest keeps its folders


def copy(stage: Stage, place: Path) -> None:
    """Do what the stage's COPY lines say, but for what the build context leaves out."""
    leave_out = shutil.ignore_patterns("__pycache__", ".venv", ".venvs", "var")
    for source, target in stage.copies().items():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place / target, ignore=leave_out)
        else:
            shutil.copy(ROOT / source, place / target)


@pytest.mark.timeout(SETUP_TIMEOUT_S + 60)
def test_the_command_works_in_the_image(image: Path) -> None:
    shown = run(image, "ttrl-server", "--help")
    assert {name for name in commands() if name in shown} == commands()


@pytest.mark.timeout(SETUP_TIMEOUT_S + 60)
def test_the_rooms_are_those_of_the_image(image: Path) -> None:
    code = "import server, adapters, ttrl_client\n" + "".join(
        f"print({room}.__file__)\n" for room in ("server", "adapters", "ttrl_client")
    )
    places = [Path(line) for line in run(image, "python", "-c", code).splitlines()]
    assert len(places) == 3
    assert [place for place in places if not place.is_relative_to(image)] == []


@pytest.mark.timeout(SETUP_TIMEOUT_S + 60)
def test_the_image_has_its_migrations_and_its_model(image: Path) -> None:
    run(image, "ttrl-server", "migrate")
    assert (image / "var" / "ttrl.db").is_file()
    code = (
        "from server.config import Settings\n"
        "from server.engine.model_files import check_model\n"
        "print(check_model(Settings().model).path)"
    )
    assert run(image, "python", "-c", code).strip() == str(image / "demo" / "model")


@pytest.mark.timeout(SETUP_TIMEOUT_S + 60)
def test_the_images_vllm_finds_our_plugin(image: Path) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "print([e.value for e in entry_points(group='vllm.general_plugins')])"
    )
    assert "adapters.vllm_plugin:register" in run(image, "python", "-c", code)


def test_what_is_copied_is_there() -> None:
    sources = [source for stage in (BUILD, FINAL) for source in stage.copies()]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_build_context_does_not_leave_out_what_is_copied() -> None:
    left_out = set((ROOT / ".dockerignore").read_text().split())
    for stage in (BUILD, FINAL):
        for source in stage.copies():
            assert left_out.isdisjoint({source, *map(str, Path(source).parents)})


def test_the_image_sets_only_settings() -> None:
    names = {name for name in FINAL.variables() if name.startswith("TTRL_")}
    assert names
    assert names <= {f"TTRL_{name.upper()}" for name in Settings.model_fields}
    assert FINAL.all("VOLUME") == [FINAL.variables()["TTRL_DATA_DIR"]]


def test_the_image_runs_commands_that_there_are() -> None:
    assert FINAL.all("ENTRYPOINT") == ['["ttrl-server"]']
    assert FINAL.all("CMD") == ['["serve"]']
    assert '["ttrl-server", "health"]' in FINAL.all("HEALTHCHECK")[0]
    assert {"serve", "health"} <= commands()


def test_the_image_does_not_run_as_root() -> None:
    assert FINAL.all("USER") == ["10001:10001"]


def commands() -> set[str]:
    """The names of `ttrl-server`'s commands."""
    command = get_command(cli)
    return set(getattr(command, "commands", {}))
