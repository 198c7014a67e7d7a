"""The log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ttrl_client.types._base import Wire


class Answer(Wire):
    """One of the sampled answers of a query, as the client received it."""

    choice: int = Field(description="OpenAI's choice index.")
    text: str
    tool_calls: list[Any] | None
    finish_reason: str | None


class Query(Wire):
    """A logged request with all its sampled answers."""

    id: str = Field(description="The id of the response that the client received.")
    route: str = Field(description="chat or completions.")
    prompt: list[Any] = Field(description="The messages; for completions the prompt alone.")
    params: dict[str, Any] = Field(description="The sampling parameters as asked.")
    answers: list[Answer]
    adapter_version: int = Field(description="The version that answered.")
    stream: bool
    status: str = Field(description="ok, aborted or error.")
    eligible: bool = Field(description="Whether it may be learned from.")
    reason: str | None = Field(description="Why not.")
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_ms: float = Field(description="Until the last byte.")
    first_byte_ms: float | None
    created_at: datetime
