"""The server at a glance."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ttrl_client.types._base import Wire


class EngineStatus(Wire):
    """One engine."""

    url: str = Field(description="Where the server reaches it.")
    state: Literal["starting", "ready", "away"] = Field(
        description="Only ready engines get requests."
    )
    reason: str | None = Field(default=None, description="Why it is not ready.")
    adapters: list[str] = Field(description="Engine names of the loaded adapters.")
    in_flight: int = Field(description="Requests that it is answering.")


class Status(Wire):
    """The whole server at a glance."""

    version: str = Field(description="Of the server program.")
    model: str = Field(description="The model name that clients use.")
    database: Literal["ok", "away"] = Field(description="Whether it answers.")
    engines: list[EngineStatus] = Field(description="All of them, ready or not.")
    num_tenants: int | None = Field(
        description="Null, like all counts, while the database is away."
    )
    num_queries: int | None = Field(description="Logged queries of living tenants.")
    pending_cycles: int | None = Field(description="Cycles that wait for a worker.")
    running_cycles: int | None = Field(description="Cycles that a worker holds.")
