"""Functions of entry points: found by name, run apart, ended when they are late."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.answers import AnswerSpec, Equivalence, equivalence
from adapters.answers.worker import JudgeFailed, Worker, entry_point_command

FUNCTIONS = """
import os, time
def last_word(text):
    if "hang" in text:
        while True: pass
    if "sleep" in text:
        time.sleep(600)
    if "exit" in text:
        raise SystemExit(3)
    if "die" in text:
        os._exit(3)
    if "number" in text:
        return 5
    if "eat" in text:
        return "x" * 10**10
    if "print" in text:
        print("noise on the protocol's stream")
    return text.split()[-1]
"""
ENTRY_POINTS = "[ttrl.answers]\nlast-word = answers_of_a_test:last_word\nbroken = not_installed:f\n"
LAST_WORD = AnswerSpec("python", entry_point="last-word")


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Equivalence]:
    """One whose processes see an installed distribution with entry points."""
    (tmp_path / "answers_of_a_test.py").write_text(FUNCTIONS)
    metadata = tmp_path / "answers_of_a_test-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: answers-of-a-test\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)

    def command(name: str) -> tuple[str, ...]:
        run = (
            f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['', {name!r}]; "
        )
        run += "runpy.run_module('adapters.answers.entry_point', run_name='__main__')"
        return (sys.executable, "-c", run)

    monkeypatch.setattr(equivalence, "entry_point_command", command)
    with Equivalence(deadline_s=20.0) as made:
        yield made


def test_a_function_finds_the_answers(judge: Equivalence) -> None:
    found = judge.extract(["a b", "c  Éd ", "please print this"], LAST_WORD)
    assert found == ["b", "Éd", "this"]
    assert judge.classes(["b", "b", "B", None], LAST_WORD) == ["b", "b", "B", None]


@pytest.mark.parametrize("text", ["exit", "die", "number", "eat", "", "\ud800\x00"])
def test_an_error_is_no_answer_and_the_next_text_has_one(judge: Equivalence, text: str) -> None:
    found = judge.extract([text, "a b"], LAST_WORD)
    assert found[0] in (None, "?")
    assert found[1] == "b"


@pytest.mark.parametrize("text", ["hang", "sleep"])
def test_a_function_that_hangs_costs_half_of_the_deadline(judge: Equivalence, text: str) -> None:
    judge.prepare(LAST_WORD)
    judge._deadline_s = 3.0
    assert judge.extract([text, "a b"], LAST_WORD) == [None, "b"]
    assert judge.extract([text, text, text, "a b"], LAST_WORD)[:3] == [None, None, None]
    judge._deadline_s = 20.0
    assert judge.extract(["a b"], LAST_WORD) == ["b"]


@pytest.mark.parametrize("name", ["unheard-of", "broken"])
def test_a_function_that_cannot_be_loaded_is_an_error(judge: Equivalence, name: str) -> None:
    with pytest.raises(JudgeFailed, match=name):
        judge.extract(["a"], AnswerSpec("python", entry_point=name))
    assert name not in judge._functions


def test_a_closed_one_runs_nothing(judge: Equivalence) -> None:
    judge.close()
    with pytest.raises(RuntimeError, match="closed"):
        judge.extract(["a"], LAST_WORD)


def test_the_command_runs_in_this_environment() -> None:
    worker = Worker(entry_point_command("unheard-of"), "it")
    with pytest.raises(JudgeFailed, match="is it installed"):
        worker.start()
