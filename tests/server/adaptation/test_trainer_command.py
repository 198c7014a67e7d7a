"""The trainer is started with what the engine serves."""

from __future__ import annotations

from pathlib import Path

from server.adaptation.trainer import trainer_command
from server.config import Settings
from server.engine.launch import engine_command

ROOT = Path(__file__).resolve().parents[3]


def _option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_trainer_computes_in_the_dtype_that_is_served() -> None:
    settings = Settings(model=str(ROOT / "demo" / "model"))
    engine = engine_command(settings, port=1).argv
    trainer = tuple(trainer_command(settings))
    assert _option(trainer, "--dtype") == _option(engine, "--dtype") == "float32"
