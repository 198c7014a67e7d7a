"""What a person reads: lines without repetition in a log, bars on a terminal, and the table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from demo.report import Report
from demo.show import LineBoard, Show, figures_of, traffic_line
from demo.table import results_table, usage
from demo.traffic import Ledger
from tests.demo.conftest import at, cycle_of, exchange_of

Written = Callable[[], str]
STEP = {
    "step": 3,
    "metrics": {"majority_ratio": 0.5, "loss": -0.01234, "other": 1},
    "created_at": at(0),
}
RUNNING = {"status": "running", "phase": "train", "steps_done": 3, "decision": None}


def _console(*, terminal: bool = False) -> tuple[Console, Written]:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=terminal, color_system=None)
    return console, file.getvalue


def test_a_log_tells_each_change_of_a_cycle_once() -> None:
    console, written = _console()
    board = LineBoard(console, ("adder",))
    for _ in range(3):
        board.cycle(cycle_of("adder", **RUNNING, steps=[STEP]))
    board.cycle(cycle_of("adder", steps=[STEP]))
    assert written().splitlines() == [
        "  adder: train, step 3/20  majority 0.500  loss -0.012",
        "  adder: promoted, step 20/20  majority 0.500  loss -0.012",
    ]


def test_a_log_is_not_flooded_with_traffic() -> None:
    console, written = _console()
    board = LineBoard(console, ("adder",))
    for _ in range(100):
        board.traffic(Ledger())
    assert written() == ""


def test_waiting_in_a_log_is_two_lines() -> None:
    console, written = _console()
    with Show(console, live=False).waiting("start"):
        pass
    assert [line.split()[:2] for line in written().splitlines()] == [
        ["start", "..."],
        ["done", "start"],
    ]


def test_waiting_that_fails_is_not_said_to_be_done() -> None:
    console, written = _console()
    with pytest.raises(RuntimeError), Show(console, live=False).waiting("start"):
        raise RuntimeError
    assert written().splitlines() == ["start ..."]


def test_a_terminal_shows_bars_and_the_traffic() -> None:
    console, written = _console(terminal=True)
    ledger = Ledger()
    ledger.note(exchange_of(streamed=True))
    with Show(console, live=True).watching(("adder", "novice")) as board:
        board.cycle(cycle_of("adder", **RUNNING, steps=[STEP]))
        board.traffic(ledger)
    assert "step  3/20" in written()
    assert "1 requests, 0 failed, 100% streamed" in written()


def test_figures_that_a_step_lacks_are_left_out() -> None:
    assert figures_of(cycle_of("adder")) == ""
    step = {"step": 1, "metrics": {"majority_ratio": 0.25, "loss": None}, "created_at": at(0)}
    assert figures_of(cycle_of("adder", steps=[step])) == "majority 0.250"


def test_the_traffic_line_names_the_versions_that_answer() -> None:
    ledger = Ledger()
    ledger.note(exchange_of(adapter="adder--v1"))
    line = traffic_line(ledger, ("adder", "novice"))
    assert line.endswith("answered by adder--v1, novice: none yet")


def test_the_table_tells_what_happened(kept: Report) -> None:
    console, written = _console()
    console.print(results_table(kept))
    table = written()
    for text in ("0.35 -> 0.86", "promoted", "rejected", "view_agreement: 0.21 < 0.70"):
        assert text in table
    assert "0 failed, 0 by a wrong version, 0 not logged" in " ".join(table.split())
    assert "rolled back in 30 ms" in table


def test_the_table_does_without_swaps(kept: Report) -> None:
    console, written = _console()
    console.print(results_table(replace(kept, swap=None)))
    assert "rolled back" not in written()


def test_usage_can_be_pasted() -> None:
    text = usage("http://127.0.0.1:1", {"adder": "sk-a", "novice": "sk-n"}, Path("/d/admin.key"))
    start, end = text.index("from openai"), text.index("export ")
    compile(text[start:end], "snippet", "exec")
    assert 'base_url="http://127.0.0.1:1/v1", api_key="sk-a"' in text
    assert "TTRL_ADMIN_KEY=$(cat /d/admin.key)" in text
