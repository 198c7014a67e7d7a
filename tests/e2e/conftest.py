"""One real vLLM on the bundled model for the whole test session, under the real supervisor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from server.config import Settings
from server.engine.identity import ensure_identity
from server.engine.supervisor import EngineSupervisor

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 280.0

T = TypeVar("T")


class Background:
    """An event loop in a thread, for what must live longer than one test's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine run there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


@contextmanager
def background() -> Generator[Background]:
    """Run an event loop in a thread for the length of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Background(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the session's engine: the bundled model, a data directory of its own."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("engine"),
        model=str(ROOT / "demo" / "model"),
        engine_start_timeout_s=START_TIMEOUT_S,
    )


@pytest.fixture(scope="session")
def engine_supervisor(engine_settings: Settings) -> Generator[EngineSupervisor]:
    """The session's vLLM, answering; whoever breaks it must wait until it is back."""
    with background() as loop:
        supervisor = EngineSupervisor(engine_settings)
        loop.run(supervisor.start())
        yield supervisor
        loop.run(supervisor.stop())


@pytest.fixture(scope="session")
def engine_url(engine_supervisor: EngineSupervisor) -> str:
    """Where the session's vLLM answers. Tests share it: use adapter names of your own."""
    return engine_supervisor.url


@pytest.fixture(scope="session")
def identity_path(engine_settings: Settings) -> Path:
    """A real identity adapter for the bundled model."""
    with background() as loop:
        return loop.run(ensure_identity(engine_settings))
