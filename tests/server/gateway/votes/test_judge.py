"""Answers are compared beside the event loop, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest

from adapters.answers import AnswerSpec, Equivalence
from adapters.answers.spec import AnswerKind
from server.gateway.votes.judge import VoteJudge
from server.gateway.votes.poll import Unjudged
from tests.fakes.defects import break_on

SPEC = AnswerSpec("number")


class Slow(Equivalence):
    """Looks for answers as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = threading.Event()

    def extract(self, texts: Sequence[str], spec: AnswerSpec | AnswerKind) -> list[str | None]:
        if "slow" in texts:
            self.may_end.wait()
        return list(texts)


async def test_a_defect_is_logged_and_leaves_answers_unjudged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    break_on(monkeypatch, "extract", "4")
    judge = VoteJudge(equivalence=Equivalence())
    with caplog.at_level(logging.ERROR), pytest.raises(Unjudged):
        await judge.extract(1, ["4"], SPEC)
    [record] = caplog.records
    assert record.exc_info is not None
    assert "tenant 1" in record.getMessage()
    assert await judge.classes(1, ["4", "4.0"], SPEC) == ["4", "4"]
    await judge.stop()


async def test_a_late_comparison_is_none():
    slow = Slow()
    judge = VoteJudge(equivalence=slow, deadline_s=0.01)
    with pytest.raises(Unjudged):
        await judge.extract(1, ["slow"], SPEC)
    slow.may_end.set()
    await judge.stop()


async def test_a_tenant_whose_answers_take_long_waits_for_itself_alone():
    slow = Slow()
    judge = VoteJudge(equivalence=slow)
    first = asyncio.create_task(judge.extract(1, ["slow"], SPEC))
    second = asyncio.create_task(judge.extract(1, ["slow"], SPEC))
    assert await judge.extract(2, ["4"], SPEC) == ["4"]
    assert await judge.classes(2, ["4", "4.0", None], SPEC) == ["4", "4", None]
    assert not first.done()
    assert not second.done()
    slow.may_end.set()
    assert await first == await second == ["slow"]
    await judge.stop()
