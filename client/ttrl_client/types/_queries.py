"""The log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ttrl_client.types._base import Wire


class Answer(Wire):
    """One of the sampled answers of a query. Of a vote the client received the first."""

    choice: int = Field(description="OpenAI's choice index.")
    text: str = Field(description="What was answered.")
    tool_calls: list[Any] | None = Field(description="In OpenAI's shape.")
    finish_reason: str | None = Field(description="In OpenAI's words.")
    reasoning: str | None = Field(
        default=None, description="What a reasoning model thought before it answered."
    )


class Query(Wire):
    """A logged request with all its sampled answers."""

    id: str = Field(description="The id of the response that the client received.")
    route: str = Field(description="chat, responses, messages or completions.")
    prompt: list[Any] = Field(
        description="The messages, as a chat; for completions the prompt alone."
    )
    params: dict[str, Any] = Field(description="The sampling parameters as asked.")
    answers: list[Answer] = Field(description="All of them, in the order of their choice index.")
    adapter_version: int = Field(description="The version that answered.")
    stream: bool = Field(description="Whether it was streamed.")
    status: str = Field(description="ok, aborted or error.")
    eligible: bool = Field(description="Whether it may be learned from.")
    reason: str | None = Field(description="Why not.")
    prompt_tokens: int | None = Field(description="As the engine counted them.")
    completion_tokens: int | None = Field(description="Over all answers.")
    latency_ms: float = Field(description="Until the last byte.")
    first_byte_ms: float | None = Field(description="Until the first byte; null: there was none.")
    created_at: datetime = Field(description="When it came in.")
