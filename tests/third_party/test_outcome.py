"""The runner's bookkeeping: a client that breaks is never taken for one that works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.third_party.environments import MAIN, NODE, PINNED
from tests.third_party.outcome import BEGIN, END, PAGE, Outcome, read_outcome, summary, write_page
from tests.third_party.suite import CLIENTS, SCRIPTS

LOG = Path("some.log")


def said(**fields: object) -> str:
    line = {"versions": {"openai": "3.0"}, "passed": ["chat"], "failed": {}, "notes": []} | fields
    return f"noise\n{json.dumps(line)}\n"


def test_a_client_that_passed():
    outcome = read_outcome("openai", said(), 0, LOG)
    assert (outcome.verdict, outcome.passed) == ("passed", ["chat"])


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (said(failed={"stream": "AssertionError"}), 1),
        (said(), 3),  # it broke after its line
        ("", 0),  # it ended without one
        (said(passed=[]), 0),  # it checked nothing
    ],
)
def test_a_client_that_failed(output: str, status: int):
    assert read_outcome("openai", output, status, LOG).verdict == "FAILED"


def test_the_summary_shouts_what_was_skipped_and_counts():
    outcomes = [
        Outcome("a", {"a": "1"}, ["chat"]),
        Outcome("b", skipped="node is not installed"),
        Outcome("c", {"c": "1"}, ["chat"], {"stream": "AssertionError: no text"}),
    ]
    text = summary(outcomes)
    assert "!!! b was not tried: node is not installed" in text
    assert "FAILED c: stream\nAssertionError: no text" in text
    assert text.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"


def test_the_page_keeps_what_is_around_the_table(tmp_path: Path):
    page = tmp_path / "clients.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page([Outcome("a", {"a": "1.2"}, ["chat"], logged={"chat": 3})], page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| a | 1.2 | chat | chat | passed |" in text
    assert "old" not in text


def test_every_client_has_a_script_and_pins_and_is_on_the_page():
    page = PAGE.read_text()
    for client in CLIENTS:
        assert (SCRIPTS / client.script).is_file()
        assert f"| {client.title} |" in page
        if client.environment == NODE:
            assert (PINNED / NODE / "package-lock.json").is_file()
        elif client.environment != MAIN:
            pins = (PINNED / client.environment / "requirements.txt").read_text().split()
            assert pins
            assert all("==" in pin for pin in pins)
