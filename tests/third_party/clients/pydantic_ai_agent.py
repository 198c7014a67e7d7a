"""pydantic-ai: agents with typed output and tools, by chat and by the Responses API."""

from __future__ import annotations

from checking import KEY, MODEL, QUESTION, V1, Checks, raises
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

check = Checks("pydantic-ai-slim")
provider = OpenAIProvider(base_url=V1, api_key=KEY)
chat = OpenAIChatModel(MODEL, provider=provider)
responses = OpenAIResponsesModel(MODEL, provider=provider)
settings = ModelSettings(max_tokens=128, temperature=0)


class Sum(BaseModel):
    """What typed output is asked for."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


@check("run")
async def _() -> None:
    result = await Agent(chat, model_settings=settings, instructions="Add.").run(QUESTION)
    assert result.output, result
    assert result.usage.output_tokens > 0, result.usage


@check("run_stream")
async def _() -> None:
    agent = Agent(chat, model_settings=settings)
    whole = await agent.run(QUESTION)
    async with agent.run_stream(QUESTION) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    assert "".join(pieces) == whole.output, pieces


@check("typed output by a schema")
async def _() -> None:
    agent = Agent(chat, output_type=NativeOutput(Sum), model_settings=settings)
    assert isinstance((await agent.run(QUESTION)).output, Sum)


@check("typed output by a tool")
async def _() -> None:
    agent = Agent(chat, output_type=ToolOutput(Sum), model_settings=settings)
    assert isinstance((await agent.run(QUESTION)).output, Sum)


@check("Responses API")
async def _() -> None:
    result = await Agent(responses, model_settings=settings).run(QUESTION)
    assert result.output, result
    again = await Agent(responses, model_settings=settings).run(
        QUESTION, message_history=result.all_messages()
    )
    assert again.output is not None, again
    agent = Agent(responses, output_type=NativeOutput(Sum), model_settings=settings)
    assert isinstance((await agent.run(QUESTION)).output, Sum)
    async with Agent(responses, model_settings=settings).run_stream(QUESTION) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    assert "".join(pieces) == result.output, pieces


@check("error class")
def _() -> None:
    other = OpenAIChatModel("gpt-4o", provider=provider)
    error = raises(ModelHTTPError, lambda: Agent(other).run_sync(QUESTION))
    assert error.status_code == 404, error


check.run()
