"""How much of the server a tenant may use."""

from __future__ import annotations

from pydantic import Field

from ttrl_client.types._base import WireInput


class Limits(WireInput):
    """Bounds of a tenant's traffic; unset: none of its own, only the server's."""

    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Answers in the making at once; a request counts as many as it asks for.",
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Requests a minute, a minute's worth at once.",
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000_000,
        description="Tokens a minute, of prompts and answers, a minute's worth at once.",
    )
    weight: float = Field(
        default=1.0,
        ge=0.01,
        le=100,
        description="Share of a full server, in relation to the other tenants' that want it.",
    )
