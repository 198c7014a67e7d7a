"""litellm's SDK: the server as an OpenAI provider, and as an Anthropic one."""

from __future__ import annotations

import litellm
from checking import ADD_SCHEMA, BASE_URL, KEY, MESSAGES, MODEL, QUESTION, V1, Checks, raises

check = Checks("litellm")
OPENAI = {"model": f"openai/{MODEL}", "api_base": V1, "api_key": KEY, "max_retries": 0}
ANTHROPIC = {"model": f"anthropic/{MODEL}", "api_base": BASE_URL, "api_key": KEY}
TOOL = {"type": "function", "function": {"name": "add", "parameters": ADD_SCHEMA}}
NAMED = {"type": "function", "function": {"name": "add"}}


@check("completion")
def _() -> None:
    answer = litellm.completion(messages=MESSAGES, max_tokens=64, temperature=0, **OPENAI)
    assert answer.choices[0].message.content, answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert answer.usage.completion_tokens > 0, answer.usage


@check("async stream")
async def _() -> None:
    whole = await litellm.acompletion(messages=MESSAGES, max_tokens=64, temperature=0, **OPENAI)
    stream = await litellm.acompletion(
        messages=MESSAGES, max_tokens=64, temperature=0, stream=True,
        stream_options={"include_usage": True}, **OPENAI,
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, (text, whole)


@check("tools")
def _() -> None:
    answer = litellm.completion(
        messages=MESSAGES, max_tokens=64, tools=[TOOL], tool_choice=NAMED, **OPENAI
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "add", call


@check("responses")
def _() -> None:
    answer = litellm.responses(
        input=QUESTION, max_output_tokens=64, temperature=0,
        model=f"openai/{MODEL}", api_base=V1, api_key=KEY,
    )  # fmt: skip
    assert answer.output[-1].content[0].text, answer


@check("as an Anthropic provider")
def _() -> None:
    answer = litellm.completion(messages=MESSAGES, max_tokens=64, temperature=0, **ANTHROPIC)
    assert answer.choices[0].message.content, answer
    chunks = litellm.completion(
        messages=MESSAGES, max_tokens=64, temperature=0, stream=True, **ANTHROPIC
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.choices[0].message.content, (text, answer)
    called = litellm.completion(
        messages=MESSAGES, max_tokens=64, tools=[TOOL], tool_choice=NAMED, **ANTHROPIC
    )
    assert called.choices[0].message.tool_calls[0].function.name == "add", called


@check("error classes")
def _() -> None:
    def ask(**more: object) -> object:
        return litellm.completion(messages=MESSAGES, **(OPENAI | more))

    raises(litellm.AuthenticationError, lambda: ask(api_key="sk-ttrl-wrong"))
    raises(litellm.NotFoundError, lambda: ask(model="openai/gpt-4o"))
    long = [{"role": "user", "content": "12+34 " * 2000}]
    raises(litellm.ContextWindowExceededError, lambda: litellm.completion(messages=long, **OPENAI))


check.run()
