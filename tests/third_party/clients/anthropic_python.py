"""The anthropic package against the Messages API."""

from __future__ import annotations

import asyncio
from typing import Literal

import anthropic
from checking import (
    ADD_SCHEMA,
    BASE_URL,
    KEY,
    LABEL,
    LIMITED_KEY,
    MESSAGES,
    MODEL,
    Checks,
    raises,
)
from pydantic import BaseModel

check = Checks("anthropic")
client = anthropic.Anthropic(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=120)

# The package has no such arguments any more; the API has them still.
GREEDY = {"temperature": 0}
TOOL = {"name": "add", "description": "Adds.", "input_schema": ADD_SCHEMA}


class Verdict(BaseModel):
    """What structured output is asked for. No numbers: the package takes their bounds out of the
    schema, and this model would write digits for ever.
    """

    is_even: bool
    size: Literal["small", "large"]


@check("messages")
def _() -> None:
    raw = client.messages.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_tokens=64, extra_body=GREEDY
    )
    message = raw.parse()
    [block] = message.content
    assert block.type == "text", message
    assert block.text, message
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL), message
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None), message
    assert message.id.startswith("msg_"), message.id
    assert message._request_id == message.id, message._request_id
    assert raw.headers["x-ttrl-adapter"] == LABEL, raw.headers
    assert message.usage.input_tokens > 0, message.usage
    assert message.usage.output_tokens > 0, message.usage


@check("messages with system, history, stop sequence, max_tokens")
def _() -> None:
    history = [*MESSAGES, {"role": "assistant", "content": "46"}, *MESSAGES]
    cut = client.messages.create(
        model=MODEL, messages=history, system="Add.", max_tokens=2, extra_body={"top_k": 5}
    )
    assert cut.stop_reason == "max_tokens", cut
    assert cut.usage.output_tokens == 2, cut.usage
    whole = client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=64, extra_body=GREEDY)
    first = whole.content[0].text.strip()[0]
    stopped = client.messages.create(
        model=MODEL, messages=MESSAGES, max_tokens=64, extra_body=GREEDY, stop_sequences=[first]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", first), stopped
    assert first not in "".join(block.text for block in stopped.content), stopped


@check("stream")
def _() -> None:
    whole = client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=64, extra_body=GREEDY)
    with client.messages.stream(
        model=MODEL, messages=MESSAGES, max_tokens=64, extra_body=GREEDY
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == whole.content[0].text == final.content[0].text, (pieces, final)
    assert final.stop_reason == "end_turn", final
    assert final.usage.output_tokens == whole.usage.output_tokens, (final.usage, whole.usage)
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) > 0, final.usage
    events = list(
        client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=16, stream=True)
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds


@check("async, side by side")
async def _() -> None:
    async with anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=KEY, max_retries=0) as other:
        messages = await asyncio.gather(
            *(
                other.messages.create(model=MODEL, messages=MESSAGES, max_tokens=16)
                for _ in range(3)
            )
        )
        async with other.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=16) as stream:
            assert [text async for text in stream.text_stream]
    assert len({message.id for message in messages}) == 3, messages


@check("thinking and effort, which this model has not")
def _() -> None:
    for more in ({"thinking": {"type": "disabled"}}, {"output_config": {"effort": "low"}}):
        message = client.messages.create(
            model=MODEL, messages=MESSAGES, max_tokens=16, speed="standard", **more
        )
        assert message.content[0].type == "text", message


@check("tools: a named one")
def _() -> None:
    asked = client.messages.create(
        model=MODEL, messages=MESSAGES, tools=[TOOL], max_tokens=128,
        tool_choice={"type": "tool", "name": "add"},
    )  # fmt: skip
    [use] = [block for block in asked.content if block.type == "tool_use"]
    assert (use.name, set(use.input)) == ("add", {"a", "b"}), use
    assert asked.stop_reason == "tool_use", asked
    said = [{"type": "tool_result", "tool_use_id": use.id, "content": "46"}]
    told = [
        *MESSAGES,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": said},
    ]
    final = client.messages.create(
        model=MODEL, messages=told, tools=[TOOL], max_tokens=16, tool_choice={"type": "none"}
    )
    assert final.usage.output_tokens > 0, final


@check("tools: any, streamed")
def _() -> None:
    with client.messages.stream(
        model=MODEL, messages=MESSAGES, tools=[TOOL], max_tokens=256, tool_choice={"type": "any"}
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    uses = [block for block in final.content if block.type == "tool_use"]
    assert uses, final
    assert pieces, final
    assert uses[0].name == "add", uses
    assert final.stop_reason in ("tool_use", "max_tokens"), final


@check("parse")
def _() -> None:
    message = client.messages.parse(
        model=MODEL, messages=MESSAGES, max_tokens=128, output_format=Verdict
    )
    assert isinstance(message.parsed_output, Verdict), message


@check("count_tokens")
def _() -> None:
    count = client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens
    used = client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=1).usage
    cached = (used.cache_read_input_tokens or 0) + (used.cache_creation_input_tokens or 0)
    assert count == used.input_tokens + cached, (count, used)
    longer = client.messages.count_tokens(model=MODEL, messages=MESSAGES, system="Add.")
    assert longer.input_tokens > count, longer


@check("key as a bearer token")
def _() -> None:
    other = anthropic.Anthropic(base_url=BASE_URL, api_key=None, auth_token=KEY, max_retries=0)
    assert other.messages.create(model=MODEL, messages=MESSAGES, max_tokens=4).content


@check("models")
def _() -> None:
    names = [model.id for model in client.models.list()]
    assert names[:2] == [MODEL, f"{MODEL}@base"], names
    assert client.models.retrieve(MODEL).id == MODEL


@check("error classes")
def _() -> None:
    create = client.messages.create
    bad = client.with_options(api_key="sk-ttrl-wrong").messages.create
    error = raises(
        anthropic.AuthenticationError,
        lambda: bad(model=MODEL, messages=MESSAGES, max_tokens=4),
    )
    assert error.body["error"]["type"] == "authentication_error", error.body
    error = raises(
        anthropic.NotFoundError,
        lambda: create(model="claude", messages=MESSAGES, max_tokens=4),
    )
    assert error.body["error"]["type"] == "not_found_error", error.body
    raises(anthropic.BadRequestError, lambda: create(model=MODEL, messages=[], max_tokens=4))
    long = [{"role": "user", "content": "12+34 " * 2000}]
    raises(anthropic.BadRequestError, lambda: create(model=MODEL, messages=long, max_tokens=4))
    raises(
        anthropic.BadRequestError,
        lambda: create(
            model=MODEL, messages=MESSAGES, max_tokens=4, extra_body={"mcp_servers": [1]}
        ),
    )
    raises(anthropic.NotFoundError, lambda: client.messages.batches.list())


@check("rate limit")
async def _() -> None:
    async with anthropic.AsyncAnthropic(
        base_url=BASE_URL, api_key=LIMITED_KEY, max_retries=0
    ) as other:
        results = await asyncio.gather(
            *(
                other.messages.create(
                    model=MODEL, messages=[{"role": "user", "content": f"{i}, " * 60}],
                    max_tokens=200,
                )
                for i in range(64)
            ),
            return_exceptions=True,
        )  # fmt: skip
    errors = [result for result in results if isinstance(result, BaseException)]
    assert {type(error) for error in errors} == {anthropic.RateLimitError}, errors[:3]
    assert len(errors) < len(results), errors[:3]


check.run()
