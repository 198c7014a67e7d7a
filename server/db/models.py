"""The tables. Every statement that touches them lives in this package.

A tenant's numeric id is never reused, so a deleted tenant leaves nothing for a new one of the same
name. Adapter versions are addressed by (tenant, number); number 0 is the identity adapter and has
no row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; SQLite forgets the zone, so it is put back on the way
    out.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: they would be stored as if they were UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("naive datetime")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements INTEGER only


class Base(DeclarativeBase):
    """Declarative base with stable constraint names for Alembic."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime: UTCDateTime}


class Tenant(Base):
    """One customer: its keys, its settings, and the version that answers its requests."""

    __tablename__ = "tenants"
    __table_args__ = (
        Index(
            "uq_tenants_live_name",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    settings: Mapped[dict[str, Any]]  # ttrl_client.types.TenantSettings
    live_version: Mapped[int] = mapped_column(default=0)
    previous_version: Mapped[int | None]  # what a rollback without a number goes back to
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class ApiKey(Base):
    """A tenant's key: the digest only; the key itself was shown once."""

    __tablename__ = "api_keys"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(80))
    prefix: Mapped[str] = mapped_column(String(16))  # shown in lists, to tell keys apart
    digest: Mapped[str] = mapped_column(
        String(64), unique=True
    )  # hex HMAC-SHA256 with the server's pepper
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Query(Base):
    """The log: one request that an engine answered, with what it was asked."""

    __tablename__ = "queries"
    __table_args__ = (
        Index("ix_queries_tenant_id_created_at", "tenant_id", "created_at"),
        Index("ix_queries_tenant_id_fingerprint", "tenant_id", "fingerprint"),
    )

    id: Mapped[str] = mapped_column(
        String(64), primary_key=True
    )  # the response's id, e.g. chatcmpl-...
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    route: Mapped[str] = mapped_column(
        String(24)
    )  # "chat" | "responses" | "messages" | "completions"
    prompt: Mapped[list[Any]]  # the messages of a chat; completions: [prompt]
    fingerprint: Mapped[str] = mapped_column(
        String(64)
    )  # of the prompt; deduplication and the probe split use it
    eligible: Mapped[bool]  # may be learned from
    reason: Mapped[str | None] = mapped_column(
        String(32)
    )  # why not: tool_calls, not_chat, multimodal, error, ...
    params: Mapped[dict[str, Any]]  # the sampling parameters as asked
    adapter_version: Mapped[int]
    stream: Mapped[bool]
    status: Mapped[str] = mapped_column(String(16))  # "ok" | "aborted" | "error"
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    latency_ms: Mapped[float] = mapped_column(Float)
    first_byte_ms: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime]
    trace_id: Mapped[str | None] = mapped_column(String(32))  # hex; None: it was not traced
    span_id: Mapped[str | None] = mapped_column(String(16))  # of the request's own span


class Answer(Base):
    """One of the sampled answers of a query, as the client received it."""

    __tablename__ = "answers"

    query_id: Mapped[str] = mapped_column(ForeignKey("queries.id"), primary_key=True)
    choice: Mapped[int] = mapped_column(primary_key=True)  # OpenAI's choice index
    text: Mapped[str] = mapped_column(Text)
    tool_calls: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    finish_reason: Mapped[str | None] = mapped_column(String(24))
    reasoning: Mapped[str | None] = mapped_column(Text)  # what came before it, apart from it


