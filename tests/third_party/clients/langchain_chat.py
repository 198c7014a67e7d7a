"""langchain-openai: what chains and agents are made of."""

from __future__ import annotations

from typing import Annotated

import openai
from checking import KEY, LABEL, MODEL, QUESTION, V1, Checks, raises
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

check = Checks("langchain-openai", "langchain-core")


class Sum(BaseModel):
    """What structured output is asked for."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


Small = Annotated[int, Field(ge=0, le=99)]


@tool
def add(a: Small, b: Small) -> int:
    """Add two numbers."""
    return a + b


def chat(**more: object) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL, base_url=V1, api_key=SecretStr(KEY), max_retries=0, max_tokens=128, **more
    )


@check("invoke")
def _() -> None:
    answer = chat(temperature=0).invoke([SystemMessage("Add."), HumanMessage(QUESTION)])
    assert answer.text, answer
    assert answer.response_metadata["finish_reason"] == "stop", answer
    assert answer.response_metadata["system_fingerprint"] == LABEL, answer
    assert answer.usage_metadata, answer
    assert answer.usage_metadata["output_tokens"] > 0, answer


@check("stream")
def _() -> None:
    whole = chat(temperature=0).invoke(QUESTION)
    chunks = list(chat(temperature=0, stream_usage=True).stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == whole.text, chunks
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.usage_metadata, total
    assert total.usage_metadata["output_tokens"] > 0, total


@check("async batch through a chain")
async def _() -> None:
    chain = ChatPromptTemplate.from_messages([("user", "What is {a}+{a}?")]) | chat()
    answers = await chain.abatch([{"a": 1}, {"a": 2}, {"a": 3}])
    assert all(answer.text for answer in answers), answers
    assert [piece async for piece in chain.astream({"a": 4})]


@check("structured output")
def _() -> None:
    found = chat().with_structured_output(Sum, method="json_schema").invoke(QUESTION)
    assert isinstance(found, Sum), found
    found = chat().with_structured_output(Sum, method="function_calling").invoke(QUESTION)
    assert isinstance(found, Sum), found


@check("tools, there and back")
def _() -> None:
    model = chat().bind_tools([add], tool_choice="add")
    asked = model.invoke(QUESTION)
    [call] = asked.tool_calls
    assert call["name"] == "add", call
    said = add.invoke(call)
    assert isinstance(said, ToolMessage), said
    assert chat().invoke([HumanMessage(QUESTION), asked, said]).content is not None


@check("Responses API")
def _() -> None:
    model = chat(use_responses_api=True, temperature=0)
    answer = model.invoke(QUESTION)
    assert answer.text, answer
    assert answer.usage_metadata, answer
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == answer.text
    [call] = model.bind_tools([add], tool_choice="add").invoke(QUESTION).tool_calls
    assert call["name"] == "add", call


@check("error classes")
def _() -> None:
    bad = ChatOpenAI(model=MODEL, base_url=V1, api_key=SecretStr("sk-ttrl-wrong"), max_retries=0)
    raises(openai.AuthenticationError, lambda: bad.invoke(QUESTION))
    other = ChatOpenAI(model="gpt-4o", base_url=V1, api_key=SecretStr(KEY), max_retries=0)
    raises(openai.NotFoundError, lambda: other.invoke(QUESTION))


check.run()
