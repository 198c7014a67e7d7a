"""Users get the majority's accuracy: a vote on the real engine is right more often than an answer.

Both are asked the same questions with the same seeds, so one answer is the vote's first sample.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.answers import Equivalence
from demo.questions import Question, additions
from tests.e2e.live import LiveServer

pytestmark = [pytest.mark.engine]

NUM_QUESTIONS = 20
VOTES = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, answered once and by a vote."""

    question: Question
    once: dict[str, Any]
    voted: dict[str, Any]


async def ask(live: LiveServer, key: str, number: int, question: Question) -> Asked:
    async def answer(votes: int) -> dict[str, Any]:
        ttrl = {"votes": votes}
        response = await live.ask(key, question.text, ttrl=ttrl, seed=1000 * number)
        assert response.status_code == 200, response.text
        return response.json()

    return Asked(question, await answer(1), await answer(VOTES))


def text_of(body: dict[str, Any]) -> str:
    return body["choices"][0]["message"]["content"]


def num_right(answers: list[tuple[Question, str]]) -> int:
    with Equivalence() as judge:
        found = judge.extract([text for _, text in answers], "math")
    return sum(text == question.answer for (question, _), text in zip(answers, found, strict=True))


async def test_a_vote_is_right_more_often_than_one_answer(live: LiveServer):
    tenant, key = live.make_tenant("majority")
    asked = await asyncio.gather(
        *(
            ask(live, key, number, question)
            for number, question in enumerate(additions(4, NUM_QUESTIONS))
        )
    )
    votes = [one.voted["ttrl"] for one in asked]
    once = num_right([(one.question, text_of(one.once)) for one in asked])
    voted = num_right([(one.question, text_of(one.voted)) for one in asked])
    samples = sum(vote["sampled"] for vote in votes) / NUM_QUESTIONS
    figures = f"right: once {once}, by vote {voted}, with {samples} samples a vote"
    assert voted > once, figures

    assert all(vote["votes"] == VOTES for vote in votes)
    assert any(vote["sampled"] < VOTES for vote in votes)
    logged = {query.id: query for query in live.admin.list_queries(tenant, limit=50).items}
    for one in asked:
        query = logged[one.voted["id"]]
        assert len(query.answers) == one.voted["ttrl"]["sampled"] + one.voted["ttrl"]["cancelled"]
        assert query.completion_tokens == one.voted["usage"]["completion_tokens"]
