"""The data plane's OpenAPI description. The request schemas come from the allow-list's structs, so
that they cannot drift from what is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from ttrl_client.types import ErrorBody

FIELDS: Final[dict[str, str]] = {
    "model": "The served name; `<name>@base` for the base model, `<name>@v3` for a version.",
    "messages": "The conversation so far. Text only.",
    "prompt": "A text, a list of texts, token ids, or a list of lists of token ids.",
    "n": "How many answers to sample.",
    "max_tokens": "Longest answer, in tokens.",
    "max_completion_tokens": "Longest answer, in tokens; wins over `max_tokens`.",
    "temperature": "Sampling temperature; 0 is greedy. Default 1.",
    "top_p": "Nucleus sampling: the share of probability that is kept.",
    "top_k": "Only the k most probable tokens; 0 or -1: all.",
    "min_p": "Least probability of a token, relative to the most probable one.",
    "presence_penalty": "Penalty for tokens that have appeared.",
    "frequency_penalty": "Penalty by how often a token has appeared.",
    "repetition_penalty": "Factor against tokens of the prompt and the answer; 1 is none.",
    "logit_bias": "Token id to bias.",
    "seed": "Seed of the sampling. Equal seeds are no promise of equal answers under load.",
    "stop": "Texts that end an answer.",
    "stop_token_ids": "Token ids that end an answer.",
    "include_stop_str_in_output": "Whether the answer keeps the text that ended it.",
    "min_tokens": "Least number of tokens before an answer may end.",
    "ignore_eos": "Go on after the end-of-sequence token.",
    "skip_special_tokens": "Leave special tokens out of the text.",
    "response_format": "Text, a JSON object, or JSON that follows a schema.",
    "stream": "Answer as server-sent events.",
    "stream_options": "`include_usage`: a last event with the token counts.",
    "store": "False: the request is neither logged nor learned from. Default true.",
    "user": "Accepted and not used.",
    "metadata": "Accepted and not used.",
    "service_tier": "Accepted and not used.",
    "logprobs": "Chat: whether to return log-probabilities. Completions: how many a token.",
    "top_logprobs": "How many alternatives a token; needs `logprobs`.",
    "tools": "Functions that the model may call, as far as the engine's model can.",
    "tool_choice": "none, auto, required, or the function to call.",
    "parallel_tool_calls": "Whether several tools may be called at once.",
    "reasoning_effort": "How long the model may think, as far as its template knows.",
    "modalities": 'Only `["text"]`.',
    "verbosity": "Accepted and not used.",
    "prediction": "Accepted and not used.",
    "safety_identifier": "Accepted and not used.",
    "prompt_cache_key": "Accepted and not used.",
    "prompt_cache_options": "Accepted and not used.",
    "prompt_cache_retention": "Accepted and not used.",
    "echo": "Not supported.",
    "best_of": "Not supported.",
    "suffix": "Not supported.",
    "audio": "Not supported.",
    "functions": "Not supported; use `tools`.",
    "function_call": "Not supported; use `tool_choice`.",
    "web_search_options": "Not supported.",
    "moderation": "Not supported.",
    "input": "A text, or the items of the conversation so far. Text only.",
    "instructions": "A system message in front of the conversation.",
    "max_output_tokens": "Longest answer, in tokens, with its reasoning.",
    "text": "`format`: text, a JSON object, or JSON that follows a schema.",
    "reasoning": "`effort`: how long the model may think, as far as its template knows.",
    "include": "`message.output_text.logprobs` asks for log-probabilities; others mean nothing.",
    "max_tool_calls": "Accepted and not used: it bounds built-in tools, and there are none.",
    "truncation": "Only `disabled`.",
    "background": "Not supported: no response is kept.",
    "previous_response_id": "Not supported: no response is kept.",
    "conversation": "Not supported: no response is kept.",
    "context_management": "Not supported.",
    "system": "A text, or text blocks, in front of the conversation.",
    "stop_sequences": "Texts that end an answer.",
    "thinking": "`disabled` asks for no reasoning, as far as the model's template knows.",
    "output_config": "`format`: JSON that follows a schema. `effort`: how long to think.",
    "inference_geo": "Accepted and not used.",
    "cache_control": "Accepted and not used: the engine's prefix cache needs no hints.",
    "mcp_servers": "Not supported.",
    "container": "Not supported.",
}
"""What the fields of the routes mean; `OVERRIDES` where a route has its own meaning."""

OVERRIDES: Final[dict[str, str]] = {
    "ResponsesRequest.prompt": "Not supported: no template is kept.",
    "ResponsesRequest.metadata": "Given back in the answer, and not used.",
    "ResponsesRequest.user": "Given back in the answer, and not used.",
    "ResponsesRequest.stream_options": "Accepted and not used.",
}

ANSWER_ERRORS: Final = (400, 401, 404, 408, 413, 429, 500, 502, 503)
_ERRORS: Final[dict[int, str]] = {
    400: "The request is malformed or asks for something that is refused; `param` names the field.",
    401: "No API key, or one that is not valid.",
    404: "No such model for this tenant.",
    408: "The body did not arrive in time.",
    413: "The body is over the limit.",
    429: "A limit of the tenant is reached: requests or tokens a minute, or answers at once.",
    500: "The server made a mistake.",
    502: "The engine answered something that makes no sense, or not in time.",
    503: "The server is full, or the engines or the query log are away. After an answer began, it"
    " comes as an event.",
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
}
_RATE: Final = {
    f"x-ratelimit-{word}-{what}": {
        "description": f"{text} {what} a minute, where the tenant has such a limit.",
        "schema": {"type": kind},
    }
    for what in ("requests", "tokens")
    for word, text, kind in (
        ("limit", "Limit of", "integer"),
        ("remaining", "What is left of", "integer"),
        ("reset", "Time until it is whole again, such as `6m0s`: of", "string"),
    )
}
_ANSWER_HEADERS: Final = {
    **_RATE,
    "X-TTRL-Adapter": {
        "description": "The adapter version that answered, such as `adder--v3`.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "description": "The answer's id, also in the body and in the log.",
        "schema": {"type": "string"},
    },
}


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Anthropic's word for the kind of error.")
    message: str = Field(description="What went wrong, in a sentence.")


class AnthropicErrorBody(BaseModel):
    """An error on Anthropic's routes."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(default="error", description="Always `error`.")
    error: AnthropicErrorDetail


