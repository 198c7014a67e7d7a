"""The wire types of the admin API, defined once: the server validates and renders with them, the
client parses.

Times are ISO 8601 in UTC. Fields that a newer server adds are ignored by an older client.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
TENANT_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"


class Wire(BaseModel):
    """Base of all wire types that the server sends."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WireInput(BaseModel):
    """Base of all wire types that the server receives: an unknown field is an error, not a silent
    no-op.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class View(WireInput):
    """Other phrasings of the same question that keep its answer.

    A prompt whose last user message matches `pattern` (a regular expression with named groups) is
    asked through each of `templates`, in which `{name}` stands for the group of that name.
    """

    pattern: str = Field(
        max_length=500, description="Regular expression with named groups; searched, not anchored."
    )
    templates: list[str] = Field(
        min_length=1, max_length=8, description="Phrasings with `{group}` placeholders."
    )

    @model_validator(mode="after")
    def _placeholders_exist(self) -> View:
        try:
            groups = dict.fromkeys(re.compile(self.pattern).groupindex, "")
        except re.error as error:
            raise ValueError(f"pattern: {error}") from None
        for template in self.templates:
            try:
                template.format_map(groups)
            except (KeyError, ValueError, IndexError) as error:
                raise ValueError(f"template {template!r}: {error!r}") from None
        return self


class Schedule(WireInput):
    """When cycles start by themselves. All unset: only when asked. Several may be set."""

    interval_s: int | None = Field(default=None, ge=10, description="Every so many seconds.")
    cron: str | None = Field(
        default=None, max_length=100, description="A crontab line with five fields, in UTC."
    )
    min_new_queries: int | None = Field(
        default=None,
        ge=1,
        description="After so many new eligible queries since the last cycle started.",
    )


class Learning(WireInput):
    """How a cycle samples and learns."""

    steps: int = Field(default=20, ge=1, le=1000, description="Optimizer updates in a cycle.")
    prompts_per_step: int = Field(
        default=8, ge=1, le=256, description="Prompts sampled for one update."
    )
    samples_per_prompt: int = Field(
        default=33, ge=2, le=256, description="Votes of one prompt, split over its views."
    )
    max_tokens: int = Field(
        default=512, ge=1, le=32768, description="Longest sampled answer, in tokens."
    )
    temperature: float = Field(default=1.0, gt=0, le=2, description="Sampling temperature.")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Constant learning rate of AdamW."
    )
    max_prompts: int = Field(
        default=512, ge=1, le=100_000, description="Most prompts that a cycle trains on."
    )
    min_prompts: int = Field(
        default=8, ge=1, description="Fewer eligible prompts than this: the cycle is skipped."
    )
    max_visits: int = Field(
        default=40,
        ge=1,
        description="Most updates that one prompt may take part in, over all cycles.",
    )
    estimator: Literal["harmony", "majority"] = Field(
        default="harmony",
        description="How votes become a label; harmony equals majority for a prompt with one view.",
    )
    min_answers: int = Field(
        default=8, ge=1, description="Fewer answers than this in a group: it abstains."
    )


class Gate(WireInput):
    """What a candidate must prove on held-out prompts. All conditions must hold."""

    enabled: bool = Field(
        default=True, description="False promotes every candidate. Not recommended."
    )
    probe_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of prompts that is never trained on."
    )
    probe_prompts: int = Field(
        default=32, ge=1, le=1000, description="Most probe prompts in one evaluation."
    )
    min_probe_prompts: int = Field(
        default=8, ge=1, description="Fewer probe prompts than this: rejected."
    )
    samples_per_prompt: int = Field(
        default=24, ge=2, le=256, description="Samples of a probe prompt, split over its views."
    )
    min_view_agreement: float = Field(
        default=0.7, ge=0, le=1, description="Labels are trusted when views agree this often."
    )
    min_gain: float = Field(
        default=0.03, ge=-1, le=1, description="Least rise of the agreement with the labels."
    )
    max_flip_rate: float = Field(
        default=0.35, ge=0, le=1, description="Most probe labels that may change."
    )
    max_answer_rate_drop: float = Field(
        default=0.05, ge=0, le=1, description="Most that the share of parsable answers falls."
    )
    max_length_ratio: float = Field(
        default=2.0, ge=1, description="Most that the mean length grows or shrinks, as a factor."
    )
    max_kl: float = Field(default=1.0, gt=0, description="Most KL to the base model, nats a token.")


class TenantSettings(WireInput):
    """Everything that is decided per tenant."""

    answer: Literal["auto", "math", "number", "choice"] = Field(
        default="auto", description="Kind of answer to vote on."
    )
    views: list[View] = Field(default_factory=list[View], max_length=32)
    schedule: Schedule = Schedule()
    learning: Learning = Learning()
    gate: Gate = Gate()


class TenantCreate(WireInput):
    """A new tenant."""

    name: str = Field(
        pattern=TENANT_NAME,
        description="Lower-case letters, digits and dashes; unique while it lives.",
    )
    settings: TenantSettings = Field(default_factory=TenantSettings)


class TenantUpdate(WireInput):
    """New settings, which replace the old ones whole. A running cycle keeps those that it started
    with.
    """

    settings: TenantSettings


class Tenant(Wire):
    """A tenant as it is now."""

    id: int
    name: str
    settings: TenantSettings
    live_version: int = Field(
        description="Version that answers; 0 is the base model with the identity adapter."
    )
    previous_version: int | None
    num_queries: int = Field(description="Logged queries.")
    active_cycle: int | None = Field(description="Id of the pending or running cycle.")
    created_at: datetime


class KeyCreate(WireInput):
    """A new API key."""

    name: str = Field(default="default", min_length=1, max_length=80)


class Key(Wire):
    """An API key without its secret."""

    id: int
    name: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


class NewKey(Key):
    """A new API key: the only time that the secret is shown."""

    secret: str


class CycleStatus(StrEnum):
    """Where a cycle stands. All but the first two are final."""

    PENDING = "pending"
    RUNNING = "running"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (CycleStatus.PENDING, CycleStatus.RUNNING)


class CyclePhase(StrEnum):
    """What a running cycle is doing."""

    SELECT = "select"
    BASELINE = "baseline"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PUBLISH = "publish"


class CycleCreate(WireInput):
    """A cycle by hand."""

    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="Makes selection and sampling repeatable."
    )


class Step(Wire):
    """One update of a cycle."""

    step: int
    metrics: dict[str, float | int | None] = Field(
        description="See docs/algorithm.md for each of them."
    )
    created_at: datetime


class EvaluationReport(Wire):
    """How one version did on the probe prompts; shares are in [0, 1]."""

    version: str
    num_prompts: int
    num_samples: int
    label_agreement: float | None = Field(
        description="Mean share of samples that equal the incumbent's label."
    )
    view_agreement: float | None = Field(
        description="Mean pairwise agreement of the views' top answers."
    )
    majority_ratio: float | None
    answer_rate: float
    mean_tokens: float
    flip_rate: float | None = Field(description="Share of labels that differ from the incumbent's.")
    kl: float | None = Field(description="KL to the base model, nats a token.")


class Cycle(Wire):
    """A cycle with its steps and its verdict."""

    id: int
    tenant: str
    trigger: str
    status: CycleStatus
    phase: CyclePhase | None
    seed: int
    parent_version: int | None
    candidate_version: int | None
    steps_planned: int
    steps_done: int
    num_rollouts: int
    selection: dict[str, Any] | None = Field(description="Counts of prompts by reason code.")
    decision: Literal["promoted", "rejected"] | None
    reasons: list[str]
    incumbent: EvaluationReport | None
    candidate: EvaluationReport | None
    error: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[Step] = Field(default_factory=list[Step], description="Empty in lists.")


class Version(Wire):
    """A published adapter version."""

    number: int
    live: bool
    parent: int | None
    cycle_id: int | None
    manifest_digest: str | None
    report: dict[str, Any]
    created_at: datetime | None


class SwapRequest(WireInput):
    """Which version to make live."""

    version: int | None = Field(
        default=None, ge=0, description="Default for a rollback: the version before the live one."
    )


class Swap(Wire):
    """A pointer that moved."""

    tenant: str
    from_version: int
    to_version: int
    reason: str
    load_ms: float
    flip_ms: float
    created_at: datetime


class EngineStatus(Wire):
    """One engine."""

    url: str
    state: Literal["starting", "ready", "away"]
    adapters: list[str]
    in_flight: int


class Status(Wire):
    """The whole server at a glance."""

    version: str
    model: str
    database: Literal["ok", "away"]
    engines: list[EngineStatus]
    num_tenants: int
    num_queries: int
    pending_cycles: int
    running_cycles: int


class Page(Wire, Generic[T]):
    """A page of a list, newest first; pass `next` as `before` for the page after it."""

    items: list[T]
    next: int | None


def check_tenant_name(name: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: it is not.
    """
    if not re.match(TENANT_NAME, name):
        raise ValueError(f"not a tenant name: {name!r}")
    return name
