"""Says how many cases the fuzz tests tried."""

from __future__ import annotations

from typing import Any

from tests.fuzz.cases import FACTOR, tried


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each fuzz test, and their sum, when more was asked for than in every run."""
    if FACTOR > 1:
        for name, num in tried.most_common():
            terminalreporter.write_line(f"{num:>9,} {name}")
        terminalreporter.write_line(f"{tried.total():>9,} cases in all")
