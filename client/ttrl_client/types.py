"""The wire types of the admin API, defined once: the server validates and renders with them, the
client parses.

Times are ISO 8601 in UTC. Fields that a newer server adds are ignored by an older client.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from string import Formatter
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
TENANT_NAME = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"
MAX_VERSION = 2**31 - 1


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
    templates: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        min_length=1, max_length=8, description="Phrasings with `{group}` placeholders."
    )

    @model_validator(mode="after")
    def _placeholders_exist(self) -> View:
        try:
            groups = re.compile(self.pattern).groupindex
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"pattern: {error}") from None
        for template in self.templates:
            _check_template(template, frozenset(groups))
        return self


def _check_template(template: str, groups: frozenset[str]) -> None:
    try:
        placeholders = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"template {template!r}: {error}") from None
    for _, name, spec, conversion in placeholders:
        if name not in groups or spec or conversion:  # `{a.b}`, `{a:>9}` are not group names
            raise ValueError(f"template {template!r}: no group named {name!r} in the pattern")


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
    """A new tenant, which gets its first API key at once."""

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

    id: int = Field(description="Never reused, not even for a tenant of the same name.")
    name: str
    settings: TenantSettings
    live_version: int = Field(
        description="Version that answers; 0 is the base model with the identity adapter."
    )
    previous_version: int | None = Field(description="What a rollback goes back to; null: nothing.")
    num_queries: int = Field(description="Logged queries.")
    active_cycle: int | None = Field(description="Id of the pending or running cycle.")
    created_at: datetime


class KeyCreate(WireInput):
    """A new API key."""

    name: str = Field(
        default="default",
        min_length=1,
        max_length=80,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Tells keys apart; need not be unique.",
    )


class Key(Wire):
    """An API key without its secret."""

    id: int
    name: str
    prefix: str = Field(description="First characters of the secret.")
    created_at: datetime
    revoked_at: datetime | None = Field(description="Since when it is refused.")


class NewKey(Key):
    """A new API key: the only time that the secret is shown."""

    secret: str = Field(description="The key itself: `Authorization: Bearer <secret>`.")


class NewTenant(Tenant):
    """A new tenant with its first API key: the only time that the key's secret is shown."""

    key: NewKey


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

    step: int = Field(description="From 1.")
    metrics: dict[str, float | int | None] = Field(
        description="See docs/algorithm.md for each of them."
    )
    created_at: datetime


class EvaluationReport(Wire):
    """How one version did on the probe prompts; shares are in [0, 1]."""

    version: str
    num_prompts: int = Field(description="Probe prompts.")
    num_samples: int = Field(description="Samples over all probe prompts.")
    label_agreement: float | None = Field(
        description="Mean share of samples that equal the incumbent's label."
    )
    view_agreement: float | None = Field(
        description="Mean pairwise agreement of the views' top answers."
    )
    majority_ratio: float | None = Field(description="Mean share of the most frequent answer.")
    answer_rate: float = Field(description="Share of samples with a parsable answer.")
    mean_tokens: float = Field(description="Mean length of a sample, in tokens.")
    flip_rate: float | None = Field(description="Share of labels that differ from the incumbent's.")
    kl: float | None = Field(description="KL to the base model, nats a token.")


class Cycle(Wire):
    """A cycle with its steps and its verdict."""

    id: int
    tenant: str
    trigger: str = Field(description="manual, interval, cron or threshold.")
    status: CycleStatus
    phase: CyclePhase | None = Field(description="While it runs.")
    cancel_requested: bool = Field(
        default=False, description="Asked to stop; its worker does so at the next safe point."
    )
    seed: int
    parent_version: int | None = Field(description="The incumbent when it started.")
    candidate_version: int | None = Field(description="The version that it published.")
    steps_planned: int
    steps_done: int
    num_rollouts: int = Field(description="Answers sampled for training.")
    selection: dict[str, Any] | None = Field(description="Counts of prompts by reason code.")
    decision: Literal["promoted", "rejected"] | None = Field(description="The gate's.")
    reasons: list[str] = Field(description="Why, with numbers: `flip_rate: 0.41 > 0.35`.")
    incumbent: EvaluationReport | None
    candidate: EvaluationReport | None
    error: str | None = Field(description="Why it was skipped, failed or cancelled.")
    attempts: int = Field(description="Times that a worker took it up.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[Step] = Field(default_factory=list[Step], description="Empty in lists.")

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status not in ACTIVE


class Version(Wire):
    """A published adapter version."""

    number: int = Field(description="0 is the base model with the identity adapter.")
    live: bool = Field(description="Whether it answers the tenant's requests now.")
    parent: int | None = Field(description="The version that it was trained from.")
    cycle_id: int | None = Field(description="The cycle that made it.")
    manifest_digest: str | None = Field(description="SHA-256 of its manifest; null for version 0.")
    report: dict[str, Any] = Field(description="The gate's decision and the two evaluations.")
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

    tenant: str
    from_version: int
    to_version: int
    reason: str = Field(description="promoted, promoted_by_hand or rolled_back.")
    load_ms: float = Field(description="Until every engine had loaded the version.")
    flip_ms: float = Field(description="The pointer's move itself.")
    created_at: datetime


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


class Page(Wire, Generic[T]):
    """A page of a list, newest first."""

    items: list[T]
    next: str | None = Field(
        description="Pass it as `before` for the page after this one; null on the last page."
    )


class ErrorDetail(Wire):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str = Field(description="invalid_request_error, rate_limit_error or server_error.")
    param: str | None = Field(default=None, description="The field that is to blame, dotted.")
    code: str | None = Field(default=None, description="A stable code for programs.")


class ErrorBody(Wire):
    """Every error answer."""

    error: ErrorDetail


def check_tenant_name(name: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(TENANT_NAME, name):
        raise ValueError(f"not a tenant name: {name!r}")
    return name