class Feedback(Base):
    """What a tenant said about one of its answers, the last time that it said anything."""

    __tablename__ = "feedback"
    __table_args__ = (
        Index("ix_feedback_tenant_id_updated_at", "tenant_id", "updated_at"),
        Index("ix_feedback_tenant_id_adapter_version", "tenant_id", "adapter_version"),
    )

    query_id: Mapped[str] = mapped_column(ForeignKey("queries.id"), primary_key=True)
    choice: Mapped[int] = mapped_column(primary_key=True)  # OpenAI's choice index
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    adapter_version: Mapped[int]  # the query's
    score: Mapped[float | None]  # in [0, 1]
    correct_answer: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Cycle(Base):
    """One adaptation attempt of a tenant. The row is the truth; a worker only holds its lease."""

    __tablename__ = "cycles"
    __table_args__ = (
        Index(
            "uq_cycles_one_active",
            "tenant_id",
            unique=True,
            sqlite_where=text("status IN ('pending', 'running')"),
            postgresql_where=text("status IN ('pending', 'running')"),
        ),
        Index("ix_cycles_status", "status"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), index=True)
    trigger: Mapped[str] = mapped_column(String(16))  # manual | interval | cron | threshold
    status: Mapped[str] = mapped_column(String(16))  # ttrl_client.types.CycleStatus
    phase: Mapped[str | None] = mapped_column(
        String(24)
    )  # ttrl_client.types.CyclePhase, while running
    settings: Mapped[dict[str, Any]]  # the tenant's settings when it was triggered
    seed: Mapped[int]
    parent_version: Mapped[int | None]  # the incumbent when it started
    candidate_version: Mapped[int | None]
    steps_planned: Mapped[int]
    steps_done: Mapped[int] = mapped_column(default=0)
    num_rollouts: Mapped[int] = mapped_column(default=0)
    selection: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True)
    )  # chosen ids, counts by reason
    incumbent_report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    candidate_report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    decision: Mapped[str | None] = mapped_column(String(16))  # promoted | rejected
    reasons: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)  # times that a worker took it up
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_expires_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(
        default=0
    )  # grows with each claim; every write of a cycle names it
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class CycleStep(Base):
    """One optimizer update: written in one transaction with its groups, after its adapter is on
    disk.
    """

    __tablename__ = "cycle_steps"

    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)  # from 1
    engine_name: Mapped[str | None] = mapped_column(
        String(120)
    )  # None: no group had signal, no update
    adapter_dir: Mapped[str | None] = mapped_column(Text)
    state_dir: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Group(Base):
    """The samples of one prompt in one step, with their vote."""

    __tablename__ = "groups"
    __table_args__ = (
        UniqueConstraint("cycle_id", "step", "fingerprint"),
        Index("ix_groups_tenant_id_fingerprint", "tenant_id", "fingerprint"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"), index=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    step: Mapped[int]
    query_id: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    label: Mapped[str | None] = mapped_column(Text)  # None: abstained
    label_source: Mapped[str | None] = mapped_column(String(16))  # vote | feedback; None: no label
    majority_ratio: Mapped[float | None]
    num_samples: Mapped[int]
    num_answers: Mapped[int]  # samples with an answer
    trained: Mapped[bool]
    reason: Mapped[str | None] = mapped_column(
        String(32)
    )  # why not trained: docs/algorithm.md, "Groups that teach nothing"


class Rollout(Base):
    """One sample of a group."""

    __tablename__ = "rollouts"

    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id"), primary_key=True)
    sample: Mapped[int] = mapped_column(primary_key=True)
    view: Mapped[int]  # 0: the prompt as it was asked
    text: Mapped[str] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    reward: Mapped[float | None]  # None: masked, or a vote of the incumbent's
    advantage: Mapped[float | None]
    num_tokens: Mapped[int]
    finish_reason: Mapped[str | None] = mapped_column(String(24))


class AdapterVersion(Base):
    """A published, immutable adapter version of a tenant."""

    __tablename__ = "adapter_versions"
    __table_args__ = (UniqueConstraint("tenant_id", "number"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"))
    number: Mapped[int]  # from 1
    engine_name: Mapped[str] = mapped_column(String(120), unique=True)
    path: Mapped[str] = mapped_column(Text)
    manifest_digest: Mapped[str] = mapped_column(String(64))
    parent: Mapped[int]
    cycle_id: Mapped[int | None] = mapped_column(ForeignKey("cycles.id"), unique=True)
    report: Mapped[dict[str, Any]]  # gate decision and the two evaluation reports
    created_at: Mapped[datetime]


class Swap(Base):
    """The history of a tenant's pointer: every promotion and rollback, with how long it took."""

    __tablename__ = "swaps"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id"), index=True)
    from_version: Mapped[int]
    to_version: Mapped[int]
    reason: Mapped[str] = mapped_column(String(24))  # promoted | promoted_by_hand | rolled_back
    load_ms: Mapped[float]
    flip_ms: Mapped[float]
    created_at: Mapped[datetime]


class Leadership(Base):
    """Named leases, such as the scheduler's: whoever holds it plans."""

    __tablename__ = "leadership"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    expires_at: Mapped[datetime]
