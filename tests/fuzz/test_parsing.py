"""Whatever a body holds, it is a request or a clear refusal; and no field reaches an engine that is
not on this list, which is written down here once more on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import Settings
from server.db.log import fingerprint
from server.errors import BadRequest
from server.gateway.messages.parsing import parse_count, parse_messages
from server.gateway.parsing import Asked, parse_chat, parse_completion
from server.gateway.rendering import Names
from server.gateway.responses.parsing import parse_responses
from tests.fuzz.bodies import bodies
from tests.fuzz.cases import fuzzed

SETTINGS = Settings(max_messages=5, max_n=4)
NAMES = Names("chatcmpl-1", "t1-adder--v1", "ttrl", "adder--v1", 0)

ALLOWED = {
    *("model", "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "presence_penalty"),
    *("frequency_penalty", "repetition_penalty", "logit_bias", "seed", "stop", "stop_token_ids"),
    *("include_stop_str_in_output", "min_tokens", "ignore_eos", "skip_special_tokens", "stream"),
    *("stream_options", "n", "max_tokens", "max_completion_tokens", "response_format", "logprobs"),
    *("top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
}
ALLOWED_IN_MESSAGES = {
    *("role", "content", "name", "tool_calls", "tool_call_id", "reasoning", "reasoning_content"),
}
OPTIONS = (
    {"include_usage": True},
    {"include_usage": True, "continuous_usage_stats": True},
)

Parse = Callable[[bytes, Settings], Asked]


def parsed(parse: Parse, body: bytes) -> Asked | None:
    """What is asked; None where it is refused in a way that can be shown."""
    try:
        return parse(body, SETTINGS)
    except BadRequest as error:
        refusal = error
    assert 400 <= refusal.status_code < 500
    assert refusal.message
    msgspec.json.encode(refusal.body())
    return None


def check(asked: Asked) -> None:
    """Nothing but allowed fields, and all of it can be sent and logged."""
    upstream = asked.upstream
    assert set(upstream) <= ALLOWED
    assert upstream.get("n", 1) <= SETTINGS.max_n
    assert not any(value is None for value in upstream.values())
    for message in upstream.get("messages", []):
        assert set(message) <= ALLOWED_IN_MESSAGES
        if isinstance(message.get("content"), list):
            assert all(set(part) == {"type", "text"} for part in message["content"])
    assert upstream.get("stream_options", OPTIONS[0]) in OPTIONS
    assert set(upstream.get("response_format", {})) <= {"type", "json_schema"}
    msgspec.json.encode(upstream)
    stored: Any = msgspec.json.decode(msgspec.json.encode([asked.prompt, asked.params]))
    assert "\0" not in repr(stored)
    fingerprint(asked.prompt)
    asked.render(NAMES)


PARSERS: dict[str, Parse] = {
    "/v1/chat/completions": parse_chat,
    "/v1/completions": parse_completion,
    "/v1/responses": parse_responses,
    "/v1/messages": parse_messages,
}


@pytest.mark.parametrize("path", PARSERS)
def test_only_allowed_fields_pass(path: str) -> None:
    num_asked = 0

    @fuzzed(30)
    @given(bodies(path))
    def only_allowed_fields_pass(body: bytes) -> None:
        nonlocal num_asked
        asked = parsed(PARSERS[path], body)
        if asked is not None:
            num_asked += 1
            check(asked)

    only_allowed_fields_pass()
    assert num_asked > 2  # else nothing was shown


@fuzzed(30)
@given(bodies("/v1/messages"))
def test_counting_takes_only_what_is_counted(body: bytes) -> None:
    try:
        _, counted = parse_count(body, SETTINGS)
    except BadRequest:
        return
    assert set(counted) <= {"messages", "tools"}
    msgspec.json.encode(counted)


@fuzzed(30)
@given(st.sampled_from(sorted(PARSERS)), st.integers(0, 30_000), st.sampled_from(["[", '{"a":']))
def test_nesting_is_refused_not_followed(path: str, depth: int, bracket: str) -> None:
    body = b'{"model":"ttrl","metadata":' + bracket.encode() * depth
    assert parsed(PARSERS[path], body) is None
