"""The server at a glance."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ttrl_client.types._base import Wire


class EngineStatus(Wire):
    """One engine."""

    url: str
    state: Literal["starting", "ready", "away"]
    adapters: list[str] = Field(description="Engine names of the loaded adapters.")
    in_flight: int = Field(description="Requests that it is answering.")


class Status(Wire):
    """The whole server at a glance."""

    version: str
    model: str
    database: Literal["ok", "away"]
    engines: list[EngineStatus]
    num_tenants: int | None = Field(
        description="Null, like all counts, while the database is away."
    )
    num_queries: int | None
    pending_cycles: int | None
    running_cycles: int | None
