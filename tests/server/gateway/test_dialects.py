"""What holds for each dialect, whatever comes: bodies of any shape, and answers cut anywhere."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import Settings
from server.errors import BadRequest, EngineFailed
from server.gateway.items import Items
from server.gateway.messages.parsing import parse_count, parse_messages
from server.gateway.parsing import parse_chat, parse_completion
from server.gateway.responses.parsing import parse_responses
from server.gateway.transcript import Choice, Chunk, Delta, Transcript

KINDS = [
    "message",
    "function_call",
    "function_call_output",
    "item_reference",
    "reasoning",
    "text",
    "input_text",
    "output_text",
    "tool_use",
    "tool_result",
    "thinking",
    "function",
    "json_schema",
    "auto",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(("user", "assistant", "system", "tool", "ttrl", "none", "required"))
)
NAMES: tuple[str, ...] = (
    "role",
    "content",
    "text",
    "name",
    "call_id",
    "arguments",
    "output",
    "summary",
    "id",
    "tool_use_id",
    "input",
    "thinking",
    "data",
    "parameters",
    "input_schema",
    "format",
    "schema",
    "effort",
    "function",
    "tool_calls",
    "tool_call_id",
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that look like what the routes take."""
    fields = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
    kinds = st.sampled_from(KINDS)
    return st.builds(lambda kind, rest: {"type": kind} | rest, kinds, fields) | fields


VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | objects(v), max_leaves=12)
FIELDS = [
    "messages",
    "input",
    "instructions",
    "system",
    "tools",
    "tool_choice",
    "max_tokens",
    "max_output_tokens",
    "stop",
    "text",
    "reasoning",
    "thinking",
    "output_config",
    "stream",
    "store",
    "include",
    "metadata",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_logprobs",
    "prompt",
    "n",
    "previous_response_id",
    "cache_salt",
    "unknown",
]
BODIES = st.builds(
    lambda base, rest: base | rest,
    st.sampled_from(
        [
            {"model": "ttrl", "input": "a"},
            {"model": "ttrl", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]},
            {"model": "ttrl", "prompt": "a"},
        ]
    ),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(body=BODIES)
@pytest.mark.parametrize(
    "parse", [parse_chat, parse_completion, parse_responses, parse_messages, parse_count]
)
def test_a_body_is_understood_or_refused(parse: Any, body: dict[str, Any]):
    try:
        data = json.dumps(body).encode()
    except ValueError:
        return
    with suppress(BadRequest):  # and nothing else
        assert parse(data, Settings())


def deltas() -> st.SearchStrategy[Delta]:
    calls = st.builds(
        lambda at, text: {
            "index": at,
            "id": f"c{at}",
            "function": {"name": "f", "arguments": text},
        },
        st.integers(0, 2),
        st.text(max_size=3),
    )
    words = st.none() | st.text(max_size=3)
    return st.builds(
        Delta, content=words, reasoning=words, tool_calls=st.none() | st.lists(calls, max_size=2)
    )


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(deltas(), max_size=8))
def test_items_lose_nothing_and_never_overlap(pieces: list[Delta]):
    items, transcript, steps = Items(), Transcript(), []
    try:
        for piece in pieces:
            chunk = Chunk(choices=[Choice(delta=piece)])
            steps += items.take(chunk)
            transcript.add(chunk)
    except EngineFailed:
        return
    steps += items.finish()
    opened = None
    for step in steps:
        assert opened is (None if step.moment == "open" else step.item)
        opened = None if step.moment == "close" else step.item
    assert opened is None
    assert [step.item for step in steps if step.moment == "open"] == items.all
    told = "".join(step.text for step in steps if step.item.kind == "text")
    thought = "".join(item.text for item in items.all if item.kind == "reasoning")
    calls = [item.text for item in items.all if item.kind == "call"]
    for answer in transcript.answers():
        assert (answer.text, answer.reasoning or "") == (told, thought)
        logged = [call["function"]["arguments"] for call in answer.tool_calls or ()]
        assert sorted(logged) == sorted(calls)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_responses, {"model": "m", "input": "a\0", "instructions": "\0"}),
        (
            parse_messages,
            {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a\0"}]},
        ),
    ],
)
def test_nul_is_stored_as_its_picture_and_sent_as_it_came(parse: Any, body: dict[str, Any]):
    asked = parse(json.dumps(body).encode(), Settings())
    assert asked.prompt[-1] == {"role": "user", "content": "a\u2400"}
    assert asked.upstream["messages"][-1] == {"role": "user", "content": "a\0"}


@pytest.mark.parametrize(
    ("parse", "body", "reason"),
    [
        (parse_responses, {"input": "a"}, None),
        (parse_responses, {"input": "a", "reasoning": {"effort": "low"}}, "reasoning"),
        (parse_responses, {"input": "a", "text": {"format": {"type": "text"}}}, None),
        (parse_responses, {"input": "a", "parallel_tool_calls": True, "tools": []}, None),
        (parse_messages, {"thinking": {"type": "disabled"}}, "reasoning"),
        (parse_messages, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, None),
        (parse_messages, {"output_config": {"effort": "max"}}, "reasoning"),
        (parse_messages, {"system": "x" * 40_000}, "too_long"),
    ],
)
def test_what_cannot_be_learned_from_has_a_reason(
    parse: Any, body: dict[str, Any], reason: str | None
):
    if parse is parse_messages:
        body = {"max_tokens": 5, "messages": [{"role": "user", "content": "a"}]} | body
    asked = parse(json.dumps({"model": "m"} | body).encode(), Settings())
    assert asked.reason == reason
    assert asked.params == {"model": "m"} | {
        name: asked.upstream[name]
        for name in ("max_tokens", "reasoning_effort")
        if name in asked.upstream
    }


def test_too_many_turns_are_refused():
    few = Settings(max_messages=2)
    turn = {"role": "user", "content": "a"}
    for parse, body in (
        (parse_responses, {"model": "m", "input": [turn] * 3}),
        (parse_messages, {"model": "m", "max_tokens": 5, "messages": [turn] * 3}),
    ):
        with pytest.raises(BadRequest, match="At most 2"):
            parse(json.dumps(body).encode(), few)