def errors(*codes: int, model: type[BaseModel] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """The description of these error answers."""
    return {
        code: {
            "model": model,
            "description": _ERRORS[code],
            **({"headers": _RETRY_AFTER} if code in (429, 503) else {}),
        }
        for code in codes
    }


def answers(summary: str, chunk: str) -> dict[int | str, dict[str, Any]]:
    """The description of a successful answer, and of the errors."""
    stream = (
        f"events `data: <{chunk}>`, closed by `data: [DONE]`; an event with `error` ends a stream"
        " that failed"
    )
    return _success(summary, stream) | errors(*ANSWER_ERRORS)


def typed_answers(
    summary: str, last: str, *, model: type[BaseModel] = ErrorBody
) -> dict[int | str, dict[str, Any]]:
    """The same where a stream is made of events with a type; `last` ends it."""
    stream = f"typed events up to `{last}`; an event of the type `error` ends a stream that failed"
    return _success(summary, stream) | errors(*ANSWER_ERRORS, model=model)


def _success(summary: str, stream: str) -> dict[int | str, dict[str, Any]]:
    description = (
        f"{summary} A 200 that was received in full is in the log. With `stream: true`, {stream}."
        " `system_fingerprint` is the adapter version, as in `X-TTRL-Adapter`."
    )
    content = {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    return {200: {"description": description, "headers": _ANSWER_HEADERS, "content": content}}


def request_body(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The `requestBody` of a route, each field described."""
    schema = msgspec.json.schema(struct)
    body = _inlined(schema, schema["$defs"])
    for name, field in body["properties"].items():
        field["description"] = OVERRIDES.get(f"{struct.__name__}.{name}") or FIELDS[name]
    return {"required": True, "content": {"application/json": {"schema": body}}}


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema without references: OpenAPI would look for them elsewhere."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    mapping = cast(dict[str, Any], node)
    if "$ref" in mapping:
        return _inlined(definitions[mapping["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in mapping.items() if key != "$defs"}
