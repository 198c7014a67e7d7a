"""What the translated dialects refuse: a clear error in the route's shape, and nothing is asked of
an engine or logged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.server.gateway.conftest import Stack, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADD = {"name": "add", "input_schema": {"type": "object"}}
USER = {"role": "user", "content": "2+2"}
ASKED = {"model": "ttrl", "max_tokens": 100, "messages": [USER]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stack]:
    """One gateway for both tables: it must live through all of it, and log nothing."""
    async with running(tmp_path_factory.mktemp("gateway")) as stack:
        yield stack


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"temprature": 1}, "temprature"),
    ],
)
async def test_a_response_that_is_refused(stack: Stack, fields: dict[str, Any], param: str):
    async with stack.http() as http:
        response = await http.post("/v1/responses", json={"model": "ttrl", "input": "2+2"} | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert stack.fake.num_generations == 0
    assert await stack.queries() == []


MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no max_tokens": ({"max_tokens": None}, "`max_tokens`"),
    "temperature": ({"temperature": 1.5}, "`temperature`"),
    "a server's tool": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "`tools[0]",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "`messages[0].content[0]",
    ),
    "no content": ({"messages": [{"role": "user", "content": []}]}, "`messages[0].content`"),
    "the model's turn": (
        {"messages": [USER, {"role": "assistant", "content": "I think"}]},
        "The last message",
    ),
    "a misplaced result": (
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "tool_result", "tool_use_id": "c", "content": "4"}],
                },
                USER,
            ]
        },
        "`tool_result` belongs",
    ),
    "a result in a system turn": (
        {
            "messages": [
                {
                    "role": "system",
                    "content": [{"type": "tool_result", "tool_use_id": "c", "content": "4"}],
                },
                USER,
            ]
        },
        "belongs to the role `user`",
    ),
    "a misplaced call": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
                }
            ]
        },
        "`tool_use` belongs",
    ),
    "no tools": ({"tool_choice": {"type": "any"}}, "`tool_choice` needs"),
    "an unnamed tool": ({"tools": [ADD], "tool_choice": {"type": "tool"}}, "`name` belongs"),
    "servers": ({"mcp_servers": [{"url": "x"}]}, "`mcp_servers` is not supported"),
    "stop": ({"stop": "x"}, "use `stop_sequences`"),
    "salt": ({"cache_salt": "x"}, "`cache_salt` is not allowed"),
    "misspelt": ({"temprature": 1}, "`temprature` is not a field"),
}


@pytest.mark.parametrize(("fields", "said"), MESSAGES.values(), ids=MESSAGES.keys())
async def test_a_message_that_is_refused(stack: Stack, fields: dict[str, Any], said: str):
    async with stack.http() as http:
        response = await http.post("/v1/messages", json=ASKED | fields)
    assert response.status_code == 400
    body = response.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert said in body["error"]["message"]
    assert stack.fake.num_generations == 0
    assert await stack.queries() == []
