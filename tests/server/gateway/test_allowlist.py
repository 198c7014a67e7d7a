"""What reaches the engine: what was asked for, within the table, and what the gateway sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.config import Settings
from server.errors import BadRequest
from server.gateway.allowlist import DROPPED, REFUSED
from server.gateway.parsing import LEARNABLE_CHARS, Asked, parse_chat, parse_completion
from tests.server.gateway.conftest import Stack, chat

PASSED: dict[str, Any] = {
    "n": 2,
    "max_tokens": 7,
    "max_completion_tokens": 8,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": -1.0,
    "frequency_penalty": 1.0,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": -100.0},
    "seed": -5,
    "stop": ["a", "b"],
    "stop_token_ids": [1],
    "include_stop_str_in_output": True,
    "min_tokens": 1,
    "ignore_eos": True,
    "skip_special_tokens": False,
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "top_logprobs": 20,
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"x": [1, None]}, "strict": False},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
}
ACCEPTED: dict[str, Any] = {
    "user": "u",
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "store": True,
    "modalities": ["text"],
    "verbosity": "low",
    "prediction": {"type": "content", "content": "x"},
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
}


def parsed(**fields: Any) -> Asked:
    return parse_chat(json.dumps(chat(**fields)).encode(), Settings())


def test_passed_fields_arrive_as_they_were_sent():
    asked = parsed(**PASSED)
    assert asked.upstream == {**chat(), **PASSED}
    assert asked.params == {"model": "ttrl", **PASSED}


def test_clients_extras_are_dropped():
    asked = parsed(**ACCEPTED)
    assert asked.upstream == chat()
    assert set(ACCEPTED) <= set(DROPPED)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_belongs_to_the_server_is_refused_by_name(name: str):
    with pytest.raises(BadRequest, match="is not allowed") as caught:
        parsed(**{name: 1})
    assert caught.value.param == name
    with pytest.raises(BadRequest, match="is not allowed"):
        parse_completion(json.dumps({"model": "m", "prompt": "a", name: 1}).encode(), Settings())


def test_null_means_not_given():
    nulls = dict.fromkeys([*PASSED, *ACCEPTED, "stream", "stream_options", "functions", "audio"])
    asked = parsed(**nulls)
    assert asked.upstream == chat()
    assert asked.store
    assert not asked.stream


def test_the_last_of_repeated_keys_counts():
    body = json.dumps(chat(n=2)).replace('"n": 2', '"n": 3, "n": 2').encode()
    assert parse_chat(body, Settings()).upstream["n"] == 2


def test_text_parts_are_kept():
    parts = [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}]
    asked = parsed(messages=[{"role": "user", "content": parts}])
    assert asked.prompt == [{"role": "user", "content": parts}]
    assert asked.reason is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"n": 4, "temperature": 0, "stop": "a", "logprobs": True}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, "structured"),
        ({"tools": PASSED["tools"]}, "tool_calls"),
        ({"reasoning_effort": "high"}, "reasoning"),
        ({"content": "x" * LEARNABLE_CHARS}, None),
        ({"content": "x" * (LEARNABLE_CHARS + 1)}, "too_long"),
    ],
)
def test_what_cannot_be_learned_from_has_a_reason(fields: dict[str, Any], reason: str | None):
    assert parsed(**fields).reason == reason


def test_a_tool_result_is_not_learned_from():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    ]
    asked = parsed(messages=turns)
    assert asked.prompt == turns
    assert asked.reason == "tool_calls"


def test_completions_are_not_learned_from():
    asked = parse_completion(b'{"model":"ttrl","prompt":["a","b"]}', Settings())
    assert asked.reason == "not_chat"
    assert asked.prompt == [["a", "b"]]


def test_nul_is_stored_as_its_picture_and_sent_as_it_came():
    asked = parsed(content="a\0b", stop=["\0"])
    assert asked.prompt == [{"role": "user", "content": "a\u2400b"}]
    assert asked.params["stop"] == ["\u2400"]
    assert asked.upstream["messages"] == [{"role": "user", "content": "a\0b"}]
    assert asked.upstream["stop"] == ["\0"]


async def test_the_engine_hears_nothing_of_the_clients_headers(stack: Stack):
    headers = {
        "X-Request-Id": "mine",
        "X-Vllm-Priority": "-100",
        "X-data-parallel-rank": "1",
        "X-Forwarded-For": "1.2.3.4",
        "Cookie": "a=b",
        "Accept-Encoding": "gzip",
    }
    async with stack.http(headers=headers) as http:
        response = await http.post("/v1/chat/completions", json=chat())
    [received] = stack.fake.received("/v1/chat/completions")
    assert set(received.headers) == {"host", "content-type", "content-length", "x-request-id"}
    assert response.headers["x-request-id"] == f"chatcmpl-{received.headers['x-request-id']}"
    assert received.headers["x-request-id"] != "mine"


async def test_model_and_salt_are_the_gateways(stack: Stack):
    async with stack.http() as http:
        await http.post("/v1/chat/completions", json=chat())
        await http.post("/v1/chat/completions", json=chat(stream=True))
    whole, stream = (request.body for request in stack.fake.received("/v1/chat/completions"))
    assert whole == chat() | {"model": "t1-adder--v2", "cache_salt": "tenant-1"}
    assert stream == whole | {"stream": True, "stream_options": {"include_usage": True}}
