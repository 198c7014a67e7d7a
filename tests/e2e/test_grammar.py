"""Requests with a grammar and without in the same steps of a real engine."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "What is 1234 + 4321?"}],
    "temperature": 0,
    "max_tokens": 24,
}


async def test_each_gets_what_it_gets_alone(engine_url: str) -> None:
    async with httpx.AsyncClient(base_url=engine_url, timeout=120, trust_env=False) as http:

        async def ask(number: int) -> str:
            grammar = {"structured_outputs": {"regex": "[0-7]{8}"}} if number % 2 else {}
            response = await http.post(CHAT, json=BODY | grammar)
            return response.json()["choices"][0]["message"]["content"]

        free = await ask(0)
        answers = await asyncio.gather(*map(ask, range(8)))
    assert "=" in free  # in the manner of the model
    for number, answer in enumerate(answers):
        assert re.fullmatch("[0-7]{8}", answer) if number % 2 else answer == free
