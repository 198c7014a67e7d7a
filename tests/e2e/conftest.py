"""One real server with one real vLLM on the bundled model, for the whole test session."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from server.config import Settings
from server.engine.identity import identity_dir
from tests.e2e.live import START_TIMEOUT_S, LiveServer

TEST_TIMEOUT_S = 2 * START_TIMEOUT_S  # the first test waits for the server, a crash for the engine


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveServer]:
    """The session's server, ready. Tests share it: use tenants and adapter names of your own, and
    whoever breaks it waits until it is ready again.
    """
    server = LiveServer(tmp_path_factory.mktemp("live"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def engine_settings(live: LiveServer) -> Settings:
    """The settings of the session's server and engine."""
    return live.settings


@pytest.fixture
def engine_url(live: LiveServer) -> str:
    """Where the session's vLLM answers now. Tests share it: use adapter names of your own."""
    return live.engine_url


@pytest.fixture(scope="session")
def identity_path(engine_settings: Settings) -> Path:
    """The real identity adapter for the bundled model, which the server made at its start."""
    return identity_dir(engine_settings)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests on the real server the time that a start of the engine may take."""
    for item in items:
        if "live" in getattr(item, "fixturenames", ()) or item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S), append=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the server's logs under a failure."""
    report = yield
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    server = arguments.get("live")
    if report.failed and isinstance(server, LiveServer):
        report.sections.append(("server", server.tail()))
    return report
