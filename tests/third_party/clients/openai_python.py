"""The openai package: what its users rely on, on each route that it has a method for."""

from __future__ import annotations

import asyncio
import json

import httpx2
import openai
from checking import (
    ADD_SCHEMA,
    KEY,
    LABEL,
    LIMITED_KEY,
    MESSAGES,
    MODEL,
    QUESTION,
    V1,
    Checks,
    raises,
)
from pydantic import BaseModel, Field

check = Checks("openai", "pydantic")
client = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)

TOOL = {"type": "function", "function": {"name": "add", "parameters": ADD_SCHEMA, "strict": True}}
FLAT_TOOL = {"type": "function", "name": "add", "parameters": ADD_SCHEMA, "strict": True}


class Sum(BaseModel):
    """What structured output is asked for."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


def aclient(key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=V1, api_key=key, max_retries=0, timeout=120)


@check("chat")
def _() -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_tokens=64, temperature=0
    )
    answer = raw.parse()
    assert answer.choices[0].message.content, answer
    assert answer.choices[0].message.role == "assistant", answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert answer.id.startswith("chatcmpl-"), answer.id
    assert (answer.object, answer.model) == ("chat.completion", MODEL), answer
    assert answer.system_fingerprint == LABEL, answer.system_fingerprint
    assert raw.headers["x-ttrl-adapter"] == LABEL, raw.headers
    assert answer.id == answer._request_id == raw.headers["x-request-id"], raw.headers
    usage = answer.usage
    assert usage, answer
    assert usage.prompt_tokens > 0, usage
    assert usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


@check("chat cut by max_tokens")
def _() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].finish_reason == "length", answer
    assert answer.usage, answer
    assert answer.usage.completion_tokens == 2, answer.usage


@check("chat n, logprobs, seed, stop")
def _() -> None:
    def ask() -> openai.types.chat.ChatCompletion:
        return client.chat.completions.create(
            model=MODEL, messages=MESSAGES, n=3, logprobs=True, top_logprobs=2, seed=7,
            max_completion_tokens=16, stop=["~"],
        )  # fmt: skip

    answer, again = ask(), ask()
    assert [choice.index for choice in answer.choices] == [0, 1, 2], answer
    for choice in answer.choices:
        scored = choice.logprobs.content if choice.logprobs else None
        assert scored, choice
        assert all(token.logprob <= 0 for token in scored), choice
        assert len(scored[0].top_logprobs) == 2, scored[0]
    texts = [[c.message.content for c in one.choices] for one in (answer, again)]
    assert texts[0] == texts[1], texts


@check("chat stream")
def _() -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=64, temperature=0
    )
    with client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=64, temperature=0, stream=True
    ) as stream:
        chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1, chunks
    assert {chunk.model for chunk in chunks} == {MODEL}, chunks
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content, (text, whole)
    assert chunks[-1].choices[0].finish_reason == "stop", chunks[-1]


@check("chat stream with usage")
def _() -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=64, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert chunks[-1].choices == [], chunks[-1]
    assert chunks[-1].usage, chunks[-1]
    assert chunks[-1].usage.completion_tokens > 0, chunks[-1]


@check("chat stream helper")
def _() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, max_tokens=128, response_format=Sum
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content, (deltas, final)
    assert isinstance(final.choices[0].message.parsed, Sum), final


@check("async chat, side by side")
async def _() -> None:
    async with aclient() as asynchronous:
        answers = await asyncio.gather(
            *(
                asynchronous.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": f"What is {i}+{i}?"}],
                    max_tokens=16,
                )
                for i in range(4)
            )
        )
    assert len({answer.id for answer in answers}) == 4, answers
    assert all(answer.choices[0].message.content for answer in answers), answers


@check("async stream")
async def _() -> None:
    async with aclient() as asynchronous:
        stream = await asynchronous.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=16, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text


@check("parse")
def _() -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Sum, max_tokens=128
    )
    assert isinstance(answer.choices[0].message.parsed, Sum), answer


@check("tools: a named one")
def _() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[TOOL], max_tokens=128,
        tool_choice={"type": "function", "function": {"name": "add"}},
    )  # fmt: skip
    [call] = answer.choices[0].message.tool_calls or []
    assert call.id, call
    assert call.function.name == "add", call
    assert set(json.loads(call.function.arguments)) == {"a", "b"}, call
    # What the tool says goes back with the call, as a user's program sends it.
    told = {"role": "tool", "tool_call_id": call.id, "content": "46"}
    history = [*MESSAGES, answer.choices[0].message, told]
    final = client.chat.completions.create(
        model=MODEL, messages=history, tools=[TOOL], tool_choice="none", max_tokens=16
    )
    assert final.choices[0].message.content is not None, final


@check("tools: required, streamed")
def _() -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="required", max_tokens=256,
            stream=True,
        )
    )  # fmt: skip
    pieces = [
        call
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
    ]
    first = [piece.function for piece in pieces if piece.index == 0]
    assert first, chunks
    assert [function.name for function in first if function.name] == ["add"], first
    assert pieces[0].id, pieces[0]
    arguments = "".join(function.arguments or "" for function in first)
    assert set(json.loads(arguments)) == {"a", "b"}, arguments
    assert chunks[-1].choices[0].finish_reason in ("tool_calls", "length"), chunks[-1]


@check("tools: left to the model")
def _() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="auto", max_tokens=16
    )
    message = answer.choices[0].message
    if not message.tool_calls:
        assert message.content, answer
        check.note("Where the model may choose, it answers: it was never taught to call tools.")


@check("completions")
def _() -> None:
    answer = client.completions.create(model=MODEL, prompt=["1+1=", "2+2="], max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1], answer
    assert answer.id.startswith("cmpl-"), answer
    chunks = list(client.completions.create(model=MODEL, prompt="1+1=", max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("length", "stop"), chunks


@check("responses")
def _() -> None:
    raw = client.responses.with_raw_response.create(
        model=MODEL, input=QUESTION, instructions="Add.", max_output_tokens=64, temperature=0
    )
    answer = raw.parse()
    assert answer.output_text, answer
    assert (answer.status, answer.object, answer.model) == ("completed", "response", MODEL), answer
    assert answer.id.startswith("resp_"), answer.id
    assert raw.headers["x-ttrl-adapter"] == LABEL, raw.headers
    assert answer.usage, answer
    assert answer.usage.output_tokens > 0, answer.usage
    cut = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=2)
    assert cut.status == "incomplete", cut
    assert cut.incomplete_details, cut
    assert cut.incomplete_details.reason == "max_output_tokens", cut
    history = [{"role": "user", "content": QUESTION}, *answer.output, *MESSAGES]
    assert client.responses.create(model=MODEL, input=history, max_output_tokens=64).output


@check("responses stream")
def _() -> None:
    with client.responses.stream(
        model=MODEL, input=QUESTION, max_output_tokens=64, temperature=0
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text, (deltas, final)
    assert deltas, events
    assert events[0].type == "response.created", events[0]
    assert events[-1].type == "response.completed", events[-1]
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    assert final.usage, final


@check("responses logprobs")
def _() -> None:
    answer = client.responses.create(
        model=MODEL, input=QUESTION, max_output_tokens=8, top_logprobs=2,
        include=["message.output_text.logprobs"],
    )  # fmt: skip
    [part] = answer.output[0].content
    assert part.logprobs, part
    assert len(part.logprobs[0].top_logprobs) == 2, part


@check("responses parse")
def _() -> None:
    answer = client.responses.parse(
        model=MODEL, input=QUESTION, text_format=Sum, max_output_tokens=128
    )
    assert isinstance(answer.output_parsed, Sum), answer


@check("responses tools")
def _() -> None:
    answer = client.responses.create(
        model=MODEL, input=QUESTION, tools=[FLAT_TOOL], max_output_tokens=128,
        tool_choice={"type": "function", "name": "add"},
    )  # fmt: skip
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, set(json.loads(call.arguments))) == ("add", {"a", "b"}), call
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "46"}
    final = client.responses.create(
        model=MODEL, input=[*MESSAGES, call, told], tools=[FLAT_TOOL], tool_choice="none",
        max_output_tokens=32,
    )  # fmt: skip
    assert final.output_text is not None, final


@check("responses tools, streamed")
def _() -> None:
    with client.responses.stream(
        model=MODEL, input=QUESTION, tools=[FLAT_TOOL], max_output_tokens=128,
        tool_choice={"type": "function", "name": "add"},
    ) as stream:  # fmt: skip
        events = list(stream)
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert calls, final
    pieces = [e for e in events if e.type == "response.function_call_arguments.delta"]
    joined = "".join(e.delta for e in pieces if e.item_id == calls[0].id)
    assert joined == calls[0].arguments, (joined, calls)


@check("models")
def _() -> None:
    names = [model.id for model in client.models.list()]
    assert names[:2] == [MODEL, f"{MODEL}@base"], names
    assert client.models.retrieve(f"{MODEL}@base").id == f"{MODEL}@base"
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"))


@check("feedback by client.post")
def _() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=16)
    said = {"id": answer.id, "score": 1.0, "correct_answer": "46"}
    stored = client.post("/feedback", cast_to=dict[str, object], body=said)
    assert stored["id"] == answer.id, stored
    unknown = {"id": "chatcmpl-unknown", "score": 0.0}
    raises(
        openai.NotFoundError,
        lambda: client.post("/feedback", cast_to=dict[str, object], body=unknown),
    )


@check("error classes")
def _() -> None:
    bad = client.with_options(api_key="sk-ttrl-wrong")
    error = raises(openai.AuthenticationError, lambda: bad.models.list())
    assert error.code == "invalid_api_key", error.body
    create = client.chat.completions.create
    error = raises(openai.NotFoundError, lambda: create(model="gpt-4o", messages=MESSAGES))
    assert error.code == "model_not_found", error.body
    error = raises(
        openai.BadRequestError,
        lambda: create(model=MODEL, messages=MESSAGES, extra_body={"cache_salt": "x"}),
    )
    assert error.param == "cache_salt", error.body
    error = raises(
        openai.BadRequestError,
        lambda: create(model=MODEL, messages=[{"role": "user", "content": "12+34 " * 2000}]),
    )
    assert error.code == "context_length_exceeded", error.body
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=[]))
    raises(openai.BadRequestError, lambda: create(model=MODEL, messages=MESSAGES, temperature=9))


@check("unserved routes are clean errors")
def _() -> None:
    error = raises(
        openai.NotFoundError, lambda: client.embeddings.create(model=MODEL, input="12+34")
    )
    assert error.code == "not_served", error.body
    raises(openai.NotFoundError, lambda: client.responses.retrieve("resp_1"))
    raises(openai.NotFoundError, lambda: client.moderations.create(input="12+34"))
    raises(openai.NotFoundError, lambda: client.files.list())
    raises(
        openai.BadRequestError,
        lambda: client.responses.create(model=MODEL, input=QUESTION, previous_response_id="resp_1"),
    )


@check("rate limit")
async def _() -> None:
    """More than the tenant may ask: the rest is told so, and when to come back."""
    async with aclient(LIMITED_KEY) as asynchronous:
        long = {"ignore_eos": True}

        async def ask(i: int) -> object:
            return await asynchronous.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=200, extra_body=long, seed=i
            )

        results = await asyncio.gather(*(ask(i) for i in range(64)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert errors, "nothing was refused"
    assert len(errors) < len(results), errors[:3]
    assert {type(error) for error in errors} == {openai.RateLimitError}, errors[:3]
    assert int(errors[0].response.headers["retry-after"]) >= 1, errors[0].response.headers


@check("leaving a stream")
def _() -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    assert httpx2.get(f"{V1}/models", headers={"Authorization": f"Bearer {KEY}"}).is_success


check.run()
