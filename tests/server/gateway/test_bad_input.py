"""The table of bad requests: each a clear error of the right status; the server lives on, and
nothing is asked of an engine or logged.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.gateway.conftest import ADDER, Stack, chat, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "2+2"}


def body(**fields: Any) -> bytes:
    return json.dumps(chat(**fields)).encode()


def messages(*turns: dict[str, Any]) -> bytes:
    return json.dumps({"model": "ttrl", "messages": list(turns)}).encode()


def completion(prompt: Any, **fields: Any) -> bytes:
    return json.dumps({"model": "ttrl", "prompt": prompt, **fields}).encode()


def nested(depth: int) -> Any:
    return {} if depth == 0 else {"a": nested(depth - 1)}


def tool(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


BAD: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", None),
    "malformed": (b'{"model": "ttrl", "messages": [', None),
    "not JSON": (b"model=ttrl", None),
    "trailing": (body() + b"x", None),
    "byte order mark": (b"\xef\xbb\xbf" + body(), None),
    "UTF-16": (body().decode().encode("utf-16"), None),
    "an array": (b"[]", None),
    "a text": (b'"hello"', None),
    "null": (b"null", None),
    "invalid UTF-8": (body().replace(b"2+2", b"\xff\xfe"), None),
    "half a surrogate": (body().replace(b"2+2", b"\\ud800"), None),
    "NaN": (body(temperature=1).replace(b'"temperature": 1', b'"temperature": NaN'), None),
    "Infinity": (
        body(temperature=1).replace(b'"temperature": 1', b'"temperature": 1e999'),
        "temperature",
    ),
    "deep nesting": (b'{"model":"ttrl","messages":' + b"[" * 100_000, "messages[0]"),
    "deep metadata": (
        body(metadata=1).replace(b'"metadata": 1', b'"metadata": ' + b'{"a":' * 100_000),
        None,
    ),
    "a schema within schemas": (body(tools=[tool(nested(200))]), None),
    "metadata within metadata": (body(metadata=nested(200)), None),
    "an integer over 64 bits": (body(tools=[tool({"maximum": 2**64})]), None),
    "an integer far below 64 bits": (body(metadata={"a": [-(10**400)]}), None),
    "no model": (b'{"messages":[{"role":"user","content":"a"}]}', "model"),
    "model null": (body(model=None), "model"),
    "model a number": (body(model=1), "model"),
    "no messages": (b'{"model":"ttrl"}', "messages"),
    "no turns": (messages(), "messages"),
    "messages a text": (body(messages="hi"), "messages"),
    "a turn is a text": (body(messages=["hi"]), "messages[0]"),
    "10,000 turns": (messages(*[USER] * 10_000), "messages"),
    "unknown role": (messages({"role": "root", "content": "a"}), "messages[0].role"),
    "no role": (messages({"content": "a"}), "messages[0].role"),
    "no content": (messages({"role": "user"}), "messages[0].content"),
    "empty assistant": (messages(USER, {"role": "assistant"}), "messages[1].content"),
    "content a number": (messages({"role": "user", "content": 1}), "messages[0].content"),
    "no parts": (messages({"role": "user", "content": []}), "messages[0].content"),
    "an image": (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        "messages[0].content[0].type",
    ),
    "unknown turn field": (messages(USER | {"prefix": True}), "messages[0].prefix"),
    "tool without id": (
        messages(USER, {"role": "tool", "content": "4"}),
        "messages[1].tool_call_id",
    ),
    "zero max_tokens": (body(max_tokens=0), "max_tokens"),
    "negative max_tokens": (body(max_tokens=-5), "max_tokens"),
    "negative max_completion_tokens": (body(max_completion_tokens=-1), "max_completion_tokens"),
    "max_tokens a text": (body(max_tokens="10"), "max_tokens"),
    "max_tokens a float": (body(max_tokens=1.5), "max_tokens"),
    "max_tokens true": (body(max_tokens=True), "max_tokens"),
    "huge max_tokens": (body(max_tokens=10**30), "max_tokens"),
    "very huge max_tokens": (
        body(max_tokens=1).replace(b": 1}", b": " + b"9" * 9999 + b"}"),
        "max_tokens",
    ),
    "zero n": (body(n=0), "n"),
    "too large n": (body(n=65), "n"),
    "temperature": (body(temperature=2.1), "temperature"),
    "negative temperature": (body(temperature=-0.1), "temperature"),
    "top_p": (body(top_p=1.1), "top_p"),
    "zero top_p": (body(top_p=0), "top_p"),
    "huge seed": (body(seed=2**63), "seed"),
    "too many stops": (body(stop=["a"] * 17), "stop"),
    "empty stop": (body(stop=""), "stop"),
    "top_logprobs": (body(logprobs=True, top_logprobs=21), "top_logprobs"),
    "top_logprobs alone": (body(top_logprobs=2), "top_logprobs"),
    "stream_options alone": (body(stream_options={"include_usage": True}), "stream_options"),
    "unknown stream option": (
        body(stream=True, stream_options={"continuous_usage_stats": True}),
        "stream_options.continuous_usage_stats",
    ),
    "stream a text": (body(stream="yes"), "stream"),
    "tool_choice alone": (body(tool_choice="auto"), "tool_choice"),
    "a tool without name": (
        body(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
    ),
    "structural tag": (body(response_format={"type": "structural_tag"}), "response_format.type"),
    "no schema": (body(response_format={"type": "json_schema"}), "response_format.json_schema"),
    "store a text": (body(store="no"), "store"),
    "functions": (body(functions=[]), "functions"),
    "misspelt": (body(temprature=1), "temprature"),
}

BAD_COMPLETIONS: dict[str, tuple[bytes, str | None]] = {
    "no prompt": (b'{"model":"ttrl"}', "prompt"),
    "empty prompt": (completion(""), "prompt"),
    "no prompts": (completion([]), "prompt"),
    "mixed prompts": (completion(["a", 1]), "prompt"),
    "mixed the other way": (completion([1, "a"]), "prompt"),
    "an empty one": (completion(["a", ""]), "prompt"),
    "too many": (completion(["a"] * 65), "prompt"),
    "too many together": (completion(["a"] * 13, n=5), "prompt"),
    "a negative token": (completion([-1]), "prompt[0]"),
    "echo": (completion("a", echo=True), "echo"),
    "best_of": (completion("a", best_of=2), "best_of"),
    "suffix": (completion("a", suffix="b"), "suffix"),
    "logprobs": (completion("a", logprobs=21), "logprobs"),
    "messages": (completion("a", messages=[USER]), "messages"),
    "zero max_tokens": (completion("a", max_tokens=0), "max_tokens"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stack]:
    """One gateway for the whole table: it must live through all of it, and log nothing."""
    async with running(tmp_path_factory.mktemp("gateway")) as stack:
        yield stack


async def expect(
    stack: Stack, path: str, content: bytes, status: int, code: str, key: str = ADDER
) -> dict[str, Any]:
    async with stack.http(key) as http:
        response = await http.post(path, content=content)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
        assert error["message"]
        alive = await http.get("/v1/models")
        assert alive.status_code == (401 if key != ADDER else 200)
    assert stack.fake.num_generations == 0
    assert await stack.queries() == []
    return error


@pytest.mark.parametrize(("content", "param"), BAD.values(), ids=BAD.keys())
async def test_bad_chat(stack: Stack, content: bytes, param: str | None):
    error = await expect(stack, CHAT, content, 400, "invalid_request")
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("content", "param"), BAD_COMPLETIONS.values(), ids=BAD_COMPLETIONS.keys())
async def test_bad_completion(stack: Stack, content: bytes, param: str | None):
    error = await expect(stack, COMPLETIONS, content, 400, "invalid_request")
    assert error["param"] == param


@pytest.mark.parametrize(
    "model", ["gpt-4o", "ttrl@v3", "ttrl@", "ttrl@v01", "ttrl@v-1", "TTRL", "ttrl/../x", "x" * 256]
)
async def test_unknown_model(stack: Stack, model: str):
    error = await expect(stack, CHAT, body(model=model), 404, "model_not_found")
    assert error["param"] == "model"


async def test_wrong_key(stack: Stack):
    await expect(stack, CHAT, body(), 401, "invalid_api_key", key="sk-wrong")


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic sk-adder", "sk-adder"])
async def test_no_key(stack: Stack, value: str | None):
    async with stack.http() as http:
        del http.headers["Authorization"]
        headers = {} if value is None else {"Authorization": value}
        response = await http.post(CHAT, content=body(), headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


async def test_body_over_the_limit(stack: Stack):
    limit = stack.deps.settings.max_body_bytes
    await expect(stack, CHAT, body(content="x" * limit), 413, "request_too_large")


async def test_body_over_the_limit_without_a_length(stack: Stack):
    async def endless():
        for _ in range(100):
            yield b" " * 65536

    async with stack.http() as http:
        response = await http.post(CHAT, content=endless())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_body_at_the_limit(tmp_path: Path):
    content = body() + b" " * (5000 - len(body()))
    async with running(tmp_path, max_body_bytes=5000) as stack, stack.http() as http:
        assert (await http.post(CHAT, content=content)).status_code == 200


async def test_the_most_messages_are_answered(tmp_path: Path):
    async with running(tmp_path, max_messages=3) as stack, stack.http() as http:
        assert (await http.post(CHAT, content=messages(*[USER] * 3))).status_code == 200
        assert (await http.post(CHAT, content=messages(*[USER] * 4))).status_code == 400
