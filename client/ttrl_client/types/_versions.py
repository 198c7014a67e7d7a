"""Adapter versions, and the pointer that moves between them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ttrl_client.types._base import Wire, WireInput

MAX_VERSION = 2**31 - 1


class Version(Wire):
    """A published adapter version."""

    number: int = Field(description="0 is the base model with the identity adapter.")
    live: bool = Field(description="Whether it answers the tenant's requests now.")
    parent: int | None = Field(description="The version that it was trained from.")
    cycle_id: int | None = Field(description="The cycle that made it.")
    manifest_digest: str | None = Field(description="SHA-256 of its manifest; null for version 0.")
    report: dict[str, Any] = Field(description="The gate's decision and the two evaluations.")
    num_feedback: int = Field(default=0, description="Answers of it that have feedback.")
    mean_score: float | None = Field(
        default=None, description="Mean of their scores, in [0, 1]; null: there is none."
    )
    created_at: datetime | None = Field(description="Null for version 0.")


class Promotion(WireInput):
    """Which version to make live."""

    version: int = Field(ge=0, le=MAX_VERSION, description="A published version, or 0.")


class Rollback(WireInput):
    """Which version to go back to."""

    version: int | None = Field(
        default=None,
        ge=0,
        le=MAX_VERSION,
        description="Default: the tenant's `previous_version`.",
    )


class Swap(Wire):
    """A pointer that moved."""

    tenant: str = Field(description="The name of its tenant.")
    from_version: int = Field(description="Live before.")
    to_version: int = Field(description="Live since.")
    reason: str = Field(description="promoted, promoted_by_hand or rolled_back.")
    load_ms: float = Field(description="Until every engine had loaded the version.")
    flip_ms: float = Field(description="The pointer's move itself.")
    created_at: datetime = Field(description="When the pointer moved.")
