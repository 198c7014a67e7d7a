"""Majority answers: one of the majority is returned, and all are logged."""

from __future__ import annotations

from typing import Any

from tests.server.gateway.conftest import Stack, chat

LIVE = "t1-adder--v2"
CHAT = "/v1/chat/completions"


def boxed(*answers: str) -> list[str]:
    return [rf"I think \boxed{{{answer}}}" for answer in answers]


async def vote(stack: Stack, path: str = CHAT, **fields: Any) -> dict[str, Any]:
    async with stack.http() as http:
        response = await http.post(path, json=chat(**fields))
    assert response.status_code == 200, response.text
    return response.json()


async def test_one_of_the_majority_is_returned_with_its_shares(stack: Stack):
    stack.fake.answers[LIVE] = boxed("7", "4", "4", "5")
    body = await vote(stack, ttrl={"votes": 8})
    assert body["choices"][0]["message"]["content"] == r"I think \boxed{4}"
    assert [choice["index"] for choice in body["choices"]] == [0]
    assert body["ttrl"] == {
        "label": "4",
        "reason": None,
        "majority_ratio": 0.5,
        "shares": [
            {"answer": "4", "share": 0.5},
            {"answer": "5", "share": 0.25},
            {"answer": "7", "share": 0.25},
        ],
        "votes": 8,
        "bounded": False,
        "sampled": 8,
        "cancelled": 0,
        "answers": 8,
        "decided": True,
    }


async def test_equal_answers_vote_together_however_they_are_written(stack: Stack):
    stack.fake.answers[LIVE] = boxed("1/2", "3", "0.5", "3", r"\frac{1}{2}")
    body = await vote(stack, ttrl={"votes": 5, "confidence": 1})
    assert body["ttrl"]["majority_ratio"] == 0.6
    assert body["choices"][0]["message"]["content"] == r"I think \boxed{1/2}"
