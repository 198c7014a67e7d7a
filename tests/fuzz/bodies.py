"""Request bodies that are almost right: valid ones of every route, changed at random places."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import strategies as st

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"name": "s", "schema": {"type": "object"}}
SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "seed": 1,
    "stop": ["x"],
    "logit_bias": {"1": 2.0},
    "store": True,
    "metadata": {"a": "b"},
    "user": "u",
}

CHAT: dict[str, Any] = {
    "model": "ttrl",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "be short"}]},
        {"role": "user", "content": "2+2", "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "r"},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ],
    **SAMPLING,
    "n": 2,
    "max_tokens": 3,
    "max_completion_tokens": 4,
    "logprobs": True,
    "top_logprobs": 1,
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    "stream": False,
    "reasoning_effort": "low",
}
COMPLETION: dict[str, Any] = {
    "model": "ttrl",
    "prompt": ["a", "b"],
    **SAMPLING,
    "n": 1,
    "max_tokens": 3,
    "logprobs": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
}
RESPONSES: dict[str, Any] = {
    "model": "ttrl",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "2+2"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
    ],
    "instructions": "be short",
    "temperature": 0.5,
    "max_output_tokens": 5,
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": "auto",
    "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low"},
    "stream": False,
    "metadata": {"a": "b"},
}
MESSAGES: dict[str, Any] = {
    "model": "ttrl",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "be short"}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "2+2"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "temperature": 0.5,
    "top_k": 3,
    "stop_sequences": ["x"],
    "stream": False,
    "thinking": {"type": "disabled"},
}

VALID = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}

INTERNALS = (
    "priority",
    "cache_salt",
    "request_id",
    "chat_template",
    "chat_template_kwargs",
    "kv_transfer_params",
    "vllm_xargs",
    "prompt_logprobs",
    "structured_outputs",
    "guided_json",
    "add_generation_prompt",
    "lora_request",
    "use_beam_search",
    "stream_options",
    "echo",
    "audio",
    "image_url",
    "__proto__",
)
texts = st.text(max_size=8) | st.sampled_from(["", "\0", "\u2028", "\udc80", "ttrl", "a" * 300])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**40, 1e308, 0.1, -0.0])
    | texts
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=3,
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    if isinstance(value, dict):
        held = cast(dict[str, Any], value)
        return [(held, k) for k in held] + [p for v in held.values() for p in _places(v)]
    if isinstance(value, list):
        row = cast(list[Any], value)
        return [(row, i) for i in range(len(row))] + [p for v in row for p in _places(v)]
    return []


@st.composite
def changed(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """A valid body with a few places replaced, removed, or added to."""
    body: dict[str, Any] = json.loads(json.dumps(valid))
    for name in draw(st.lists(st.sampled_from(sorted(body)), max_size=8)):
        if name not in ("model", "messages", "prompt", "input"):
            body.pop(name, None)
    for _ in range(draw(st.integers(0, 3))):
        places = _places(body)
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "add", "drop", "wrap"]))
        if how == "replace":
            holder[key] = draw(junk)
        elif how == "wrap":
            holder[key] = [holder[key]]
        elif how == "drop" and isinstance(holder, dict):
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(INTERNALS) | texts)] = draw(junk)
    return json.dumps(body).encode("utf-8", "surrogatepass")


def bodies(path: str) -> st.SearchStrategy[bytes]:
    """Bodies for a route: almost right, any JSON, or any bytes."""
    anything = junk.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    return changed(VALID[path]) | changed(VALID[path]) | anything | st.binary(max_size=60)
