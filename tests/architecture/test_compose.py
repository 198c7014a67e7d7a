"""The compose files say what this program understands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url
from typer.main import get_command

from server.cli import cli
from server.config import SECRETS, Settings

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
FOREIGN = {"postgres"}  # an image of somebody else's


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


CPU, GPU = load("compose.yaml"), load("compose.gpu.yaml")
OURS = {name: service for name, service in CPU["services"].items() if name not in FOREIGN}


def environment(name: str, *, gpu: bool = False) -> dict[str, str]:
    """A service's variables, each interpolation replaced by its default, or by a letter."""
    found = dict(OURS[name].get("environment", {}))
    if gpu:
        found |= GPU["services"].get(name, {}).get("environment", {})

    def chosen(match: re.Match[str]) -> str:
        return match["rest"] if match["kind"] == "-" else "x"

    return {key: VARIABLE.sub(chosen, str(value)) for key, value in found.items()}


def parse(arguments: list[str]) -> None:
    """Read a `ttrl-server` command line without running it; raises for what it does not know."""
    group: Any = get_command(cli)
    name, *rest = arguments
    group.commands[name].make_context(name, rest)


@pytest.mark.parametrize("name", OURS)
def test_each_service_runs_a_command_that_there_is(name: str) -> None:
    parse([str(part) for part in OURS[name]["command"]])


def test_that_check_can_fail() -> None:
    with pytest.raises(Exception, match="--nothing"):
        parse(["serve", "--nothing"])


@pytest.mark.parametrize("name", OURS)
def test_each_health_check_is_a_command_too(name: str) -> None:
    check = OURS[name].get("healthcheck", {})
    if not check.get("disable"):
        kind, program, *rest = check.get("test", ["CMD", "ttrl-server", "health"])
        assert (kind, program) == ("CMD", "ttrl-server")
        parse(rest)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_a_setting_of_the_right_kind(
    name: str, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(name, gpu=gpu)
    known = {f"TTRL_{field.upper()}" for field in Settings.model_fields}
    assert variables.keys() <= known
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    kind = "sqlite+aiosqlite" if name == "engine" else "postgresql+asyncpg"
    assert make_url(settings.sqlalchemy_url).drivername == kind
    assert settings.worker == (name != "server")
    assert (ROOT / settings.model).is_dir()


@pytest.mark.parametrize("gpu", [False, True])
def test_the_engine_is_told_no_secret(gpu: bool) -> None:
    told = environment("engine", gpu=gpu)
    assert not told.keys() & set(SECRETS)
    assert told.items() >= {"TTRL_MODEL": environment("server")["TTRL_MODEL"]}.items()


def test_the_engine_answers_where_the_others_look(monkeypatch: pytest.MonkeyPatch) -> None:
    command = OURS["engine"]["command"]
    port = command[command.index("--port") + 1]
    monkeypatch.setenv("TTRL_ENGINE_URLS", environment("server")["TTRL_ENGINE_URLS"])
    assert Settings().engine_urls == (f"http://engine:{port}",)
    assert f":{port}/" in " ".join(OURS["engine"]["healthcheck"]["test"])


def test_only_the_server_can_be_reached_from_outside() -> None:
    assert [name for name, service in CPU["services"].items() if "ports" in service] == ["server"]
    open_to = {name: service["networks"] for name, service in CPU["services"].items()}
    assert [name for name, networks in open_to.items() if "frontend" in networks] == ["server"]
    assert CPU["networks"]["backend"]["internal"]


def test_names_lead_somewhere() -> None:
    for service in CPU["services"].values():
        assert service.get("depends_on", {}).keys() <= CPU["services"].keys()
        assert set(service["networks"]) <= CPU["networks"].keys()
        assert {mount.split(":")[0] for mount in service["volumes"]} <= CPU["volumes"].keys()
    assert GPU["services"].keys() == OURS.keys()


def test_each_lock_that_an_image_is_built_from_is_there() -> None:
    locks = [
        service["build"]["args"]["LOCK"]
        for services in (OURS, GPU["services"])
        for service in services.values()
        if "build" in service
    ]
    files = {VARIABLE.sub(lambda match: match["rest"], lock) for lock in locks}
    assert files == {"requirements-cpu.lock", "requirements-gpu.lock"}
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("gpu", [False, True])
def test_services_that_share_an_image_are_built_alike(gpu: bool) -> None:
    builds: dict[str, list[Any]] = {}
    for name, service in OURS.items():
        merged = service | (GPU["services"][name] if gpu else {})
        build = service["build"]
        if gpu:  # as compose merges the files: mappings key by key
            more = GPU["services"][name].get("build", {})
            build = build | more | {"args": build["args"] | more.get("args", {})}
        builds.setdefault(merged["image"], []).append(build)
    assert len(builds) == 1
    for found in builds.values():
        assert [build for build in found if build != found[0]] == []


def test_every_part_sees_the_adapters_under_one_path() -> None:
    for name in ("engine", "server", "worker"):
        assert "data:/data" in OURS[name]["volumes"]
        assert "TTRL_DATA_DIR" not in OURS[name]["environment"], "the image sets it"
