"""The identity adapter is made once, by a process of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from adapters.base_digest import base_digest
from server.config import SECRETS, Settings
from server.engine import identity
from server.engine.identity import ensure_identity, identity_dir, model_digest
from server.errors import ConfigurationError, ModelFilesError

MAKER = """
import sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
with Path({log!r}).open("a") as log:
    log.write(" ".join(sys.argv[1:]) + chr(10))
{body}
"""
WRITE = """
out.mkdir(parents=True)
(out / "adapter_config.json").write_text("{}")
(out / "adapter_model.safetensors").write_bytes(b"")
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return Settings(data_dir=tmp_path / "var", model=str(model), lora_rank=8)


def maker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Path:
    """Let a script stand in for the trainer; the log of its calls."""
    log = tmp_path / "calls"
    log.touch()
    script = tmp_path / "maker.py"
    script.write_text(MAKER.format(log=str(log), body=body))

    def guarded(argv: list[str], *, grace_s: float) -> list[str]:
        assert argv[:3] == [sys.executable, "-m", "adapters.training"]
        return [sys.executable, str(script), *argv[3:]]

    monkeypatch.setattr(identity, "guarded", guarded)
    return log


async def test_it_is_made_once_for_all_who_ask(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = maker(monkeypatch, tmp_path, WRITE)
    paths = await asyncio.gather(*(ensure_identity(settings) for _ in range(3)))
    assert set(paths) == {identity_dir(settings)}
    calls = log.read_text().splitlines()
    expected = f"identity --model {settings.model} --rank 8 --alpha 32 --out {paths[0]}"
    assert calls == [expected]


async def test_its_maker_knows_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*SECRETS, "TTRL_LOG_LEVEL"):
        monkeypatch.setenv(name, "secret")
    told = tmp_path / "told"
    maker(
        monkeypatch,
        tmp_path,
        f"import os\nPath({str(told)!r}).write_text(' '.join(os.environ))" + WRITE,
    )
    await ensure_identity(settings)
    names = set(told.read_text().split())
    assert "TTRL_LOG_LEVEL" in names
    assert not names & set(SECRETS)


async def test_a_failure_shows_the_end_of_the_error_output(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maker(monkeypatch, tmp_path, "sys.exit('no such architecture')")
    with pytest.raises(ConfigurationError, match="no such architecture"):
        await ensure_identity(settings)


async def test_success_without_files_is_a_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maker(monkeypatch, tmp_path, "")
    with pytest.raises(ConfigurationError, match="left no identity"):
        await ensure_identity(settings)


async def test_it_is_bounded_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maker(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(ConfigurationError, match="within"):
        await ensure_identity(settings, timeout_s=0.5)


def test_other_weights_or_ranks_are_another_adapter(settings: Settings) -> None:
    first = identity_dir(settings)
    assert identity_dir(settings.model_copy(update={"lora_rank": 16})) != first
    (Path(settings.model) / "model.safetensors").write_bytes(b"other")
    assert identity_dir(settings) != first
    assert first.parent == settings.adapters_dir / "base"


def test_its_place_is_that_of_older_servers(settings: Settings) -> None:
    digest = base_digest(Path(settings.model))
    assert identity_dir(settings).name == f"{digest[:12]}-r8"
    assert identity_dir(settings, model_digest(settings.model)) == identity_dir(settings)


def test_a_hub_id_is_known_by_its_name(tmp_path: Path) -> None:
    hub = Settings(data_dir=tmp_path, model="org/name")
    other = Settings(data_dir=tmp_path, model="org/other")
    assert identity_dir(hub) != identity_dir(other)


def test_a_model_without_weights_is_a_clear_error(settings: Settings) -> None:
    (Path(settings.model) / "model.safetensors").unlink()
    with pytest.raises(ModelFilesError, match="no weight files"):
        identity_dir(settings)
